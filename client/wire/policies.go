package wire

import "time"

// Policies is the answer to GET /v1/policies: the site's rules in force, in their order.
type Policies struct {
	Policies []Policy `json:"policies"`
}

// Policy is one rule of the site.
type Policy struct {
	Name      string      `json:"name"`
	Does      string      `json:"does"`      // for people: what the rule does
	Elsewhere bool        `json:"elsewhere"` // it is of other hosts, and concerns nobody here
	Uses      []PolicyUse `json:"uses"`      // by pool or meter that it is of, sorted by name
}

// PolicyUse is what one rule has in use in one pool.
type PolicyUse struct {
	Pool   string `json:"pool"`
	Limit  int64  `json:"limit"`  // slots of its max, or else of its reserve; 0: it has neither
	InUse  int64  `json:"in_use"` // slots of the holders that it concerns; 0 where limit is 0
	Most   int64  `json:"most"`   // with per: the slots of the holder that has most
	Unused int64  `json:"unused"` // slots that it keeps and nobody uses
}

// PolicyExplanation is the answer to GET /v1/policies/explain.
type PolicyExplanation struct {
	Pool     string          `json:"pool"`
	Known    bool            `json:"known"` // the licence has the pool, or the meter
	DeniedBy string          `json:"denied_by,omitempty"`
	Room     *int64          `json:"room"`             // slots or draws, were nobody waiting; null: unlimited
	Code     string          `json:"code,omitempty"`   // of the denial that an acquire would get, where Room is 0
	Detail   string          `json:"detail,omitempty"` // of that denial
	Rules    []PolicyConcern `json:"rules"`
}

// PolicyConcern is a rule, and whether it concerns a holder.
type PolicyConcern struct {
	Name     string `json:"name"`
	Concerns bool   `json:"concerns"`
	Why      string `json:"why"` // for people: what it does, or why it does not concern the holder
}

// Waiting is the answer to GET /v1/waiting: the acquires that wait, in their order.
type Waiting struct {
	Waiting []Waiter `json:"waiting"`
	More    bool     `json:"more,omitzero,omitempty"` // others wait behind these
}

// Waiter is an acquire that waits.
type Waiter struct {
	// of the lease that it will get, as lease.waiting names it; empty: the agent is of before
	LeaseID  string    `json:"lease_id,omitempty"`
	Items    []Item    `json:"items"`
	Position int       `json:"position"` // in the pool or meter where most are before it; 1: it is the first
	Priority int       `json:"priority"` // that the site's rules give it; 0: none
	Since    time.Time `json:"since"`
	Until    time.Time `json:"until"` // when it gives up
	// when the next lease of its first pool ends unless it is renewed; null: it is not known
	NextEndsAt *time.Time `json:"next_ends_at"`
	// how long it may still wait at the pace at which others have been served; absent: it is not known
	EstimateSeconds float64 `json:"estimate_seconds,omitzero,omitempty"`
	Rule            string  `json:"rule,omitempty"`   // that keeps it from being served, whatever comes free
	Reason          string  `json:"reason,omitempty"` // for people, with rule
	UID             uint32  `json:"uid"`
	PID             int32   `json:"pid,omitempty"`
	Holder          *Holder `json:"holder,omitempty"` // of the lease to be; nil: the agent is of before
}
