// Package clock reads the host's clocks, and says when somebody has set the wall clock or the host has been suspended.
// What the readings mean is the enforcer's.
package clock

import (
	"context"
	"errors"
	"time"
)

// errStepped is what an alarm's wait ends with when the wall clock was set.
var errStepped = errors.New("the wall clock was set")

// alarm is a wait on the wall clock that ends when that is set.
type alarm interface {
	// arm begins a wait until an instant of the wall clock; errStepped: that was set since the last one, and the wait
	// goes on.
	arm(at time.Time) error
	// wait waits until then; errStepped: the wall clock was set.
	wait() error
	close() error
}

// Watch calls stepped whenever the wall clock is set, or the host comes back from a suspension, until ctx ends. Where
// the system tells nobody of it, it returns errors.ErrUnsupported at once: then the clocks must be looked at now and
// again.
func Watch(ctx context.Context, stepped func()) error {
	a, err := newAlarm()
	if err != nil {
		return err
	}
	return watch(ctx, a, stepped)
}

// far is when an alarm rings that nobody sets the clock for.
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
