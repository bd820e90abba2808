package enforcer

import (
	"testing"
	"time"
)

// A token that was forgotten is used again, and the journal, which is not told of forgetting, tells of both leases.
func TestTokenUsedAgainAfterRecovery(t *testing.T) {
	now := time.Date(2026, 1, 5, 12, 0, 0, 0, time.UTC)
	e := New(Options{})
	var journal []Event
	do := func(r Request) Decision {
		d := e.Decide(r, now)
		for _, ev := range d.Events {
			e.Apply(ev)
			if ev.Durable() && ev.Kind != EventForgot {
				journal = append(journal, ev)
			}
		}
		return d
	}
	v := &Verdict{State: StateValid, Code: Valid, Pools: map[string]PoolGrant{"a": {Name: "a", Limit: 5, Budget: 5}}}
	do(&SetVerdict{v})
	acquire := func(id byte) Decision {
		return do(&Acquire{ID: LeaseID{id}, Pool: "a", N: 1, Lifetime: LifetimeHeld, Token: "t"})
	}
	acquire(1)
	do(&End{ID: LeaseID{1}, Cause: CauseReleased})
	now = now.Add(TokenKept)
	do(&Tick{})
	if d := acquire(2); d.Lease == nil || d.Replayed {
		t.Fatalf("a forgotten token is not free again: %+v", d)
	}
	e = New(Options{})
	for _, ev := range journal {
		e.Apply(ev)
	}
	do(&SetVerdict{v})
	if d := acquire(2); !d.Replayed {
		t.Fatalf("a token was forgotten over a restart: %+v", d)
	}
	pass := func() {
		now = now.Add(TokenKept)
		for at := e.NextTick(); !at.IsZero() && !at.After(now); at = e.NextTick() {
			if len(do(&Tick{}).Events) == 0 {
				t.Fatal("a tick is due and does nothing")
			}
		}
	}
	pass()
	if d := acquire(3); !d.Replayed {
		t.Fatalf("a held lease's token was forgotten: %+v", d)
	}
	do(&End{ID: LeaseID{2}, Cause: CauseReleased})
	pass()
	if d := acquire(4); d.Lease == nil || d.Replayed {
		t.Fatalf("a token is remembered for longer than it is kept: %+v", d)
	}
}

// Attaching can bring a pool back under a limit that it was over: nothing is due then.
func TestAttachEndsAnExcess(t *testing.T) {
	now := time.Date(2026, 1, 5, 12, 0, 0, 0, time.UTC)
	e := New(Options{})
	do := func(r Request) Decision {
		d := e.Decide(r, now)
		for _, ev := range d.Events {
			e.Apply(ev)
		}
		if d.Denial != nil {
			t.Fatal(d.Denial)
		}
		return d
	}
	licence := func(n Limit) {
		do(&SetVerdict{&Verdict{State: StateValid, Code: Valid, OnExpiry: Revoke, Pools: map[string]PoolGrant{"a": {Name: "a", Limit: n, Budget: n, CountBy: CountProcess}}}})
	}
	licence(2)
	one, two := Caller{UID: 1, PID: 1, Start: 1}, Caller{UID: 1, PID: 2, Start: 1}
	do(&Acquire{ID: LeaseID{1}, Caller: one, Pool: "a", N: 1, Lifetime: LifetimeProcess})
	do(&Acquire{ID: LeaseID{2}, Caller: two, Pool: "a", N: 1, Lifetime: LifetimeProcess})
	licence(1)
	do(&Doubt{ID: LeaseID{2}, Until: now.Add(time.Hour)})
	do(&Attach{ID: LeaseID{2}, Caller: one})
	now = now.Add(RevokeDelay)
	if at := e.NextTick(); !at.IsZero() && !at.After(now) && len(do(&Tick{}).Events) == 0 {
		t.Errorf("a tick is due at %v and does nothing", at)
	}
}
