package enforcer

import (
	"encoding/binary"
	"math"
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

// A caller that was told no because its grant could not be delivered may ask again with the same client token, also
// over a restart.
func TestTokenOfWhatWasUndelivered(t *testing.T) {
	e := New(Options{})
	var journal []Event
	now := time.Date(2026, 1, 5, 12, 0, 0, 0, time.UTC)
	do := func(r Request) Decision {
		d := e.Decide(r, now)
		for _, ev := range d.Events {
			if e.Apply(ev); ev.Kind != EventVerdict {
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
	do(&End{ID: LeaseID{1}, Cause: CauseUndelivered})
	if d := acquire(2); d.Lease == nil || d.Replayed {
		t.Fatalf("asked again: %+v", d.Denial)
	}
	e = New(Options{})
	for _, ev := range journal {
		e.Apply(ev)
	}
	do(&SetVerdict{v})
	if d := acquire(3); !d.Replayed || d.Lease.ID != (LeaseID{2}) {
		t.Errorf("after a restart it is answered with %+v", d)
	}
}

// The time is set back by more than a day after a draw. Its token is forgotten when its day is over and used again, and
// a snapshot that was made in between and the journal tell of both draws: the later one counts.
func TestTokenUsedAgainAfterTheTimeWasSetBack(t *testing.T) {
	now := time.Date(2026, 1, 5, 12, 0, 0, 0, time.UTC)
	e := New(Options{Durable: true})
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
	v := &Verdict{State: StateValid, Code: Valid,
		Meters: map[string]MeterGrant{"m": {Name: "m", Key: "L/m", Limit: 9, Budget: 9}}}
	draw := func(id byte) Decision {
		return do(&Acquire{ID: LeaseID{id}, Caller: Caller{UID: 1}, Pool: "m", N: 1, Token: "t"})
	}
	do(&SetVerdict{v})
	draw(1)
	now = now.Add(-25 * time.Hour)
	do(&Step{By: -25 * time.Hour})
	all, _ := e.Snapshot().Next(math.MaxInt)
	journal = append([]Event{{Kind: EventSet, Draws: e.Meters()}}, all.Tokens...)
	now = now.Add(TokenKept)
	do(&Tick{})
	if d := draw(2); d.Lease == nil || d.Replayed {
		t.Fatalf("a token whose day is over is not free again: %+v", d)
	}
	e = New(Options{Durable: true})
	for _, ev := range journal {
		e.Apply(ev)
	}
	do(&SetVerdict{v})
	if d := draw(3); !d.Replayed || d.Lease.ID != (LeaseID{2}) {
		t.Fatalf("a draw is repeated: %+v", d)
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
		do(&SetVerdict{&Verdict{State: StateValid, Code: Valid, OnExpiry: Revoke,
			Pools: map[string]PoolGrant{"a": {Name: "a", Limit: n, Budget: n, CountBy: CountProcess}}}})
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

// Two journals are read one after the other: of two leases of one token the later counts, in whichever it stands.
func TestTokenInTwoJournals(t *testing.T) {
	now := time.Date(2026, 1, 5, 12, 0, 0, 0, time.UTC)
	token := &ClientToken{Key: TokenKey{1}, Request: [32]byte{2}}
	lease := func(id byte, l Lifetime, at time.Time) *Lease {
		return &Lease{ID: LeaseID{id}, Items: []Item{{Pool: "a", N: 1}}, Lifetime: l, AcquiredAt: at, Holder: &Holder{},
			Token: token}
	}
	early, late := lease(1, LifetimeProcess, now), lease(2, LifetimeHeld, now.Add(TokenKept))
	runtime := []Event{{Kind: EventGranted, Lease: early}, {Kind: EventEnded, Lease: early, Cause: CauseHolderGone}}
	durable := []Event{{Kind: EventGranted, Lease: late}}
	for _, journals := range [][2][]Event{{runtime, durable}, {durable, runtime}} {
		e := New(Options{})
		for _, j := range journals {
			for _, ev := range j {
				e.Apply(ev)
			}
		}
		if r := e.tokens[token.Key]; len(e.tokens) != 1 || len(e.memory.heap) != 1 || r.lease.ID != late.ID ||
			r.ended != "" {
			t.Errorf("remembered: %+v", r)
		}
	}
}

// An agent that starts under a licence that has expired revokes what it finds by that licence's word.
func TestRevokedAfterRestart(t *testing.T) {
	now := time.Date(2026, 1, 5, 12, 0, 0, 0, time.UTC)
	for policy, want := range map[OnExpiry]time.Time{Revoke: now.Add(RevokeDelay), Drain: now.Add(time.Hour),
		Keep: {}} {
		e := New(Options{})
		e.Apply(Event{Kind: EventGranted,
			Lease: &Lease{ID: LeaseID{1}, Items: []Item{{Pool: "a", N: 1}}, Lifetime: LifetimeHeld,
				AcquiredAt: now, Holder: &Holder{}}})
		for _, ev := range e.Decide(&SetVerdict{&Verdict{State: StateExpired, Code: Expired, OnExpiry: policy,
			TerminatesAt: now.Add(time.Hour)}}, now).Events {
			e.Apply(ev)
		}
		if l, _ := e.Lease(LeaseID{1}); !l.RevokeAt.Equal(want) {
			t.Errorf("%s: revoked at %v, want %v", policy, l.RevokeAt, want)
		}
	}
}

// The count of draws never overflows, with a limit or without.
func TestMeterNeverOverflows(t *testing.T) {
	now := time.Date(2026, 1, 5, 12, 0, 0, 0, time.UTC)
	for _, limit := range []Limit{Unlimited, math.MaxInt64} {
		e := New(Options{Durable: true})
		e.Apply(Event{Kind: EventVerdict, Verdict: &Verdict{State: StateValid, Code: Valid,
			Meters: map[string]MeterGrant{"m": {Name: "m", Key: "L/m", Limit: limit, Budget: limit, Overage: 5}}}})
		e.Apply(Event{Kind: EventSet, Draws: []Draw{{Key: "L/m", Drawn: math.MaxInt64 - 3}}})
		if d := e.Decide(&Acquire{Pool: "m", N: 4}, now); d.Denial == nil || d.Denial.Code != MeterEmpty {
			t.Errorf("limit %v: 4 of 3 are drawn: %+v", limit, d.Events)
		}
		d := e.Decide(&Acquire{Pool: "m", N: 4, MinN: 1}, now)
		if d.Denial != nil || d.Lease.Items[0].N != 3 || d.Events[0].Draws[0].Drawn != math.MaxInt64 {
			t.Errorf("limit %v: the last 3: %+v, %v", limit, d.Events, d.Denial)
		}
	}
}

// BenchmarkQueue is a release that serves the first of 100,000 who wait, and one in the middle who gives up.
func BenchmarkQueue(b *testing.B) {
	now := time.Date(2026, 1, 5, 12, 0, 0, 0, time.UTC)
	const many = 100_000
	e := New(Options{MaxWaiters: many + 1})
	do := func(r Request) {
		for _, ev := range e.Decide(r, now).Events {
			e.Apply(ev)
		}
	}
	do(&SetVerdict{&Verdict{State: StateValid, Code: Valid,
		Pools: map[string]PoolGrant{"a": {Name: "a", Limit: 1, Budget: 1}}}})
	id := func(n int) (id LeaseID) {
		binary.BigEndian.PutUint64(id[:], uint64(n))
		return id
	}
	next := 0
	join := func() {
		do(&Acquire{ID: id(next), Pool: "a", N: 1, Lifetime: LifetimeHeld, Wait: MaxWait})
		next++
	}
	for range many + 1 {
		join()
	}
	holder := 0
	for b.Loop() {
		do(&End{ID: id(holder), Cause: CauseReleased})
		do(&Serve{})
		holder++
		join()
		middle := id(next - many/2)
		if e.waiters[middle] != nil {
			do(&Cancel{ID: middle})
			join()
		}
		for e.must(id(holder)) == nil {
			holder++
		}
	}
}

// A co-holder that takes the place of the holder in doubt leaves once: its slot is not kept by one that is dead.
func TestCoHolderAttachesAndLeaves(t *testing.T) {
	now := time.Date(2026, 1, 5, 12, 0, 0, 0, time.UTC)
	e := New(Options{})
	do := func(r Request) Decision {
		d := e.Decide(r, now)
		for _, ev := range d.Events {
			e.Apply(ev)
		}
		return d
	}
	one, two := Caller{UID: 1, PID: 10, Start: 1}, Caller{UID: 1, PID: 11, Start: 1}
	do(&SetVerdict{&Verdict{State: StateValid, Code: Valid,
		Pools: map[string]PoolGrant{"a": {Name: "a", Limit: 5, Budget: 5}}}})
	id := LeaseID{1}
	do(&Acquire{ID: id, Pool: "a", N: 1, Lifetime: LifetimeProcess, Caller: one})
	do(&Doubt{ID: id, Until: now.Add(time.Minute)})
	do(&Join{ID: id, Caller: two})
	if d := do(&Attach{ID: id, Caller: two}); d.Denial != nil {
		t.Fatal(d.Denial)
	}
	do(&Leave{ID: id, Holder: two})
	if p, _ := e.Pool("a", now); p.InUse != 0 {
		t.Errorf("%d slots are held by nobody", p.InUse)
	}
}
