package agent_test

import (
	"context"
	"fmt"
	"os"
	"testing"
	"time"

	"github.com/usher-agent/usher/client"
	"github.com/usher-agent/usher/client/wire"
)

// placed is an acquire that waits in a session and is told of its place.
type placed struct {
	t    testing.TB
	told chan client.Waiting
	done chan placedGrant
}

type placedGrant struct {
	lease *client.Lease
	err   error
}

// waitTold has a session wait for a slot.
func (h *house) waitTold(ctx context.Context) *placed {
	h.t.Helper()
	s, err := client.Open(ctx, client.WithSocket(h.Socket()))
	if err != nil {
		h.t.Fatal(err)
	}
	h.t.Cleanup(s.Close)
	p := &placed{h.t, make(chan client.Waiting, 10), make(chan placedGrant, 1)}
	go func() {
		r := client.Slots("streams", 1)
		r.WaitSeconds = 300
		l, err := s.AcquireTold(ctx, r, func(w client.Waiting) { p.told <- w })
		p.done <- placedGrant{l, err}
	}()
	return p
}

// hears wants the acquire to be told of a place.
func (p *placed) hears(want int) {
	p.t.Helper()
	select {
	case w := <-p.told:
		if w.Pool != "streams" || w.Position != want {
			p.t.Errorf("told of %+v, want position %d", w, want)
		}
	case <-p.t.Context().Done():
		p.t.Fatalf("nothing is told of position %d", want)
	case <-time.After(time.Minute):
		p.t.Fatalf("nothing is told of position %d", want)
	}
}

// An acquire that waits hears its place in its own session, and no other session's; who sees its leases hears it as an
// event. Both hear how it moves up.
func TestWaitersHearTheirPlaces(t *testing.T) {
	h := open(t, "")
	h.drop("a.lic", h.sign("a", 1, nil))
	h.until("dropped", inForce("a"))
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	held := h.acquire(1)
	events, listens := make(chan wire.Event, 100), make(chan struct{})
	go func() {
		for ev, err := range h.Events(ctx) {
			switch {
			case err != nil:
				return
			case ev.Type == "license.changed":
				close(listens)
			case ev.Type == "lease.waiting":
				events <- ev
			}
		}
	}()
	<-listens
	first := h.waitTold(ctx)
	first.hears(1)
	second := h.waitTold(ctx)
	second.hears(2)
	h.release(held)
	if g := <-first.done; g.err != nil {
		t.Fatal(g.err)
	} else if second.hears(1); len(first.told) > 0 {
		t.Errorf("the first is told %+v", <-first.told)
	} else if err := g.lease.Close(); err != nil {
		t.Fatal(err)
	}
	if g := <-second.done; g.err != nil {
		t.Fatal(g.err)
	}
	var places []string
	for range 3 {
		select {
		case ev := <-events:
			if ev.Holder == nil || int(ev.Holder.PID) != os.Getpid() || ev.Pool != "streams" || ev.LeaseID == "" {
				t.Errorf("an event is %+v", ev)
			}
			places = append(places, fmt.Sprint(ev.Position))
		case <-ctx.Done():
			t.Fatalf("the events tell of %v alone", places)
		}
	}
	if fmt.Sprint(places) != "[1 2 1]" {
		t.Errorf("the events tell of places %v", places)
	}
}

// Who lists those that wait is told how long the wait may last, once some have been served.
func TestWaitersAreListedWithAnEstimate(t *testing.T) {
	t.Parallel()
	h := open(t, "")
	h.drop("a.lic", h.sign("a", 1, nil))
	h.until("dropped", inForce("a"))
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	held := h.acquire(1)
	first := h.waitTold(ctx)
	first.hears(1)
	all := []*placed{first}
	for len(all) < 5 {
		all = append(all, h.waitTold(ctx))
		h.untilWaiting(int64(len(all)))
	}
	list := func() []wire.Waiter {
		out, more, err := h.Waiting(ctx)
		if err != nil || more {
			t.Fatal(err, more)
		}
		return out
	}
	if w := list(); len(w) != 5 || w[4].Position != 5 || w[4].EstimateSeconds != 0 || w[4].Holder == nil ||
		int(w[4].Holder.PID) != os.Getpid() {
		t.Errorf("before anybody is served: %+v", w)
	}
	h.release(held)
	for _, p := range all[:3] {
		if g := <-p.done; g.err != nil {
			t.Fatal(g.err)
		} else if err := g.lease.Close(); err != nil {
			t.Fatal(err)
		}
	}
	g := <-all[3].done
	if g.err != nil {
		t.Fatal(g.err)
	}
	for end := time.Now().Add(time.Minute); ; { // the longer nobody is served, the longer it is
		w := list()
		if len(w) == 1 && w[0].Position == 1 && w[0].EstimateSeconds >= 1 {
			break
		}
		if time.Now().After(end) {
			t.Fatalf("after four were served: %+v", w)
		}
		<-time.After(20 * time.Millisecond)
	}
	if err := g.lease.Close(); err != nil {
		t.Fatal(err)
	}
	if g := <-all[4].done; g.err != nil {
		t.Fatal(g.err)
	}
}
