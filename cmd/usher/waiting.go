package main

import (
	"cmp"
	"context"
	"fmt"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/usher-agent/usher/client"
	"github.com/usher-agent/usher/client/wire"
)

// placeText says where an acquire that waits stands, and for how long it may still wait.
func placeText(ev wire.Event) string {
	s := fmt.Sprintf("position %d", ev.Position)
	if ev.EstimateSeconds > 0 {
		s += ", about " + span(time.Duration(ev.EstimateSeconds*float64(time.Second))) + " at the pace of late"
	}
	if ev.NextEndsAt != nil {
		s += ", the next lease ends " + away(*ev.NextEndsAt, time.Now())
	}
	return s
}

// listenWithin is how long an acquire that may wait waits for the events of its places at most.
const listenWithin = time.Second

// waiter tells the events of one acquire that waits from those of others.
type waiter struct {
	// pid is of the process that waits, as the agent sees it; 0: that is not known, as where the two are in PID
	// namespaces that do not see each other.
	pid int32
	// Where pid is not known: the acquire is the first of this user and these slots that did not wait before.
	uid    uint32
	items  []wire.Item
	before map[string]bool // by the ids of the leases that they would get
	id     string          // of the lease that this one would get; empty: not known yet
}

// waiterOf returns what tells an acquire that is about to wait, for a process or, where pid is 0, for this one.
func (c *cli) waiterOf(ctx context.Context, r *wire.AcquireRequest, pid int) *waiter {
	w := &waiter{pid: int32(cmp.Or(pid, os.Getpid())), items: r.Items, before: map[string]bool{}}
	ctx, cancel := context.WithTimeout(ctx, listenWithin)
	defer cancel()
	s, err := client.Open(ctx, client.WithSocket(c.socketPath()))
	if err != nil {
		return w
	}
	defer s.Close()
	you := s.Agent().You
	switch w.uid = you.UID; {
	case int(you.PID) == os.Getpid(): // the numbers are the same at both ends
		return w
	case pid == 0:
		w.pid = you.PID
	default:
		w.pid = 0
	}
	if w.pid != 0 {
		return w
	}
	if len(w.items) == 0 {
		n := int64(1)
		if r.N != nil {
			n = *r.N
		}
		w.items = []wire.Item{{Pool: r.Pool, N: n, Of: r.Of}}
	}
	if all, _, err := c.client().Waiting(ctx); err == nil {
		for _, q := range all {
			w.before[q.LeaseID] = true
		}
	}
	return w
}

// is reports whether an event is of the acquire.
func (w *waiter) is(ev *wire.Event) bool {
	h := ev.Holder
	switch {
	case ev.Type != "lease.waiting" || h == nil:
		return false
	case w.pid != 0:
		return h.PID == w.pid
	case w.id == "" && h.UID == w.uid && !w.before[ev.LeaseID] && slices.Equal(ev.Items, w.items):
		w.id = ev.LeaseID
	}
	return w.id != "" && ev.LeaseID == w.id
}

// tellPlaces prints the places of an acquire that waits for a process, or for this one where pid is 0, until stop is
// called. It does so for people alone: that it cannot is no error.
func (c *cli) tellPlaces(ctx context.Context, r *wire.AcquireRequest, pid int) (stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	listening := make(chan struct{})
	heard := sync.OnceFunc(func() { close(listening) })
	var telling sync.WaitGroup
	mine := c.waiterOf(ctx, r, pid)
	telling.Go(func() {
		defer heard()
		for ev, err := range c.client().Events(ctx) {
			if err != nil || ctx.Err() != nil {
				return
			}
			heard() // the first says which licence is in force
			if mine.is(&ev) {
				fprintf(c.errs, "waiting for %s: %s\n", ev.Pool, placeText(ev))
			}
		}
	})
	late := time.NewTimer(listenWithin)
	defer late.Stop()
	select {
	case <-listening:
	case <-late.C:
	case <-ctx.Done():
	}
	return func() {
		cancel()
		telling.Wait()
	}
}

// tellPlace prints the place of an acquire that waits in a session.
func (c *cli) tellPlace(w client.Waiting) {
	ev := wire.Event{Position: w.Position, EstimateSeconds: w.Estimate.Seconds()}
	if !w.NextEnds.IsZero() {
		ev.NextEndsAt = &w.NextEnds
	}
	fprintf(c.errs, "waiting for %s: %s\n", w.Pool, placeText(ev))
}

// nameHolders names those who hold what a denied request lacks.
func (c *cli) nameHolders(held []wire.HeldBy) {
	for _, h := range held {
		ends := ""
		if h.EndsAt != nil {
			ends = ", ends " + away(*h.EndsAt, time.Now())
		}
		fprintf(c.errs, "held by: %s, %s, for %s%s\n", holderText(h.Holder), amountText(h.N, h.Of),
			span(time.Since(h.Since)), ends)
	}
}

func amountText(n, of int64) string {
	if of > 1 {
		return fmt.Sprintf("%d/%d", n, of)
	}
	return fmt.Sprint(n)
}
