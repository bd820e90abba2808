package wire

import "time"

// Problem is an error: RFC 9457 problem details with a stable code.
type Problem struct {
	Type              string   `json:"type"`
	Title             string   `json:"title"`
	Status            int      `json:"status"`
	Code              string   `json:"code"`
	Detail            string   `json:"detail"`
	Field             string   `json:"field,omitempty"`
	Hint              string   `json:"hint,omitempty"`
	Verdict           *Verdict `json:"verdict,omitempty"`
	RetryAfterSeconds *float64 `json:"retry_after_seconds,omitempty"`
	Limit             *int64   `json:"limit,omitempty"`
	InUse             *int64   `json:"in_use,omitempty"`
	WaitedSeconds     *float64 `json:"waited_seconds,omitempty"`
	Rule              string   `json:"rule,omitempty"`
	// Holders are some of those who hold slots of the pool that are lacking, the oldest lease first: to an admin of all
	// users, to others the caller's own.
	Holders []HeldBy `json:"holders,omitempty"`
}

// HeldBy is a lease of slots that a request lacks.
type HeldBy struct {
	Holder *Holder    `json:"holder"`
	N      int64      `json:"n"`                     // slots, or parts of slots
	Of     int64      `json:"of,omitzero,omitempty"` // how many parts make a slot, where N counts parts
	Since  time.Time  `json:"since"`                 // when they were acquired
	EndsAt *time.Time `json:"ends_at,omitempty"`     // unless it is renewed; nil: it ends by its holder alone
}

// Error returns the detail, so that a Problem can be passed on as an error.
func (p *Problem) Error() string { return p.Detail }

// Verdict is the short form of a licence's verdict inside a Problem.
type Verdict struct {
	State  string     `json:"state"`
	Code   string     `json:"code"`
	Reason string     `json:"reason"`
	Until  *time.Time `json:"until"`
}
