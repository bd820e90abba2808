package vitals

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/usher-agent/usher/agent/bubble"
)

// loop is a mover that goes round when it is asked to, unless it hangs.
type loop struct {
	hangs  atomic.Bool
	rounds atomic.Uint64
}

func (l *loop) Rounds() uint64 { return l.rounds.Load() }
func (l *loop) Look() {
	if !l.hangs.Load() {
		l.rounds.Add(1)
	}
}

// watched runs Vitals in a bubble until the test ends.
func watched(t *testing.T, c Config, test func(v *Vitals)) {
	bubble.Test(t, func(t *testing.T) {
		c.Now, c.Log = time.Now, slog.New(slog.DiscardHandler)
		v := New(c)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- v.Run(ctx) }()
		test(v)
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

// What decides stands still: the watchdog is starved, and the agent is unready, until it moves.
func TestStandsStill(t *testing.T) {
	desk, verdict := &loop{}, &loop{}
	watched(t, Config{Movers: map[string]Mover{"desk": desk, "verdict": verdict}}, func(v *Vitals) {
		time.Sleep(time.Hour)
		if f := v.Faults(); len(f) != 0 || !v.Moving() {
			t.Fatalf("all move: %+v", f)
		}
		verdict.hangs.Store(true)
		time.Sleep(StillAfter - 2*Every)
		if f := v.Faults(); len(f) != 0 || !v.Moving() {
			t.Errorf("it has stood for a moment: %+v", f)
		}
		time.Sleep(5 * Every)
		if f := v.Faults(); len(f) != 1 || f[0].Part != "verdict" || v.Moving() || !v.Unfit()["verdict"] {
			t.Errorf("it stands still: %+v, moving %v", f, v.Moving())
		}
		verdict.hangs.Store(false)
		time.Sleep(3 * Every)
		if f := v.Faults(); len(f) != 0 || !v.Moving() {
			t.Errorf("it moves again: %+v", f)
		}
	})
}

// A part is mended; where that cannot be, the agent says so until it can. The watchdog does not mind.
func TestPartsAreMended(t *testing.T) {
	var wrong, stuck atomic.Bool
	mended := 0
	p := Part{Name: "socket", Look: func() error {
		if wrong.Load() {
			return errors.New("it is gone")
		}
		return nil
	}, Mend: func() error {
		if stuck.Load() {
			return errors.New("the folder is read-only")
		}
		mended++
		wrong.Store(false)
		return nil
	}}
	watched(t, Config{Parts: []Part{p}}, func(v *Vitals) {
		wrong.Store(true)
		time.Sleep(2 * Every)
		if f := v.Faults(); len(f) != 0 || mended != 1 {
			t.Errorf("%+v, mended %d times", f, mended)
		}
		stuck.Store(true)
		wrong.Store(true)
		time.Sleep(time.Minute)
		if f := v.Faults(); len(f) != 1 || f[0].Reason != "the folder is read-only" || !v.Moving() ||
			time.Since(f[0].Since) < 50*time.Second {
			t.Errorf("it cannot be mended: %+v", f)
		}
		stuck.Store(false)
		time.Sleep(2 * Every)
		if f := v.Faults(); len(f) != 0 || mended != 2 {
			t.Errorf("%+v, mended %d times", f, mended)
		}
	})
}

// A look that hangs keeps nobody from looking at what decides.
func TestLookThatHangs(t *testing.T) {
	hang := sync.OnceValue(func() chan struct{} { return make(chan struct{}) }) // within the bubble
	desk := &loop{}
	watched(t, Config{Movers: map[string]Mover{"desk": desk},
		Parts: []Part{{Name: "state", Look: func() error { <-hang(); return nil }}}}, func(v *Vitals) {
		time.Sleep(time.Minute)
		if !v.Moving() {
			t.Error("what decides moves")
		}
		if f := v.Faults(); len(f) != 1 || f[0].Part != "files" {
			t.Errorf("%+v", f)
		}
		close(hang())
		time.Sleep(2 * Every)
		if f := v.Faults(); len(f) != 0 {
			t.Errorf("%+v", f)
		}
	})
}

// Movers and parts are looked at at once, and then when the beat says.
func TestBeat(t *testing.T) {
	desk, looked := &loop{}, 0
	watched(t, Config{Movers: map[string]Mover{"desk": desk}, Parts: []Part{{Name: "state", Look: func() error {
		looked++
		return nil
	}}}, Beat: func(every time.Duration) time.Duration { return every * 7 / 10 }}, func(*Vitals) {
		time.Sleep(3 * Every)
	})
	if rounds := desk.Rounds(); rounds != 5 || looked != 5 {
		t.Errorf("in three seconds the movers were looked at %d times and the parts %d times, want 5", rounds, looked)
	}
}

// A part that goes while the agent stops is neither a fault nor mended.
func TestPartThatEndsWithTheAgent(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		v := New(Config{Now: time.Now, Log: slog.New(slog.DiscardHandler), Parts: []Part{{Name: "socket",
			Look: func() error { cancel(); return errors.New("it is closed") },
			Mend: func() error { t.Error("it is made again"); return nil }}}})
		if err := v.Run(ctx); err != nil || len(v.Faults()) != 0 {
			t.Errorf("%v, %+v", err, v.Faults())
		}
	})
}
