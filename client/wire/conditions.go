package wire

import "time"

// Change is one that the licences in force make by themselves at an instant.
type Change struct {
	At     time.Time   `json:"at"`
	Begins []Successor `json:"begins"` // in force from then on
	Ends   []Successor `json:"ends"`   // in force until then
	Losses []Loss      `json:"losses"` // what shrinks or vanishes
}

// Successor names a licence in a change.
type Successor struct {
	License   string     `json:"license"`
	Document  string     `json:"document"`
	ExpiresAt *time.Time `json:"expires_at"` // null: never
}

// Loss is a term that shrinks or vanishes with a change.
type Loss struct {
	Kind string `json:"kind"` // pool, meter, feature
	Name string `json:"name"`
	Was  string `json:"was"` // for people
	Is   string `json:"is"`  // empty: nothing is left of it
}

// Conditions are what a licence binds its grants to.
type Conditions struct {
	Hosts       []HostBinding     `json:"hosts"`       // good on any one of them; none: on every host
	AgentKeys   []string          `json:"agent_keys"`  // RFC 7638 thumbprints; none: any agent
	SiteServer  string            `json:"site_server"` // the thumbprint of the one that may share its site pools
	Scopes      map[string]string `json:"scopes"`      // of pools and meters: host, site
	Grace       float64           `json:"grace_seconds"`
	OnExpiry    string            `json:"on_expiry"`     // drain, revoke, keep
	Trial       float64           `json:"trial_seconds"` // 0: it is none
	TrialEndsAt *time.Time        `json:"trial_ends_at"` // null: it is none, or has not begun
	Activation  *Contact          `json:"activation"`
	Heartbeat   *Contact          `json:"heartbeat"`
	CheckIn     *Contact          `json:"check_in"`
	Emergency   *EmergencyTerm    `json:"emergency"`
}

// HostBinding is one host that a licence names.
type HostBinding struct {
	Name       string   `json:"name"`
	Components []string `json:"components"` // their names
	Strategy   string   `json:"strategy"`   // any, two, most, all
}

// Contact is a duty towards an upstream: once in each period, or once.
type Contact struct {
	Every  float64 `json:"every_seconds"` // 0: in calendar months, or once
	Months int     `json:"months"`
	Grace  float64 `json:"grace_seconds"`
}

// EmergencyTerm is the emergencies that a licence grants.
type EmergencyTerm struct {
	Length  float64 `json:"length_seconds"`
	PerYear int     `json:"per_year"`
}

// CheckIn is the state of the upstream check-ins.
type CheckIn struct {
	Last *time.Time `json:"last"`
	Next *time.Time `json:"next"` // when the agent calls
	Due  *time.Time `json:"due"`  // when it is late, and its grace begins
}

// Heartbeat is the state of the heartbeats.
type Heartbeat struct {
	Last     *time.Time `json:"last"`
	Deadline *time.Time `json:"deadline"`
}

// Upstream is the state of the remote system.
type Upstream struct {
	State  string     `json:"state"` // ok, waiting, retrying, refused, misconfigured, released, none
	Detail string     `json:"detail"`
	Hint   string     `json:"hint,omitempty"`
	Since  *time.Time `json:"since"` // when the first call failed of those in a row; null: the last one did not
}
