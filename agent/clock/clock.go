// Package clock reads the host's clocks, and says when somebody has set the wall clock or the host has been suspended.
// The enforcer decides what the readings mean. Start reading at [Boot] and [Watch].
package clock

import (
	"context"
	"errors"
	"time"
)

// errStepped ends an alarm's wait when the wall clock was set.
var errStepped = errors.New("the wall clock was set")

// alarm is a wait on the wall clock that ends when the clock is set.
type alarm interface {
	// arm begins a wait until an instant of the wall clock; errStepped: the clock was set since the last one, and the
	// wait goes on.
	arm(at time.Time) error
	// wait waits until then; errStepped: the wall clock was set.
	wait() error
	close() error
}

// Watch calls stepped whenever the wall clock is set, or the host comes back from a suspension, until ctx ends. Where
// the system does not report that, it returns errors.ErrUnsupported at once: then the caller must look at the clocks
// now and again.
func Watch(ctx context.Context, stepped func()) error {
	a, err := newAlarm()
	if err != nil {
		return err
	}
	return watch(ctx, a, stepped)
}

// far is when an alarm rings whose clock nobody sets.
const far = 365 * 24 * time.Hour

func watch(ctx context.Context, a alarm, stepped func()) (err error) {
	stop := context.AfterFunc(ctx, func() { a.close() })
	defer func() {
		if stop() {
			err = errors.Join(err, a.close())
		}
		if ctx.Err() != nil {
			err = nil
		}
	}()
	for {
		err := a.arm(time.Now().Add(far))
		if err == nil {
			err = a.wait()
		}
		switch {
		case errors.Is(err, errStepped):
			stepped()
		case err != nil:
			return err
		}
	}
}
