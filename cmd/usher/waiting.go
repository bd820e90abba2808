package main

import (
	"context"
	"fmt"
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

// tellPlaces prints the places of the acquires that a process waits with, until stop is called. It does so for people
// alone: that it cannot is no error.
func (c *cli) tellPlaces(ctx context.Context, pid int) (stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	listening := make(chan struct{})
	heard := sync.OnceFunc(func() { close(listening) })
	var telling sync.WaitGroup
	telling.Go(func() {
		defer heard()
		for ev, err := range c.client().Events(ctx) {
			if err != nil || ctx.Err() != nil {
				return
			}
			heard() // the first says which licence is in force
			if h := ev.Holder; ev.Type == "lease.waiting" && h != nil && int(h.PID) == pid {
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
