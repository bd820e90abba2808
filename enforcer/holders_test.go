package enforcer

import "testing"

// Processes that are not visible have the number 0, all of them: their inodes tell them apart.
func TestInvisibleHolders(t *testing.T) {
	e := New(Options{})
	do := func(r Request) Decision {
		t.Helper()
		d := e.Decide(r, noon)
		if d.Denial != nil {
			t.Fatalf("%T: %v", r, d.Denial)
		}
		for _, ev := range d.Events {
			e.Apply(ev)
		}
		return d
	}
	do(&SetVerdict{&Verdict{State: StateValid, Code: Valid,
		Pools: map[string]PoolGrant{"streams": {Limit: 4, Budget: 4, CountBy: CountProcess}}}})
	one, two, seen := Caller{UID: 7, Inode: 1}, Caller{UID: 7, Inode: 2}, Caller{UID: 7, PID: 9, Start: 5}
	id := LeaseID{1}
	acquire := func(id LeaseID, c Caller) {
		do(&Acquire{ID: id, Pool: "streams", N: 1, Lifetime: LifetimeProcess, Caller: c})
	}
	acquire(id, one)
	if l := do(&Join{ID: id, Caller: two}).Lease; len(l.Others) != 1 {
		t.Fatalf("a second process joined, and the lease has %d co-holders", len(l.Others))
	}
	acquire(LeaseID{2}, one)
	acquire(LeaseID{3}, two)
	if p, _ := e.Pool("streams", noon); p.InUse != 2 {
		t.Errorf("two processes use %d slots, counted by process", p.InUse)
	}
	do(&Leave{ID: id, Holder: one})
	if l, held := e.Lease(id); !held || l.Holder.Inode != 2 {
		t.Fatalf("the first left, and the lease is %+v, held %v", l, held)
	}
	do(&Leave{ID: id, Holder: one}) // again: it left before
	if _, held := e.Lease(id); !held {
		t.Error("one left twice, and the other's lease ended")
	}
	do(&Leave{ID: id, Holder: two})
	if _, held := e.Lease(id); held {
		t.Error("both left, and the lease is held")
	}
	// One that is visible is the same, whether its inode is known or not.
	acquire(LeaseID{4}, seen)
	seen.Inode = 3
	do(&Leave{ID: LeaseID{4}, Holder: seen})
	if _, held := e.Lease(LeaseID{4}); held {
		t.Error("a process left, and its lease is held")
	}
}

// A token that a caller acquired with for a process serves that process alone.
func TestTokenOfANamedProcess(t *testing.T) {
	c := newCrowd(Options{}, PoolGrant{Name: "p", Limit: 4, Budget: 4})
	acquire := func(by Caller, life Lifetime) Decision {
		return c.ask(&Acquire{Pool: "p", N: 1, Lifetime: life, Named: true, Caller: by, Token: "t"})
	}
	one, two := Caller{UID: 7, PID: 5, Start: 7, Inode: 50}, Caller{UID: 7, PID: 6, Start: 9, Inode: 60}
	first := acquire(one, LifetimeProcess)
	if again := acquire(one, LifetimeProcess); first.Denial != nil || !again.Replayed ||
		again.Lease.ID != first.Lease.ID {
		t.Fatalf("named again: %+v, and at first %+v", again, first)
	}
	recycled := one
	recycled.Start, recycled.Inode = 8, 51
	for _, other := range []Caller{two, recycled, {UID: 7}} {
		if d := acquire(other, LifetimeProcess); d.Denial == nil || d.Denial.Code != TokenReused {
			t.Errorf("process %+v got the lease of another: %+v", other, d)
		}
	}
	if d := c.ask(&Join{ID: first.Lease.ID, Caller: two}); d.Denial != nil {
		t.Fatal(d.Denial)
	}
	if d := acquire(two, LifetimeProcess); !d.Replayed {
		t.Errorf("a co-holder's retry: %+v", d)
	}
	if d := acquire(one, LifetimeTTL); d.Denial == nil || d.Denial.Field != "lifetime" {
		t.Errorf("a process that is named, with a time to live: %+v", d)
	}
}
