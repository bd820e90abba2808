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
	hears := func(c chan client.Waiting, want int) {
		t.Helper()
		select {
		case w := <-c:
			if w.Pool != "streams" || w.Position != want {
				t.Errorf("told of %+v, want position %d", w, want)
			}
		case <-ctx.Done():
			t.Fatalf("nothing is told of position %d", want)
		}
	}
	type got struct {
		lease *client.Lease
		err   error
	}
	wait := func() (told chan client.Waiting, done chan got) {
		s, err := client.Open(ctx, client.WithSocket(h.Socket()))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(s.Close)
		told, done = make(chan client.Waiting, 10), make(chan got, 1)
		go func() {
			r := client.Slots("streams", 1)
			r.WaitSeconds = 300
			l, err := s.AcquireTold(ctx, r, func(w client.Waiting) { told <- w })
			done <- got{l, err}
		}()
		return told, done
	}
	first, served := wait()
	hears(first, 1)
	second, last := wait()
	hears(second, 2)
	h.release(held)
	if g := <-served; g.err != nil {
		t.Fatal(g.err)
	} else if hears(second, 1); len(first) > 0 {
		t.Errorf("the first is told %+v", <-first)
	} else if err := g.lease.Close(); err != nil {
		t.Fatal(err)
	}
	if g := <-last; g.err != nil {
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
