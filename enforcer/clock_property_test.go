package enforcer

import (
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// suspend lets the host sleep: its wall clock and boot time go on, and nobody advances the mark.
func (m *machine) suspend(d time.Duration) {
	m.real, m.Wall, m.Boot = m.real.Add(d), m.Wall.Add(d), m.Boot+d
}

// restart is a new agent on the same start of the host, which knows what was kept.
func (m *machine) restart() { m.mark = m.kept }

// abused is a machine to which everything is done that a clock and documents may see.
type abused struct {
	machine
	docs []time.Time // the dates of the documents at hand
}

func (a *abused) signed() (at time.Time) {
	for _, d := range a.docs {
		at = later(at, d)
	}
	return at
}

// reboot starts the host again, which takes a second; the wall clock is wall then.
func (a *abused) reboot(off time.Duration, wall time.Time) {
	a.boot(off, wall)
	a.real = a.real.Add(a.Boot)
}

// look is one reading, as the agent makes it before every decision.
func (a *abused) look() (time.Time, Clock) {
	now, c := a.mark.Now(a.Clocks, a.signed())
	a.mark = a.mark.Advance(a.Clocks, a.signed())
	a.kept = a.mark
	return now, c
}

func (a *abused) pass(d time.Duration) {
	for d > 0 {
		step := min(d, max(time.Minute, d/20))
		d -= step
		a.suspend(step)
		a.look()
	}
}

// Over any sequence of what happens to clocks, hosts, agents and documents, licence time goes back only by what the
// rules name: a leap that was not believed yet is undone, a document goes away, or one resets the clock.
func TestLicenceTimeGoesBackByTheRulesAlone(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a := &abused{machine: *newMachine()}
		a.look()
		span := func(label string, most time.Duration) time.Duration {
			return time.Duration(rapid.Int64Range(int64(time.Second), int64(most)).Draw(t, label))
		}
		for range rapid.IntRange(1, 30).Draw(t, "steps") {
			before, was := a.look()
			ran, excused := time.Duration(0), was.Ahead > 0 // a leap that is not believed
			switch what := rapid.SampledFrom([]string{"run", "suspend", "wall", "right", "boot", "restart", "drop",
				"drop ahead", "remove", "learn", "heal"}).Draw(t, "what"); what {
			case "run":
				ran = span("run", 40*time.Hour)
				a.pass(ran)
			case "suspend":
				ran = span("suspended", 40*aDay)
				a.suspend(ran)
			case "wall":
				a.set(time.Duration(rapid.IntRange(-400*24, 400*24).Draw(t, "hours")) * time.Hour)
			case "right":
				a.Wall = a.real
			case "boot":
				wall := rapid.SampledFrom([]time.Time{time.Unix(5, 0).UTC(), a.real, noon.Add(-aDay),
					noon.Add(500 * aDay)}).Draw(t, "wall")
				a.reboot(span("off", 40*aDay), wall)
				ran = a.Boot
			case "restart":
				a.restart()
			case "drop":
				a.docs = append(a.docs, a.real.Add(-span("issued before", 400*aDay)))
			case "drop ahead":
				a.docs = append(a.docs, a.real.Add(span("issued ahead", 400*aDay)))
			case "remove":
				if len(a.docs) > 0 {
					a.docs = slices.Delete(a.docs, 0, 1)
				}
				excused = excused || was.From == FromDocument || was.Behind < clockStepLeast
			case "learn":
				a.mark = a.mark.Learn(a.Clocks, a.signed(), a.real)
				if now, _ := a.look(); now.Before(a.real) {
					t.Fatalf("an upstream says that it is %v, and licence time is %v", a.real, now)
				}
			case "heal":
				a.mark, _ = a.mark.Heal(a.Clocks, a.real)
				excused = true
			}
			now, c := a.look()
			if earliest := before.Add(ran); now.Before(earliest) && !excused {
				t.Fatalf("licence time went from %v (%s) to %v, though %v have passed", before, was.From, now, ran)
			}
			if now.Before(a.Wall) || now.Before(a.mark.Time) || now.Before(a.signed()) || c.Behind != now.Sub(a.Wall) {
				t.Fatalf("licence time is %v; wall clock %v, mark %v, documents %v, %+v", now, a.Wall, a.mark.Time,
					a.signed(), c)
			}
			if again, _ := a.look(); !again.Equal(now) {
				t.Fatalf("asked again at the same instant it is %v and not %v", again, now)
			}
		}
	})
}

// A host whose clock is never ahead, in 1970 or anywhere in the past, is never judged by a time that has not come yet,
// so that nothing expires early; and never by one that lies further back than the host was off since there was
// evidence, so that nothing goes on for ever.
func TestClockThatIsOnlyBehind(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a := &abused{machine: machine{Clocks: Clocks{Wall: time.Unix(5, 0).UTC(), Boot: 5 * time.Second, BootID: "b"},
			real: noon}}
		a.docs = []time.Time{noon.Add(-time.Hour)}
		a.look()
		unseen := time.Hour
		for range rapid.IntRange(1, 20).Draw(t, "steps") {
			d := time.Duration(rapid.Int64Range(int64(time.Second), int64(50*aDay)).Draw(t, "span"))
			switch rapid.SampledFrom([]string{"run", "suspend", "1970", "back", "right", "restart", "drop", "learn"}).
				Draw(t, "what") {
			case "run":
				a.pass(d)
			case "suspend":
				a.suspend(d)
			case "1970":
				a.reboot(d, time.Unix(5, 0).UTC())
				unseen += d
			case "back":
				a.set(-d)
			case "right":
				a.Wall = a.real
				a.look()
				// Otherwise it is a leap or a first clock, which counts while the clock is right.
				if a.mark.Time.Equal(a.real) && a.mark.Unsure == 0 {
					unseen = 0
				}
			case "restart":
				a.restart()
			case "drop":
				a.docs = append(a.docs, a.real)
				unseen = 0
			case "learn":
				a.mark = a.mark.Learn(a.Clocks, a.signed(), a.real)
				unseen = 0
			}
			now, _ := a.look()
			if now.After(a.real) {
				t.Fatalf("licence time is %v, and it is %v", now, a.real)
			}
			if lag := a.real.Sub(now); lag > unseen {
				t.Fatalf("licence time lags by %v, of which the host was off for %v", lag, unseen)
			}
		}
	})
}

// A leap of the clock that is undone within a day leaves nothing behind, whatever happens to the host and the agent
// meanwhile.
func TestLeapUndone(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a := &abused{machine: *newMachine()}
		a.look()
		if rapid.Bool().Draw(t, "document") {
			a.docs = []time.Time{noon.Add(-time.Hour)}
		}
		a.pass(time.Duration(rapid.Int64Range(int64(time.Minute), int64(100*aDay)).Draw(t, "before")))
		leap := time.Duration(rapid.Int64Range(int64(Leap)+int64(aDay), int64(20_000*aDay)).Draw(t, "leap"))
		a.set(leap)
		if now, c := a.look(); !now.Equal(a.Wall) || c.Ahead == 0 {
			t.Fatalf("a leap makes it %v, %+v", now, c)
		}
		for left, n := 23*time.Hour, rapid.IntRange(0, 8).Draw(t, "steps"); n > 0; n-- {
			d := time.Duration(rapid.Int64Range(0, int64(left)).Draw(t, "span"))
			left -= d
			switch rapid.SampledFrom([]string{"run", "suspend", "boot", "restart"}).Draw(t, "what") {
			case "run":
				a.pass(d)
			case "suspend":
				a.suspend(d)
			case "boot":
				a.reboot(d, a.Wall.Add(d+time.Second))
			case "restart":
				a.restart()
			}
			a.look()
		}
		a.Wall = a.real
		if now, c := a.look(); !now.Equal(a.real) || c.Behind != 0 || c.Ahead != 0 {
			t.Fatalf("the leap of %v is undone, and it is %v and not %v: %+v", leap, now, a.real, c)
		}
	})
}
