package clock

import (
	"testing"
	"time"
)

// Ask reads the clock itself each time.
func TestAsk(t *testing.T) {
	t.Parallel()
	var g Glance
	for range 2 {
		before := Fence()
		if !g.Ask(before) || g.Ask(before+time.Hour) || g.fence < before || !g.asked {
			t.Errorf("asked: %v, read %v after %v", g.asked, g.fence, before)
		}
	}
}

// A glance sees at once what Fence would: time that passes, a suspension, and a clock that is set. It asks the clock
// itself only where that is needed.
func TestGlance(t *testing.T) {
	t.Parallel()
	const up, end = time.Hour, time.Hour + time.Minute
	const wall, awake = int64(1_800_000_000_000_000_000), 5 * time.Minute
	for name, c := range map[string]struct {
		passed    time.Duration // by the monotonic clock
		suspended time.Duration
		set       time.Duration // the wall clock was set by so much
		read      bool
	}{
		"at once":                          {0, 0, 0, false},
		"some time":                        {900 * time.Millisecond, 0, 0, false},
		"a second":                         {time.Second, 0, 0, true},
		"stopped until the end":            {time.Minute, 0, 0, true},
		"suspended":                        {time.Millisecond, 2 * time.Second, 0, true},
		"suspended until the end":          {time.Millisecond, time.Minute, 0, true},
		"suspended, and set back by less":  {time.Millisecond, time.Minute, 5*time.Millisecond - time.Minute, true},
		"set back":                         {time.Millisecond, 0, -time.Minute, true},
		"set forth":                        {time.Millisecond, 0, time.Minute, true},
		"adjusted by what counts as drift": {time.Millisecond, 0, 500 * time.Microsecond, false},
	} {
		var g Glance
		fence, asked := up, 0
		read := func() time.Duration { asked++; return fence }
		if g.past(wall, awake, end, read) || asked != 1 {
			t.Fatalf("%s: over at first, or not read: %d", name, asked)
		}
		fence += c.passed + c.suspended
		got, want := g.past(wall+int64(c.passed+c.suspended+c.set), awake+c.passed, end, read), fence >= end
		if got != want {
			t.Errorf("%s: past %v, want %v", name, got, want)
		}
		if (asked > 1) != c.read {
			t.Errorf("%s: the clock was read %d times", name, asked-1)
		}
	}
}
