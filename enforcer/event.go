package enforcer

import "time"

// EventKind says what happened.
type EventKind string

// The events. Decide makes them, the agent journals those that are Durable, Apply carries them out.
const (
	EventVerdict EventKind = "verdict" // Verdict holds from now on
	EventGranted EventKind = "granted" // Lease is held
	EventRenewed EventKind = "renewed" // Lease replaces the one of the same id
	EventEnded   EventKind = "ended"   // Lease is over, because of Cause
	EventForgot  EventKind = "forgot"  // client token Token is no longer remembered
	EventChanged EventKind = "changed" // Lease replaces the one of the same id: doubted, attached, joined or left
	EventQueued  EventKind = "queued"  // Waiter waits
	EventLeft    EventKind = "left"    // Waiter no longer waits, because of Cause; Denial says more where it was denied
	EventDrawn   EventKind = "drawn"   // Lease's items have been drawn from meters, which Draws names
	// EventRemembered is of snapshots: the token of Lease, which is over by Cause (of a draw: none), is remembered
	// until At.
	EventRemembered EventKind = "remembered"
	EventSet        EventKind = "set"     // Draws are what the meters stand at, by the word of who may adjust them
	EventNoted      EventKind = "noted"   // Lease has another Data than before, and nothing else
	EventStepped    EventKind = "stepped" // the time was set by By, and is Unproved ahead of what is proved
)

// Draw is what one meter stands at after an event.
type Draw struct {
	Key    string    // of the meter: see MeterGrant.Key
	Drawn  int64     // in the period
	Period time.Time // the beginning of the period; zero: the meter never resets
}

// Event is one change of state. Lease is the lease after the change (of EventEnded: as it was), Token is of
// EventForgot.
type Event struct {
	Kind    EventKind
	At      time.Time
	Lease   *Lease
	Cause   Cause
	Verdict *Verdict
	// of EventGranted: what the lease is granted under; nil: not known, as of a lease that an earlier version granted
	Terms  *Terms
	Token  TokenKey
	Waiter *Waiter // of EventGranted: who waited for it; nil: nobody
	Denial *Denial
	Draws  []Draw
	By     time.Duration
	// Unproved is of EventStepped: how far the time is ahead of what is proved of it.
	Unproved time.Duration
}

// Durable reports whether the event must be in the journal before its effect is acknowledged.
func (e Event) Durable() bool {
	return e.Kind != EventVerdict && e.Kind != EventStepped && e.Kind != EventQueued && e.Kind != EventLeft
}
