package clock

import (
	"context"
	"errors"
	"testing"
	"time"
)

// bell is an alarm that a test rings.
type bell struct {
	armed, rung chan error // the results of arm and wait
	closed      chan struct{}
}

func (b *bell) arm(at time.Time) error {
	if time.Until(at) < 24*time.Hour {
		return errors.New("it would wake the host for nothing")
	}
	return <-b.armed
}

func (b *bell) wait() error {
	select {
	case err := <-b.rung:
		return err
	case <-b.closed:
		return errors.New("closed")
	}
}

func (b *bell) close() error { close(b.closed); return nil }

func TestWatch(t *testing.T) {
	t.Parallel()
	b := &bell{armed: make(chan error, 8), rung: make(chan error), closed: make(chan struct{})}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	steps, done := make(chan struct{}, 8), make(chan error)
	go func() { done <- watch(ctx, b, func() { steps <- struct{}{} }) }()
	b.armed <- nil
	b.rung <- errStepped // set during a wait
	<-steps
	b.armed <- errStepped // set between two waits
	<-steps
	b.armed <- nil
	b.rung <- nil // the year is over
	b.armed <- nil
	b.rung <- errStepped
	<-steps
	b.armed <- nil
	cancel()
	if err := <-done; err != nil {
		t.Errorf("it ends with %v", err)
	}
	if len(steps) > 0 {
		t.Error("it tells of a step that was none")
	}
	<-b.closed
}

func TestWatchFails(t *testing.T) {
	t.Parallel()
	b := &bell{armed: make(chan error, 1), closed: make(chan struct{})}
	b.armed <- errors.New("no more timers")
	if err := watch(t.Context(), b, func() {
		t.Error("a failure is no step")
	}); err == nil || err.Error() != "no more timers" {
		t.Errorf("it ends with %v", err)
	}
	<-b.closed
}
