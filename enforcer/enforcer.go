package enforcer

import "time"

// Enforcer holds the pools and leases under one verdict.
type Enforcer struct {
	verdict *Verdict
}

// New returns an Enforcer without a licence: every acquire is denied until SetVerdict has been applied.
func New() *Enforcer { return &Enforcer{} }

// Verdict returns the verdict in force; nil before the first.
func (e *Enforcer) Verdict() *Verdict { return e.verdict }

// Decide answers a request at the instant now. It changes nothing.
func (e *Enforcer) Decide(r Request, now time.Time) Decision { return r.decide(e, now) }
