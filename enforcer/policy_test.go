package enforcer

import (
	"encoding/binary"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
)

// seated is an enforcer with a pool of 4 slots, under rules.
func seated(t testing.TB, g PoolGrant, rules ...Policy) (*Enforcer, time.Time) {
	t.Helper()
	now := time.Date(2026, 5, 1, 8, 0, 0, 0, time.UTC)
	e := New(Options{Durable: true})
	g.Name, g.CountBy = "streams", CountLease
	act(t, e, &SetVerdict{&Verdict{State: StateValid, Code: Valid, MaxBorrow: 1000 * time.Hour,
		Pools: map[string]PoolGrant{"streams": g}}}, now)
	act(t, e, &SetPolicies{NewPolicies(rules)}, now)
	return e, now
}

// act has a request decided and carried out, and waiters served.
func act(t testing.TB, e *Enforcer, r Request, now time.Time) Decision {
	t.Helper()
	d := e.Decide(r, now)
	for _, ev := range d.Events {
		e.Apply(ev)
	}
	for s := e.Decide(&Serve{}, now); len(s.Events) > 0; s = e.Decide(&Serve{}, now) {
		for _, ev := range s.Events {
			e.Apply(ev)
		}
	}
	return d
}

func ofUID(uid uint32) Match { return Match{UID: []UIDs{{uid, uid}}} }

func wants(id byte, uid uint32, n int64, wait time.Duration) *Acquire {
	return &Acquire{ID: LeaseID{id}, Caller: Caller{UID: uid, PID: int32(id), Start: 1}, Pool: "streams", N: n,
		Lifetime: LifetimeHeld, Wait: wait}
}

// One that waits for many slots is not starved by others that take few, though they come all the time: neither by
// those that a reserve is for, beyond the reserve, nor by those of its own limit.
func TestLargeIsNotStarved(t *testing.T) {
	for name, rules := range map[string][]Policy{
		"reserve": {{Name: "r", Match: ofUID(2), Reserve: 1}},
		"max":     {{Name: "m", Match: Match{UID: []UIDs{{1, 2}}}, Max: 3}},
	} {
		t.Run(name, func(t *testing.T) {
			e, now := seated(t, PoolGrant{Limit: 4, Budget: 4}, rules...)
			act(t, e, wants(1, 2, 1, 0), now)
			act(t, e, wants(2, 2, 1, 0), now)
			large := wants(3, 1, 3, time.Hour)
			act(t, e, large, now)
			for i := range byte(20) {
				act(t, e, wants(10+i, 2, 1, time.Hour), now) // they wait behind it, or take what is reserved
			}
			for _, l := range e.Leases(nil) {
				act(t, e, &Release{ID: l.ID, Caller: l.Holder.Caller}, now)
				if e.Holds(large.ID) {
					return
				}
			}
			t.Errorf("it waits on, and %d leases are held", e.Len())
		})
	}
}

// What is kept for one user by its reserve, or lingers for it, it takes before others that wait; no more than that.
func TestKeptPassesThoseWhoWait(t *testing.T) {
	for name, rule := range map[string]Policy{"reserve": {Name: "r", Match: ofUID(2), Reserve: 2},
		"linger": {Name: "l", Match: ofUID(2), Linger: time.Minute}} {
		t.Run(name, func(t *testing.T) {
			e, now := seated(t, PoolGrant{Limit: 4, Budget: 4}, rule)
			act(t, e, wants(1, 3, 2, 0), now)
			if rule.Linger > 0 {
				act(t, e, wants(2, 2, 2, 0), now)
				act(t, e, &Release{ID: LeaseID{2}, Caller: Caller{UID: 2}}, now)
			}
			if d := act(t, e, wants(3, 1, 1, time.Hour), now); d.Waiter == nil || d.Waiter.Ahead != 0 {
				t.Fatalf("another waits: %+v", d)
			}
			if d := act(t, e, wants(4, 2, 3, 0), now); d.Denial == nil || d.Denial.Code != NoSlots {
				t.Errorf("more than is kept: %+v", d)
			}
			if d := act(t, e, wants(5, 2, 1, 0), now); d.Lease == nil {
				t.Errorf("what is kept: %+v", d.Denial)
			}
			if d := act(t, e, wants(6, 2, 1, 0), now); d.Lease == nil || e.Holds(LeaseID{3}) {
				t.Errorf("the rest of what is kept: %+v", d.Denial)
			}
			if d := act(t, e, wants(7, 1, 1, time.Hour), now); d.Waiter == nil || d.Waiter.Ahead != 1 {
				t.Errorf("a second waits behind one: %+v", d)
			}
		})
	}
}

// A user's lingering slots come back to that user, and other users' stay.
func TestLingeringIsEachUsers(t *testing.T) {
	e, now := seated(t, PoolGrant{Limit: 4, Budget: 4}, Policy{Name: "l", Linger: time.Minute})
	for uid := range uint32(2) {
		act(t, e, wants(byte(uid), uid, 2, 0), now)
		act(t, e, &Release{ID: LeaseID{byte(uid)}, Caller: Caller{UID: uid}}, now)
	}
	act(t, e, wants(9, 1, 1, 0), now)
	if s, _ := e.Pool("streams", now); s.Lingering != 3 || s.InUse != 1 {
		t.Errorf("got %+v", s)
	}
	d := act(t, e, wants(10, 1, 2, 0), now).Denial
	if d == nil || d.Code != DeniedByPolicy || d.Rule != "l" || !d.Next.Equal(now.Add(time.Minute)) {
		t.Errorf("got %+v", d)
	}
	if d := act(t, e, wants(11, 0, 2, 0), now); d.Lease == nil {
		t.Errorf("the first user's own: %v", d.Denial)
	}
}

// A reload of the rules leaves what is not renewed its time: it does not begin again with each.
func TestReloadKeepsIdleTime(t *testing.T) {
	rule := Policy{Name: "i", IdleTimeout: time.Hour, MaxHold: 90 * time.Minute}
	e, now := seated(t, PoolGrant{Limit: 4, Budget: 4}, rule)
	act(t, e, wants(1, 1, 1, 0), now)
	now = now.Add(59 * time.Minute)
	act(t, e, &SetPolicies{NewPolicies([]Policy{rule})}, now)
	now = now.Add(time.Minute)
	d := act(t, e, &Tick{}, now)
	if len(d.Events) != 1 || d.Events[0].Cause != CauseIdle || d.Events[0].Rule != "i" || e.Len() != 0 {
		t.Errorf("got %+v", d.Events)
	}
}

// A borrow that low water can never leave is denied at once, and waits only where a return would help.
func TestLowWaterThatNeverHelps(t *testing.T) {
	e, now := seated(t, PoolGrant{Limit: 4, Budget: 4}, Policy{Name: "w", LowWater: 2})
	borrow := func(id byte, n int64) *Acquire {
		r := wants(id, 1, n, time.Hour)
		r.Lifetime, r.Until = LifetimeBorrow, now.Add(100*time.Hour)
		return r
	}
	if d := act(t, e, borrow(1, 3), now); d.Denial == nil || d.Denial.Code != DeniedByPolicy {
		t.Errorf("more than may ever be borrowed: %+v", d)
	}
	if d := act(t, e, borrow(2, 2), now); d.Lease == nil {
		t.Errorf("as many as may be: %v", d.Denial)
	}
	if d := act(t, e, borrow(3, 1), now); d.Waiter == nil {
		t.Errorf("one that a return helps: %+v", d)
	}
	if d := act(t, e, wants(4, 2, 2, 0), now); d.Lease == nil { // one that borrows nothing passes
		t.Errorf("another: %v", d.Denial)
	}
}

// A rule of each verb, whatever it says, never has an acquire granted that would be denied without it.
func TestNoVerbWidens(t *testing.T) {
	verbs := map[string]Policy{"deny": {Deny: true}, "reserve": {Reserve: 9}, "max": {Max: 9},
		"priority": {Priority: 9},
		"linger":   {Linger: time.Hour}, "max_hold": {MaxHold: time.Hour}, "idle": {IdleTimeout: time.Hour},
		"overage": {OverageMax: new(int64(9))}, "borrow": {MaxBorrow: new(2000 * time.Hour)}, "water": {LowWater: 1}}
	for name, p := range verbs {
		p.Name = name
		for _, match := range []Match{{}, ofUID(1), ofUID(2)} {
			p.Match = match
			e, now := seated(t, PoolGrant{Limit: 2, Budget: 2, Overage: 1}, p)
			act(t, e, wants(1, 2, 2, 0), now)
			act(t, e, wants(2, 1, 2, 0), now)
			if s, _ := e.Pool("streams", now); s.InUse > 3 {
				t.Errorf("%s: %d slots of 3 are held", name, s.InUse)
			}
			far := wants(3, 1, 1, 0)
			far.Lifetime, far.Until = LifetimeBorrow, now.Add(1001*time.Hour)
			if d := act(t, e, far, now); d.Lease != nil {
				t.Errorf("%s: a borrow for longer than the licence allows", name)
			}
		}
	}
}

// Review tells of what can never do anything, and of reserves that leave others nothing.
func TestReview(t *testing.T) {
	v := &Verdict{State: StateValid, Code: Valid, Pools: map[string]PoolGrant{
		"streams": {Name: "streams", Limit: 4, Budget: 4}}}
	streams := []Glob{{Text: "streams"}}
	for name, c := range map[string]struct {
		rules []Policy
		want  string
	}{
		"good": {[]Policy{{Name: "a", Match: ofUID(1), Reserve: 2, Max: 3}, {Name: "b", Match: ofUID(2), Reserve: 1}},
			""},
		"unknown pool": {[]Policy{{Name: "a", Max: 1, Pools: []Glob{{Text: "stream"}}}},
			`pools has "stream", which no pool`},
		"denied": {[]Policy{{Name: "a", Deny: true}, {Name: "b", Match: ofUID(1), Max: 1}},
			"b it can never do anything"},
		"reserved": {[]Policy{{Name: "a", Match: ofUID(1), Reserve: 1}, {Name: "b", Match: ofUID(1), Reserve: 2}},
			"never be used"},
		"shadowed max": {[]Policy{{Name: "a", Match: ofUID(1), Max: 1}, {Name: "b", Match: ofUID(1), Max: 2}},
			"its max has no effect"},
		"starved": {[]Policy{{Name: "a", Match: ofUID(1), Reserve: 4}}, "others get none"},
		"too many": {[]Policy{{Name: "a", Match: ofUID(1), Reserve: 3}, {Name: "b", Match: ofUID(2), Reserve: 3}},
			"leave 1 of its 4 slots"},
		"no limit": {[]Policy{{Name: "a", Max: 9, Pools: streams}}, "its max 9 has no effect on pool streams"},
		"water":    {[]Policy{{Name: "a", LowWater: 4}}, "nothing of pool streams can be borrowed"},
		"all":      {[]Policy{{Name: "a", Deny: true}}, "it denies everybody"},
		"closed":   {[]Policy{{Name: "a", Deny: true, Pools: streams}}, ""},
		"never": {[]Policy{{Name: "a", Match: Match{User: streams}, Not: Match{User: []Glob{{Text: "str*"}}}, Max: 1}},
			"can never match: not.user rules out all"},
		"never a uid": {[]Policy{{Name: "a", Match: ofUID(7), Not: Match{UID: []UIDs{{5, 9}}}, Max: 1}}, "not.uid"},
		"some": {[]Policy{{Name: "a", Match: Match{User: []Glob{{Text: "s*"}}}, Not: Match{User: streams}, Max: 1}},
			""},
	} {
		var got []string
		for _, r := range NewPolicies(c.rules).Review(v) {
			got = append(got, r.Rule+" "+r.Detail)
		}
		if all := strings.Join(got, "\n"); c.want == "" && all != "" || !strings.Contains(all, c.want) {
			t.Errorf("%s: got %q, want %q", name, all, c.want)
		}
	}
}

func TestGlob(t *testing.T) {
	for _, c := range []struct {
		glob, text string
		fold, want bool
	}{{"", "", false, true}, {"*", "", false, true}, {"a*", "ab/c", false, true}, {"a?c", "abc", false, true},
		{"a?c", "ac", false, false}, {"*b*", "abc", false, true}, {"A*", "abc", false, false},
		{"A*", "abc", true, true},
		{"*a*a*a*b", strings.Repeat("a", 5000), false, false}, {"ä?", "äö", false, true},
		{"a[b]", "ab", false, false}} {
		if got := (Glob{c.glob, c.fold}).Matches(c.text); got != c.want {
			t.Errorf("%q of %q: %v", c.glob, c.text[:min(9, len(c.text))], got)
		}
	}
}

// thousand are 1,000 rules of users and groups, a few of which concern any one caller.
func thousand() []Policy {
	out := []Policy{{Name: "all", Max: 1 << 40, Per: CountUser}, {Name: "hold", MaxHold: 1000 * time.Hour}}
	for i := len(out); i < 1000; i++ {
		p := Policy{Name: fmt.Sprint("rule ", i), Max: 1 << 40}
		if i%2 == 0 {
			p.Match.UID = []UIDs{{uint32(i), uint32(i) + 1}}
		} else {
			p.Match.Group = []Glob{{Text: fmt.Sprint("group", i, "*")}}
		}
		out = append(out, p)
	}
	return out
}

// A thousand rules cost an acquire no more allocations than its own lease and, where a rule ends it, its timer: who is
// concerned by which is found once for each holder.
func TestRulesAllocateLittle(t *testing.T) {
	rules := thousand()
	rules[1].MaxHold = 0
	rules[1].LowWater = 1
	for _, ps := range []*Policies{nil, NewPolicies(rules)} {
		e, now := seated(t, PoolGrant{Limit: Unlimited, Budget: Unlimited})
		act(t, e, &SetPolicies{ps}, now)
		var room Room
		ask := Acquire{Pool: "streams", N: 1, Caller: Caller{UID: 7, PID: 8}, Lifetime: LifetimeProcess, Room: &room}
		ask.ID = LeaseID{255}
		e.Apply(e.Decide(&ask, now).Events[0])
		id := byte(0)
		var giveUp Release
		if got := testing.AllocsPerRun(100, func() {
			id = id%200 + 1
			ask.ID = LeaseID{id}
			e.Apply(e.Decide(&ask, now).Events[0])
			giveUp = Release{ID: ask.ID, Caller: ask.Caller, Room: &room}
			e.Apply(e.Decide(&giveUp, now).Events[0])
		}); got > 3 {
			t.Errorf("an acquire and its release make %v allocations", got)
		}
	}
}

// callersInTurn is an enforcer with 100,000 leases of 1,000 callers, who come in turn.
type callersInTurn struct {
	e       *Enforcer
	now     time.Time
	callers []Caller
	room    Room
	next    int
}

func inTurn(b *testing.B, rules *Policies) *callersInTurn {
	c := &callersInTurn{callers: make([]Caller, 1000)}
	c.e, c.now = seated(b, PoolGrant{Limit: 1 << 20, Budget: 1 << 20})
	act(b, c.e, &SetPolicies{rules}, c.now)
	for i := range c.callers {
		c.callers[i] = Caller{UID: uint32(i), PID: int32(i) + 1, Start: 1, Exe: "/usr/bin/render",
			Profile: ProfileOf(Profile{Login: fmt.Sprint("user", i), Groups: "100\nusers\n1001\ngroup17b"})}
	}
	for range 100_000 {
		c.acquire()
	}
	if c.e.Len() != 100_000 {
		b.Fatal(c.e.Len())
	}
	return c
}

func (c *callersInTurn) acquire() (LeaseID, Caller) {
	i := c.next
	c.next++
	id, who := LeaseID{byte(i), byte(i >> 8), byte(i >> 16), byte(i >> 24)}, c.callers[i%len(c.callers)]
	c.now = c.now.Add(time.Microsecond)
	ask := Acquire{ID: id, Caller: who, Pool: "streams", N: 1, Lifetime: LifetimeProcess, Room: &c.room}
	for _, ev := range c.e.Decide(&ask, c.now).Events {
		c.e.Apply(ev)
	}
	return id, who
}

// pairs returns how long so many acquires and releases take, each.
func (c *callersInTurn) pairs(n int) float64 {
	began := time.Now()
	for range n {
		id, who := c.acquire()
		for _, ev := range c.e.Decide(&Release{ID: id, Caller: who, Room: &c.room}, c.now).Events {
			c.e.Apply(ev)
		}
	}
	return float64(time.Since(began).Nanoseconds()) / float64(n)
}

// BenchmarkAcquire times an acquire and its release under 1,000 rules and, in turn with it, without any, so that what
// else the machine does slows both. The ratio is the median of the turns'.
func BenchmarkAcquire(b *testing.B) {
	without, with := inTurn(b, nil), inTurn(b, NewPolicies(thousand()))
	var plain, ruled, ratio []float64
	for b.Loop() {
		before := without.pairs(500)
		x := with.pairs(1000)
		y := (before + without.pairs(500)) / 2
		plain, ruled, ratio = append(plain, y), append(ruled, x), append(ratio, x/y)
	}
	median := func(all []float64) float64 {
		slices.Sort(all)
		return all[len(all)/2]
	}
	b.ReportMetric(median(plain), "ns/pair-without")
	b.ReportMetric(median(ruled), "ns/pair-1000-rules")
	b.ReportMetric(median(ratio), "ratio")
}

// BenchmarkBarred is a release and an acquire where many users wait, each of whom has all that a rule lets it have.
func BenchmarkBarred(b *testing.B) {
	now := time.Date(2026, 1, 5, 12, 0, 0, 0, time.UTC)
	const users = 5_000
	e := New(Options{MaxWaiters: 2 * users})
	do := func(r Request) Decision {
		d := e.Decide(r, now)
		for _, ev := range d.Events {
			e.Apply(ev)
		}
		return d
	}
	do(&SetVerdict{&Verdict{State: StateValid, Code: Valid,
		Pools: map[string]PoolGrant{"a": {Name: "a", Limit: 2 * users, Budget: 2 * users}}}})
	do(&SetPolicies{NewPolicies([]Policy{{Name: "one each", Max: 1, Per: CountUser}})})
	id := func(n int) (id LeaseID) {
		binary.BigEndian.PutUint64(id[:], uint64(n))
		return id
	}
	next := 0
	ask := func(uid uint32, wait time.Duration) LeaseID {
		next++
		do(&Acquire{ID: id(next), Caller: Caller{UID: uid}, Pool: "a", N: 1, Lifetime: LifetimeHeld, Wait: wait})
		return id(next)
	}
	for uid := range uint32(users) {
		ask(uid, 0)
		ask(uid, MaxWait)
	}
	if e.Waiting() != users {
		b.Fatalf("%d wait", e.Waiting())
	}
	for b.Loop() {
		lease := ask(users, 0)
		if e.must(lease) == nil {
			b.Fatal("a user who holds nothing is behind those who hold all that they may")
		}
		do(&End{ID: lease, Cause: CauseReleased})
		do(&Serve{Among: []string{"a"}})
	}
}
