package liveness

import (
	"context"
	"errors"
	"slices"
	"testing"
	"time"
)

func TestSupported(t *testing.T) {
	t.Logf("%+v", Supported())
	if Supported().Kernel == "" {
		t.Error("the kernel has no version")
	}
}

func TestKillIsToldAtOnce(t *testing.T) {
	w := running(t)
	c := spawn(t, "wait")
	_, told := watch(t, w, c.handle(t))
	killed := time.Now()
	if err := c.Process.Kill(); err != nil { // not reaped: a zombie is dead
		t.Fatal(err)
	}
	if took := within(t, told).Sub(killed); took > time.Second {
		t.Errorf("it took %v", took)
	}
	c.end()
	silent(t, w, told) // once
	if n := w.Len(); n != 0 {
		t.Errorf("%d processes are still watched", n)
	}
}

func TestExitIsTold(t *testing.T) {
	w := running(t)
	c := spawn(t, "wait")
	_, told := watch(t, w, c.handle(t))
	c.say(t, "exit")
	within(t, told)
}

func TestDeadBeforeWatchIsTold(t *testing.T) {
	w := running(t)
	c := spawn(t, "wait")
	h := c.handle(t)
	c.end()
	_, told := watch(t, w, h)
	within(t, told)
	_, told = watch(t, w, h) // and again, of the same handle
	within(t, told)
}

func TestDeadBeforeRunIsTold(t *testing.T) {
	w, err := NewWatcher()
	if err != nil {
		t.Fatal(err)
	}
	c := spawn(t, "wait")
	_, told := watch(t, w, c.handle(t))
	c.end()
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- w.Run(ctx) }()
	within(t, told)
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

func TestOneDescriptorAProcess(t *testing.T) {
	const many = 1000
	w := running(t)
	c := spawn(t, "wait")
	h := c.handle(t)
	_, first := watch(t, w, h)
	before := descriptors()
	told := make(chan time.Time, many)
	for range many {
		h, err := FromPID(c.pid(), 0)
		if err != nil {
			t.Fatal(err)
		}
		defer h.Close()
		if _, err := w.Watch(h, func() { told <- time.Now() }); err != nil {
			t.Fatal(err)
		}
	}
	if after := descriptors(); after > before {
		t.Errorf("%d descriptors for one watch, %d for %d", before, after, many+1)
	}
	if n := w.Len(); n != 1 {
		t.Errorf("%d processes watched, want 1", n)
	}
	c.end()
	within(t, first)
	for range many {
		within(t, told)
	}
}

func TestManyProcesses(t *testing.T) {
	w := running(t)
	order := make(chan int, 64)
	children := make([]*child, 24)
	for i := range children {
		children[i] = spawn(t, "wait")
		if _, err := w.Watch(children[i].handle(t), func() { order <- i }); err != nil {
			t.Fatal(err)
		}
	}
	if w.Len() != len(children) {
		t.Errorf("%d processes watched, want %d", w.Len(), len(children))
	}
	for i := range children { // each death is that of the process that died
		j := (i * 7) % len(children)
		children[j].end()
		if got := <-order; got != j {
			t.Fatalf("process %d died, %d was told", j, got)
		}
	}
}

func TestWatchesAreToldInTheirOrder(t *testing.T) {
	w := running(t)
	c := spawn(t, "wait")
	h := c.handle(t)
	var order []int
	done := make(chan time.Time, 1)
	for i := range 10 {
		if _, err := w.Watch(h, func() {
			if order = append(order, i); i == 9 {
				done <- time.Now()
			}
		}); err != nil {
			t.Fatal(err)
		}
	}
	c.end()
	within(t, done)
	if !slices.IsSorted(order) || len(order) != 10 {
		t.Errorf("told in the order %v", order)
	}
}

func TestStopThenDeathCallsNothing(t *testing.T) {
	w := running(t)
	c := spawn(t, "wait")
	h := c.handle(t)
	one, told := watch(t, w, h)
	_, other := watch(t, w, h)
	one.Stop()
	one.Stop()
	if w.Len() != 1 {
		t.Error("the other watch ended, too")
	}
	c.end()
	within(t, other)
	silent(t, w, told)
}

// One that learns of the same death calls Stop first.
func TestStopWithinTheCall(t *testing.T) {
	w := running(t)
	c := spawn(t, "wait")
	h := c.handle(t)
	var second *Watch
	set, done := make(chan struct{}), make(chan time.Time, 1)
	if _, err := w.Watch(h, func() { <-set; second.Stop(); done <- time.Now() }); err != nil {
		t.Fatal(err)
	}
	second, told := watch(t, w, h)
	close(set)
	c.end()
	within(t, done)
	silent(t, w, told)
}

func TestClosedHandleIsWatchedOn(t *testing.T) {
	w := running(t)
	c := spawn(t, "wait")
	h := c.handle(t)
	_, told := watch(t, w, h)
	if err := h.Close(); err != nil {
		t.Fatal(err)
	}
	if err := h.Close(); !errors.Is(err, ErrClosed) {
		t.Errorf("the second Close: %v", err)
	}
	if _, err := w.Watch(h, func() {}); !errors.Is(err, ErrClosed) {
		t.Errorf("Watch of a closed handle: %v", err)
	}
	c.end()
	within(t, told)
}

func TestCloseEndsRun(t *testing.T) {
	w, err := NewWatcher()
	if err != nil {
		t.Fatal(err)
	}
	c := spawn(t, "wait")
	h := c.handle(t)
	x, told := watch(t, w, h)
	ended := make(chan error, 1)
	go func() { ended <- w.Run(context.Background()) }()
	w.Close()
	w.Close()
	if err := <-ended; err != nil && !errors.Is(err, ErrClosed) { // Close may have come first
		t.Error(err)
	}
	if _, err := w.Watch(h, func() {}); !errors.Is(err, ErrClosed) {
		t.Errorf("Watch after Close: %v", err)
	}
	if err := w.Run(context.Background()); !errors.Is(err, ErrClosed) {
		t.Errorf("Run after Close: %v", err)
	}
	x.Stop()
	if len(told) > 0 {
		t.Error("a watcher that is closed told of a death")
	}
}
