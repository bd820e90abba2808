package api

import (
	"encoding/binary"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/usher-agent/usher/client/wire"
	"github.com/usher-agent/usher/enforcer"
)

// leases grants leases as far as readers of events see it.
type leases struct {
	*Feeds
	n uint32
}

func (l *leases) take(uid uint32) *enforcer.Lease {
	l.n++
	lease := &enforcer.Lease{Items: []enforcer.Item{{Pool: "streams", N: 1}},
		Holder: &enforcer.Holder{Caller: enforcer.Caller{UID: uid}}}
	binary.BigEndian.PutUint32(lease.ID[:], l.n)
	l.Observe(enforcer.Event{Kind: enforcer.EventGranted, At: time.Unix(int64(l.n), 0), Lease: lease})
	return lease
}

// Subscribers of a user are asked about the events of that user's leases alone, in their order; what all may know all
// are told; an event is written once, whoever reads it.
func TestSubscribersByUser(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := &leases{Feeds: NewFeeds()}
		one, two := enforcer.User{UID: 1}, enforcer.User{UID: 2}
		var asked atomic.Int64
		count := func(*enforcer.Holder, *wire.Event) bool {
			asked.Add(1)
			return true
		}
		d.take(1) // before anybody listens
		ofOne, cancelOne := d.Subscribe(&one, nil)
		again, cancelAgain := d.Subscribe(&one, nil)
		ofTwo, cancelTwo := d.Subscribe(&two, count)
		ofAll, cancelAll := d.Subscribe(nil, nil)
		first, second := d.take(1), d.take(1)
		d.take(3)
		synctest.Wait()
		if asked.Load() != 0 || len(ofTwo) != 0 || len(ofOne) != 2 || len(ofAll) != 3 {
			t.Fatalf("uid 2 is asked %d times and told %d, uid 1 is told %d, an admin %d", asked.Load(), len(ofTwo),
				len(ofOne), len(ofAll))
		}
		a, b := <-ofOne, <-again
		if a != b || a.LeaseID != first.ID.String() || string(a.JSON) == "" || (<-ofOne).LeaseID != second.ID.String() {
			t.Errorf("told %+v and %+v", a, b)
		}
		d.Observe(enforcer.Event{Kind: enforcer.EventVerdict,
			Verdict: &enforcer.Verdict{State: enforcer.StateExpired, Code: enforcer.Expired}})
		synctest.Wait()
		if ev := <-ofTwo; ev.Type != "license.changed" || ev.Code != "EXPIRED" {
			t.Errorf("uid 2 is told %+v", ev)
		}
		for _, cancel := range []func(){cancelOne, cancelAgain, cancelTwo, cancelAll, cancelOne} {
			cancel()
		}
		if !d.none() || len(d.users) != 0 || d.all != nil {
			t.Errorf("left are %d, %v", d.Feeds.n.Load(), d.users)
		}
	})
}

// A process that wants what others do to its leases is told of that and of the licence, and of nothing else. An event
// that it does not want is not even queued.
func TestOwnEvents(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := &leases{Feeds: NewFeeds()}
		me := enforcer.Caller{UID: 1, PID: 7, Start: 70, Inode: 700}
		events, cancel := d.SubscribeOwn(me, nil)
		end := func(by enforcer.Caller, cause enforcer.Cause) {
			d.Observe(enforcer.Event{Kind: enforcer.EventEnded, Cause: cause,
				Lease: &enforcer.Lease{Holder: &enforcer.Holder{Caller: by}}})
		}
		d.Observe(enforcer.Event{Kind: enforcer.EventGranted,
			Lease: &enforcer.Lease{Holder: &enforcer.Holder{Caller: me}}})
		end(me, enforcer.CauseReleased)
		end(enforcer.Caller{UID: 1, PID: 7, Start: 71}, enforcer.CauseForced)
		end(enforcer.Caller{UID: 2, PID: 7, Start: 70}, enforcer.CauseForced)
		if n := d.own[processOf(me)].added; n != 0 {
			t.Errorf("%d events are queued that are not wanted", n)
		}
		end(enforcer.Caller{UID: 1, PID: 7, Start: 70}, enforcer.CauseForced) // its inode is not known
		d.Observe(enforcer.Event{Kind: enforcer.EventVerdict, Verdict: &enforcer.Verdict{Code: enforcer.Expired}})
		synctest.Wait()
		if a, b := <-events, <-events; a.Cause != "forced" || b.Type != "license.changed" || len(events) > 0 {
			t.Errorf("told %+v and %+v", a, b)
		}
		if cancel(); !d.none() || len(d.own) != 0 {
			t.Errorf("left are %v", d.own)
		}
	})
}

// A reader that does not read is cut off, and told so by the last event; the others lose nothing.
func TestSlowSubscriber(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := &leases{Feeds: NewFeeds()}
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
			d.take(1)
			synctest.Wait()
		}
		var last *Event
		n := 0
		for ev := range slow {
			last = ev
			n++
		}
		if n != subscriberBuffer+1 || last.Type != "events.ended" || last.Reason == "" ||
			last.At.After(time.Unix(many, 0)) { // in licence time, not by the wall clock
			t.Errorf("the slow one is told %d events, the last is %+v", n, last)
		}
		cancel()
		if n := <-got; n != many {
			t.Errorf("the quick one is told %d events of %d", n, many)
		}
		last = nil
		rest, _ := d.Subscribe(nil, nil)
		end := time.Date(2031, 1, 1, 0, 0, 0, 0, time.UTC)
		d.Close(end)
		for ev := range rest {
			last = ev
		}
		if last == nil || last.Type != "events.ended" || !last.At.Equal(end) {
			t.Errorf("when the agent ends the last is %+v", last)
		}
	})
}

// Readers keep nobody from deciding: while one is being told, and for as long as that takes, leases are granted.
func TestSubscribersHoldNothingUp(t *testing.T) {
	d := &leases{Feeds: NewFeeds()}
	one := enforcer.User{UID: 1}
	inside, goOn := make(chan struct{}), make(chan struct{})
	_, cancel := d.Subscribe(&one, func(*enforcer.Holder, *wire.Event) bool {
		inside <- struct{}{}
		<-goOn
		return false
	})
	d.take(1)
	<-inside // the reader is being asked
	d.take(2)
	d.take(1)
	cancel()
	close(goOn)
}
