package enforcer

import (
	"slices"
	"testing"
	"time"
)

// The events of a decision lie in the room that its request gives. A request that waits is kept, and so it takes none:
// its caller uses the room for others meanwhile.
func TestRoom(t *testing.T) {
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	e := New(Options{})
	decide := func(r Request) Decision {
		dec := e.Decide(r, now)
		for _, ev := range dec.Events {
			e.Apply(ev)
		}
		return dec
	}
	decide(&SetVerdict{Verdict: &Verdict{State: StateValid, Code: Valid,
		Pools: map[string]PoolGrant{"streams": {Name: "streams", Limit: 1, Budget: 1}}}})
	var room Room
	lies := func(dec Decision) bool { return len(dec.Events) == 1 && &dec.Events[0] == &room.events[0] }
	if dec := decide(&Acquire{ID: LeaseID{1}, Pool: "streams", N: 1, Room: &room}); !lies(dec) {
		t.Errorf("the events of a grant are %+v", dec.Events)
	}
	if dec := decide(&Acquire{ID: LeaseID{2}, Pool: "streams", N: 1, Wait: time.Hour, Room: &room}); lies(dec) ||
		dec.Waiter == nil {
		t.Errorf("the events of an acquire that waits are %+v", dec.Events)
	}
	if dec := decide(&Release{ID: LeaseID{1}, Room: &room}); !lies(dec) {
		t.Errorf("the events of a release are %+v", dec.Events)
	}
	if dec := decide(&Serve{}); lies(dec) || dec.Lease == nil {
		t.Errorf("the events of a grant to a waiter are %+v", dec.Events)
	}
}

// No allocation but the lease and its place is made by an acquire and its release, where the caller holds another.
func TestCoreAllocations(t *testing.T) {
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	e := New(Options{})
	e.Apply(Event{Kind: EventVerdict, At: now, Verdict: &Verdict{State: StateValid, Code: Valid,
		Pools: map[string]PoolGrant{"streams": {Name: "streams", Limit: Unlimited, Budget: Unlimited}}}})
	for _, n := range []int64{1, 3} {
		var room Room
		ask := Acquire{Pool: "streams", N: n, Caller: Caller{UID: 7, PID: 8}, Lifetime: LifetimeProcess, Room: &room}
		id := byte(0)
		var giveUp Release
		pair := func() {
			id = id%200 + 1
			ask.ID = LeaseID{id}
			e.Apply(e.Decide(&ask, now).Events[0])
			giveUp = Release{ID: ask.ID, Caller: ask.Caller, Room: &room}
			e.Apply(e.Decide(&giveUp, now).Events[0])
		}
		if got := testing.AllocsPerRun(100, pair); got > 4 { // the caller holds no other: its holder is made, too
			t.Errorf("an acquire of %d slots and its release make %v allocations", n, got)
		}
		ask.ID = LeaseID{255} // another one of the caller's stands all the while
		e.Apply(e.Decide(&ask, now).Events[0])
		if got := testing.AllocsPerRun(100, pair); got > 2 {
			t.Errorf("an acquire of %d slots and its release make %v allocations beside another lease", n, got)
		}
		e.Apply(e.Decide(&Release{ID: LeaseID{255}, Caller: ask.Caller}, now).Events[0])
	}
}

// The heap of ends keeps its order beyond the years that nanoseconds can tell.
func TestEndsBeyondNanoseconds(t *testing.T) {
	var p pool
	years := []int{3000, 2026, 2500, 1200, 9000, 2300, 1500}
	for _, y := range years {
		p.push(&held{Lease: &Lease{ExpiresAt: time.Date(y, 1, 1, 0, 0, 0, 0, time.UTC)}}, 0)
	}
	var got []int
	for p.expiry.len() > 0 {
		first := p.first()
		got = append(got, first.ExpiresAt.Year())
		p.drop(first, 0)
	}
	if !slices.IsSorted(got) || len(got) != len(years) {
		t.Errorf("the leases end in the years %v", got)
	}
}
