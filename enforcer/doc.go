// Package enforcer is Usher's decision core: what a licence permits, and who holds its slots.
//
// It is pure. Nothing here opens a file or a socket, reads a clock, starts a goroutine or logs; every instant is
// an argument, and every answer follows from the arguments and the state alone. It has two halves:
//
//   - [Judge] turns facts (documents, host, clock, upstream) into a [Verdict]: what is permitted now, why, and when
//     that will next change by itself.
//   - [Enforcer] holds pools and leases. [Enforcer.Decide] answers a [Request] with events and changes nothing;
//     [Enforcer.Apply] changes state by one event and is the very code that recovery runs. The agent writes the
//     events to its journal between the two.
//
// An Enforcer is not safe for concurrent use; its owner serialises the calls.
//
// Start reading at [License], then [Judge], then [Enforcer]. The first half is judge.go, findings.go (one document),
// rulings.go (documents beside each other), grant.go, narrow.go and warn.go, with its nouns in license.go and
// verdict.go. The second half is decide.go, apply.go, queue.go, pool.go, count.go and meter.go, with its nouns in
// request.go, event.go and lease.go. holdoff.go keeps a holder from slots for a while. clock.go is the licence time.
package enforcer
