package enforcer

import (
	"strings"
	"testing"
	"time"
)

// pausable is a licence with a pool and a meter, and pausing the facts of it with an upstream's word of an hour ago.
func pausable(checkIn Period) *License {
	return &License{ID: "L1", System: "usher", Product: "acme", Issued: noon.Add(-aDay), OnExpiry: Revoke,
		CheckIn: checkIn,
		Pools:   map[string]PoolTerm{"streams": {Max: 4, Scope: ScopeHost}},
		Meters:  map[string]MeterTerm{"pages": {Max: 9, Adjustable: true, Scope: ScopeHost}}}
}

func pausing(l *License, u Upstream) Facts {
	u.Activated, u.LastCheckIn = noon.Add(-time.Hour), noon.Add(-time.Hour)
	return Facts{Products: []string{"acme"}, Documents: []Document{{Name: "a.lic", License: l}},
		Upstream: map[Ref]Upstream{l.Ref(): u}}
}

// away is the word of an upstream that is not available.
var away = Upstream{Refused: Unavailable, RefusedReason: "its provider says so", Paused: true}

// TestUnavailablePauses: a licence that its upstream calls unavailable, and has called good before, stays good for as
// long as its check-in allows.
func TestUnavailablePauses(t *testing.T) {
	period := Period{Every: 2 * time.Hour, Grace: time.Hour}

	v := Judge(pausing(pausable(period), away), noon)
	if v.Code != ValidInGrace || !strings.Contains(v.Reason, "its provider says so") || v.Paused != v.Reason ||
		v.Pools["streams"].Budget != 4 || v.Warnings[0].Code != WarnInGrace {
		t.Fatalf("within the period: %+v", v)
	}
	if v = Judge(pausing(pausable(period), away), noon.Add(2*time.Hour)); v.Good() || v.Code != Overdue {
		t.Errorf("after the check-in's grace: %s", v.Code)
	}
	if v = Judge(pausing(pausable(Period{}), away), noon.Add(100*aDay)); v.Code != ValidInGrace || v.Paused == "" {
		t.Errorf("a licence that demands no check-in: %s", v.Code)
	}
	away := away
	away.Paused = false
	if v = Judge(pausing(pausable(period), away), noon); v.Code != Unavailable || v.Paused != "" {
		t.Errorf("a licence that has never been good: %s", v.Code)
	}
}

// TestPausedGrantsNothing: no slots and no draws are granted meanwhile, waiters wait, and what is held stands.
func TestPausedGrantsNothing(t *testing.T) {
	period := Period{Every: 2 * time.Hour, Grace: time.Hour}
	e := New(Options{Durable: true})
	at := noon
	do := func(r Request) Decision {
		at = at.Add(time.Second)
		d := e.Decide(r, at)
		for _, ev := range d.Events {
			e.Apply(ev)
		}
		return d
	}
	caller := Caller{UID: 1000}
	acquire := func(id byte, wait time.Duration) Decision {
		return do(&Acquire{ID: LeaseID{id}, Caller: caller, Pool: "streams", N: 1, Lifetime: LifetimeHeld, Wait: wait})
	}
	good := Upstream{}
	do(&SetVerdict{Verdict: Judge(pausing(pausable(period), good), noon)})
	if d := acquire(1, 0); d.Denial != nil {
		t.Fatal(d.Denial)
	}
	do(&SetVerdict{Verdict: Judge(pausing(pausable(period), away), noon)})
	if d := acquire(2, 0); d.Denial == nil || d.Denial.Code != NoSlots ||
		!strings.Contains(d.Denial.Detail, "its provider says so") {
		t.Errorf("a new lease meanwhile: %+v", d.Denial)
	}
	for _, r := range []Request{&Acquire{ID: LeaseID{3}, Caller: caller, Pool: "pages", N: 1, Lifetime: LifetimeDraw},
		&Shift{Pool: "pages", By: 1, Caller: caller}} {
		if d := do(r); d.Denial == nil || d.Denial.Code != NoSlots {
			t.Errorf("%T meanwhile: %+v", r, d)
		}
	}
	if d := acquire(4, time.Hour); d.Waiter == nil {
		t.Fatalf("one that may wait: %+v", d)
	}
	if p, _ := e.Pool("streams", at); p.Available() != 0 || p.Limit != 4 ||
		!e.AppendPools(nil, e.PoolNames(), at)[0].Paused ||
		p.InUse != 1 {
		t.Errorf("the pool is %+v", p)
	}
	if e.Revoking() || do(&Serve{Recheck: true}).Events != nil {
		t.Error("the held lease is to be revoked, or the waiter is answered")
	}
	at = at.Add(time.Minute)
	do(&Tick{})
	if l, ok := e.Lease(LeaseID{1}); !ok || l.ID != (LeaseID{1}) {
		t.Error("the held lease is gone")
	}
	do(&SetVerdict{Verdict: Judge(pausing(pausable(period), good), noon)})
	if d := do(&Serve{Recheck: true}); len(d.Events) != 1 || d.Lease == nil || d.Lease.ID != (LeaseID{4}) {
		t.Errorf("when it is available again the waiter gets %+v", d)
	}
}
