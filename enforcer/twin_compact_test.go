package enforcer

import (
	"math"

	"pgregory.net/rapid"
)

// taking is a compaction of the twin's journals that is under way.
type taking struct {
	snapshot *Snapshot
	draws    []Draw
	holdOffs []*HoldOff
	lingers  []*Linger
	at       [2]int // where the journals ended when it began
	leases   []Granted
	tokens   []Event
	// What the model said then: under which licences leases stood, and until when tokens are remembered.
	of    map[LeaseID]*License
	until map[string]modelToken
}

// compact has the journals begin with what the enforcer holds and remembers now.
func (s *twin) compact(t *rapid.T) {
	s.beginCompaction()
	for s.taking != nil {
		s.compactFurther(t, math.MaxInt)
	}
}

// compactOn begins a compaction, or takes a further step of the one that is under way.
func (s *twin) compactOn(t *rapid.T) {
	if s.taking == nil {
		s.beginCompaction()
	}
	s.compactFurther(t, rapid.IntRange(1, 3).Draw(t, "step"))
}

func (s *twin) beginCompaction() {
	s.taking = &taking{snapshot: s.e.Snapshot(), draws: s.e.Meters(), holdOffs: s.e.HoldOffs(),
		lingers: s.e.Lingers(),
		of:      map[LeaseID]*License{},
		until:   map[string]modelToken{}}
	for i, j := range s.journals {
		s.taking.at[i] = len(j)
	}
	for _, l := range s.m.leases {
		s.taking.of[l.id] = l.of
	}
	for key, tok := range s.m.tokens {
		s.taking.until[key] = tok
	}
}

// compactFurther takes a step, after the last of which the journals begin with what was held and remembered at the
// first, and go on with what was written since.
func (s *twin) compactFurther(t *rapid.T, most int) {
	x := s.taking
	p, err := x.snapshot.Next(most)
	if err != nil {
		t.Fatal(err)
	}
	x.leases, x.tokens = append(x.leases, p.Leases...), append(x.tokens, p.Tokens...)
	if !p.Last {
		return
	}
	s.taking = nil
	if len(x.leases) != len(x.of) {
		t.Fatalf("SnapshotOfOneInstant: %d leases, the model had %d", len(x.leases), len(x.of))
	}
	now := [2][]Event{{{Kind: EventSet, Draws: x.draws}}}
	for _, h := range x.holdOffs {
		now[0] = append(now[0], Event{Kind: EventHeldOff, HoldOff: h})
	}
	for _, l := range x.lingers {
		now[1] = append(now[1], Event{Kind: EventLingers, Linger: l})
	}
	file := func(ev Event) {
		i := 1
		if outlasts(ev.Lease) {
			i = 0
		}
		now[i] = append(now[i], ev)
	}
	for _, g := range x.leases {
		file(Event{Kind: EventGranted, At: g.Lease.AcquiredAt, Lease: g.Lease, Terms: g.Terms})
	}
	for _, ev := range x.tokens {
		file(ev)
	}
	for i, j := range s.journals {
		s.journals[i] = append(now[i], j[x.at[i]:]...)
	}
	s.m.compacted(x)
}

// compacted is what a compaction changes: the journal says of leases and tokens what was true when it began.
func (m *model) compacted(x *taking) {
	for i := range m.leases {
		if of, was := x.of[m.leases[i].id]; was {
			m.leases[i].stored = of
		}
	}
	for key, tok := range m.tokens {
		if was, ok := x.until[key]; ok && was.id == tok.id {
			tok.stored = was.until
			m.tokens[key] = tok
		}
	}
}
