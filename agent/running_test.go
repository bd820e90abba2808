package agent

import (
	"context"
	"errors"
	"reflect"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/usher-agent/usher/agent/bubble"
)

// The root composes rooms: what it keeps of them is few.
func TestAgentIsComposition(t *testing.T) {
	t.Parallel()
	const most = 15
	if n := reflect.TypeFor[Agent]().NumField(); n > most {
		t.Errorf("Agent has %d fields, and %d at most: what only the start needs goes to opening, a rule to its room",
			n,
			most)
	}
}

// What was opened last is closed first, once, also when one closer fails.
func TestClosesInReverse(t *testing.T) {
	t.Parallel()
	r := newRunning()
	var closed []string
	broken := errors.New("broken")
	for _, name := range []string{"folder", "desk", "socket"} {
		r.closing(func() error {
			closed = append(closed, name)
			if name == "desk" {
				return broken
			}
			return nil
		})
	}
	if err := r.close(); !errors.Is(err, broken) {
		t.Errorf("%v", err)
	}
	if err := r.close(); err != nil || !slices.Equal(closed, []string{"socket", "desk", "folder"}) {
		t.Errorf("closed %v; again: %v", closed, err)
	}
}

// A task that fails ends the others, and the agent with its name. One that waits for a verdict ends, too.
func TestFailedTaskEndsAll(t *testing.T) {
	t.Parallel()
	r := newRunning()
	broken := errors.New("broken")
	ended := 0
	r.task("waits", func(ctx context.Context) error {
		<-ctx.Done()
		ended++
		return ctx.Err()
	})
	r.task("answers", r.afterVerdict(func(ctx context.Context) error { return ctx.Err() }))
	r.task("fails", func(context.Context) error { return broken })
	if err := r.run(); !errors.Is(err, broken) || !strings.HasPrefix(err.Error(), "fails: ") || ended != 1 {
		t.Errorf("%v; %d ended", err, ended)
	}
	if r.life.Err() == nil {
		t.Error("the agent's life goes on")
	}
}

// What is paused goes on when no verdict comes, and when the agent ends; where there is a verdict, the agent decides
// when.
func TestPauseEnds(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		judged bool
		after  time.Duration
		runs   bool
	}{
		"no verdict yet": {false, firstVerdict - 1, false},
		"no verdict":     {false, firstVerdict, true},
		"a verdict":      {true, 2 * firstVerdict, false},
	} {
		bubble.Test(t, func(t *testing.T) {
			r := newRunning()
			resumed := false
			r.pause(func() { resumed = true })
			if test.judged {
				close(r.judged)
			}
			over := make(chan error)
			go func() { over <- r.run() }()
			time.Sleep(test.after)
			synctest.Wait()
			if resumed != test.runs {
				t.Errorf("%s: resumed is %v", name, resumed)
			}
			r.stop()
			if err := errors.Join(<-over, r.close()); err != nil || !resumed {
				t.Errorf("%s: at the end resumed is %v; %v", name, resumed, err)
			}
		})
	}
}
