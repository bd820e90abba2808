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
)

// Event is one change of state. Lease is the lease after the change (of EventEnded: as it was), Token is of EventForgot.
type Event struct {
	Kind    EventKind
	At      time.Time
	Lease   *Lease
	Cause   Cause
	Verdict *Verdict
	Token   TokenKey
}

// Durable reports whether the event must be in the journal before its effect is acknowledged.
func (e Event) Durable() bool { return e.Kind != EventVerdict }
