package enforcer

import "time"

// Request is a question to an Enforcer: *Acquire, *Renew, *Release, *SetData, *End, *Join, *Leave, *Doubt, *Attach,
// *Adjust, *Shift, *Cancel, *Serve, *SetVerdict, *Step or *Tick.
type Request interface {
	decide(e *Enforcer, now time.Time) Decision
}

// Decision is the answer to a request. At most one of Denial and Lease is set. Journal and apply Events in order, all
// or none.
type Decision struct {
	Events   []Event
	Lease    *Lease  // the lease granted, renewed or released
	Denial   *Denial // why the request is refused
	Waiter   *Waiter // the acquire waits; Serve, Tick or Cancel will end that
	Replayed bool    // Lease was granted to an earlier request with the same client token
	Grown    *Holder // the caller by which Lease counts for more than before, a grant like any other; nil: none
}

// Acquire asks for slots. Exactly one of Pool and Items is set.
type Acquire struct {
	ID     LeaseID // of the lease to be; random
	Caller Caller

	Pool   string
	N      int64 // slots of Pool
	Of     int64 // with Pool: see Item
	Items  []Item
	MinN   int64 // with Pool: be content with as few as this; 0: all or nothing
	Labels map[string]string

	Lifetime Lifetime // empty: LifetimeTTL
	Implied  bool     // Lifetime is the default of the API, and not the caller's word
	// Named says that Caller is a process that another one names as the holder. A retry must name the same.
	Named   bool
	TTL     time.Duration // LifetimeTTL; zero: DefaultTTL
	Until   time.Time     // LifetimeBorrow: when the slots return
	Token   string        // client token; empty: none
	Version string        // the product's version; empty: not checked
	// Wait is how long to wait where the slots are in use, or where the agent may get more draws of a site's meter;
	// zero: not at all.
	Wait time.Duration
	Data *Data // what is kept on the lease; nil: nothing. A retry need not repeat it
	Room *Room // for the event of a decision about a request that does not wait; nil: it gets memory of its own
}

// Again returns the acquire as it is made once more after so long, because of a denial that says Late: it waits for
// what is left of its time. nil: the denial is another one, or no time is left.
func (r *Acquire) Again(d *Denial, after time.Duration) *Acquire {
	if d == nil || !d.Late || r.Wait <= after {
		return nil
	}
	again := *r
	again.Wait -= after
	return &again
}

// Renew extends a ttl lease by its TTL (or by TTL, when set) from now.
type Renew struct {
	ID     LeaseID
	Caller Caller
	Owner  string // of the lease's data; empty: it has none
	TTL    time.Duration
}

// Release ends a lease and frees its slots.
type Release struct {
	ID     LeaseID
	Caller Caller
	Owner  string // of the lease's data; empty: it has none
	Force  bool   // by an admin, for any holder's lease
	Cause  Cause  // empty: CauseReleased, or CauseForced with Force
	// HoldOff, with Force, is for how long the holder is granted no slots of the lease's pools; 0: not at all. Of a
	// lease that is over it changes the hold-off that its release began, or lifts it. Nil: nothing is said of that.
	HoldOff *time.Duration
	Room    *Room // for the decision's event; nil: it gets memory of its own
}

// Room is room for one event of a caller that asks again and again. The events of a decision are good until the next
// decision that is given the same Room, so that one is given only to requests that follow one another, and never to a
// request that somebody keeps.
type Room struct{ events [1]Event }

// one returns an event of nothing yet, in the room where there is one. Its maker fills it in where it is: a copy of
// what has just been written waits until all that was written before is out of the processor's hands.
func (r *Room) one() []Event {
	if r == nil {
		return make([]Event, 1)
	}
	r.events[0] = Event{}
	return r.events[:]
}

// SetData replaces a lease's data, on the word of its owner.
type SetData struct {
	ID     LeaseID
	Caller Caller
	Data   *Data
}

// SetVerdict tells the enforcer what the licences permit from now on.
type SetVerdict struct {
	Verdict *Verdict
}

// Tick carries out what time has made due: expiries, revocations, tokens to forget. See Enforcer.NextTick.
type Tick struct{}

// End ends a lease on the agent's own word: its holder has gone.
type End struct {
	ID    LeaseID
	Cause Cause
}

// Join makes another process a co-holder of a lease. The lease counts once, and is over when the last holder has gone.
type Join struct {
	ID     LeaseID
	Caller Caller
}

// Leave takes a process off a lease's holders. The last one ends it.
type Leave struct {
	ID     LeaseID
	Holder Caller
}

// Gone takes a process that has ended off the holders of several leases at once: it is a Leave of each that is held.
// What is more than Batch leases goes in several of it, so that none takes long.
type Gone struct {
	IDs    []LeaseID
	Holder Caller
	// Room is reused for the Decision's events, which are good until it is given to another request; nil: they get
	// their own.
	Room []Event
}

// Doubt says that it is not known whether a lease's holder lives: the lease is over at Until unless Attach or Renew
// comes first.
type Doubt struct {
	ID    LeaseID
	Until time.Time
}

// Attach gives an unconfirmed lease back to its holder, which shows the id and is the same user.
type Attach struct {
	ID     LeaseID
	Caller Caller
}

// Adjust sets what has been drawn from a meter in its present period; for admins.
type Adjust struct {
	Pool   string
	Drawn  int64
	Caller Caller
}

// Shift changes what has been drawn from a meter in its present period by a number of draws. It is for admins, and for
// any caller that draws where the licence makes the meter adjustable. It is all or nothing: never below 0, never above
// the limit, and never up while acquires wait for draws of the meter.
type Shift struct {
	Pool   string
	By     int64
	Caller Caller
}

// Cancel takes a waiter out of the queue.
type Cancel struct {
	ID LeaseID
}

// Serve answers the next waiter whose turn it is: it is granted what it waits for, or the lease that its client token
// has got meanwhile, or turned away where it waits for draws that cannot come any more. Ask it again until it has no
// events, whenever slots may have come free or draws may have arrived. Set Recheck after a new verdict, so that waiters
// that now wait in vain are turned away, whoever waits before them.
type Serve struct {
	Recheck bool
	// Among are the pools that the events since the last Serve without events stir: see Event.Stirs. No other pool can
	// have a waiter whose turn it is. Nil: every pool is looked at.
	Among []string
}
