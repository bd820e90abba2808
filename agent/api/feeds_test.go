package api

import (
	"encoding/binary"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/usher-agent/usher/agent/bubble"
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
	l.Observe(&enforcer.Event{Kind: enforcer.EventGranted, At: time.Unix(int64(l.n), 0), Lease: lease})
	return lease
}

// readAll reads events until there are no more.
func readAll(s *Subscription) (all []*Event) {
	for open := true; open; {
		_, open = <-s.C
		all = append(all, s.Take()...)
	}
	return all
}

// Many subscribers are woken for several events at once, and lose none of them.
func TestManySubscribers(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		d := &leases{Feeds: NewFeeds()}
		var wakes, told atomic.Int64
		var over sync.WaitGroup
		var readers []*Subscription
		const many = 50
		for range many {
			r := d.Subscribe(nil, nil)
			readers = append(readers, r)
			over.Go(func() {
				for open := true; open; {
					_, open = <-r.C
					wakes.Add(1)
					told.Add(int64(len(r.Take())))
				}
			})
		}
		begin := time.Now()
		for range 1000 {
			d.take(1)
			time.Sleep(100 * time.Microsecond)
		}
		time.Sleep(time.Second)
		for _, r := range readers {
			r.Cancel()
		}
		over.Wait()
		if told.Load() != 1000*many || wakes.Load() > 50*many {
			t.Errorf("in %v of a bubble's time, %d readers are woken %d times and told %d events", time.Since(begin),
				many,
				wakes.Load(), told.Load())
		}
	})
}

// Subscribers of a user are asked about the events of that user's leases alone, in their order; what all may know all
// are told; an event is written once, whoever reads it.
func TestSubscribersByUser(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		d := &leases{Feeds: NewFeeds()}
		one, two := enforcer.User{UID: 1}, enforcer.User{UID: 2}
		var asked atomic.Int64
		count := func(*enforcer.Holder, *wire.Event) bool {
			asked.Add(1)
			return true
		}
		d.take(1) // before anybody listens
		ofOne, again := d.Subscribe(&one, nil), d.Subscribe(&one, nil)
		ofTwo, ofAll := d.Subscribe(&two, count), d.Subscribe(nil, nil)
		first, second := d.take(1), d.take(1)
		d.take(3)
		synctest.Wait()
		a, b, c, all := ofOne.Take(), again.Take(), ofTwo.Take(), ofAll.Take()
		if asked.Load() != 0 || len(c) != 0 || len(a) != 2 || len(b) != 2 || len(all) != 3 {
			t.Fatalf("uid 2 is asked %d times and told %d, uid 1 is told %d, an admin %d", asked.Load(), len(c), len(a),
				len(all))
		}
		if a[0] != b[0] || a[0].LeaseID != first.ID.String() || string(a[0].JSON) == "" ||
			a[1].LeaseID != second.ID.String() {
			t.Errorf("told %+v and %+v", a, b)
		}
		d.Observe(&enforcer.Event{Kind: enforcer.EventVerdict,
			Verdict: &enforcer.Verdict{State: enforcer.StateExpired, Code: enforcer.Expired}})
		synctest.Wait()
		if c := ofTwo.Take(); len(c) != 1 || c[0].Type != "license.changed" || c[0].Code != "EXPIRED" {
			t.Errorf("uid 2 is told %+v", c)
		}
		for _, x := range []*Subscription{ofOne, again, ofTwo, ofAll, ofOne} {
			x.Cancel()
		}
		if !d.none() || len(d.users) != 0 || d.all != nil {
			t.Errorf("left are %d, %v", d.Feeds.n.Load(), d.users)
		}
	})
}

// A process that wants what others do to its leases is told of that and of the licence, and of nothing else. An event
// that it does not want is not even queued.
func TestOwnEvents(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		d := &leases{Feeds: NewFeeds()}
		me := enforcer.Caller{UID: 1, PID: 7, Start: 70, Inode: 700}
		events := d.SubscribeOwn(me, nil)
		end := func(by enforcer.Caller, cause enforcer.Cause) {
			d.Observe(&enforcer.Event{Kind: enforcer.EventEnded, Cause: cause,
				Lease: &enforcer.Lease{Holder: &enforcer.Holder{Caller: by}}})
		}
		d.Observe(&enforcer.Event{Kind: enforcer.EventGranted,
			Lease: &enforcer.Lease{Holder: &enforcer.Holder{Caller: me}}})
		end(me, enforcer.CauseReleased)
		end(enforcer.Caller{UID: 1, PID: 7, Start: 71}, enforcer.CauseForced)
		end(enforcer.Caller{UID: 2, PID: 7, Start: 70}, enforcer.CauseForced)
		if n := d.own[processOf(me)].added; n != 0 {
			t.Errorf("%d events are queued that are not wanted", n)
		}
		end(enforcer.Caller{UID: 1, PID: 7, Start: 70}, enforcer.CauseForced) // its inode is not known
		d.Observe(&enforcer.Event{Kind: enforcer.EventVerdict, Verdict: &enforcer.Verdict{Code: enforcer.Expired}})
		synctest.Wait()
		if told := events.Take(); len(told) != 2 || told[0].Cause != "forced" || told[1].Type != "license.changed" {
			t.Errorf("told %+v", told)
		}
		if events.Cancel(); !d.none() || len(d.own) != 0 {
			t.Errorf("left are %v", d.own)
		}
	})
}

// A reader that does not read is cut off, and told so by the last event; the others lose nothing.
func TestSlowSubscriber(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		d := &leases{Feeds: NewFeeds()}
		one := enforcer.User{UID: 1}
		slow, quick := d.Subscribe(&one, nil), d.Subscribe(&one, nil)
		got := make(chan int, 1)
		go func() { got <- len(readAll(quick)) }()
		const many = 2 * subscriberBuffer
		for range many {
			d.take(1)
			synctest.Wait()
		}
		told := readAll(slow)
		n, last := len(told), told[len(told)-1]
		if n != subscriberBuffer+1 || last.Type != "events.ended" || last.Reason == "" ||
			last.At.After(time.Unix(many, 0)) { // in licence time, not by the wall clock
			t.Errorf("the slow one is told %d events, the last is %+v", n, last)
		}
		quick.Cancel()
		if n := <-got; n != many {
			t.Errorf("the quick one is told %d events of %d", n, many)
		}
		rest := d.Subscribe(nil, nil)
		end := time.Date(2031, 1, 1, 0, 0, 0, 0, time.UTC)
		d.Close(end)
		told = readAll(rest)
		if last = told[len(told)-1]; last.Type != "events.ended" || !last.At.Equal(end) {
			t.Errorf("when the agent ends the last is %+v", last)
		}
	})
}

// Readers keep nobody from deciding: while one is being told, and for as long as that takes, leases are granted.
func TestSubscribersHoldNothingUp(t *testing.T) {
	d := &leases{Feeds: NewFeeds()}
	one := enforcer.User{UID: 1}
	inside, goOn := make(chan struct{}), make(chan struct{})
	reader := d.Subscribe(&one, func(*enforcer.Holder, *wire.Event) bool {
		inside <- struct{}{}
		<-goOn
		return false
	})
	d.take(1)
	<-inside // the reader is being asked
	d.take(2)
	d.take(1)
	reader.Cancel()
	close(goOn)
}

// The end of a lease by a rule of the site names the rule, and any other end names none.
func TestEndedByARule(t *testing.T) {
	for _, rule := range []string{"", "a-working-day"} {
		ev := fed{event: enforcer.Event{Kind: enforcer.EventEnded, Cause: enforcer.CauseMaxHold, Rule: rule,
			Lease: &enforcer.Lease{Holder: &enforcer.Holder{}}}}
		w := ev.wire()
		if w.Type != "lease.ended" || w.Rule != rule || w.Cause != "max_hold" || (w.Reason == "") != (rule == "") {
			t.Errorf("by the rule %q: %+v", rule, w)
		}
	}
}
