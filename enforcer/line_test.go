package enforcer

import (
	"encoding/binary"
	"maps"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// lineStory is an enforcer whose pool a acquires wait for.
type lineStory struct {
	e           *Enforcer
	now         time.Time
	serial      uint64
	held, waits []LeaseID
	throughout  map[LeaseID]bool // those that have waited since the walk began
}

func (s *lineStory) do(r Request) (d Decision) {
	d = s.e.Decide(r, s.now)
	for _, ev := range d.Events {
		s.e.Apply(ev)
	}
	return d
}

// inOrder are those that wait, in their order.
func (s *lineStory) inOrder() []*waiting {
	return slices.SortedFunc(maps.Values(s.e.waiters), func(a, b *waiting) int {
		if a.before(b) {
			return -1
		}
		return 1
	})
}

func (s *lineStory) come(t *rapid.T) {
	s.now = s.now.Add(time.Duration(rapid.IntRange(0, 100).Draw(t, "later")) * time.Second)
	r := &Acquire{Caller: Caller{UID: rapid.Uint32Range(1, 2).Draw(t, "uid")}, Lifetime: LifetimeHeld,
		Wait: MaxWait, Items: []Item{{Pool: "a", N: 1}}}
	if rapid.IntRange(0, 3).Draw(t, "of two") == 0 {
		r.Items = append(r.Items, Item{Pool: "b", N: 1})
	}
	s.serial++
	binary.BigEndian.PutUint64(r.ID[:], s.serial)
	if d := s.do(r); d.Lease != nil {
		s.held = append(s.held, r.ID)
	} else if d.Waiter != nil {
		s.waits = append(s.waits, r.ID)
	}
}

// change has an acquire come, give up, or be served.
func (s *lineStory) change(t *rapid.T) {
	switch rapid.IntRange(0, 2).Draw(t, "change") {
	case 0:
		s.come(t)
	case 1:
		id := rapid.SampledFrom(s.waits).Draw(t, "gives up")
		s.do(&Cancel{ID: id})
		delete(s.throughout, id)
	case 2:
		if len(s.held) == 0 {
			return
		}
		s.do(&End{ID: s.held[0], Cause: CauseReleased})
		s.held = s.held[1:]
		for d := s.do(&Serve{}); d.Lease != nil; d = s.do(&Serve{}) {
			s.held = append(s.held, d.Lease.ID)
			delete(s.throughout, d.Lease.ID)
		}
	}
}

// Whatever comes, leaves and is served between two steps of a walk along those that wait, by priorities or not: each
// that waits throughout is met once, in the order, at the place that it has then.
func TestLineMeetsEachOnce(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var rules []Policy
		if rapid.Bool().Draw(t, "rules") {
			rules = append(rules, Policy{Name: "p", Match: Match{UID: []UIDs{{2, 2}}}, Priority: 2})
		}
		s := &lineStory{e: New(Options{}), now: time.Date(2026, 1, 5, 12, 0, 0, 0, time.UTC),
			throughout: map[LeaseID]bool{}}
		s.do(&SetPolicies{NewPolicies(rules)})
		s.do(&SetVerdict{&Verdict{State: StateValid, Code: Valid, Pools: map[string]PoolGrant{
			"a": {Name: "a", Limit: 2, Budget: 2}, "b": {Name: "b", Limit: 2, Budget: 2}}}})
		for range rapid.IntRange(3, 12).Draw(t, "waiters") {
			s.come(t)
		}
		for id := range s.e.waiters {
			s.throughout[id] = true
		}
		l, other := s.e.Line("a"), s.e.Line("a")
		met := map[LeaseID]int{}
		for more := true; more; {
			var places []Place
			places, more = l.AppendNext(nil, rapid.IntRange(1, 4).Draw(t, "step"))
			at := map[LeaseID]int{}
			for i, w := range s.inOrder() { // all wait for a
				at[w.ID] = i + 1
			}
			for _, p := range places {
				if at[p.ID] != p.Position || p.Pool != "a" {
					t.Fatalf("%v is met at place %d of %s, and has place %d", p.ID, p.Position, p.Pool, at[p.ID])
				}
				met[p.ID]++
			}
			other.AppendNext(nil, rapid.IntRange(0, 2).Draw(t, "step of another"))
			for range rapid.IntRange(0, 3).Draw(t, "changes") {
				s.change(t)
			}
		}
		for id := range s.throughout {
			if met[id] != 1 {
				t.Fatalf("%v waits throughout, and is met %d times", id, met[id])
			}
		}
		if other.Close(); len(s.e.lines) > 0 {
			t.Fatal("a walk that is over is under way")
		}
	})
}

// New rules end a walk: all places may be others.
func TestRulesEndALine(t *testing.T) {
	e, now := seated(t, PoolGrant{Limit: 1, Budget: 1}, Policy{Name: "l", Linger: time.Minute})
	for id := range byte(4) {
		act(t, e, wants(id, uint32(id), 1, time.Hour), now)
	}
	l := e.Line("streams")
	if some, more := l.AppendNext(nil, 1); len(some) != 1 || !more || some[0].Position != 1 {
		t.Fatalf("got %+v, %v", some, more)
	}
	act(t, e, &SetPolicies{}, now)
	if some, more := l.AppendNext(nil, 9); len(some) != 0 || more {
		t.Errorf("got %+v, %v", some, more)
	}
	if q := e.Queues(); !slices.Equal(q, []string{"streams"}) {
		t.Errorf("others wait for %q", q)
	}
}
