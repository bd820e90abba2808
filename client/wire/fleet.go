package wire

import "time"

// Fleet is how an agent stands in its fleet, and what the fleet's store says of all agents: GET /v1/fleet.
type Fleet struct {
	Agent string `json:"agent,omitempty"` // the thumbprint of this agent's key; empty: no agent was asked
	Name  string `json:"name,omitempty"`
	// joining, member, quarantine, draining, cut_off, fenced, waiting or evicted; empty: no agent was asked
	State  string `json:"state,omitempty"`
	Reason string `json:"reason,omitempty"` // why it is no member, or why nobody gets more slots
	Hint   string `json:"hint,omitempty"`
	// FenceSeconds is how long it may still use its blocks without a further answer of the store.
	FenceSeconds float64 `json:"fence_seconds"`
	WriteSeconds float64 `json:"write_seconds,omitempty"` // how long the store's writes take, of late
	// Current says that what follows was read just now. Else it was read AgeSeconds ago; nil: never, and Pools are what
	// the agent knows of itself.
	Current    bool     `json:"current"`
	AgeSeconds *float64 `json:"age_seconds,omitempty"`
	Error      string   `json:"error,omitempty"` // why it was not read now
	// Store are the faults of the store's members.
	Store []FleetFault `json:"store,omitempty"`
	// Sizes are those of the databases of the store's members that answered.
	Sizes      []FleetSize  `json:"sizes,omitempty"`
	Quarantine string       `json:"quarantine,omitempty"` // why nobody gets more slots for a moment
	Agents     []FleetAgent `json:"agents"`
	Pools      []FleetPool  `json:"pools"`
	Truncated  bool         `json:"truncated,omitempty"` // there are more agents or blocks than are read
}

// FleetSize is how full one member of a fleet's store is.
type FleetSize struct {
	Endpoint   string `json:"endpoint"`
	Bytes      int64  `json:"bytes"`                 // of its database
	QuotaBytes int64  `json:"quota_bytes,omitempty"` // 0: it does not tell
	NoSpace    bool   `json:"no_space,omitempty"`    // it takes no writes
}

// FleetFault is what is wrong with one member of a fleet's store.
type FleetFault struct {
	Endpoint string `json:"endpoint"`
	Fault    string `json:"fault"` // a closed set: see docs/metrics.md, usher_fleet_errors_total
	Reason   string `json:"reason"`
	Hint     string `json:"hint,omitempty"`
}

// FleetAgent is one agent of a fleet.
type FleetAgent struct {
	Agent   string `json:"agent"`          // the thumbprint of its key
	Name    string `json:"name,omitempty"` // of its host
	Version string `json:"version,omitempty"`
	Alive   bool   `json:"alive"` // its key is in the store
	// FenceSeconds is how long it may still use its blocks if the store hears no more of it; absent: not known.
	FenceSeconds *float64 `json:"fence_seconds,omitempty"`
	TTLSeconds   float64  `json:"ttl_seconds,omitempty"` // for how long its slots may be in use after a sign of life
	// an operator has it give its idle slots back, and take none
	Draining *FleetOrder `json:"draining,omitempty"`
	Evicted  *FleetOrder `json:"evicted,omitempty"` // an operator has put it out
}

// FleetOrder is who told an agent something, and when, by that one's clock.
type FleetOrder struct {
	By string    `json:"by,omitempty"`
	At time.Time `json:"at"`
}

// FleetPool is one pool of a fleet.
type FleetPool struct {
	Pool     string       `json:"pool"`
	Product  string       `json:"product,omitempty"`
	AddOn    string       `json:"add_on,omitempty"` // the add-on licence whose pool it is; absent: the base licences'
	Key      string       `json:"key"`              // as the store names it: several may have one name
	Limit    int64        `json:"limit"`
	Document string       `json:"document,omitempty"` // SHA-256, base64url, of the licence document with that limit
	Out      int64        `json:"out"`                // slots with agents
	Agents   []FleetShare `json:"agents"`
}

// FleetShare is what one agent has of a pool.
type FleetShare struct {
	Agent string `json:"agent"`
	Name  string `json:"name,omitempty"`
	Slots int64  `json:"slots"` // in its blocks
	// slots held there, of all pools of that name; absent: it did not answer
	InUse    *int64     `json:"in_use,omitempty"`
	Since    *time.Time `json:"since,omitempty"`    // when it got the first of them, by its clock
	Limit    int64      `json:"limit,omitempty"`    // that its licence document names
	Document string     `json:"document,omitempty"` // SHA-256, base64url
	Waiting  int64      `json:"waiting,omitempty"`  // slots it waits for
	Turn     int        `json:"turn,omitempty"`     // its place among those who wait, from 1
}

// FleetDone is what came of an order to an agent.
type FleetDone struct {
	Agent string `json:"agent"`
	Name  string `json:"name,omitempty"`
	Slots int64  `json:"slots"` // that an eviction freed
	// Done: a drain or an undoing is in force; an eviction's slots are free.
	Done        bool    `json:"done"`
	LeftSeconds float64 `json:"left_seconds,omitempty"` // until the evicted agent's fence is over
	Reason      string  `json:"reason,omitempty"`       // why it is not done
	Gone        bool    `json:"gone,omitempty"`         // the agent was not in the fleet when it was told
	// Draining and Evicted are orders that are in force besides what was told: where one was undone, the other.
	Draining bool `json:"draining,omitempty"`
	Evicted  bool `json:"evicted,omitempty"`
}

// FleetEviction is the body of POST /v1/fleet/agents/{host}/eviction.
type FleetEviction struct {
	WaitSeconds float64 `json:"wait_seconds,omitempty"` // for how long to wait until its slots are free
}
