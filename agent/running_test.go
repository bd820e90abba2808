package agent

import (
	"context"
	"errors"
	"reflect"
	"slices"
	"strings"
	"testing"
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
