package desk

import (
	"fmt"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/usher-agent/usher/agent/api"
	"github.com/usher-agent/usher/client/wire"
	"github.com/usher-agent/usher/enforcer"
)

// busyDesk is a desk with a pool without a limit.
func busyDesk() *Desk {
	d := newDesk(testOptions(time.Now))
	d.SetVerdict(&enforcer.Verdict{State: enforcer.StateValid, Code: enforcer.Valid,
		Pools: map[string]enforcer.PoolGrant{
			"streams": {Name: "streams", Limit: enforcer.Unlimited, Budget: enforcer.Unlimited}}}, 0)
	return d
}

type unseen struct{}

func (unseen) Observe(enforcer.Event)                                 {}
func (unseen) Acquired(string, time.Duration, *enforcer.Denial, bool) {}
func (unseen) Waited(time.Duration)                                   {}
func (d *Desk) take(t *testing.T, uid uint32) *enforcer.Lease {
	t.Helper()
	g, denial := d.Acquire(t.Context(),
		&enforcer.Acquire{Pool: "streams", N: 1, Lifetime: enforcer.LifetimeHeld, Caller: enforcer.Caller{UID: uid}})
	if denial != nil {
		t.Fatal(denial)
	}
	return g.Lease
}

// Subscribers of a user are asked about the events of that user's leases alone, in their order; what all may know all
// are told; an event is written once, whoever reads it.
func TestSubscribersByUser(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := busyDesk()
		one, two := enforcer.User{UID: 1}, enforcer.User{UID: 2}
		var asked atomic.Int64
		count := func(*enforcer.Holder, *wire.Event) bool {
			asked.Add(1)
			return true
		}
		d.take(t, 1) // before anybody listens
		ofOne, cancelOne := d.Subscribe(&one, nil)
		again, cancelAgain := d.Subscribe(&one, nil)
		ofTwo, cancelTwo := d.Subscribe(&two, count)
		ofAll, cancelAll := d.Subscribe(nil, nil)
		first, second := d.take(t, 1), d.take(t, 1)
		d.take(t, 3)
		synctest.Wait()
		if asked.Load() != 0 || len(ofTwo) != 0 || len(ofOne) != 2 || len(ofAll) != 3 {
			t.Fatalf("uid 2 is asked %d times and told %d, uid 1 is told %d, an admin %d", asked.Load(), len(ofTwo),
				len(ofOne), len(ofAll))
		}
		a, b := <-ofOne, <-again
		if a != b || a.LeaseID != first.ID.String() || string(a.JSON) == "" || (<-ofOne).LeaseID != second.ID.String() {
			t.Errorf("told %+v and %+v", a, b)
		}
		d.SetVerdict(&enforcer.Verdict{State: enforcer.StateExpired, Code: enforcer.Expired}, 0)
		synctest.Wait()
		if ev := <-ofTwo; ev.Type != "license.changed" || ev.Code != "EXPIRED" {
			t.Errorf("uid 2 is told %+v", ev)
		}
		for _, cancel := range []func(){cancelOne, cancelAgain, cancelTwo, cancelAll, cancelOne} {
			cancel()
		}
		if !d.subs.none() || len(d.subs.users) != 0 || d.subs.all != nil {
			t.Errorf("left are %d, %v", d.subs.n.Load(), d.subs.users)
		}
	})
}

// A reader that does not read is cut off, and told so by the last event; the others lose nothing.
func TestSlowSubscriber(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := busyDesk()
		one := enforcer.User{UID: 1}
		slow, _ := d.Subscribe(&one, nil)
		quick, cancel := d.Subscribe(&one, nil)
		got := make(chan int, 1)
		go func() {
			n := 0
			for range quick {
				n++
			}
			got <- n
		}()
		const many = 4 * subscriberBuffer
		for range many {
			d.take(t, 1)
			synctest.Wait()
		}
		var last *api.Event
		n := 0
		for ev := range slow {
			last = ev
			n++
		}
		if n != subscriberBuffer+1 || last.Type != "events.ended" || last.Reason == "" {
			t.Errorf("the slow one is told %d events, the last is %+v", n, last)
		}
		cancel()
		if n := <-got; n != many {
			t.Errorf("the quick one is told %d events of %d", n, many)
		}
		last = nil
		rest, _ := d.Subscribe(nil, nil)
		d.subs.close()
		for ev := range rest {
			last = ev
		}
		if last == nil || last.Type != "events.ended" {
			t.Errorf("when the agent ends the last is %+v", last)
		}
	})
}

// Readers keep nobody from deciding: while one is being told, and for as long as that takes, leases are granted.
func TestSubscribersHoldNothingUp(t *testing.T) {
	d := busyDesk()
	one := enforcer.User{UID: 1}
	inside, goOn := make(chan struct{}), make(chan struct{})
	_, cancel := d.Subscribe(&one, func(*enforcer.Holder, *wire.Event) bool {
		inside <- struct{}{}
		<-goOn
		return false
	})
	d.take(t, 1)
	<-inside // the reader is being asked
	d.take(t, 2)
	d.take(t, 1)
	cancel()
	close(goOn)
}

// A list is made in portions, between which others are served.
func TestListServesOthersMeanwhile(t *testing.T) {
	d := busyDesk()
	want := map[enforcer.LeaseID]bool{}
	for range 3*portion + 5 {
		want[d.take(t, 1).ID] = true
	}
	d.take(t, 2)
	one := enforcer.User{UID: 1}
	parts := 0
	d.List(&one, func(some []*enforcer.Lease) bool {
		parts++
		if len(some) > portion {
			t.Errorf("a portion of %d", len(some))
		}
		for _, l := range some {
			delete(want, l.ID)
		}
		d.take(t, 1) // which would wait for ever, were the lock held
		return true
	})
	if len(want) != 0 || parts != 4 {
		t.Errorf("%d leases are not listed, in %d portions", len(want), parts)
	}
	users := map[string]int{}
	d.List(nil, func(some []*enforcer.Lease) bool {
		users[fmt.Sprint(some[0].Holder.Who())] += len(some)
		return true
	})
	if users["uid 1"] != 3*portion+9 || users["uid 2"] != 1 {
		t.Errorf("of all: %v", users)
	}
	d.List(&enforcer.User{UID: 3}, func([]*enforcer.Lease) bool {
		t.Error("uid 3 has no leases, and is listed")
		return false
	})
}
