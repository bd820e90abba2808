package enforcer

import (
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// drawer is a host that draws all that it gets of a meter of five a month.
type drawer struct {
	abused
	core  *Enforcer
	ran   time.Duration
	drawn int64
}

func newDrawer(t interface{ Fatalf(string, ...any) }, at time.Time) *drawer {
	c := Clocks{Wall: at, Boot: time.Hour, BootID: "b0"}
	return newDrawerWith(c, at, Mark{}.Learn(c, zeroTime, at))
}

func newDrawerWith(c Clocks, at time.Time, m Mark) *drawer {
	d := &drawer{abused: abused{machine: machine{Clocks: c, real: at, mark: m}}}
	d.core = New(Options{Durable: true})
	v := &Verdict{State: StateValid, Code: Valid, Meters: map[string]MeterGrant{"m": {Name: "m", Key: "L/m", Limit: 5,
		Budget: 5, Most: 5, Resets: ResetsMonthly}}}
	for _, ev := range d.core.Decide(&SetVerdict{v}, at).Events {
		d.core.Apply(ev)
	}
	d.draw()
	return d
}

// draw takes what there is, at a reading of the clocks, and returns what the clocks say, and what it was denied with.
func (d *drawer) draw() (now time.Time, c Clock, why *Denial) {
	d.look() // the mark is brought up to the present first, as the agent does
	now, c = d.look()
	for _, r := range []Request{&Step{Unproved: c.Unproved, Unsure: c.Unsure}, &TakeOver{}} {
		for _, ev := range d.core.Decide(r, now).Events {
			d.core.Apply(ev)
		}
	}
	for {
		dec := d.core.Decide(&Acquire{ID: LeaseID{byte(d.drawn), byte(d.drawn >> 8)}, Caller: Caller{UID: 1}, Pool: "m",
			N: 1}, now)
		if dec.Denial != nil {
			return now, c, dec.Denial
		}
		for _, ev := range dec.Events {
			d.core.Apply(ev)
		}
		d.drawn++
	}
}

// on has the host run, and draw whenever it can.
func (d *drawer) on(by time.Duration) {
	for d.ran += by; by > 0; {
		step := min(by, max(time.Minute, by/20))
		by -= step
		d.suspend(step)
		d.draw()
	}
}

// However often a clock is set forward, and in steps of whatever size, it opens no period before that has come, but for
// the day that a wall clock is believed for at once.
func TestPeriodsAreNotOpenedAhead(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		start := time.Date(2026, 3, 5, 12, 0, 0, 0, time.UTC)
		d := newDrawer(t, start)
		for range rapid.IntRange(1, 40).Draw(t, "steps") {
			before, was := d.look()
			switch rapid.SampledFrom([]string{"ahead", "ahead", "day", "far", "back", "right", "run", "restart",
				"boot"}).Draw(t, "what") {
			case "ahead":
				d.set(time.Duration(rapid.IntRange(1, 24*60).Draw(t, "minutes")) * time.Minute)
			case "day":
				d.set(Leap)
			case "far":
				d.set(time.Duration(rapid.IntRange(1, 400).Draw(t, "days")) * aDay)
			case "back":
				d.set(-time.Duration(rapid.IntRange(1, 400*24).Draw(t, "hours")) * time.Hour)
			case "right":
				d.Wall = d.real
			case "run":
				d.on(time.Duration(rapid.IntRange(1, 60).Draw(t, "seconds")) * time.Second)
			case "restart":
				d.restart()
			case "boot":
				d.reboot(time.Second, d.Wall)
				d.ran += d.Boot
			}
			now, c, _ := d.draw()
			counted := now.Add(-c.Unproved)
			if latest := d.real.Add(Leap + catchUp*d.ran + clockStepLeast); counted.After(latest) {
				t.Fatalf("periods are counted by %v, and it is %v after running for %v", counted, d.real, d.ran)
			}
			if was := before.Add(-was.Unproved); counted.Before(was.Add(-clockStepLeast)) {
				t.Fatalf("periods were counted by %v, and now by %v", was, counted)
			}
			if counted.After(now) {
				t.Fatalf("periods are counted by %v, later than licence time, %v", counted, now)
			}
			if d.drawn != 5 {
				t.Fatalf("%d were drawn of 5 a month, in %v", d.drawn, d.real.Sub(start))
			}
		}
	})
}

// However a first clock is set to and fro before it is proved, it opens no second period. Once it is right and proved,
// what was drawn counts in the present period, whichever it was drawn in, and the next one opens in time.
func TestFirstClockOpensNoPeriod(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		start := time.Date(2026, 3, 5, 12, 0, 0, 0, time.UTC)
		first := start.AddDate(0, rapid.IntRange(2, 900).Draw(t, "months"), rapid.IntRange(0, 30).Draw(t, "days"))
		d := newDrawerWith(Clocks{Wall: first, Boot: time.Hour, BootID: "b0"}, start, Mark{})
		for range rapid.IntRange(0, 20).Draw(t, "steps") {
			switch pick(t, "what", "to", "day", "month", "run", "restart", "boot") {
			case "to":
				d.Wall = start.AddDate(0, rapid.IntRange(0, 900).Draw(t, "to months"), 0)
			case "day":
				d.set(pick(t, "by a day", -Leap, Leap))
			case "month": // just before one begins
				d.Wall = ResetsMonthly.end(d.Wall).Add(-time.Second)
			case "run":
				d.on(time.Duration(rapid.IntRange(1, 90).Draw(t, "seconds")) * time.Second)
			case "restart":
				d.restart()
			case "boot":
				d.reboot(time.Second, d.Wall)
			}
			if d.draw(); d.drawn != 5 {
				t.Fatalf("%d were drawn of 5 a month before the first clock was proved", d.drawn)
			}
		}
		d.Wall = d.real
		if d.on(Leap + time.Hour); d.drawn != 5 {
			t.Fatalf("%d were drawn of 5 in the first month", d.drawn)
		}
		for months := int64(2); months < 5; months++ {
			if d.on(ResetsMonthly.end(d.Wall).Sub(d.Wall) + time.Minute); d.drawn != 5*months {
				t.Fatalf("%d were drawn in %d months, by %v", d.drawn, months, d.Wall)
			}
		}
	})
}

// A document that puts a false mark back has meters count in the present period again.
func TestHealedMarkHealsMeters(t *testing.T) {
	start := time.Date(2026, 3, 5, 12, 0, 0, 0, time.UTC)
	d := newDrawer(t, start.AddDate(73, 0, 0)) // a false time that was proved
	d.Wall, d.real = start, start
	if d.draw(); d.drawn != 5 {
		t.Fatalf("%d are drawn", d.drawn)
	}
	d.mark, _ = d.mark.Heal(d.Clocks, start.Add(-time.Hour))
	if d.on(time.Hour); d.drawn != 5 {
		t.Errorf("%d are drawn once it is healed", d.drawn)
	}
	if d.on(ResetsMonthly.end(d.Wall).Sub(d.Wall) + time.Minute); d.drawn != 10 {
		t.Errorf("%d are drawn in the next month", d.drawn)
	}
}

// A host whose clock is right has its periods in time, however little of the day it is on; after longer than a day of
// being off, once it has run for a day.
func TestPeriodsComeInTime(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		d := newDrawer(t, noon)
		off := time.Duration(0)
		for range rapid.IntRange(1, 40).Draw(t, "days") {
			switch rapid.SampledFrom([]string{"boot", "boot", "sleep", "restart"}).Draw(t, "what") {
			case "boot":
				off = time.Duration(rapid.Int64Range(0, int64(Leap-time.Minute)).Draw(t, "off"))
				d.reboot(off, d.real.Add(off+time.Second))
			case "sleep":
				d.suspend(time.Duration(rapid.Int64Range(0, int64(90*aDay)).Draw(t, "asleep")))
			case "restart":
				d.restart()
			}
			if _, c, _ := d.draw(); c.Unproved != 0 {
				t.Fatalf("%v are not proved after %v of being off", c.Unproved, off)
			}
			d.on(time.Hour)
		}
		off = time.Duration(rapid.Int64Range(int64(Leap), int64(400*aDay)).Draw(t, "off for long"))
		d.reboot(off, d.real.Add(off+time.Second))
		d.on(Leap + time.Minute)
		if now, c, _ := d.draw(); c.Unproved != 0 || !now.Equal(d.real) {
			t.Fatalf("a day after %v of being off it is %v, of which %v are not proved", off, now, c.Unproved)
		}
	})
}

// A laptop that was off for three months across the ends of periods: a leap of the clock is used, and opens no period
// until a day of running or signed evidence proves it. Meanwhile the denial says so.
func TestPeriodOpensWithProof(t *testing.T) {
	for name, prove := range map[string]func(d *drawer){
		"a day of running": func(d *drawer) { d.on(23 * time.Hour); d.still(t, 5); d.on(time.Hour + time.Minute) },
		"a document":       func(d *drawer) { d.docs = append(d.docs, d.real.Add(-time.Minute)) },
		"an upstream":      func(d *drawer) { d.mark = d.mark.Learn(d.Clocks, d.signed(), d.real) },
	} {
		t.Run(name, func(t *testing.T) {
			d := newDrawer(t, noon)
			d.on(time.Hour)
			d.reboot(90*aDay, d.real.Add(90*aDay+time.Second))
			now, c, why := d.draw()
			if d.still(t, 5); !now.Equal(d.Wall) || c.Unproved < 89*aDay {
				t.Errorf("it is %v, of which %v are not proved", now, c.Unproved)
			}
			if !strings.Contains(why.Hint, "ahead of the latest time that is proved") || !why.Next.After(now) ||
				why.Next.Sub(now) > Leap {
				t.Errorf("it is denied until %v: %s", why.Next, why.Hint)
			}
			prove(d)
			if d.draw(); d.drawn != 10 {
				t.Errorf("%d are drawn after the proof", d.drawn)
			}
			// Set back, nothing of it is lost, and nothing doubled.
			d.set(-90 * aDay)
			d.on(time.Minute)
			d.restart()
			if d.draw(); d.drawn != 10 {
				t.Errorf("%d are drawn after the clock was set back", d.drawn)
			}
		})
	}
}

func (d *drawer) still(t *testing.T, n int64) {
	t.Helper()
	if d.drawn != n {
		t.Errorf("%d are drawn, want %d", d.drawn, n)
	}
}

// A year that was leaped over grants no further emergency.
func TestEmergencyOfALeapedYear(t *testing.T) {
	d := doc("a.lic", func(l *License) {
		l.Emergency, l.Expires = Emergency{Length: aDay, PerYear: 1}, noon.Add(30*aDay)
	})
	f := factsWith(d)
	f.Emergencies = map[Ref][]time.Time{d.License.Ref(): {noon.Add(31 * aDay)}}
	at := noon.Add(500 * aDay)
	if _, why := MayBeginEmergency(f, Judge(f, at), at); why != nil {
		t.Fatalf("after a year: %+v", why)
	}
	f.Clock.Unproved = 460 * aDay
	if _, why := MayBeginEmergency(f, Judge(f, at), at); why == nil || !strings.Contains(why.Detail, "none is left") {
		t.Errorf("after a leap: %+v", why)
	}
}
