package agent_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/usher-agent/usher/client"
	"github.com/usher-agent/usher/client/wire"
)

// waiting is an acquire that waits.
type waiting struct {
	lease *wire.Lease
	err   error
	done  chan struct{}
}

// wait asks for slots on a connection of its own, and returns when the agent has the request in its queue.
func (h *house) wait(ctx context.Context, r wire.AcquireRequest) *waiting {
	h.t.Helper()
	before := h.waiting()
	w := &waiting{done: make(chan struct{})}
	go func() {
		defer close(w.done)
		c := client.New(h.Socket())
		defer c.Close()
		w.lease, w.err = c.Acquire(ctx, r)
	}()
	h.untilWaiting(before + max(1, value(r.N)))
	return w
}

func value(n *int64) int64 {
	if n == nil {
		return 1
	}
	return *n
}

func (h *house) waiting() int64 {
	h.t.Helper()
	p, err := h.Pool(context.Background(), "streams")
	if err != nil {
		h.t.Fatal(err)
	}
	return p.Waiting
}

func (h *house) untilWaiting(n int64) {
	h.t.Helper()
	deadline, rest := time.Now().Add(60*time.Second), pause()
	for h.waiting() != n {
		if time.Now().After(deadline) {
			h.t.Fatalf("%d slots are waited for, want %d", h.waiting(), n)
		}
		rest()
	}
}

func (h *house) acquire(n int64) *wire.Lease {
	h.t.Helper()
	l, err := h.Acquire(context.Background(), wire.AcquireRequest{Pool: "streams", N: &n, Lifetime: "held"})
	if err != nil {
		h.t.Fatal(err)
	}
	return l
}

func (h *house) release(l *wire.Lease) {
	h.t.Helper()
	if err := h.Release(context.Background(), l.ID, false); err != nil {
		h.t.Fatal(err)
	}
}

// First come, first served: a large request is not passed by small ones, and nobody who comes later gets what it waits
// for.
func TestWaitingInTurn(t *testing.T) {
	t.Parallel()
	h := open(t, "")
	h.drop("a.lic", h.sign("a", 3, nil))
	h.until("dropped", inForce("a"))
	var held []*wire.Lease
	for range 3 {
		held = append(held, h.acquire(1))
	}
	ask := func(n int64) wire.AcquireRequest {
		return wire.AcquireRequest{Pool: "streams", N: &n, WaitSeconds: 60, Lifetime: "held"}
	}
	large := h.wait(t.Context(), ask(2))
	small := h.wait(t.Context(), ask(1))
	h.release(held[0])
	if _, err := h.Acquire(t.Context(), wire.AcquireRequest{Pool: "streams"}); !errors.Is(err, client.ErrNoSlots) ||
		!strings.Contains(err.Error(), "2 acquires wait for what comes free") {
		t.Errorf("one that comes later: %v", err)
	}
	if h.waiting() != 3 {
		t.Errorf("somebody was served out of turn: %d slots are waited for", h.waiting())
	}
	h.release(held[1])
	<-large.done
	if large.err != nil || large.lease.N != 2 {
		t.Fatalf("the large one: %+v, %v", large.lease, large.err)
	}
	h.release(held[2])
	<-small.done
	if small.err != nil {
		t.Fatal(small.err)
	}
	if p, err := h.Pool(t.Context(), "streams"); err != nil || p.InUse != 3 || p.Waiting != 0 {
		t.Errorf("at the end: %+v, %v", p, err)
	}
}

// Whoever hangs up leaves the queue; whose time is up is told how long it waited.
func TestWaitingEnds(t *testing.T) {
	t.Parallel()
	h := open(t, "")
	h.drop("a.lic", h.sign("a", 1, nil))
	h.until("dropped", inForce("a"))
	held := h.acquire(1)
	ctx, hangUp := context.WithCancel(t.Context())
	gone := h.wait(ctx, wire.AcquireRequest{Pool: "streams", WaitSeconds: 60})
	late := h.wait(t.Context(), wire.AcquireRequest{Pool: "streams", WaitSeconds: 0.4})
	hangUp()
	<-gone.done
	h.untilWaiting(1)
	<-late.done
	var p *client.Error
	if !errors.As(late.err, &p) || p.Code != "no_slots" || p.WaitedSeconds == nil || *p.WaitedSeconds < 0.4 ||
		*p.WaitedSeconds > 5 {
		t.Errorf("whose time is up: %v %+v", late.err, p)
	}
	// When the licence goes, nobody waits any longer.
	vain := h.wait(t.Context(), wire.AcquireRequest{Pool: "streams", WaitSeconds: 60})
	if err := h.Remove(t.Context(), "a.lic"); err != nil {
		t.Fatal(err)
	}
	<-vain.done
	if !errors.Is(vain.err, client.ErrLicenseMissing) {
		t.Errorf("without a licence: %v", vain.err)
	}
	if _, err := h.Rollback(t.Context(), "a.lic"); err != nil {
		t.Fatal(err)
	}
	// And when the agent goes, they are told so.
	left := h.wait(t.Context(), wire.AcquireRequest{Pool: "streams", WaitSeconds: 60})
	h.release(held)
	<-left.done
	if left.err != nil {
		t.Fatal(left.err)
	}
	last := h.wait(t.Context(), wire.AcquireRequest{Pool: "streams", WaitSeconds: 60})
	h.stop()
	<-last.done
	if !errors.Is(last.err, client.ErrDraining) {
		t.Errorf("when the agent stops: %v", last.err)
	}
}

// Two acquires with one client token that wait get one lease.
func TestWaitingWithAToken(t *testing.T) {
	t.Parallel()
	h := open(t, "")
	h.drop("a.lic", h.sign("a", 2, nil))
	h.until("dropped", inForce("a"))
	one, two := h.acquire(1), h.acquire(1)
	r := wire.AcquireRequest{Pool: "streams", WaitSeconds: 60, ClientToken: "t", Lifetime: "held"}
	a, b := h.wait(t.Context(), r), h.wait(t.Context(), r)
	h.release(one)
	h.release(two)
	<-a.done
	<-b.done
	if a.err != nil || b.err != nil || a.lease.ID != b.lease.ID {
		t.Fatalf("got %+v, %v and %+v, %v", a.lease, a.err, b.lease, b.err)
	}
	if p, err := h.Pool(t.Context(), "streams"); err != nil || p.InUse != 1 {
		t.Errorf("at the end: %+v, %v", p, err)
	}
}

// Sixteen callers of very different sizes on three slots: all are served, in bounded time, and never too many at once.
func TestWaitingCrowd(t *testing.T) {
	t.Parallel()
	h := open(t, "")
	h.drop("a.lic", h.sign("a", 3, nil))
	h.until("dropped", inForce("a"))
	var mu sync.Mutex
	var held int64
	var order []string
	var all sync.WaitGroup
	for i := range 16 {
		all.Go(func() {
			c := client.New(h.Socket())
			defer c.Close()
			n := int64(1 + i%3)
			for round := range 10 {
				l, err := c.Acquire(context.Background(), wire.AcquireRequest{Pool: "streams", N: &n, WaitSeconds: 60})
				if err != nil {
					t.Errorf("caller %d: %v", i, err)
					return
				}
				mu.Lock()
				if held += n; held > 3 {
					t.Errorf("%d slots are held at once", held)
				}
				order = append(order, fmt.Sprint(i, " ", round))
				held -= n
				mu.Unlock()
				if err := c.Release(context.Background(), l.ID, false); err != nil {
					t.Errorf("caller %d: %v", i, err)
				}
			}
		})
	}
	all.Wait()
	slices.Sort(order)
	if len(slices.Compact(order)) != 160 {
		t.Errorf("%d of 160 were served", len(order))
	}
}
