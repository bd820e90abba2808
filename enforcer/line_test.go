package enforcer

import (
	"encoding/binary"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// Whatever comes, leaves and is served between two steps of a walk along those that wait, by priorities or not: each
// that waits throughout is met once, in the order, at the place that it has then.
func TestLineMeetsEachOnce(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var rules []Policy
		if rapid.Bool().Draw(t, "rules") {
			rules = append(rules, Policy{Name: "p", Match: Match{UID: []UIDs{{2, 2}}}, Priority: 2})
		}
		e, now := New(Options{}), time.Date(2026, 1, 5, 12, 0, 0, 0, time.UTC)
		do := func(r Request) (d Decision) {
			d = e.Decide(r, now)
			for _, ev := range d.Events {
				e.Apply(ev)
			}
			return d
		}
		do(&SetPolicies{NewPolicies(rules)})
		do(&SetVerdict{&Verdict{State: StateValid, Code: Valid, Pools: map[string]PoolGrant{
			"a": {Name: "a", Limit: 2, Budget: 2}, "b": {Name: "b", Limit: 2, Budget: 2}}}})
		var serial uint64
		var held, waits []LeaseID
		come := func() {
			now = now.Add(time.Duration(rapid.IntRange(0, 100).Draw(t, "later")) * time.Second)
			r := &Acquire{Caller: Caller{UID: rapid.Uint32Range(1, 2).Draw(t, "uid")}, Lifetime: LifetimeHeld,
				Wait: MaxWait, Items: []Item{{Pool: "a", N: 1}}}
			if rapid.IntRange(0, 3).Draw(t, "of two") == 0 {
				r.Items = append(r.Items, Item{Pool: "b", N: 1})
			}
			serial++
			binary.BigEndian.PutUint64(r.ID[:], serial)
			if d := do(r); d.Lease != nil {
				held = append(held, r.ID)
			} else if d.Waiter != nil {
				waits = append(waits, r.ID)
			}
		}
		for range rapid.IntRange(3, 12).Draw(t, "waiters") {
			come()
		}
		throughout := map[LeaseID]bool{}
		for id := range e.waiters {
			throughout[id] = true
		}
		l := e.Line("a")
		var met []LeaseID
		for more := true; more; {
			var places []Place
			places, more = l.AppendNext(nil, rapid.IntRange(1, 4).Draw(t, "step"))
			at := map[LeaseID]int{}
			for i, q := range e.Queue() { // all wait for a
				at[q.ID] = i + 1
			}
			for _, p := range places {
				if at[p.ID] != p.Position || p.Pool != "a" {
					t.Fatalf("%v is met at place %d of %s, and has place %d", p.ID, p.Position, p.Pool, at[p.ID])
				}
				met = append(met, p.ID)
			}
			for range rapid.IntRange(0, 3).Draw(t, "changes") {
				switch rapid.IntRange(0, 2).Draw(t, "change") {
				case 0:
					come()
				case 1:
					id := rapid.SampledFrom(waits).Draw(t, "gives up")
					do(&Cancel{ID: id})
					delete(throughout, id)
				case 2:
					if len(held) == 0 {
						continue
					}
					do(&End{ID: held[0], Cause: CauseReleased})
					held = held[1:]
					for d := do(&Serve{}); d.Lease != nil; d = do(&Serve{}) {
						held = append(held, d.Lease.ID)
						delete(throughout, d.Lease.ID)
					}
				}
			}
		}
		for id := range throughout {
			n := 0
			for _, m := range met {
				if m == id {
					n++
				}
			}
			if n != 1 {
				t.Fatalf("%v waits throughout, and is met %d times", id, n)
			}
		}
		if e.line != nil || !slices.Contains(append(e.Queues(), "a"), "a") {
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
