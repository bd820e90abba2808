package desk

import (
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/usher-agent/usher/enforcer"
)

// The licence time does not go back over a restart, but a clock that was wrong for a moment is forgotten.
func TestMarkOutlivesTheAgent(t *testing.T) {
	dir, state := t.TempDir(), t.TempDir()
	right := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	// run is one life of the agent, whose wall clock is as said at its start and in its course.
	run := func(start, course time.Time) (first time.Time) {
		t.Helper()
		wall := start
		o := testOptions(func() time.Time { return wall })
		o.RuntimeDir, o.StateDir = dir, state
		d := newDesk(o)
		if err := d.open(o); err != nil {
			t.Fatal(err)
		}
		d.restore(d.store.mark)
		if d.store.mark.Time.IsZero() {
			d.Learn(wall)
		}
		first = d.Now()
		d.mu.Lock()
		d.advance(true)
		wall = course
		d.advance(true)
		d.mu.Unlock()
		if err := d.store.Close(); err != nil {
			t.Fatal(err)
		}
		return first
	}
	near := func(what string, got, want time.Time) {
		t.Helper()
		if d := got.Sub(want); d < 0 || d > time.Minute { // what has passed since boot counts
			t.Errorf("%s: the licence time is %v, want %v", what, got, want)
		}
	}
	near("the first start", run(right, right.Add(time.Hour)), right)
	near("set back by a month", run(right.AddDate(0, -1, 0), right.Add(time.Hour)), right.Add(time.Hour))
	near("later", run(right.Add(2*time.Hour), right.AddDate(5, 0, 0)), right.Add(2*time.Hour))
	near("after a clock that was years ahead", run(right.Add(3*time.Hour), right.Add(3*time.Hour)),
		right.Add(3*time.Hour))
}

// A document that resets the clock puts a false mark back once, and a restart does not bring it again.
func TestMarkIsHealed(t *testing.T) {
	dir, state := t.TempDir(), t.TempDir()
	right := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	wall := right.AddDate(50, 0, 0)
	start := func() *Desk {
		t.Helper()
		o := testOptions(func() time.Time { return wall })
		o.RuntimeDir, o.StateDir = dir, state
		d := newDesk(o)
		if err := d.open(o); err != nil {
			t.Fatal(err)
		}
		d.restore(d.store.mark)
		if d.store.mark.Time.IsZero() {
			d.Learn(wall)
		}
		d.mu.Lock()
		d.advance(true)
		d.mu.Unlock()
		return d
	}
	d := start()
	wall = right
	if now := d.Now(); now.Before(right.AddDate(50, 0, 0)) {
		t.Fatalf("the licence time went back by itself, to %v", now)
	}
	if from, to, healed := d.Heal(right.Add(-time.Hour)); !healed || from.Before(right.AddDate(50, 0, 0)) ||
		to.Sub(right).Abs() > time.Minute || d.Now().Sub(right).Abs() > time.Minute {
		t.Errorf("healed %v from %v to %v; now it is %v", healed, from, to, d.Now())
	}
	if _, _, healed := d.Heal(right.Add(-time.Hour)); healed {
		t.Error("one document resets the clock twice")
	}
	if err := d.store.Close(); err != nil {
		t.Fatal(err)
	}
	wall = right.Add(time.Hour)
	d = start()
	if got := d.Now(); got.Sub(wall) > time.Minute {
		t.Errorf("after a restart it is %v, want %v", got, wall)
	}
	if _, _, healed := d.Heal(right.Add(-time.Hour)); healed {
		t.Error("one document resets the clock again after a restart")
	}
	if err := d.store.Close(); err != nil {
		t.Fatal(err)
	}
}

// hostOf is a desk on a host whose clocks a test sets, with a pool of two slots.
type hostOf struct {
	*Desk
	t          *testing.T
	wall       time.Time
	up, asleep time.Duration
}

func newHostOf(t *testing.T) *hostOf {
	h := &hostOf{t: t, wall: time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC), up: time.Hour}
	awake := map[time.Time]time.Duration{} // what the monotonic clock said at each reading
	h.Desk = newDesk(testOptions(func() time.Time {
		awake[h.wall] = h.up - h.asleep
		return h.wall
	}))
	h.boot = func() time.Duration { return h.up }
	h.passed = func(from, to time.Time) time.Duration { return awake[to] - awake[from] }
	h.SetVerdict(&enforcer.Verdict{State: enforcer.StateValid, Code: enforcer.Valid,
		Pools: map[string]enforcer.PoolGrant{"streams": {Name: "streams", Limit: 2, Budget: 2}}}, 0)
	h.Learn(h.wall)
	return h
}

func (h *hostOf) run(d time.Duration)     { h.wall, h.up = h.wall.Add(d), h.up+d }
func (h *hostOf) suspend(d time.Duration) { h.run(d); h.asleep += d }

func (h *hostOf) acquire(ttl time.Duration) *enforcer.Lease {
	h.t.Helper()
	g, d := h.Acquire(h.t.Context(), &enforcer.Acquire{Caller: enforcer.Caller{UID: 1, User: "ann"}, Pool: "streams",
		N: 2, Lifetime: enforcer.LifetimeTTL, TTL: ttl})
	if d != nil {
		h.t.Fatalf("%s: %s", d.Code, d.Detail)
	}
	return g.Lease
}

// A suspension is time that has passed, for whoever relies on a lease's end too: what is over is over before the next
// grant, though Go's monotonic clock stood still. A clock that is set is not time that has passed.
func TestSuspensionAndStep(t *testing.T) {
	h := newHostOf(t)
	h.acquire(time.Minute)
	h.suspend(2 * time.Minute)
	h.acquire(time.Minute) // both slots are free
	if h.steps != 0 {
		t.Error("a suspension was taken for a clock that was set")
	}

	h.wall = h.wall.Add(5 * time.Hour)
	h.run(30 * time.Second)
	var held []*enforcer.Lease
	h.List(enforcer.Filter{}, enforcer.Cursor{}, func(some []*enforcer.Lease) bool {
		held = append(held, some...)
		return true
	})
	if len(held) != 1 || held[0].ExpiresAt.Sub(h.wall) != 30*time.Second || h.steps != 1 {
		t.Errorf("the clock was set: %+v, %d steps", held, h.steps)
	}
	h.run(30 * time.Second)
	l := h.acquire(time.Hour)
	h.wall = h.wall.AddDate(0, -1, 0)
	if now := h.Now(); now.Sub(h.wall) < 27*24*time.Hour || h.steps != 1 {
		t.Errorf("set back it is %v, after %d steps", now, h.steps)
	}
	h.run(59 * time.Minute)
	if left := l.ExpiresAt.Sub(h.Now()); left != time.Minute {
		t.Errorf("%v are left of the lease", left)
	}
	h.suspend(time.Minute)
	h.acquire(time.Minute)
}

// What an upstream signs is kept, and what a document is dated with counts while it is there.
func TestEvidence(t *testing.T) {
	h := newHostOf(t)
	right := h.wall
	h.Now()
	h.Learn(right.Add(time.Hour))
	if now := h.Now(); !now.Equal(right.Add(time.Hour)) {
		t.Errorf("an upstream has signed another time, and it is %v", now)
	}
	h.Learn(right) // an answer that was long on its way
	if now := h.Now(); !now.Equal(right.Add(time.Hour)) {
		t.Errorf("a late answer makes it %v", now)
	}
	at := h.Sign(right.Add(48 * time.Hour))
	if !at.Time.Equal(right.Add(48*time.Hour)) || at.From != enforcer.FromDocument || !h.Dated().Equal(right) {
		t.Errorf("a document ahead of time: %+v; upstreams are told %v", at, h.Dated())
	}
	if now, _ := h.Would(time.Time{}); !now.Equal(right.Add(time.Hour)) {
		t.Errorf("without it it would be %v", now)
	}
	h.run(time.Hour)
	if at := h.Timing(); !at.Time.Equal(right.Add(49 * time.Hour)) {
		t.Errorf("an hour later: %v", at.Time)
	}
	if at := h.Sign(time.Time{}); !at.Time.Equal(right.Add(2*time.Hour)) || at.From != enforcer.FromMark {
		t.Errorf("when it has gone: %+v", at)
	}
}

// A clock that is set forward opens no period of a meter, of one that a site shares neither, before that is proved; set
// back afterwards nothing has been doubled.
func TestMeterIsNotEmptiedAhead(t *testing.T) {
	h := newHostOf(t)
	h.core = enforcer.New(enforcer.Options{Durable: true})
	h.SetVerdict(&enforcer.Verdict{State: enforcer.StateValid, Code: enforcer.Valid,
		Meters: map[string]enforcer.MeterGrant{
			"renders": {Name: "renders", Key: "L/renders", Limit: 100, Budget: 100, Most: 100,
				Resets: enforcer.ResetsMonthly}}}, 0)
	drawn := int64(0)
	draw := func() *enforcer.Denial {
		l, d := h.Acquire(t.Context(),
			&enforcer.Acquire{Caller: enforcer.Caller{UID: 1, User: "ann"}, Pool: "renders", N: 100, MinN: 1})
		if d == nil {
			drawn += l.Items[0].N
		}
		return d
	}
	start := h.wall
	draw()
	for range 11 {
		h.wall = h.wall.AddDate(0, 1, 0)
		h.run(time.Second)
		if d := draw(); d == nil || d.Code != enforcer.MeterEmpty {
			t.Fatalf("%d draws were made of 100 a month, in seconds: %v", drawn, d)
		}
		if month := enforcer.ResetsMonthly.Start(h.Counted()); !month.Equal(enforcer.ResetsMonthly.Start(start)) {
			t.Fatalf("what a site gives is counted in the period of %v", month)
		}
	}
	for range 60 { // by less than is believed at once, again and again
		h.wall = h.wall.AddDate(-1, 0, 0).Add(23 * time.Hour)
		h.run(time.Second)
		if draw(); drawn != 100 {
			t.Fatalf("%d draws were made of 100 a month", drawn)
		}
		h.wall = h.wall.AddDate(1, 0, 0)
	}
	for range 25 {
		h.run(time.Hour)
		h.Now()
	}
	if d := draw(); d != nil || drawn != 200 {
		t.Errorf("after a day of running %d draws are made: %+v", drawn, d)
	}
	h.wall = start.Add(48 * time.Hour)
	h.run(time.Hour)
	if draw(); drawn != 200 {
		t.Errorf("set back, %d draws are made", drawn)
	}
}

// A mark that a former version kept by the clock of a time namespace says nothing of what has passed since.
func TestFormerMarkOfATimeNamespace(t *testing.T) {
	at := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	for name, test := range map[string]struct {
		host   bool
		bootID string
		ahead  time.Duration
		want   time.Duration // that has passed
	}{
		"by the host's clock":          {true, "b", -time.Hour, time.Hour},
		"of a former version":          {false, "b", 0, time.Hour},
		"of one in a time namespace":   {false, "b", -time.Hour, 0},
		"of another start of the host": {false, "a", -time.Hour, 2 * time.Hour},
	} {
		m := keptMark{markRecord{Time: at, Boot: time.Hour, BootID: test.bootID}, test.host}.mark(test.ahead, "b",
			2*time.Hour)
		if now, _ := m.Now(enforcer.Clocks{Wall: at, Boot: 2 * time.Hour, BootID: "b"}, time.Time{}); now.Sub(at) !=
			test.want {
			t.Errorf("%s: %v have passed, want %v", name, now.Sub(at), test.want)
		}
	}
}

// A day of running proves one leap: an agent that is killed once it has drawn does not find the same day again.
func TestDayProvesOneLeap(t *testing.T) {
	dir, state := t.TempDir(), t.TempDir()
	wall, up := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC), time.Hour
	start := func() *Desk {
		t.Helper()
		o := testOptions(func() time.Time { return wall })
		o.RuntimeDir, o.StateDir = dir, state
		d := newDesk(o)
		d.boot, d.passed = func() time.Duration {
			return up
		}, func(time.Time, time.Time) time.Duration { return time.Hour }
		if err := d.open(o); err != nil {
			t.Fatal(err)
		}
		d.keepStart()
		return d
	}
	kill := func(d *Desk) {
		t.Helper()
		if err := d.store.Close(); err != nil { // which keeps no mark
			t.Fatal(err)
		}
	}
	d := start()
	wall, up = wall.Add(25*time.Hour).AddDate(0, 1, 0), up+25*time.Hour // stopped for a day, and the clock is set
	if at := d.Counted(); at.Month() != time.April {
		t.Fatalf("after a day periods are counted by %v", at)
	}
	kill(d)
	for range 3 {
		wall, up = wall.AddDate(0, 1, 0), up+time.Second
		d = start()
		if at := d.Counted(); at.Month() != time.April {
			t.Fatalf("a second later periods are counted by %v", at)
		}
		kill(d)
	}
	// The same at a start, after the agent was away for a day.
	up += 25 * time.Hour
	d = start()
	month := d.Counted().Month()
	kill(d)
	wall, up = wall.AddDate(0, 1, 0), up+time.Second
	if d = start(); d.Counted().Month() != month {
		t.Errorf("a start proves another leap: %v, after %v", d.Counted(), month)
	}
	kill(d)
}

// The short way to the licence time comes to what the long one does, however the clocks go between two calls.
func TestOnwardIsAsTimed(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		wall, up, awake := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC), time.Hour, map[time.Time]time.Duration{}
		ran := time.Duration(0)
		short := newDesk(testOptions(func() time.Time { awake[wall] = ran; return wall }))
		long := newDesk(testOptions(short.now))
		for _, d := range []*Desk{short, long} {
			d.boot = func() time.Duration { return up }
			d.passed = func(from, to time.Time) time.Duration { return awake[to] - awake[from] }
		}
		each := func(f func(*Desk)) { f(short); f(long) }
		onward := 0
		for range rapid.IntRange(1, 60).Draw(t, "calls") {
			by := time.Duration(rapid.Int64Range(1, int64(2*time.Second)).Draw(t, "passes"))
			if rapid.IntRange(0, 3).Draw(t, "soon") > 0 {
				by /= 100
			}
			wall, up, ran = wall.Add(by), up+by, ran+by
			switch set := time.Duration(rapid.Int64Range(-int64(3*time.Hour), int64(48*time.Hour)).Draw(t, "set")); {
			case rapid.IntRange(0, 9).Draw(t, "something") > 0:
			case rapid.Bool().Draw(t, "the clock is set"):
				wall = wall.Add(set)
			case rapid.Bool().Draw(t, "by little"):
				wall = wall.Add(set / 100_000)
			case rapid.Bool().Draw(t, "the host is suspended"):
				wall, up = wall.Add(set.Abs()), up+set.Abs()
			case rapid.Bool().Draw(t, "an upstream tells the time"):
				each(func(d *Desk) { d.Learn(wall.Add(set)) })
			case rapid.Bool().Draw(t, "a document is dated"):
				each(func(d *Desk) { d.Sign(wall.Add(set)) })
			default:
				each(func(d *Desk) { d.Heal(wall.Add(set)) })
			}
			was := short.last
			steps := short.steps
			if now, ok := short.onward(); ok {
				onward++
				if now.Before(was) && short.steps == steps {
					t.Fatalf("the time went back from %v to %v", was, now)
				}
			}
			got, want := short.Now(), long.Timing().Time
			if got.Sub(want).Abs() >= 2*slack {
				t.Fatalf("the licence time is %v, want %v", got, want)
			}
		}
		if got, want := short.Timing(), long.Timing(); short.steps != long.steps || got.From != want.From ||
			got.Time.Sub(want.Time).Abs() >= 2*slack {
			t.Fatalf("at the end the clocks are %+v, %d steps, want %+v, %d steps", got, short.steps, want, long.steps)
		}
		if onward == 0 {
			t.Skip()
		}
	})
}
