package clock

import (
	"context"
	"errors"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// The kernel's alarm rings at its instant of the wall clock, and closing it ends a wait. The test does not set its
// host's wall clock.
func TestAlarm(t *testing.T) {
	t.Parallel()
	a, err := newAlarm()
	if err != nil {
		t.Fatal(err)
	}
	at := time.Now().Add(20 * time.Millisecond)
	if err := a.arm(at); err != nil {
		t.Fatal(err)
	}
	if err := a.wait(); err != nil {
		t.Fatal(err)
	}
	if now := time.Now(); now.Before(at) {
		t.Errorf("it rang %v early", at.Sub(now))
	}
	if err := a.arm(time.Now().Add(far)); err != nil {
		t.Fatal(err)
	}
	done := make(chan error)
	go func() { done <- a.wait() }()
	if err := a.close(); err != nil {
		t.Fatal(err)
	}
	if err := <-done; !errors.Is(err, os.ErrClosed) {
		t.Errorf("a closed alarm's wait ends with %v", err)
	}
}

func TestCancelledIsAStep(t *testing.T) {
	t.Parallel()
	if err := stepped("timerfd", &os.PathError{Op: "read", Path: "timerfd", Err: unix.ECANCELED}); !errors.Is(err,
		errStepped) {
		t.Errorf("it is %v", err)
	}
	if err := stepped("timerfd", unix.EBADF); errors.Is(err, errStepped) || !errors.Is(err, unix.EBADF) {
		t.Errorf("another error is %v", err)
	}
}

func TestWatchEnds(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- Watch(ctx, func() {}) }()
	cancel()
	if err := <-done; err != nil {
		t.Errorf("it ends with %v", err)
	}
}

func TestReadings(t *testing.T) {
	t.Parallel()
	if boot, awake := Boot(), Awake(); awake <= 0 || boot < awake-time.Second {
		t.Errorf("up for %v, awake for %v", boot, awake)
	}
	if first, second := Boot(), Boot(); second < first {
		t.Errorf("%v after %v", second, first)
	}
	if BootID() == "" {
		t.Error("this start of the host has no id")
	}
}
