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
