package pulse

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/usher-agent/usher/enforcer"
	"github.com/usher-agent/usher/plugin"
)

var y2k = time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)

var every = plugin.Capabilities{Activate: true, Heartbeat: true, CheckIn: true, Deactivate: true}

// outage is a time in which no call succeeds.
type outage struct{ from, to time.Time }

func isDown(outages []outage, at time.Time) bool {
	return slices.ContainsFunc(outages, func(o outage) bool { return !at.Before(o.from) && at.Before(o.to) })
}

// simulate follows the schedule from a first call at start to end. It tells see each call's instant and whether it
// succeeded.
func simulate(d Duties, start, end time.Time, reachable func(time.Time) bool, jitter Jitter,
	see func(Call, time.Time, bool, State)) {
	var s State
	for now := start; ; {
		call, at := s.Next(d)
		if call == None {
			return
		}
		if at.After(now) {
			now = at
		}
		if !now.Before(end) {
			return
		}
		up := Uptime{BootID: "b", Up: now.Sub(start)}
		ok := reachable(now)
		if ok {
			s = s.Succeeded(d, call, &plugin.Reply{}, now, up, jitter)
		} else {
			s = s.Failed(d, plugin.Transiently("down"), now, up, jitter)
		}
		see(call, now, ok, s)
	}
}

// drawDuty draws a licence with heartbeats or check-ins.
func drawDuty(t *rapid.T) *enforcer.License {
	l := &enforcer.License{ID: "L1", Issued: y2k}
	if rapid.Bool().Draw(t, "heartbeats") {
		l.Heartbeat = enforcer.Period{Every: time.Duration(rapid.IntRange(60, 7200).Draw(t, "minutes")) *
			time.Minute, Grace: time.Duration(rapid.IntRange(0, 600).Draw(t, "grace")) * time.Minute}
	} else {
		l.CheckIn = enforcer.Period{Months: rapid.IntRange(0, 3).Draw(t, "months"),
			Grace: time.Duration(rapid.IntRange(0, 10).Draw(t, "days of grace")) * 24 * time.Hour}
		if l.CheckIn.Months == 0 {
			l.CheckIn.Every = time.Duration(rapid.IntRange(1, 60).Draw(t, "days")) * 24 * time.Hour
		}
	}
	return l
}

// drawOutages draws outages until end, and returns how long the longest is.
func drawOutages(t *rapid.T, end time.Time, length, grace time.Duration) (outages []outage, longest time.Duration) {
	for at := y2k.Add(length / 2); rapid.IntRange(0, 9).Draw(t, "more") > 0; {
		at = at.Add(time.Duration(rapid.Int64Range(int64(time.Minute), int64(3*length)).Draw(t, "up for")))
		down := time.Duration(rapid.Int64Range(int64(time.Second), int64(2*length+grace)).Draw(t,
			"down for"))
		if !at.Before(end) {
			break
		}
		outages = append(outages, outage{at, at.Add(down)})
		longest = max(longest, down)
		at = at.Add(down)
	}
	return outages, longest
}

// For any pattern of outages over two years, the verdict is neither worse nor better than the licence allows. It never
// falls while no outage is longer than what the period and its grace leave. It has fallen whenever the last success is
// longer ago than period and grace.
func TestAnyOutages(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		l := drawDuty(t)
		d := DutiesOf(l, every)
		period := l.Heartbeat
		if !period.Stated() {
			period = l.CheckIn
		}
		length := period.After(y2k).Sub(y2k)
		end := y2k.Add(min(2*366*24*time.Hour, 100*length))
		outages, longest := drawOutages(t, end, length, period.Grace)
		random := rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 1))
		var success time.Time
		judge := func(s State, at time.Time) *enforcer.Verdict {
			return enforcer.Judge(enforcer.Facts{Documents: []enforcer.Document{{Name: "a", License: l}},
				Upstream: map[enforcer.Ref]enforcer.Upstream{l.Ref(): s.Facts(at, time.Time{},
					Uptime{BootID: "b", Up: at.Sub(y2k)})}}, at)
		}
		last := State{}
		simulate(d, y2k, end, func(at time.Time) bool {
			return !isDown(outages, at)
		}, random.Float64, func(c Call, at time.Time, ok bool, s State) {
			if success.IsZero() && !ok {
				last = s
				return
			}
			if !success.IsZero() {
				// Just before the call, with the state until then.
				v, falls := judge(last, at.Add(-1)), period.After(success).Add(period.Grace)
				if v.Good() != at.Add(-1).Before(falls) {
					t.Fatalf("at %v, the last success at %v: %s, which falls at %v", at, success, v.Code, falls)
				}
			}
			if ok {
				success = at
				if v := judge(s, at); v.Code != enforcer.Valid {
					t.Fatalf("at %v, just after a success: %s", at, v.Code)
				}
			} else if !s.NotBefore.After(at) {
				t.Fatalf("at %v it would try again at once", at)
			}
			last = s
		})
		// A heartbeat comes at a third of its period, and a check-in in the last quarter: the verdict never feels an
		// outage that is shorter than the rest, less one longest back-off.
		spare := length*7/10 - length*3/10
		if !l.Heartbeat.Stated() {
			spare = length / 8
		}
		if felt := spare + period.Grace - 2*time.Hour; longest < felt && felt > 0 {
			simulate(d, y2k, end, func(at time.Time) bool {
				return !isDown(outages, at)
			}, random.Float64, func(c Call, at time.Time, ok bool, s State) {
				if ok && c != Activate && !at.Before(period.After(success).Add(period.Grace)) && success.Before(at) &&
					at.Sub(success) < length*2 {
					t.Fatalf("outages of at most %v are felt at %v", longest, at)
				}
				if ok {
					success = at
				}
			})
		}
	})
}

// Calls that were drawn over years of good weather stay within the windows.
func TestWindowsOverYears(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	for _, p := range []enforcer.Period{{Every: 24 * time.Hour}, {Every: 7 * 24 * time.Hour}, {Months: 1}, {Months: 3},
		{Months: 12}} {
		last := y2k
		n := 0
		simulate(Duties{CheckIn: p, Can: every}, y2k, y2k.AddDate(30, 0, 0), func(time.Time) bool {
			return true
		}, random.Float64, func(c Call, at time.Time, _ bool, _ State) {
			if c == Activate {
				return
			}
			if earliest, _ := Window(p, last); at.Before(earliest) || !at.Before(p.After(last)) {
				t.Errorf("%s: checked in at %v after %v", p, at, last)
			}
			last = at
			n++
		})
		if n < int(30*365*24*time.Hour/p.After(y2k).Sub(y2k)) {
			t.Errorf("%s: %d check-ins in 30 years", p, n)
		}
	}
}

// Whatever has failed, and however often, the next try comes before the duty is missed where there is time for one, and
// within minutes. Only a refusal, which is signed, may put it off for longer.
func TestFailuresLeaveTime(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		spans := rapid.Custom(func(t *rapid.T) time.Duration {
			return time.Duration(rapid.Int64Range(int64(time.Second), int64(60*24*time.Hour)).Draw(t, "span"))
		})
		d := Duties{Can: every}
		if rapid.Bool().Draw(t, "heartbeats") {
			d.Heartbeat = enforcer.Period{Every: spans.Draw(t, "heartbeat"), Grace: spans.Draw(t, "grace")}
		}
		if rapid.Bool().Draw(t, "check-ins") || !d.Heartbeat.Stated() {
			d.CheckIn = enforcer.Period{Every: spans.Draw(t, "check-in"), Grace: spans.Draw(t, "grace")}
		}
		jitter := func() float64 { return rapid.Float64Range(0, 0.999).Draw(t, "jitter") }
		s := State{}.Succeeded(d, Activate, &plugin.Reply{}, y2k, Uptime{BootID: "b"}, jitter)
		for n := range 20 {
			_, now := s.Next(d)
			up := Uptime{BootID: "b", Up: now.Sub(y2k)}
			end := s.deadline(d, now, up)
			e := &plugin.Error{Class: rapid.SampledFrom([]plugin.Class{plugin.Transient, plugin.Misconfigured}).Draw(t,
				"class"),
				RetryAfter: spans.Draw(t, "Retry-After")}
			s = s.Failed(d, e, now, up, jitter)
			wait := s.NotBefore.Sub(now)
			if wait > 11*time.Minute || wait <= 0 {
				t.Fatalf("failure %d: it waits %v", n+1, wait)
			}
			if n == 0 && wait > plugin.MaxRetryAfter {
				t.Fatalf("one answer puts it off for %v", wait)
			}
			if left := end.Sub(now); left > 4*lastTry && wait > left*9/10 || left > lastTry && wait > left {
				t.Fatalf("failure %d: it waits %v of the %v that are left", n+1, wait, left)
			}
		}
	})
}

func TestNothingToAsk(t *testing.T) {
	for _, d := range []Duties{{}, {Can: every}, {Heartbeat: enforcer.Period{Every: time.Hour}}} {
		if c, _ := (State{}).Next(d); c != None || d.Any() {
			t.Errorf("%+v asks for %s", d, c)
		}
	}
}

var histogram = flag.Bool("histogram", false, "print the histogram of docs/scale.md")

// Ten thousand agents lose their one upstream for an hour. The load when it is back stays near to that of quiet times.
func TestTenThousandAgents(t *testing.T) {
	const agents = 10_000
	from, to, end := y2k.Add(2*time.Hour), y2k.Add(3*time.Hour), y2k.Add(6*time.Hour)
	d := Duties{Heartbeat: enforcer.Period{Every: 30 * time.Minute}, Can: every}
	answered, tried := make([]int, 360), make([]int, 360) // by the minute
	for i := range agents {
		random := rand.New(rand.NewPCG(uint64(i), 3))
		// They were started over ten minutes.
		simulate(d, y2k.Add(time.Duration(random.Float64()*float64(10*time.Minute))), end,
			func(at time.Time) bool {
				return at.Before(from) || !at.Before(to)
			}, random.Float64, func(_ Call, at time.Time, ok bool, _ State) {
				m := int(at.Sub(y2k) / time.Minute)
				if tried[m]++; ok {
					answered[m]++
				}
			})
	}
	quiet := slices.Max(tried[60:120])
	if most := slices.Max(tried[180:]); most > 3*quiet {
		t.Errorf("%d calls in one minute after the outage, %d at most before", most, quiet)
	}
	if most := slices.Max(tried[120:180]); most > 4*quiet {
		t.Errorf("%d calls in one minute of the outage, %d at most before", most, quiet)
	}
	if *histogram {
		var b strings.Builder
		for m := 100; m < 240; m += 4 {
			n := 0
			for _, x := range tried[m : m+4] {
				n += x / 4
			}
			fmt.Fprintf(&b, "%3d min  %5d/min  %s\n", m, n, strings.Repeat("#", n/60))
		}
		t.Log("\n" + b.String())
	}
}
