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
