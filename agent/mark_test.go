package agent

import (
	"log/slog"
	"testing"
	"time"

	"github.com/usher-agent/usher/enforcer"
	"github.com/usher-agent/usher/metrics"
)

// The licence time does not go back over a restart, but a clock that was wrong for a moment is forgotten.
func TestMarkOutlivesTheAgent(t *testing.T) {
	dir, state := t.TempDir(), t.TempDir()
	right := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	// run is one life of the agent, whose wall clock is as said at its start and in its course.
	run := func(start, course time.Time) (first time.Time) {
		t.Helper()
		wall := start
		d := newDesk(func() time.Time { return wall }, metrics.New(metrics.Options{}), enforcer.Options{})
		s, _, err := openStore(dir, state, d.core, d.restore, slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		d.store = s
		d.restore(s.mark)
		first = d.time()
		d.mu.Lock()
		d.advance(true)
		wall = course
		d.advance(true)
		d.mu.Unlock()
		if err := s.Close(); err != nil {
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
	near("after a clock that was years ahead", run(right.Add(3*time.Hour), right.Add(3*time.Hour)), right.Add(3*time.Hour))
}

// A document that resets the clock puts a false mark back once, and a restart does not bring it again.
func TestMarkIsHealed(t *testing.T) {
	dir, state := t.TempDir(), t.TempDir()
	right := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	wall := right.AddDate(50, 0, 0)
	start := func() *desk {
		t.Helper()
		d := newDesk(func() time.Time { return wall }, metrics.New(metrics.Options{}), enforcer.Options{})
		s, _, err := openStore(dir, state, d.core, d.restore, slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		d.store = s
		d.restore(s.mark)
		d.time()
		d.mu.Lock()
		d.advance(true)
		d.mu.Unlock()
		return d
	}
	d := start()
	wall = right
	if now := d.time(); now.Before(right.AddDate(50, 0, 0)) {
		t.Fatalf("the licence time went back by itself, to %v", now)
	}
	if from, to, healed := d.heal(right.Add(-time.Hour)); !healed || from.Before(right.AddDate(50, 0, 0)) || to.Sub(right).Abs() > time.Minute || d.time().Sub(right).Abs() > time.Minute {
		t.Errorf("healed %v from %v to %v; now it is %v", healed, from, to, d.time())
	}
	if _, _, healed := d.heal(right.Add(-time.Hour)); healed {
		t.Error("one document resets the clock twice")
	}
	if err := d.store.Close(); err != nil {
		t.Fatal(err)
	}
	wall = right.Add(time.Hour)
	d = start()
	if got := d.time(); got.Sub(wall) > time.Minute {
		t.Errorf("after a restart it is %v, want %v", got, wall)
	}
	if _, _, healed := d.heal(right.Add(-time.Hour)); healed {
		t.Error("one document resets the clock again after a restart")
	}
	if err := d.store.Close(); err != nil {
		t.Fatal(err)
	}
}
