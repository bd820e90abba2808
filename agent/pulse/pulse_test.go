package pulse

import (
	"bytes"
	"context"
	"errors"
	"maps"
	"os"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/usher-agent/usher/agent/bubble"
	"github.com/usher-agent/usher/enforcer"
	"github.com/usher-agent/usher/plugin"
)

func TestHeartbeats(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		r := newRig(t, nil)
		defer func() { r.stop() }()
		r.want(enforcer.Valid)
		if got := r.remote.count(Activate); got != 1 {
			t.Fatalf("activated %d times", got)
		}
		r.pass(24 * time.Hour)
		if n := r.remote.count(Heartbeat); n < 24*60/11 || n > 24*60/9 {
			t.Errorf("%d heartbeats in a day, of which each is due every 30 minutes and sent every 10", n)
		}
		r.want(enforcer.Valid)
		spread := map[time.Duration]bool{}
		calls := r.remote.seen()
		for i, c := range calls[1:] {
			spread[c.at.Sub(calls[i].at).Round(time.Second)] = true
		}
		if len(spread) < 10 {
			t.Errorf("the heartbeats have no jitter: %v", slices.Collect(maps.Keys(spread)))
		}
	})
}

// An outage hurts nobody before the licence's own period and grace have run out, and one success heals it.
func TestOutage(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		r := newRig(t, nil)
		defer func() { r.stop() }()
		r.remote.set(down)
		before := r.Facts()["fake/L1"].LastHeartbeat
		r.pass(29 * time.Minute)
		r.want(enforcer.Valid)
		if s := r.Facts()["fake/L1"].State; s != "retrying" {
			t.Errorf("the upstream's state is %q", s)
		}
		r.pass(2 * time.Minute)
		r.want(enforcer.ValidInGrace)
		r.pass(8*time.Minute + 30*time.Second)
		r.want(enforcer.ValidInGrace)
		r.pass(time.Minute)
		r.want(enforcer.HeartbeatDead)
		if got := r.Facts()["fake/L1"].LastHeartbeat; !got.Equal(before) {
			t.Errorf("the last heartbeat moved to %v during the outage", got)
		}
		n := len(r.remote.seen())
		if n > 40 {
			t.Errorf("%d calls in 40 minutes of outage", n)
		}
		r.pass(24 * time.Hour)
		if n := len(r.remote.seen()); n > 24*60 {
			t.Errorf("%d calls in a day of outage", n)
		}
		r.remote.set(nil)
		r.pass(15 * time.Minute)
		r.want(enforcer.Valid)
	})
}

// The agent heeds a Retry-After for minutes at most, whatever it says.
func TestRetryAfter(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		r := newRig(t, func(l *enforcer.License) { l.Heartbeat = enforcer.Period{Every: 24 * time.Hour} })
		defer func() { r.stop() }()
		r.remote.set(func(Call, *plugin.Request) (*plugin.Reply, error) {
			return nil, &plugin.Error{Class: plugin.Transient, Reason: "busy", RetryAfter: 2 * time.Hour}
		})
		r.pass(10 * time.Hour)
		calls := r.remote.seen()
		if len(calls) < 4 {
			t.Fatalf("%d calls in ten hours", len(calls))
		}
		for i, c := range calls[2:] {
			if gap := c.at.Sub(calls[i+1].at); gap < 4*time.Minute || gap > 11*time.Minute {
				t.Errorf("it waited %v after it was told to wait for two hours", gap)
			}
		}
	})
}

// One answer that nobody has signed costs no licence a duty that the upstream would have let it meet.
func TestUnsignedNeverSilences(t *testing.T) {
	day := 24 * time.Hour
	for name, change := range map[string]func(*enforcer.License){
		"short heartbeats": func(l *enforcer.License) {
			l.Heartbeat = enforcer.Period{Every: 6 * time.Second, Grace: 6 * time.Second}
		},
		"long heartbeats": func(l *enforcer.License) { l.Heartbeat = enforcer.Period{Every: day} },
		"short check-ins": func(l *enforcer.License) {
			l.Heartbeat, l.CheckIn = enforcer.Period{}, enforcer.Period{Every: 40 * time.Second, Grace: 5 * time.Second}
		},
		"monthly check-ins": func(l *enforcer.License) {
			l.Heartbeat, l.CheckIn = enforcer.Period{}, enforcer.Period{Months: 1}
		},
	} {
		for _, e := range []*plugin.Error{{Class: plugin.Transient, Reason: "503", RetryAfter: day},
			{Class: plugin.Misconfigured, Reason: "404", RetryAfter: day},
			{Class: plugin.Transient, Reason: "reset"}, nil} {
			bubble.Test(t, func(t *testing.T) {
				r := newRig(t, change)
				defer func() { r.stop() }()
				evil := 1
				r.remote.set(func(Call, *plugin.Request) (*plugin.Reply, error) {
					if evil--; evil < 0 {
						return &plugin.Reply{}, nil
					}
					if e == nil {
						return nil, errHang
					}
					return nil, e
				})
				period := r.licence.Heartbeat
				if !period.Stated() {
					period = r.licence.CheckIn
				}
				length := period.After(r.start).Sub(r.start)
				for range 300 {
					r.pass(length / 100)
					if v := r.verdict(); !v.Good() {
						t.Fatalf("%s: one answer (%v) made it %s after %v", name, e, v.Code, time.Since(r.start))
					}
				}
				if evil >= 0 {
					t.Fatalf("%s: the evil answer was not asked for", name)
				}
			})
		}
	}
}

// A refusal changes the verdict at once. A mistake of configuration does not before its time.
func TestClasses(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		r := newRig(t, nil)
		defer func() { r.stop() }()
		r.remote.set(func(Call, *plugin.Request) (*plugin.Reply, error) {
			return nil, &plugin.Error{Class: plugin.Refused, Code: enforcer.Suspended, Reason: "invoice 7 is open"}
		})
		r.pass(12 * time.Minute)
		r.want(enforcer.Suspended)
		r.remote.set(nil)
		r.pass(time.Hour)
		r.want(enforcer.Valid)
		r.remote.set(func(Call, *plugin.Request) (*plugin.Reply, error) {
			return nil, &plugin.Error{Class: plugin.Misconfigured, Reason: "the certificate has expired"}
		})
		r.pass(12 * time.Minute)
		r.want(enforcer.Valid)
		if s := r.Facts()["fake/L1"]; s.State != "misconfigured" {
			t.Errorf("%+v", s)
		}
		r.pass(40 * time.Minute)
		r.want(enforcer.HeartbeatDead)
		r.stop()
		if slices.Contains(r.results, "heartbeat ") || !slices.Contains(r.results, "heartbeat refused") ||
			!slices.Contains(r.results, "heartbeat misconfigured") {
			t.Errorf("the results are %v", r.results)
		}
	})
}

func TestHangs(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		r := newRig(t, nil)
		defer func() { r.stop() }()
		r.remote.set(func(Call, *plugin.Request) (*plugin.Reply, error) { return nil, errHang })
		r.pass(13 * time.Minute)
		if s := r.Facts()["fake/L1"]; s.State != "retrying" || s.Detail != "no answer within 30 seconds" {
			t.Errorf("%+v", s)
		}
		r.remote.set(func(Call, *plugin.Request) (*plugin.Reply, error) { return nil, nil })
		r.pass(13 * time.Minute)
		if s := r.Facts()["fake/L1"]; s.Detail != "the upstream gave no answer" {
			t.Errorf("%+v", s)
		}
	})
}

// A restart neither calls at once nor loses what is due.
func TestRestart(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		r := newRig(t, func(l *enforcer.License) {
			l.Heartbeat, l.CheckIn = enforcer.Period{}, enforcer.Period{Months: 1}
		})
		r.remote.set(func(Call, *plugin.Request) (*plugin.Reply, error) {
			return &plugin.Reply{State: []byte("chain")}, nil
		})
		r.pass(time.Hour)
		before := r.Status()["fake/L1"]
		n := len(r.remote.seen())
		for range 50 {
			r.stop()
			r.run()
		}
		if got := len(r.remote.seen()); got != n {
			t.Errorf("%d calls by 50 restarts", got-n)
		}
		if after := r.Status()["fake/L1"]; !after.At.Equal(before.At) || after.Call != before.Call {
			t.Errorf("%v, after the restarts %v", before, after)
		}
		r.pass(62 * 24 * time.Hour)
		if got := last(r.remote.seen()).req; string(got.State) != "chain" || len(got.Nonce) != 32 {
			t.Errorf("the chain is %q, the nonce has %d bytes", got.State, len(got.Nonce))
		}
		r.stop()
		r.remote.set(down)
		r.pass(100 * 24 * time.Hour) // the agent did not run
		r.run()
		r.pass(time.Second)
		r.want(enforcer.Overdue)
		r.stop()
	})
}

// After a boot of the host, and after a resume, one try comes before the verdict falls. After a mere restart of the
// agent none does.
func TestOneTryFirst(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		r := newRig(t, nil)
		defer func() { r.stop() }()
		r.remote.set(func(Call, *plugin.Request) (*plugin.Reply, error) { return nil, errHang })
		r.stop()
		r.pass(5 * time.Hour)
		r.run()
		r.want(enforcer.HeartbeatDead)
		r.stop()

		r.remote.set(nil)
		r.run()
		r.pass(2 * time.Hour)
		r.want(enforcer.Valid)
		r.stop()
		r.remote.set(func(Call, *plugin.Request) (*plugin.Reply, error) { return nil, errHang })
		r.pass(5 * time.Hour)
		// up all the while, but for another start: the host was never asleep
		r.boot, r.start = "b2", time.Now().Add(-5*time.Hour)
		r.run()
		r.want(enforcer.ValidInGrace)
		r.pass(31 * time.Second)
		r.want(enforcer.HeartbeatDead)
	})
}

// Heartbeats count the time that the host is awake.
func TestSleep(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		r := newRig(t, nil)
		defer func() { r.stop() }()
		r.pass(time.Hour)
		r.remote.set(down)
		r.stop()
		r.pass(48 * time.Hour)
		r.slept += 48 * time.Hour
		r.run()
		r.pass(time.Second)
		r.want(enforcer.Valid)
		if s := r.Facts()["fake/L1"]; s.Asleep != 48*time.Hour {
			t.Errorf("asleep for %v", s.Asleep)
		}
		r.pass(50 * time.Minute)
		r.want(enforcer.HeartbeatDead)
		r.remote.set(nil)
		r.pass(15 * time.Minute)
		r.want(enforcer.Valid)
		// Off for two days: the host has been up for as long as it has been awake.
		r.stop()
		r.pass(48 * time.Hour)
		r.boot, r.start, r.slept = "b3", time.Now().Add(59*time.Minute), 0
		r.remote.set(down)
		r.run()
		r.pass(time.Minute)
		r.want(enforcer.Valid)
	})
}

// The time jumps forward, as after a pause of the machine. In any order of judgements, one try comes before the verdict
// falls. When the jump turns out to be false, nothing that was noted by it counts.
func TestJump(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		r := newRig(t, nil)
		defer func() { r.stop() }()
		r.pass(time.Hour)
		before := len(r.remote.seen())
		r.skew.Store(int64(100 * 24 * time.Hour))
		r.want(enforcer.ValidInGrace)
		r.pass(time.Second)
		r.want(enforcer.Valid)
		if n := len(r.remote.seen()) - before; n != 1 {
			t.Errorf("%d calls after a jump, want 1", n)
		}
		r.pass(time.Hour)
		r.skew.Store(0)
		r.want(enforcer.Valid)
		r.pass(time.Second)
		if s := r.Status()["fake/L1"]; time.Until(s.At) > time.Hour || s.State.LastHeartbeat.After(time.Now()) {
			t.Errorf("the jump is undone, and the next call is at %v, the last heartbeat %v", s.At,
				s.State.LastHeartbeat)
		}
		r.remote.set(down)
		r.pass(45 * time.Minute)
		r.want(enforcer.HeartbeatDead) // an outage counts again as ever

		r.remote.set(nil)
		r.pass(15 * time.Minute)
		r.remote.set(down)
		r.skew.Store(int64(100 * 24 * time.Hour))
		r.want(enforcer.ValidInGrace)
		r.pass(time.Second)
		r.want(enforcer.HeartbeatDead) // the try was in vain
		r.skew.Store(0)
		r.want(enforcer.Valid) // and cost nothing
	})
}

func TestRenewalAndTime(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		r := newRig(t, func(l *enforcer.License) { l.CheckIn = enforcer.Period{Every: 24 * time.Hour} })
		defer func() { r.stop() }()
		at := time.Now().Add(time.Minute)
		r.remote.set(func(c Call, _ *plugin.Request) (*plugin.Reply, error) {
			if c == CheckIn {
				return &plugin.Reply{Document: []byte("new"), Time: at}, nil
			}
			return &plugin.Reply{}, nil
		})
		r.pass(24 * time.Hour)
		r.stop()
		if len(r.renewed) != 1 || string(r.renewed[0]) != "new" || len(r.learnt) != 1 || !r.learnt[0].Equal(at) {
			t.Errorf("renewed %q, learnt %v", r.renewed, r.learnt)
		}
		earliest, latest := Window(r.licence.CheckIn, r.start)
		for _, c := range r.remote.seen() {
			if c.call == CheckIn && (c.at.Before(earliest) || c.at.After(latest)) {
				t.Errorf("checked in at %v, not between %v and %v", c.at, earliest, latest)
			}
		}
	})
}

func TestDeactivate(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		r := newRig(t, nil)
		defer func() { r.stop() }()
		if got := r.Placed("other"); len(got) != 0 {
			t.Errorf("of another licence: %v", got)
		}
		placed := r.Placed()
		if len(placed) != 1 || placed[0].ID != "L1" {
			t.Fatalf("placed: %v", placed)
		}
		r.remote.set(down)
		if err := r.Deactivate(context.Background(), placed[0]); err == nil || !errors.As(err, new(*plugin.Error)) {
			t.Errorf("got %v", err)
		}
		r.want(enforcer.Valid)
		r.remote.set(nil)
		if err := r.Deactivate(context.Background(), placed[0]); err != nil || r.remote.count(Deactivate) != 2 {
			t.Errorf("%v, after %d calls", err, r.remote.count(Deactivate))
		}
		released := func() {
			t.Helper()
			if s := r.Facts()["fake/L1"]; !s.Activated.IsZero() || !s.LastHeartbeat.IsZero() || s.Released.IsZero() ||
				s.State != "released" || len(r.Placed()) > 0 {
				t.Errorf("%+v", s)
			}
			r.want(enforcer.HeartbeatNotStarted)
		}
		released()
		n := len(r.remote.seen())
		r.stop()
		r.run()
		r.pass(24 * time.Hour)
		released()
		if more := len(r.remote.seen()) - n; more > 0 {
			t.Errorf("%d calls for a place that was given back", more)
		}
		r.Now()
		synctest.Wait()
		r.want(enforcer.Valid)
		if r.remote.count(Activate) != 2 {
			t.Error("a person wants a place again, and none is taken")
		}
	})
}

func TestNow(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		r := newRig(t, nil)
		defer func() { r.stop() }()
		n := len(r.remote.seen())
		r.Now()
		synctest.Wait()
		if got := len(r.remote.seen()); got != n+1 {
			t.Errorf("%d calls", got-n)
		}
		if p := r.Preview(); len(p) != 1 || p[0].LicenseID != "L1" || p[0].Nonce != nil {
			t.Errorf("%+v", p)
		}
	})
}

// A request for a call while one is under way causes another: the first one's question may be out of date.
func TestNowDuringACall(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		r := newRig(t, nil)
		defer func() { r.stop() }()
		answer := make(chan struct{})
		r.remote.set(func(Call, *plugin.Request) (*plugin.Reply, error) { <-answer; return &plugin.Reply{}, nil })
		n := len(r.remote.seen())
		r.Now()
		synctest.Wait()
		r.Now()
		synctest.Wait()
		close(answer)
		synctest.Wait()
		if got := len(r.remote.seen()); got != n+2 {
			t.Errorf("%d calls", got-n)
		}
	})
}

func last[T any](s []T) T { return s[len(s)-1] }

// A former version kept its state of a licence by the id alone. It is still that licence's state, and no other's:
// neither of another system nor of a test key.
func TestFormerState(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		r := newRig(t, nil)
		synctest.Wait()
		before := r.Facts()["fake/L1"]
		r.stop()
		kept, err := os.ReadFile(r.cfg.File)
		if err != nil || before.LastHeartbeat.IsZero() {
			t.Fatal(before, err)
		}
		former := bytes.Replace(kept, []byte(`"fake/L1":{"named":true,`), []byte(`"L1":{`), 1)
		if bytes.Equal(former, kept) {
			t.Fatalf("%s", kept)
		}
		if err := os.WriteFile(r.cfg.File, former, 0o600); err != nil {
			t.Fatal(err)
		}
		p, err := New(r.cfg)
		if err != nil {
			t.Fatal(err)
		}
		other, test := *r.licence, *r.licence
		other.System, test.AnchorEnvironment = "other", enforcer.Test
		p.Set([]Licence{{&test, nil, r.remote}, {r.licence, nil, r.remote}, {&other, nil, r.remote}})
		got := p.Facts()
		if !got["fake/L1"].LastHeartbeat.Equal(before.LastHeartbeat) || len(got) != 1 {
			t.Errorf("%v, want %v", got, before)
		}
	})
}
