package enforcer

import "time"

// Request is what can be asked of an Enforcer: *Acquire, *Renew, *Release, *SetVerdict or *Tick.
type Request interface {
	decide(e *Enforcer, now time.Time) Decision
}

// Decision is the answer to a request. At most one of Denial and Lease is set; Events are to be journalled and applied
// in order, all or none.
type Decision struct {
	Events   []Event
	Lease    *Lease  // the lease granted, renewed or released
	Denial   *Denial // why not
	Replayed bool    // Lease was granted to an earlier request with the same client token
}

// Acquire asks for slots. Exactly one of Pool and Items is set.
type Acquire struct {
	ID     LeaseID // of the lease to be; random
	Caller Caller

	Pool   string
	N      int64 // slots of Pool
	Items  []Item
	MinN   int64 // with Pool: be content with as few as this; 0: all or nothing
	Labels map[string]string

	Lifetime Lifetime      // empty: LifetimeTTL
	TTL      time.Duration // LifetimeTTL; zero: DefaultTTL
	Token    string        // client token; empty: none
	Version  string        // the product's version; empty: not checked
}

// Renew extends a ttl lease by its TTL (or by TTL, when set) from now.
type Renew struct {
	ID     LeaseID
	Caller Caller
	TTL    time.Duration
}

// Release gives a lease's slots back.
type Release struct {
	ID     LeaseID
	Caller Caller
	Force  bool  // by an admin, whoever holds it
	Cause  Cause // empty: CauseReleased, or CauseForced with Force
}

// SetVerdict tells the enforcer what the licences permit from now on.
type SetVerdict struct {
	Verdict *Verdict
}

// Tick carries out what time has made due: expiries, revocations, tokens to forget. See Enforcer.NextTick.
type Tick struct{}
