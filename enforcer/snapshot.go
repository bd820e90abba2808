package enforcer

import "errors"

// Snapshot is what is held and remembered at one instant. It is taken in steps, and anything may happen between two of
// them: what changes before a step has come to it is kept as it was. So no step takes long, however many leases are
// held.
type Snapshot struct {
	e      *Enforcer
	number uint32
	terms  []*Terms // of the tenures, by their places
	tenure int      // the next step goes on in this one,
	after  Cursor   // behind this place
	below  int      // in the list of tokens: what is left lies below
	leases []Granted
	given  []Granted // those of the last part, whose room the next but one gets
	tokens []Event
}

// Snapshot begins a snapshot of this instant. One that was under way is given up. It changes nothing that any answer
// depends on.
func (e *Enforcer) Snapshot() *Snapshot {
	e.taken++
	s := &Snapshot{e: e, number: e.taken, below: e.listed.len()}
	for _, t := range e.tenures {
		if t.heir != nil {
			t = t.heir
		}
		s.terms = append(s.terms, t.Terms)
	}
	e.snapshot = s
	return s
}

// Part is what one step of a snapshot has come to. It is good until the next step.
type Part struct {
	Leases []Granted
	// Tokens are the client tokens of draws, of leases that are over, and of leases that are held where the token is
	// remembered until another instant than a grant makes it. They come after all leases.
	Tokens []Event
	Last   bool // the snapshot is whole, and over
}

// ErrGivenUp says that a snapshot is over before it was whole.
var ErrGivenUp = errors.New("the snapshot was given up")

// Next takes a step, which looks at no more than most leases and tokens. Apply of an EventGranted of each lease, and
// then of the tokens' events, makes the state of the instant at which the snapshot began.
func (s *Snapshot) Next(most int) (Part, error) {
	e := s.e
	if e.snapshot != s {
		return Part{}, ErrGivenUp
	}
	looked := 0
	for ; s.tenure < len(s.terms); s.tenure, s.after = s.tenure+1, (Cursor{}) {
		for h := range e.tenures[s.tenure].granted.behind(s.after) {
			if looked == most {
				break
			}
			looked++
			s.after = CursorOf(h.Lease)
			e.save(h)
		}
		if looked == most {
			break
		}
	}
	p := Part{Leases: s.leases}
	clear(s.given)
	s.leases, s.given = s.given[:0], s.leases
	if s.tenure < len(s.terms) {
		return p, nil
	}
	for ; s.below > 0 && looked < most; looked++ {
		if s.below--; s.below < e.listed.len() {
			e.saveToken(*e.listed.at(s.below))
		}
	}
	p.Tokens, s.tokens = s.tokens, nil
	if p.Last = s.below == 0; p.Last {
		e.snapshot = nil
	}
	return p, nil
}

// End gives a snapshot up, unless it is over.
func (s *Snapshot) End() {
	if s.e.snapshot == s {
		s.e.snapshot = nil
	}
}

// save keeps a lease as it is for the snapshot under way. Call it before a lease changes, ends or comes under another
// licence.
func (e *Enforcer) save(h *held) {
	s := e.snapshot
	if s == nil || h.seen == s.number {
		return
	}
	h.seen = s.number
	s.leases = append(s.leases, Granted{h.Lease, s.terms[h.terms]})
}

// saveToken is save for what is remembered of a client token.
func (e *Enforcer) saveToken(r *remembered) {
	s := e.snapshot
	if s == nil || r.seen == s.number {
		return
	}
	r.seen = s.number
	if r.ended != "" || r.lease.Lifetime == LifetimeDraw || !r.until.Equal(r.lease.AcquiredAt.Add(TokenKept)) {
		s.tokens = append(s.tokens, Event{Kind: EventRemembered, At: r.until, Lease: r.lease, Cause: r.ended})
	}
}
