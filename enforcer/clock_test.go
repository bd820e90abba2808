package enforcer

import (
	"testing"
	"time"

	"pgregory.net/rapid"
)

// machine is a host whose clocks a test can set.
type machine struct {
	Clocks
	real time.Time // the true time
	mark Mark
	kept Mark // on the disk
}

// newMachine returns a host whose clock has been proved right.
func newMachine() *machine {
	c := Clocks{Wall: noon, Boot: time.Hour, BootID: "b0"}
	return &machine{Clocks: c, real: noon, mark: Mark{}.Learn(c, zeroTime, noon)}
}

// run lets time pass, with the mark advanced every minute or so.
func (m *machine) run(d time.Duration) {
	for d > 0 {
		step := min(d, max(time.Minute, d/50))
		d -= step
		m.real, m.Wall, m.Boot = m.real.Add(step), m.Wall.Add(step), m.Boot+step
		m.mark = m.mark.Advance(m.Clocks, zeroTime)
	}
	m.kept = m.mark
}

func (m *machine) set(d time.Duration) { m.Wall = m.Wall.Add(d) }

// boot starts the host again after it was off for a while; its wall clock is wall then.
func (m *machine) boot(off time.Duration, wall time.Time) {
	m.real = m.real.Add(off)
	m.Clocks = Clocks{Wall: wall, Boot: time.Second, BootID: m.BootID + "'"}
	m.mark = m.kept
}

func (m *machine) now() time.Time {
	at, _ := m.mark.Now(m.Clocks, zeroTime)
	return at
}

func (m *machine) behind() (c struct{ Behind, BehindFor time.Duration }) {
	now, clock := m.mark.Now(m.Clocks, zeroTime)
	if c.Behind = clock.Behind; !clock.BehindSince.IsZero() {
		c.BehindFor = now.Sub(clock.BehindSince)
	}
	return c
}

func near(t *testing.T, what string, got, want time.Time) {
	t.Helper()
	if d := got.Sub(want); d < -2*time.Minute || d > 2*time.Minute {
		t.Errorf("%s: it is %v, want %v", what, got, want)
	}
}

func TestClockSetBack(t *testing.T) {
	m := newMachine()
	m.run(time.Hour)
	m.set(-30 * aDay)
	near(t, "set back", m.now(), m.real)
	if c := m.behind(); c.Behind != 30*aDay || c.BehindFor != 0 {
		t.Errorf("just set back: %+v", c)
	}
	m.run(11 * time.Minute)
	near(t, "a while later", m.now(), m.real)
	if c := m.behind(); c.BehindFor < 10*time.Minute || c.BehindFor > 12*time.Minute {
		t.Errorf("for eleven minutes: %+v", c)
	}
	m.boot(time.Hour, noon.Add(-30*aDay))
	if c := m.behind(); c.Behind == 0 || c.BehindFor > time.Minute {
		t.Errorf("after a start of the host it has been behind for %+v", c)
	}
	near(t, "after a start, but for the time that it was off", m.now(), m.real.Add(-time.Hour))
	m.Wall = m.real
	if c := m.behind(); c.Behind != 0 || c.BehindFor != 0 {
		t.Errorf("put right: %+v", c)
	}
	m.run(time.Minute)
	near(t, "put right", m.now(), m.real)
}

// A host without a clock of its own starts in 1970 until the network tells it the time.
func TestClockOfAnEdgeBox(t *testing.T) {
	m := newMachine()
	m.run(aDay)
	m.boot(time.Minute, time.Unix(0, 0).UTC())
	near(t, "in 1970", m.now(), m.real)
	m.run(time.Minute)
	m.Wall = m.real
	m.run(time.Minute)
	if c := m.behind(); c.Behind != 0 || c.BehindFor != 0 {
		t.Errorf("after the network has told the time: %+v", c)
	}
	fresh := &machine{Clocks: Clocks{Wall: time.Unix(0, 0).UTC(), Boot: time.Second, BootID: "b"}, real: noon}
	if at := fresh.now(); !at.Equal(fresh.Wall) {
		t.Errorf("without a mark it is %v", at)
	}
	fresh.run(time.Minute)
	fresh.Wall = noon
	fresh.run(time.Minute)
	near(t, "a first start in 1970 is not held against it", fresh.now(), noon.Add(time.Minute))
	if fresh.mark.Time.Year() != 1970 {
		t.Errorf("the mark has leapt to %v", fresh.mark.Time)
	}
	fresh.run(25 * time.Hour)
	near(t, "after a day it is believed", fresh.mark.Time, fresh.Wall)
}

func TestClockFalselyAhead(t *testing.T) {
	m := newMachine()
	m.run(time.Hour)
	m.set(365 * aDay)
	near(t, "it may be right", m.now(), m.Wall)
	m.run(20 * time.Hour)
	m.set(-365 * aDay)
	near(t, "put right within a day", m.now(), m.real)
	if c := m.behind(); c.Behind > time.Minute {
		t.Errorf("put right within a day: %+v", c)
	}
	m.run(time.Hour)
	m.set(365 * aDay)
	m.run(23 * time.Hour)
	m.boot(time.Minute, m.Wall) // a boot does not begin the day again
	m.run(2 * time.Hour)
	m.set(-365 * aDay)
	near(t, "after a day it counts", m.now(), m.real.Add(365*aDay))

	healed, ok := m.mark.Heal(m.Clocks, m.real)
	if m.mark = healed; !ok {
		t.Fatal("a document that was issued now does not heal")
	}
	near(t, "healed", m.now(), m.real)
	m.run(time.Hour)
	near(t, "healed, an hour later", m.now(), m.real)
	if _, ok := m.mark.Heal(m.Clocks, m.real.Add(-time.Hour)); ok {
		t.Error("one document puts the mark back twice")
	}
}

func TestClockSignedEvidence(t *testing.T) {
	m := newMachine()
	m.run(time.Hour)
	m.set(100 * aDay)
	if got := m.mark.Advance(m.Clocks, m.Wall.Add(-time.Hour)); !got.Time.Equal(m.Wall) {
		t.Errorf("with a document signed an hour ago the mark is %v", got.Time)
	}
	if got := m.mark.Advance(m.Clocks, m.Wall.Add(-25*time.Hour)); got.Time.Equal(m.Wall) {
		t.Error("with a document signed long ago the leap is believed")
	}
	if at, c := m.mark.Now(m.Clocks, m.Wall.Add(time.Hour)); !at.Equal(m.Wall.Add(time.Hour)) || c.Behind != time.Hour {
		t.Errorf("a document of the future makes it %v, %+v", at, c)
	}
	if got := m.mark.Advance(m.Clocks, m.Wall.Add(aDay)); got.Time.After(m.Wall) {
		t.Errorf("a document's own date has entered the mark: %v", got.Time)
	}
	if got := m.mark.Learn(m.Clocks, zeroTime, m.Wall.Add(aDay)); !got.Time.Equal(m.Wall.Add(aDay)) {
		t.Errorf("what the upstream said is not in the mark: %v", got.Time)
	}
}

// Whatever is done to the wall clock of a host that once had the true time: licence time is never behind the true one
// by more than the host was off, and what was kept is never undone but by a document.
func TestClockNeverBack(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := newMachine()
		m.run(time.Minute)
		var off time.Duration
		span := func(label string) time.Duration {
			return time.Duration(rapid.Int64Range(int64(time.Second), int64(40*time.Hour)).Draw(t, label))
		}
		last := m.mark.Time
		for range rapid.IntRange(1, 12).Draw(t, "steps") {
			switch rapid.IntRange(0, 3).Draw(t, "step") {
			case 0:
				m.run(span("run"))
			case 1:
				m.set(-time.Duration(rapid.IntRange(0, 400).Draw(t, "days back")) * aDay)
			case 2:
				m.set(span("forward"))
			case 3:
				d := span("off")
				off += d
				m.boot(d, noon.Add(time.Duration(rapid.IntRange(-400, 10).Draw(t, "wall"))*aDay))
			}
			if lag := m.real.Sub(m.now()); lag > off+time.Minute {
				t.Fatalf("licence time is %v behind, and the host was off for %v", lag, off)
			}
			if m.mark.Time.Before(last) {
				t.Fatalf("the mark went from %v to %v", last, m.mark.Time)
			}
			last = m.mark.Time
			if m.now().Before(m.Wall) {
				t.Fatal("licence time is behind the wall clock")
			}
		}
	})
}
