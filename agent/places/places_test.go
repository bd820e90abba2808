package places

import (
	"context"
	"encoding/binary"
	"fmt"
	"math"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/usher-agent/usher/agent/bubble"
	"github.com/usher-agent/usher/enforcer"
)

// rows is a queue of a pool that tells of itself as a desk does.
type rows struct {
	mu    sync.Mutex
	wait  []*enforcer.Waiter
	walks int
}

func (r *rows) walk(names []string, each func(time.Time, []enforcer.Place)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.walks++
	var out []enforcer.Place
	for i, w := range r.wait {
		out = append(out, enforcer.Place{Waiter: w, Pool: names[0], Position: i + 1})
	}
	for part := range slices.Chunk(out, 100) {
		each(time.Now(), part)
	}
}

func (r *rows) walked() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.walks
}

func waiter(n int) *enforcer.Waiter {
	w := &enforcer.Waiter{Items: []enforcer.Item{{Pool: "a", N: 1}}}
	binary.BigEndian.PutUint64(w.ID[:], uint64(n))
	return w
}

// running runs a teller of a queue of n in a synctest bubble, and returns what it tells.
func running(t *testing.T, n int, heard *bool) (r *rows, teller *Teller, told func() []string) {
	r = &rows{}
	for i := range n {
		r.wait = append(r.wait, waiter(i))
	}
	var mu sync.Mutex
	var out []string
	teller = New(Config{First: 200 * time.Millisecond, Every: time.Second, Walk: r.walk,
		Queues: func() []string { return []string{"a"} }, Heard: func() bool { return *heard },
		Tell: func(_ time.Time, some []Place) {
			mu.Lock()
			defer mu.Unlock()
			for _, p := range some {
				out = append(out, fmt.Sprint(binary.BigEndian.Uint64(p.ID[:]), " at ", p.Position, ", ", p.Estimate))
			}
		}})
	ctx, stop := context.WithCancel(t.Context())
	var run sync.WaitGroup
	run.Go(func() { teller.Run(ctx) })
	t.Cleanup(func() {
		stop()
		run.Wait()
	})
	return r, teller, func() []string {
		synctest.Wait()
		mu.Lock()
		defer mu.Unlock()
		defer func() { out = nil }()
		return out
	}
}

// serve has the first of the queue served.
func (r *rows) serve(teller *Teller) {
	r.mu.Lock()
	w := r.wait[0]
	r.wait = r.wait[1:]
	r.mu.Unlock()
	teller.Observe(&enforcer.Event{Kind: enforcer.EventGranted, Waiter: w})
}

// Each hears its place a moment after it came, and when it changes; changes of one second are told together, and of a
// wait that goes on at a pace, how long it may last.
func TestPlacesAreToldTogether(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		heard := true
		r, teller, told := running(t, 3, &heard)
		for _, w := range r.wait {
			teller.Observe(&enforcer.Event{Kind: enforcer.EventQueued, Waiter: w})
		}
		time.Sleep(200 * time.Millisecond)
		if got := told(); !slices.Equal(got, []string{"0 at 1, 0s", "1 at 2, 0s", "2 at 3, 0s"}) {
			t.Fatalf("told are %q", got)
		}
		for i := range 4 {
			r.mu.Lock()
			r.wait = append(r.wait, waiter(3+i))
			r.mu.Unlock()
			r.serve(teller)
		}
		if e := teller.Estimate("a", 2, time.Now().Add(time.Second)); e != 500*time.Millisecond {
			t.Errorf("who asks for the second place is told %v", e)
		}
		time.Sleep(900 * time.Millisecond)
		if got := told(); len(got) > 0 {
			t.Errorf("within a second, told are %q", got)
		}
		time.Sleep(200 * time.Millisecond)
		// Four were served since the first walk, which was a second ago.
		if got := told(); !slices.Equal(got, []string{"4 at 1, 250ms", "5 at 2, 500ms", "6 at 3, 750ms"}) {
			t.Errorf("told are %q", got)
		}
		time.Sleep(time.Hour)
		if got, walks := told(), r.walked(); len(got) > 0 || walks != 2 {
			t.Errorf("without a change, told are %q after %d walks", got, walks)
		}
		r.mu.Lock()
		slices.Reverse(r.wait)
		r.mu.Unlock()
		teller.Observe(&enforcer.Event{Kind: enforcer.EventPolicies})
		time.Sleep(time.Second)
		if got := told(); len(got) != 2 {
			t.Errorf("under new rules, told are %q", got)
		}
	})
}

// Of ten thousand that wait a release has a few dozen told, and not each.
func TestALongQueueHasFewTold(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		heard := true
		const many, served = 10_000, 30
		r, teller, told := running(t, many, &heard)
		teller.Observe(&enforcer.Event{Kind: enforcer.EventQueued, Waiter: r.wait[0]})
		time.Sleep(time.Second)
		if got := told(); len(got) != many {
			t.Fatalf("%d are told their first place", len(got))
		}
		all := 0
		for range served {
			r.serve(teller)
			time.Sleep(time.Second)
			all += len(told())
		}
		if most := int(served * (10 + 11*math.Log(many))); all > most || all < served*10 {
			t.Errorf("%d releases had %d told, want no more than %d", served, all, most)
		}
	})
}

// Where nobody listens, nothing is walked, and nothing is kept.
func TestNobodyListensToPlaces(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		heard := false
		r, teller, told := running(t, 3, &heard)
		teller.Observe(&enforcer.Event{Kind: enforcer.EventQueued, Waiter: r.wait[0]})
		time.Sleep(time.Minute)
		if e := teller.Estimate("a", 1, time.Now()); e != 0 {
			t.Errorf("an estimate is %v", e)
		}
		if got, walks := told(), r.walked(); len(got) > 0 || walks > 0 || len(teller.moved) > 0 {
			t.Errorf("told are %q after %d walks", got, walks)
		}
		heard = true
		r.serve(teller)
		time.Sleep(time.Second)
		if got := told(); len(got) != 2 {
			t.Errorf("once somebody listens, told are %q", got)
		}
	})
}
