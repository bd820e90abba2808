package enforcer

import (
	"strings"
	"testing"
	"time"
)

// A share grows and lapses. A request for more than it waits, and is served as it grows. Leases beyond a share that has
// lapsed are treated as on_expiry says of a limit that shrank.
func TestShares(t *testing.T) {
	site := func(share Limit, then OnExpiry) *Verdict {
		f := factsWith(doc("a.lic", unbound, streams(4), func(l *License) { l.OnExpiry = then }))
		f.Budgets = map[Share]Limit{{"usher/L1", "streams"}: share}
		return Judge(f, noon)
	}
	e, now := New(Options{}), noon
	do := func(r Request) Decision {
		d := e.Decide(r, now)
		for _, ev := range d.Events {
			e.Apply(ev)
		}
		return d
	}
	acquire := func(id byte, n int64, wait time.Duration) Decision {
		return do(&Acquire{ID: LeaseID{id}, Pool: "streams", N: n, Lifetime: LifetimeHeld, Wait: wait})
	}
	do(&SetVerdict{site(1, Revoke)})
	if d := acquire(1, 1, 0); d.Lease == nil {
		t.Fatalf("of a share of 1: %v", d.Denial)
	}
	if d := acquire(2, 1, 0); d.Denial == nil || d.Denial.Code != NoSlots ||
		!strings.Contains(d.Denial.Detail, "1 of 1 slots are in use of this agent's share of the site's 4") {
		t.Fatalf("beyond the share: %+v", d.Denial)
	} else {
		for _, c := range []struct {
			out, idle int64
			says      string
		}{{3, 2, "; other hosts have 3, of which 2 lie idle"}, {3, 0, "; other hosts have 3, and use them"},
			{0, 0, "more"}} {
			if said := d.Denial.Elsewhere(c.out, c.idle, ""); !strings.HasSuffix(said.Detail, c.says) ||
				said.Code != NoSlots {
				t.Errorf("%d elsewhere, %d idle: %q", c.out, c.idle, said.Detail)
			}
		}
		if other := (&Denial{Code: NoSlots, Detail: "full"}).Elsewhere(3, 2, "berlin"); other.Detail != "full" {
			t.Errorf("of a pool that is no share: %q", other.Detail)
		}
	}
	if d := acquire(3, 5, time.Minute); d.Denial == nil {
		t.Error("more than the site has is waited for")
	}
	if d := acquire(4, 3, time.Minute); d.Waiter == nil {
		t.Fatalf("what the share may grow to is not waited for: %v", d.Denial)
	}
	do(&SetVerdict{site(3, Revoke)})
	if d := do(&Serve{Recheck: true}); d.Lease != nil || e.Waiting() != 1 {
		t.Fatalf("3 slots of 3, with one in use: %+v", d)
	}
	now = now.Add(time.Second)
	do(&SetVerdict{site(4, Revoke)})
	if d := do(&Serve{Recheck: true}); d.Lease == nil {
		t.Fatal("the share has grown, and who waited is not served")
	}
	// The block lapses: nothing new, and the youngest go first, after the delay.
	do(&SetVerdict{site(1, Revoke)})
	if d := acquire(5, 1, 0); d.Denial == nil {
		t.Error("granted of a share that has lapsed")
	}
	now = now.Add(RevokeDelay)
	do(&Tick{})
	if _, held := e.Lease(LeaseID{4}); held {
		t.Error("what is beyond the share is held after the delay")
	}
	if _, held := e.Lease(LeaseID{1}); !held {
		t.Error("what is within the share was revoked")
	}
	do(&SetVerdict{site(0, Drain)})
	now = now.Add(time.Hour)
	do(&Tick{})
	if _, held := e.Lease(LeaseID{1}); !held {
		t.Error("drain: what is held was revoked")
	}
}

func TestSitePools(t *testing.T) {
	l := doc("a.lic", unbound, func(l *License) {
		l.Pools = map[string]PoolTerm{"a": {Max: 4, Overage: 1}, "b": {Max: 4, Scope: ScopeHost}, "c": {Max: Unlimited},
			"d": {}}
	}).License
	if got := l.SitePools(); len(got) != 1 || got["a"] != 5 {
		t.Errorf("got %v", got)
	}
	l.AgentKeys = []string{"k"}
	l.Pools["a"] = PoolTerm{Max: 4, Scope: ScopeSite}
	if got := l.SitePools(); len(got) != 0 {
		t.Errorf("of one agent's: %v", got)
	}
}

// Draws taken of a site meter may be drawn in their own period, and no more. A request for more than that, but not for
// more than the site has, succeeds once more is taken.
func TestTaken(t *testing.T) {
	e, now := New(Options{Durable: true}), noon
	judge := func(n Limit, period time.Time) {
		f := factsWith(doc("a.lic", unbound, func(l *License) {
			l.Meters = map[string]MeterTerm{"renders": {Max: 9, Scope: ScopeSite, Resets: ResetsWeekly}}
		}))
		f.Draws = map[Share]Taken{{"usher/L1", "renders"}: {n, period}}
		for _, ev := range e.Decide(&SetVerdict{Judge(f, now)}, now).Events {
			e.Apply(ev)
		}
	}
	id := byte(0)
	draw := func(n int64) *Denial {
		id++
		d := e.Decide(&Acquire{ID: LeaseID{id}, Pool: "renders", N: n}, now)
		for _, ev := range d.Events {
			e.Apply(ev)
		}
		return d.Denial
	}
	week := ResetsWeekly.Start(now)
	judge(3, week)
	if d := draw(3); d != nil {
		t.Fatalf("3 of 3: %v", d)
	}
	if d := draw(6); d == nil || d.Code != MeterEmpty || !d.MayGrow ||
		!strings.Contains(d.Detail, "0 of the 3 draws that this agent has taken of the site's 9 are left") {
		t.Errorf("beyond what was taken: %+v", d)
	} else if said := d.Elsewhere(6, 0, ""); said.Idle != 0 ||
		!strings.HasSuffix(said.Detail, "other hosts have taken 6, and none is left to take") ||
		!strings.HasPrefix(said.Hint, "the meter starts again at") {
		t.Errorf("where other hosts have taken the rest: %q, %q", said.Detail, said.Hint)
	}
	if d := draw(7); d == nil || d.MayGrow || strings.Contains(d.Hint, "takes more") {
		t.Errorf("beyond what the site has: %+v", d)
	}
	judge(4, week)
	now = week.AddDate(0, 0, 7)
	if d := draw(1); d == nil || !d.MayGrow {
		t.Errorf("in the next week, of what was taken in this: %+v", d)
	}
	judge(1, ResetsWeekly.Start(now))
	if d := draw(1); d != nil {
		t.Errorf("what was taken in the next week: %v", d)
	}
	if got := (&License{Meters: map[string]MeterTerm{"a": {Max: 2, Overage: 1, Scope: ScopeSite},
		"b": {Max: 2, Scope: ScopeHost}}}).SiteMeters(); len(got) != 1 || got["a"] != 3 {
		t.Errorf("site meters: %v", got)
	}
}

// What is held of a share whose time is over runs on as far as it is kept, and nothing is granted of it. What is beyond
// that is revoked, whatever the licence says, after the delay.
func TestKeptShares(t *testing.T) {
	site := func(share, kept Limit, bounded bool) *Verdict {
		f := factsWith(doc("a.lic", unbound, streams(4)))
		f.Budgets = map[Share]Limit{{"usher/L1", "streams"}: share}
		if bounded {
			f.Kept = map[Share]Limit{{"usher/L1", "streams"}: kept}
		}
		return Judge(f, noon)
	}
	e, now := New(Options{}), noon
	do := func(r Request) Decision {
		d := e.Decide(r, now)
		for _, ev := range d.Events {
			e.Apply(ev)
		}
		return d
	}
	held := func() (n int64) { p, _ := e.Pool("streams", now); return p.InUse }
	take := func(id byte, n int64) *Denial {
		return do(&Acquire{ID: LeaseID{id}, Pool: "streams", N: n, Lifetime: LifetimeHeld}).Denial
	}
	do(&SetVerdict{site(4, 0, false)})
	if d := take(1, 3); d != nil {
		t.Fatal(d)
	}
	do(&SetVerdict{site(0, 4, true)})
	if d := take(2, 1); d == nil || d.Code != NoSlots {
		t.Errorf("of what is kept: %v", d)
	}
	now = now.Add(time.Hour)
	if do(&Tick{}); held() != 3 {
		t.Error("what is kept was revoked")
	}
	do(&SetVerdict{site(0, 0, true)})
	now = now.Add(RevokeDelay - 1)
	if do(&Tick{}); held() != 3 {
		t.Error("what is kept no more was revoked before the delay")
	}
	now = now.Add(1)
	if do(&Tick{}); held() != 0 {
		t.Error("what is kept no more is held after the delay")
	}
	do(&SetVerdict{site(4, 0, false)})
	if d := take(3, 3); d != nil {
		t.Fatal(d)
	}
	do(&SetVerdict{site(1, 0, false)}) // a limit that shrinks
	now = now.Add(time.Hour)
	if do(&Tick{}); held() != 3 {
		t.Error("drain: what is held was revoked")
	}
	do(&Release{ID: LeaseID{3}})
	do(&SetVerdict{site(4, 0, false)})
	for id := byte(4); id < 8; id++ {
		if d := take(id, 1); d != nil {
			t.Fatal(d)
		}
	}
	do(&SetVerdict{site(0, 3, true)}) // of what is kept, less than is held
	now = now.Add(RevokeDelay)
	if do(&Tick{}); held() != 3 {
		t.Errorf("3 may stay held, and %d of 4 are", held())
	}
}
