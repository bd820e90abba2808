package usage_test

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"errors"
	"io/fs"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/usher-agent/usher/agent/bubble"
	"github.com/usher-agent/usher/agent/eventlog"
	"github.com/usher-agent/usher/agent/usage"
	"github.com/usher-agent/usher/client/wire"
	"github.com/usher-agent/usher/enforcer"
)

// counting is an agent's usage with a core of its own: pool streams has 8 slots, and one slot of overage.
type counting struct {
	*testing.T
	dir  string
	key  ed25519.PrivateKey
	u    *usage.Usage
	log  bytes.Buffer
	gone bool
	// users is privacy.users; removed says that what was kept by user was removed.
	users   string
	removed bool
	hang    atomic.Pointer[chan struct{}] // no file is written until it is closed; nil: none is kept up
	back    atomic.Int64                  // by which the licence time was set back

	mu   sync.Mutex // guards core, which the desk's lock does in an agent
	core *enforcer.Enforcer
	last byte
	stop func()
}

func newCounting(t *testing.T) *counting {
	c := &counting{T: t, dir: t.TempDir(), key: ed25519.NewKeyFromSeed(bytes.Repeat([]byte{7}, ed25519.SeedSize))}
	c.start()
	return c
}

func (c *counting) now() time.Time { return time.Now().Add(-time.Duration(c.back.Load())) }

// start has an agent begin, with no lease held.
func (c *counting) start() {
	c.Helper()
	c.core = enforcer.New(enforcer.Options{Durable: true, CountUsers: c.users != ""})
	began := time.Now()
	file := filepath.Join(c.dir, "usage.json")
	u, err := usage.Open(usage.Config{Dir: filepath.Join(c.dir, "usage"), Key: c.key, File: file, Read: os.ReadFile,
		Write: func(file string, data []byte) error {
			if hang := c.hang.Load(); hang != nil {
				<-*hang
			}
			return os.WriteFile(file, data, 0o600)
		},
		Take: func() ([]enforcer.Usage, int) {
			c.mu.Lock()
			defer c.mu.Unlock()
			return c.core.TakeUsage(c.core.PoolNames(), c.now())
		},
		Terms:    func(string) wire.PoolUsage { return wire.PoolUsage{Limit: new(int64(8)), Budget: new(int64(8))} },
		Licenses: func() []string { return []string{"lic-1"} }, Gone: func() { c.gone = true },
		Now: c.now, Wall: time.Now, Boot: func() time.Duration { return time.Since(began) },
		Log: slog.New(slog.NewTextHandler(&c.log, nil)), Users: c.byUser()})
	if err != nil {
		c.Fatal(err)
	}
	c.u = u
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := u.Run(ctx); err != nil {
			c.Error(err)
		}
	}()
	c.stop = func() { cancel(); <-done }
	c.do(&enforcer.SetVerdict{Verdict: &enforcer.Verdict{State: enforcer.StateValid, Code: enforcer.Valid,
		Pools: map[string]enforcer.PoolGrant{"streams": {Name: "streams", Limit: 8, Budget: 8, Overage: 1, Most: 9}},
		Meters: map[string]enforcer.MeterGrant{"renders": {Name: "renders", Key: "l/renders", Limit: 100, Budget: 100,
			Most: 100}}}})
	synctest.Wait()
}

func (c *counting) do(r enforcer.Request) enforcer.Decision {
	c.mu.Lock()
	defer c.mu.Unlock()
	d := c.core.Decide(r, c.now())
	for _, ev := range d.Events {
		c.core.Apply(ev)
		c.u.Observe(&ev)
	}
	return d
}

// ask acquires for a user; a denial is told as the agent tells it.
func (c *counting) ask(uid uint32, n int64, more ...func(*enforcer.Acquire)) enforcer.Decision {
	c.last++
	r := &enforcer.Acquire{ID: enforcer.LeaseID{c.last, byte(uid)}, Pool: "streams", N: n,
		Lifetime: enforcer.LifetimeHeld, Caller: enforcer.Caller{UID: uid}}
	for _, change := range more {
		change(r)
	}
	d := c.do(r)
	if d.Denial != nil {
		c.u.Denied(r, d.Denial, c.now())
	}
	return d
}

func (c *counting) release(d enforcer.Decision) {
	c.do(&enforcer.End{ID: d.Lease.ID, Cause: enforcer.CauseReleased})
	for len(c.do(&enforcer.Serve{}).Events) > 0 {
	}
}

// pass has some time pass.
func (c *counting) pass(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

// read returns what was in use since a time, by hours; an hour that comes twice is added up.
func (c *counting) read(since time.Time) map[string]wire.UsageHour {
	c.Helper()
	r, err := c.u.Read(since, c.now().Add(time.Hour))
	if err != nil {
		c.Fatal(err)
	}
	all, err := r.Hours("")
	if err != nil {
		c.Fatal(err)
	}
	out := map[string]wire.UsageHour{}
	for _, h := range all {
		k := h.Hour.Format("15:04")
		if was, ok := out[k]; ok {
			h = usage.AddHour(was, h)
		}
		out[k] = h
	}
	return out
}

func want(t *testing.T, what string, got, want any) {
	t.Helper()
	if got != want {
		t.Errorf("%s: got %v, want %v", what, got, want)
	}
}

// An hour has the peak, the slot-seconds and the time over the budget exactly, though the core is asked once a minute;
// a restart within it continues it, and the record has one line for each hour that is over.
func TestHours(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		c := newCounting(t) // at midnight, 2000-01-01
		began := c.now()
		c.pass(10*time.Minute + 1500*time.Millisecond)
		one := c.ask(1, 3)
		c.pass(5 * time.Second) // a peak between two looks
		two := c.ask(2, 6)
		c.pass(2500 * time.Millisecond)
		c.release(two)
		c.pass(20 * time.Minute)
		c.release(one)
		c.stop() // a restart within the hour
		c.pass(time.Minute)
		c.start()
		three := c.ask(1, 2)
		c.pass(time.Hour)
		c.release(three)
		got := c.read(began)
		h, p := got["00:00"], got["00:00"].Pools["streams"]
		first := 60*60 - (10*60 + 1.5 + 5 + 2.5 + 20*60 + 60) // of the last lease, in the first hour
		want(t, "peak", p.Peak, int64(9))
		want(t, "slot-seconds", p.SlotSeconds, 3*(5+2.5+1200)+6*2.5+2*first)
		want(t, "over", p.OverPeak, int64(1))
		want(t, "over for", p.OverSeconds, 2.5)
		want(t, "over slot-seconds", p.OverSlotSeconds, 2.5)
		want(t, "grants", p.Grants, int64(3))
		want(t, "starts", h.Starts, int64(2))
		want(t, "observed", h.Observed, float64(3540))
		want(t, "licences", strings.Join(h.Licenses, " "), "lic-1")
		want(t, "the next hour's slot-seconds", got["01:00"].Pools["streams"].SlotSeconds, 2*(3600-first))
		c.pass(3 * time.Hour)
		c.stop()
		hours := 0
		_ = eventlog.Each(filepath.Join(c.dir, "usage"), func(l eventlog.Line) bool { hours++; return !l.Bad })
		want(t, "lines of the record", hours, 4)
		c.start()
		defer c.stop()
		got = c.read(began)
		want(t, "slot-seconds after all", got["00:00"].Pools["streams"].SlotSeconds, p.SlotSeconds)
		want(t, "hours", len(got), 5)
	})
}

// An agent that is killed loses what was in use in its last minute, and nothing else.
func TestHoursAfterCrash(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		c := newCounting(t)
		began := c.now()
		c.ask(1, 4)
		c.pass(90*time.Minute + 30*time.Second)
		killed := t.TempDir() // as the disk is when the agent is killed
		if err := os.CopyFS(killed, os.DirFS(c.dir)); err != nil {
			t.Fatal(err)
		}
		c.stop()
		c.dir = killed
		c.start()
		defer c.stop()
		got := c.read(began)
		want(t, "slot-seconds of the first hour", got["00:00"].Pools["streams"].SlotSeconds, float64(4*3600))
		if s := got["01:00"].Pools["streams"].SlotSeconds; s < 4*29.4*60 || s > 4*30*60 {
			t.Errorf("of the second hour %v slot-seconds are left", s)
		}
	})
}

// A denial is false when its holder is granted a slot of the pool within ten minutes, or another host lets one lie;
// else it is true. Denials for other reasons are neither.
func TestTrueAndFalseDenials(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		c := newCounting(t)
		defer func() { c.stop() }()
		began := c.now()
		all := c.ask(1, 9)
		c.ask(2, 1) // tries again in vain, and is granted in time
		c.ask(2, 1)
		c.pass(9 * time.Minute)
		c.ask(3, 1) // never gets one
		c.ask(4, 1) // gets one too late
		c.release(all)
		c.ask(2, 1)
		c.pass(10*time.Minute + time.Second)
		c.ask(4, 1)
		c.ask(5, 1, func(r *enforcer.Acquire) { r.Pool = "no-such-pool" })
		c.u.Denied(&enforcer.Acquire{Pool: "streams", Caller: enforcer.Caller{UID: 6}},
			&enforcer.Denial{Code: enforcer.NotShared, Pool: "streams", Idle: 3}, c.now())
		c.pass(20 * time.Minute)
		p := c.read(began)["00:00"].Pools["streams"]
		want(t, "false", p.FalseDenials, int64(3))
		want(t, "true", p.TrueDenials, int64(2))
		want(t, "no_slots", p.Denials["no_slots"], int64(4))
		other := c.read(began)["00:00"].Pools[""]
		want(t, "of unknown pools", other.Denials["pool_unknown"], int64(1))
		want(t, "of which true", other.TrueDenials, int64(0))
		for _, name := range slices.Collect(maps.Keys(c.read(began)["00:00"].Pools)) {
			if name != "streams" && name != "" {
				t.Errorf("the record has a pool %q, whose name a caller has made up", name)
			}
		}
	})
}

// Acquires that wait are counted with how long they did, whatever comes of it, and draws with how much they took.
func TestWaitsAndDraws(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		c := newCounting(t)
		defer func() { c.stop() }()
		began := c.now()
		all := c.ask(1, 9)
		c.ask(2, 1, func(r *enforcer.Acquire) { r.Wait = time.Hour })
		c.ask(3, 2, func(r *enforcer.Acquire) { r.Wait = 10 * time.Second })
		c.pass(10 * time.Second)
		c.do(&enforcer.Tick{})
		c.pass(30 * time.Second)
		c.release(all)
		c.ask(1, 7, func(r *enforcer.Acquire) { r.Pool, r.Lifetime = "renders", enforcer.LifetimeDraw })
		p := c.read(began)["00:00"].Pools
		want(t, "waits", p["streams"].Waits, int64(2))
		want(t, "waited for", p["streams"].WaitSeconds, float64(50))
		want(t, "the longest", p["streams"].LongestWait, float64(40))
		want(t, "denials of waiters that were served", p["streams"].Denials["no_slots"], int64(0))
		want(t, "drawn", p["renders"].Drawn, int64(7))
		want(t, "a meter", p["renders"].Meter, true)
	})
}

// Where the clock is put back, time counts as it passes: an hour that comes again has a line of its own, and says so.
func TestClockPutBack(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		c := newCounting(t)
		defer func() { c.stop() }()
		began := c.now()
		c.ask(1, 1)
		c.pass(2*time.Hour + 30*time.Minute)
		c.mu.Lock()
		c.back.Add(int64(2 * time.Hour))
		d := c.core.Decide(&enforcer.Step{By: -2 * time.Hour}, c.now())
		for _, ev := range d.Events {
			c.core.Apply(ev)
		}
		c.mu.Unlock()
		c.pass(2*time.Hour + 30*time.Minute)
		got := c.read(began)
		total, steps, observed := 0.0, int64(0), 0.0
		for _, h := range got {
			total += h.Pools["streams"].SlotSeconds
			steps += h.ClockSteps
			observed += h.Observed
		}
		want(t, "slot-seconds", total, float64(5*3600))
		want(t, "observed", observed, float64(5*3600))
		want(t, "steps", steps, int64(1))
		if s := got["00:00"].Pools["streams"].SlotSeconds; s <= 3600 {
			t.Errorf("the hour that came twice has %v slot-seconds", s)
		}
	})
}

// A damaged file is set aside and named, and what can be read of it stays; hours that are taken away are missed.
func TestDamagedRecord(t *testing.T) {
	record := func(t *testing.T, c *counting) []string {
		t.Helper()
		names, err := filepath.Glob(filepath.Join(c.dir, "usage", "events-*"))
		if err != nil || len(names) == 0 {
			t.Fatalf("there is no record: %v", err)
		}
		return names
	}
	for name, x := range map[string]struct {
		harm    func([]byte) []byte
		missing int
		aside   bool
	}{
		"a line is no JSON":       {func(b []byte) []byte { b[bytes.IndexByte(b, '\n')+9] = 0; return b }, 1, true},
		"the last line is cut":    {func(b []byte) []byte { return b[:len(b)-20] }, 1, false},
		"the last lines are gone": {func(b []byte) []byte { return b[:bytes.IndexByte(b, '\n')+1] }, 1, false},
		"a line was taken out": {func(b []byte) []byte {
			first, rest, _ := bytes.Cut(b, []byte("\n"))
			_, rest, _ = bytes.Cut(rest, []byte("\n"))
			return append(append(bytes.Clone(first), '\n'), rest...)
		}, 1, false},
		"all is as it was": {func(b []byte) []byte { return b }, 0, false},
	} {
		t.Run(name, func(t *testing.T) {
			bubble.Test(t, func(t *testing.T) {
				c := newCounting(t)
				began := c.now()
				c.pass(5 * time.Hour)
				c.stop()
				file := record(t, c)[0]
				b, err := os.ReadFile(file)
				if err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(file, x.harm(b), 0o600); err != nil {
					t.Fatal(err)
				}
				c.start()
				c.pass(2 * time.Hour)
				defer c.stop()
				r, err := c.u.Read(began, c.now())
				if err != nil {
					t.Fatal(err)
				}
				want(t, "stretches missing", len(r.Missing), x.missing)
				aside, err := filepath.Glob(filepath.Join(c.dir, "usage", "damaged-*"))
				if err != nil {
					t.Fatal(err)
				}
				want(t, "set aside", len(aside) > 0, x.aside)
				want(t, "said so", strings.Contains(c.log.String(), "it is set aside"), x.aside)
				if len(r.Lines) < 3 {
					t.Errorf("%d lines are left", len(r.Lines))
				}
			})
		})
	}
}

// Open hours that cannot be read, and a record of another key, stop no agent.
func TestUnreadableStateStopsNobody(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		c := newCounting(t)
		c.pass(3 * time.Hour)
		c.stop()
		if err := os.WriteFile(filepath.Join(c.dir, "usage.json"), []byte("{"), 0o600); err != nil {
			t.Fatal(err)
		}
		c.key = ed25519.NewKeyFromSeed(bytes.Repeat([]byte{8}, ed25519.SeedSize))
		c.start()
		c.stop()
		for _, said := range []string{"counting begins again", "which is put aside"} {
			if !strings.Contains(c.log.String(), said) {
				t.Errorf("the log does not say %q:\n%s", said, c.log.String())
			}
		}
		if aside, err := filepath.Glob(filepath.Join(c.dir, "usage-*")); err != nil || len(aside) != 1 {
			t.Errorf("put aside: %v, %v", aside, err)
		}
	})
}

// A disk that takes nothing stops nobody: hours are counted in memory, and written when it takes them again.
func TestFullDisk(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		c := newCounting(t)
		began := c.now()
		record := filepath.Join(c.dir, "usage")
		if err := os.RemoveAll(record); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(record, nil, 0o600); err != nil { // no folder can be made
			t.Fatal(err)
		}
		c.ask(1, 1)
		c.pass(3 * time.Hour)
		if !strings.Contains(c.log.String(), "usage cannot be written") {
			t.Errorf("the log does not say it:\n%s", c.log.String())
		}
		if err := os.Remove(record); err != nil && !errors.Is(err, fs.ErrNotExist) {
			t.Fatal(err)
		}
		c.pass(2 * time.Minute)
		defer c.stop()
		want(t, "slot-seconds", c.read(began)["00:00"].Pools["streams"].SlotSeconds, float64(3600))
	})
}

// A disk that hangs keeps nobody waiting who decides: grants, denials and draws are counted, and all of it is there
// when the disk goes on.
func TestDiskHangs(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		c := newCounting(t)
		began := c.now()
		hang := make(chan struct{})
		c.hang.Store(&hang)
		c.pass(2 * time.Minute)
		for range 20_000 { // more than what is kept apart
			c.ask(1, 9)
			c.pass(time.Millisecond)
		}
		close(hang)
		c.pass(time.Minute)
		defer func() { c.stop() }()
		p := c.read(began)["00:00"].Pools["streams"]
		want(t, "grants", p.Grants, int64(1))
		want(t, "denials", p.Denials["no_slots"], int64(19_999))
	})
}

// Damage in a file that is no longer written to is found when the record is read.
func TestDamagedOlderFile(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		c := newCounting(t)
		began := c.now()
		c.pass(5 * time.Hour)
		c.stop()
		file := filepath.Join(c.dir, "usage", "events-000000000001.jsonl")
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		first, rest, _ := bytes.Cut(b, []byte("\n"))
		second, rest, _ := bytes.Cut(rest, []byte("\n"))
		for name, part := range map[string][]byte{file: slices.Concat(first, []byte("\nx\n"), second, []byte("\n")),
			filepath.Join(c.dir, "usage", "events-000000000003.jsonl"): rest} {
			if err := os.WriteFile(name, part, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		c.start()
		defer c.stop()
		c.pass(time.Hour)
		for range 2 {
			r, err := c.u.Read(began, c.now())
			if err != nil || len(r.Lines) < 4 || len(r.Missing) > 0 {
				t.Fatalf("%d lines, %v, %v", len(r.Lines), r.Missing, err)
			}
		}
		if got, err := os.ReadFile(file); err != nil || bytes.Contains(got, []byte("\nx\n")) {
			t.Errorf("the file is as it was: %v", err)
		}
		if n := strings.Count(c.log.String(), "it is set aside"); n != 1 {
			t.Errorf("it is said %d times", n)
		}
	})
}
