package enforcer

import "time"

// EventKind says what happened.
type EventKind string

// The events. Decide makes them, the agent journals those that are Durable, and Apply carries them out.
const (
	EventVerdict EventKind = "verdict" // Verdict holds from now on
	EventGranted EventKind = "granted" // Lease is held
	EventRenewed EventKind = "renewed" // Lease replaces the one with its id
	EventEnded   EventKind = "ended"   // Lease is over by Cause
	EventForgot  EventKind = "forgot"  // client token Token is no longer remembered
	EventChanged EventKind = "changed" // Lease replaces the one with its id: doubted, attached, joined or left
	EventQueued  EventKind = "queued"  // Waiter waits
	EventLeft    EventKind = "left"    // Waiter no longer waits, by Cause; Denial says more where it was denied
	EventDrawn   EventKind = "drawn"   // Lease's items have been drawn from meters; Draws are their new totals
	// EventRemembered is of snapshots: the token of Lease is remembered until At. Lease is over by Cause; a draw
	// has none, nor a lease that is held.
	EventRemembered EventKind = "remembered"
	EventSet        EventKind = "set"      // Draws are the meters' totals, set by a caller that may adjust them
	EventNoted      EventKind = "noted"    // Lease has other Data than before, and no other change
	EventStepped    EventKind = "stepped"  // the time was set by By, and is Unproved ahead of its proof
	EventHeldOff    EventKind = "held_off" // HoldOff is in force, in the place of the one of the same lease
	// EventLifted: HoldOff is over, by CauseExpired or, where an admin lifted it, by CauseReleased.
	EventLifted EventKind = "lifted"
	// EventPolicies: Policies are the site's rules from now on.
	EventPolicies EventKind = "policies"
	EventLingers  EventKind = "lingers" // the slots of Linger are kept for the user that has released them
	// EventLingerOver: Linger is over, by CauseExpired, by CauseReleased where its user takes the slots again, or by
	// CauseRevoked where its rule is no longer there.
	EventLingerOver EventKind = "linger_over"
	EventUsed       EventKind = "used" // the holder of Lease has shown that it uses it
)

// Draw is the total of one meter after an event.
type Draw struct {
	Key    string    // of the meter: see MeterGrant.Key
	Drawn  int64     // in the period
	Period time.Time // the beginning of the period; zero: the meter never resets
}

// Event is one change of state. Lease is the lease after the change (of EventEnded: before it), Token is of
// EventForgot.
type Event struct {
	Kind    EventKind
	At      time.Time
	Lease   *Lease
	Cause   Cause
	Verdict *Verdict
	// of EventGranted: the terms that the lease is granted under; nil: not known, as for a lease that an earlier
	// version granted
	Terms  *Terms
	Token  TokenKey
	Waiter *Waiter // of EventGranted and EventDrawn: the waiter that got it; nil: nobody waited
	Denial *Denial
	Draws  []Draw
	By     time.Duration
	// Unproved is of EventStepped: how far the time is ahead of its proof.
	Unproved time.Duration
	// Unsure is of EventStepped: for how long the host must still run until its first wall clock is proved; zero: it
	// is.
	Unsure  time.Duration
	HoldOff *HoldOff // of EventHeldOff and EventLifted
	Rule    string   // of EventEnded: the name of the site's rule that ended the lease; empty: none did

	Policies *Policies // of EventPolicies; nil: there are no rules
	Linger   *Linger   // of EventLingers and EventLingerOver
	// Other is of EventChanged: the holder that has joined the lease, has taken it over or has left it; nil: its
	// holders are as before, or the event is read from a journal.
	Other *Holder

	found found
}

// found is what Decide has looked up and Apply needs: the lease that the event changes, and the holder that it shares.
// It is no more than a short cut. It counts in the enforcer that made the event alone, and only while what was found is
// still in its place: everywhere else, as in a recovery, Apply looks again.
type found struct {
	by     *Enforcer
	lease  *held
	holder *sharedHolder
}

// held returns the place of an event's lease, which is held.
func (e *Enforcer) held(ev *Event) *held {
	if f := &ev.found; f.by == e && f.lease != nil {
		return f.lease
	}
	return e.must(ev.Lease.ID)
}

// Durable reports whether the event must be in the journal before its effect is acknowledged.
func (e *Event) Durable() bool {
	switch e.Kind {
	case EventVerdict, EventStepped, EventQueued, EventLeft, EventPolicies, EventUsed:
		return false
	}
	return true
}
