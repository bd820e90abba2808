package wire

import "time"

// Usage is the answer to GET /v1/usage: what was in use of the agent's pools, by hours (UTC, licence time).
type Usage struct {
	From     time.Time `json:"from"`
	To       time.Time `json:"to"`
	Product  string    `json:"product"`
	AgentKey string    `json:"agent_key"` // RFC 7638 thumbprint
	Host     string    `json:"host"`      // as usher fingerprint --short has it
	// Hours are in the order in which the agent has closed them; those that are not closed yet come last.
	Hours []UsageHour `json:"hours"`
	// Gaps are stretches of the period in which no agent counted, up to the present.
	Gaps []UsageGap `json:"gaps"`
	// Missing are hours that the agent once recorded and no longer has.
	Missing []UsageMissing `json:"missing"`
	// Report is all of it as a JWS of the agent's key, where that was asked for: see docs/usage.md.
	Report string `json:"report,omitempty"`
	// Users is what users had in use, by days, where that was asked for; UsersSetting is privacy.users then: with omit
	// the agent keeps none of it. UsersMissing are days that the agent once recorded and no longer has.
	UsersSetting string         `json:"users_setting,omitempty"`
	Users        []UsersDay     `json:"users,omitempty"`
	UsersMissing []UsageMissing `json:"users_missing,omitempty"`
}

// UsersDay is what users had in use on one day of licence time (UTC). A day may come more than once: then its sums add
// up.
type UsersDay struct {
	Sequence uint64    `json:"sequence,omitzero,omitempty"` // in the agent's record; absent: it is not closed yet
	Day      time.Time `json:"day"`                         // its beginning
	// Setting says how users are named: pseudonym, of the host and the month, or plain.
	Setting string `json:"setting"`
	Lost    int64  `json:"lost,omitzero,omitempty"` // counts that found no room: the sums are too small then
	// Pools are those in which anything happened; "": those not told apart.
	Pools map[string]PoolUsers `json:"pools"`
}

// PoolUsers is what users had in use of one pool on one day. The sums of all of them and of Others are exact.
type PoolUsers struct {
	Users  []UserUsage `json:"users"` // the heaviest first
	Others UserUsage   `json:"others,omitzero,omitempty"`
	// Short is how many slot-seconds of one named user may be among the others', because more users came than are told
	// apart while the day lasts.
	Short float64 `json:"short_slot_seconds,omitzero,omitempty"`
}

// UserUsage is what one user had in use of one pool, or the others together.
type UserUsage struct {
	User   string `json:"user,omitempty"`            // empty: of the others
	Others int64  `json:"others,omitzero,omitempty"` // of the others: how many they are at most
	Peak   int64  `json:"peak"`                      // the most slots at one time; of the others: of one of them
	// SlotSeconds is slots in use times how long they were.
	SlotSeconds float64 `json:"slot_seconds"`
	Grants      int64   `json:"grants,omitzero,omitempty"`  // leases
	Drawn       int64   `json:"drawn,omitzero,omitempty"`   // from a meter
	Denials     int64   `json:"denials,omitzero,omitempty"` // acquires that were denied, for whatever reason
}

// UsageHour is what was in use in one hour of licence time. An hour may come more than once, as where the clock was put
// back into it: then its sums add up.
type UsageHour struct {
	Sequence uint64    `json:"sequence,omitzero,omitempty"` // in the agent's record; absent: it is not closed yet
	Hour     time.Time `json:"hour"`                        // its beginning
	Observed float64   `json:"observed_seconds"`            // for how long the agent counted
	Starts   int64     `json:"starts,omitzero,omitempty"`   // of agents
	// ClockSteps is how often the time was set while the agent counted.
	ClockSteps int64 `json:"clock_steps,omitzero,omitempty"`
	Lost       int64 `json:"lost,omitzero,omitempty"` // counts that found no room: the sums are too small then
	// Licenses are the ids of the licences that were in force.
	Licenses []string             `json:"licenses,omitempty"`
	Pools    map[string]PoolUsage `json:"pools,omitempty"` // in which anything happened; "": those not told apart
}

// PoolUsage is what was in use of one pool, or drawn from one meter, in one hour.
type PoolUsage struct {
	Limit  *int64 `json:"limit"`  // the largest in the hour; null: unlimited
	Budget *int64 `json:"budget"` // likewise
	Meter  bool   `json:"meter,omitzero,omitempty"`
	Peak   int64  `json:"peak"` // the most slots in use at one time
	// SlotSeconds is slots in use times how long they were. OverSlotSeconds is likewise the slots beyond the budget.
	SlotSeconds     float64 `json:"slot_seconds"`
	OverPeak        int64   `json:"over_peak,omitzero,omitempty"`
	OverSeconds     float64 `json:"over_seconds,omitzero,omitempty"` // for how long slots beyond the budget were in use
	OverSlotSeconds float64 `json:"over_slot_seconds,omitzero,omitempty"`
	Grants          int64   `json:"grants,omitzero,omitempty"` // leases
	Drawn           int64   `json:"drawn,omitzero,omitempty"`  // from a meter
	Waits           int64   `json:"waits,omitzero,omitempty"`  // acquires that waited, whatever came of it
	WaitSeconds     float64 `json:"wait_seconds,omitzero,omitempty"`
	LongestWait     float64 `json:"longest_wait_seconds,omitzero,omitempty"`
	// Denials are acquires that were denied, by code.
	Denials map[string]int64 `json:"denials,omitempty"`
	// TrueDenials and FalseDenials are those for want of slots or draws whose end is known. The rest is undetermined.
	TrueDenials  int64 `json:"true_denials,omitzero,omitempty"`
	FalseDenials int64 `json:"false_denials,omitzero,omitempty"`
}

// UsageGap is a stretch in which no agent counted.
type UsageGap struct {
	From    time.Time `json:"from"`
	To      time.Time `json:"to"`
	Seconds float64   `json:"seconds"` // of the stretch that nobody counted
}

// UsageMissing is a stretch of the record that is gone.
type UsageMissing struct {
	After  uint64 `json:"after"`  // the sequence number of the last hour before it; 0: the record's beginning
	Before uint64 `json:"before"` // the sequence number of the first hour behind it
	Reason string `json:"reason"`
}
