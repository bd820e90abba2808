package client_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"testing"
	"time"

	"github.com/usher-agent/usher/client"
)

// Leases outlast a restart; those closed meanwhile are given back.
func TestRestart(t *testing.T) {
	f := startFake(t)
	s := f.open(t)
	a, b := acquire(t, s), acquire(t, s)
	f.stop()
	eventually(t, func() (bool, string) {
		_, err := s.Acquire(t.Context(), client.Slots("streams", 1))
		return errors.Is(err, client.ErrAgentAway), fmt.Sprintf("while the agent is away: %v", err)
	})
	if err := a.Close(); err != nil {
		t.Errorf("closed while the agent is away: %v", err)
	}
	f.start()
	f.holds(t, 1)
	eventually(t, func() (bool, string) {
		f.mu.Lock()
		defer f.mu.Unlock()
		return f.attached == 1 && s.Stats().Reconnects == 1, fmt.Sprintf("%d attached, %+v", f.attached, s.Stats())
	})
	if lost(a) || lost(b) || b.Err() != nil {
		t.Error("a restart loses leases")
	}
	// A lease that the new agent does not have is lost.
	f.stop()
	f.set(func() { clear(f.leases) })
	f.start()
	<-b.Done()
	if !errors.Is(b.Err(), client.ErrLeaseUnknown) {
		t.Errorf("lost: %v", b.Err())
	}
}

// Leases stand for as long as the licence says, and no longer. An agent that returns gets lost leases back.
func TestAgentAway(t *testing.T) {
	f := startFake(t)
	f.set(func() { f.away = 0.2 })
	s := f.open(t)
	for l := range s.Watch(t.Context()) {
		if l.AgentAway != 0.2 {
			t.Errorf("got %+v", l)
		}
		break
	}
	l := acquire(t, s)
	gone := time.Now()
	f.stop()
	<-l.Done()
	if took := time.Since(gone); took < 200*time.Millisecond {
		t.Errorf("lost after %v", took)
	}
	if !errors.Is(l.Err(), client.ErrAgentAway) {
		t.Errorf("lost: %v", l.Err())
	}
	if _, err := s.License(t.Context()); !errors.Is(err, client.ErrAgentAway) {
		t.Errorf("what was last seen stands too long: %v", err)
	}
	f.holds(t, 1)
	f.start()
	f.holds(t, 0)
}

// Without an agent nothing is granted. With FailOpen, leases are given, counted, and granted later.
func TestFailOpen(t *testing.T) {
	f := startFake(t)
	f.stop()
	if _, err := client.Open(t.Context(), client.WithSocket(f.path)); !errors.Is(err, client.ErrAgentAway) {
		t.Fatalf("without an agent: %v", err)
	}
	s := f.open(t, client.FailOpen())
	a, b, c := acquire(t, s), acquire(t, s), acquire(t, s)
	if a.Backed() || a.Proven() != client.ProvenNone || s.Stats() != (client.Stats{FailedOpen: 3, Unbacked: 3}) {
		t.Errorf("backed: %t, %+v", a.Backed(), s.Stats())
	}
	if err := a.Close(); err != nil || s.Stats().Unbacked != 2 {
		t.Errorf("closed: %v, %+v", err, s.Stats())
	}
	f.set(func() { f.limit = 1 })
	f.start()
	f.holds(t, 1)
	select { // one is real, and the other refused
	case <-b.Done():
		b, c = c, b
	case <-c.Done():
	}
	if !errors.Is(c.Err(), client.ErrNoSlots) || !b.Backed() || b.Err() != nil || s.Stats().Unbacked != 0 ||
		s.Stats().FailedOpen != 3 {
		t.Errorf("refused: %v; backed: %t, %v; %+v", c.Err(), b.Backed(), b.Err(), s.Stats())
	}
	if err := b.Close(); err != nil {
		t.Error(err)
	}
	f.holds(t, 0)
	if _, err := s.Acquire(t.Context(), client.Slots("other", 1)); !errors.Is(err, client.ErrPoolUnknown) {
		t.Errorf("a refusal is no absence: %v", err)
	}
}

// A lease that is granted after its caller gave up is given back.
func TestGivenUp(t *testing.T) {
	f := startFake(t)
	s := f.open(t)
	a, b := acquire(t, s), acquire(t, s)
	for _, cancelled := range []bool{true, false} {
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() {
			_, err := s.Acquire(ctx, client.Request{Pool: "streams", WaitSeconds: 60})
			done <- err
		}()
		waits := func(want int) {
			t.Helper()
			eventually(t, func() (bool, string) {
				f.mu.Lock()
				defer f.mu.Unlock()
				return len(f.waiting) == want, "it does not wait, or too long"
			})
		}
		waits(1)
		var kept []func() bool
		f.set(func() { kept = f.waiting })
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Errorf("given up: %v", err)
		}
		waits(0) // lease.cancel
		if !cancelled {
			f.set(func() { f.waiting = kept }) // an agent that grants all the same
			if err := errors.Join(a.Close(), b.Close()); err != nil {
				t.Error(err)
			}
			f.holds(t, 0)
			f.set(func() {
				if len(f.released) != 3 {
					t.Errorf("released were %v", f.released)
				}
			})
		}
	}
	if s.Stats().Reconnects != 0 {
		t.Error("the session was broken")
	}
}

// A lease closed while the agent is away is given back, even if the agent dies once more before that.
func TestReleasedAgain(t *testing.T) {
	f := startFake(t)
	s := f.open(t)
	lease := acquire(t, s)
	f.stop()
	if err := lease.Close(); err != nil {
		t.Fatal(err)
	}
	heard := make(chan struct{}, 8)
	f.set(func() { f.deaf = heard })
	f.start()
	select {
	case <-heard:
	case <-time.After(time.Minute):
		t.Fatal("the lease is not given back")
	}
	f.stop()
	f.set(func() { f.deaf = nil })
	f.start()
	f.holds(t, 0)
}

// A session can be closed at any moment.
func TestCloseWhileAway(t *testing.T) {
	f := startFake(t)
	s := f.open(t)
	acquire(t, s)
	f.stop()
	s.Close()

	f.start()
	s = f.open(t)
	f.stop()
	hang, err := net.Listen("unix", f.path) // accepts, and says nothing
	if err != nil {
		t.Fatal(err)
	}
	c, err := hang.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	s.Close()
	hang.Close()
	f.start()
}
