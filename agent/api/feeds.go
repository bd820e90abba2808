package api

import (
	"fmt"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/go-json-experiment/json"

	"github.com/usher-agent/usher/client/wire"
	"github.com/usher-agent/usher/enforcer"
	"github.com/usher-agent/usher/plugin/redact"
)

const (
	// subscriberBuffer is how many events a subscriber may be behind before it is cut off.
	subscriberBuffer = 4096
	// feedBuffer is how many events the subscribers of one user may be behind all together.
	feedBuffer = 16 << 10

	// A feed of more than unhurried subscribers gathers events for a moment before it passes them on again: paceEach
	// for each subscriber, and no longer than paceMost. Each is then woken once for all of them.
	unhurried = 8
	paceEach  = 100 * time.Microsecond
	paceMost  = 10 * time.Millisecond
)

// Feeds bring events to their readers. The desk only puts an event into the feeds that it concerns; passing
// it on to their readers is another goroutine's work, so that neither many readers nor slow ones keep anybody waiting.
// Their methods are safe for concurrent use, and [Feeds.Observe] and [Feeds.Revoking] may be called under the desk's
// lock.
type Feeds struct {
	n      atomic.Int32
	mu     sync.Mutex // guards all below; the desk's lock is never taken under it
	users  map[enforcer.User]*feed
	own    map[process]*feed // of those who want what others do to the leases of their process alone
	all    *feed             // of those who see the leases of all users; nil: there are none
	closed bool
	last   time.Time // of the last event, in licence time
}

// NewFeeds makes feeds without readers.
func NewFeeds() *Feeds {
	return &Feeds{users: map[enforcer.User]*feed{}, own: map[process]*feed{}}
}

// process is what tells one process of a user from others; its inode only where it has no number here.
type process struct {
	user         enforcer.User
	pid          int32
	start, inode uint64
}

func processOf(c enforcer.Caller) process {
	p := process{user: c.Who(), pid: c.PID, start: c.Start}
	if c.PID == 0 {
		p.inode = c.Inode
	}
	return p
}

// feed is what the subscribers of one user, or of one process, are to be told.
type feed struct {
	owner *Feeds
	leave func()                   // takes the feed out of its owner; owner.mu is held
	subs  map[*subscriber]struct{} // guarded by owner.mu
	queue []fed                    // guarded by owner.mu
	added uint64                   // guarded by owner.mu: events so far
	busy  bool                     // guarded by owner.mu: it is being passed on
}

// fed is an event in a feed. What it looks like on the wire is found out when it is passed on.
type fed struct {
	number uint64
	holder *enforcer.Holder // nil: it is for everybody
	event  enforcer.Event
	shaped *wire.Event // instead of event
}

type subscriber struct {
	feed *feed
	wake chan struct{} // holds one while there is something to take; closed at the end
	told []*Event      // guarded by feed.owner.mu: not taken yet; one place beyond the buffer is for the last
	// see says whether the subscriber may and will see an event of a holder's lease; nil: it does.
	see  func(*enforcer.Holder, *wire.Event) bool
	from uint64 // the first event that is told
	gone bool   // guarded by feed.owner.mu
}

// Subscription is what a subscriber reads.
type Subscription struct {
	// C has something when there are events to take. Cancel closes it and, after an event that says why, the end of the
	// agent, and a reader that is too slow: take once more then.
	C     <-chan struct{}
	sub   *subscriber
	owner *Feeds
}

// Take returns the events since the last Take, in their order. Nobody may change them.
func (s *Subscription) Take() []*Event {
	s.owner.mu.Lock()
	defer s.owner.mu.Unlock()
	out := s.sub.told
	s.sub.told = nil
	return out
}

// Cancel ends the subscription, and forgets what was not taken. It may be called more than once.
func (s *Subscription) Cancel() {
	s.owner.mu.Lock()
	defer s.owner.mu.Unlock()
	s.owner.drop(s.sub, "")
	s.sub.told = nil
}

// Subscribe subscribes to changes of the licence, and to what becomes of the leases of a user (of all users for nil),
// where see accepts it.
func (s *Feeds) Subscribe(u *enforcer.User, see func(*enforcer.Holder, *wire.Event) bool) *Subscription {
	return s.subscribe(see, func() *feed {
		if u != nil {
			return made(s, s.users, *u)
		}
		if s.all == nil {
			s.all = &feed{owner: s, subs: map[*subscriber]struct{}{}, leave: func() { s.all = nil }}
		}
		return s.all
	})
}

// SubscribeOwn is Subscribe for a process: it is told of changes of the licence, and of what others do to the leases
// that the process holds. Other events cost it nothing.
func (s *Feeds) SubscribeOwn(c enforcer.Caller, see func(*enforcer.Holder, *wire.Event) bool) *Subscription {
	return s.subscribe(see, func() *feed { return made(s, s.own, processOf(c)) })
}

// subscribe adds a reader to the feed that is chosen under s.mu.
func (s *Feeds) subscribe(see func(*enforcer.Holder, *wire.Event) bool, choose func() *feed) *Subscription {
	sub := &subscriber{wake: make(chan struct{}, 1), see: see}
	out := &Subscription{C: sub.wake, sub: sub, owner: s}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		sub.gone = true
		close(sub.wake)
		return out
	}
	sub.feed = choose()
	sub.from = sub.feed.added
	sub.feed.subs[sub] = struct{}{}
	s.n.Add(1)
	return out
}

// made returns a key's feed, made where there is none. s.mu is held.
func made[K comparable](s *Feeds, feeds map[K]*feed, key K) *feed {
	f := feeds[key]
	if f == nil {
		f = &feed{owner: s, subs: map[*subscriber]struct{}{}, leave: func() { delete(feeds, key) }}
		feeds[key] = f
	}
	return f
}

// drop ends a subscription, and says why where that is news to the reader. s.mu is held.
func (s *Feeds) drop(sub *subscriber, why string) {
	if sub.gone {
		return
	}
	sub.gone = true
	delete(sub.feed.subs, sub)
	s.n.Add(-1)
	if why != "" {
		sub.told = append(sub.told, shape(wire.Event{Type: "events.ended", At: s.last.UTC(), Reason: why}))
	}
	close(sub.wake)
	if len(sub.feed.subs) > 0 {
		return
	}
	sub.feed.queue = nil
	sub.feed.leave()
}

func (s *Feeds) none() bool { return s.n.Load() == 0 }

// Observe queues an event of the enforcer's for its readers; some kinds have none.
func (s *Feeds) Observe(ev *enforcer.Event) {
	if s.none() {
		return
	}
	switch ev.Kind {
	case enforcer.EventVerdict:
		s.put(fed{event: *ev})
	case enforcer.EventGranted, enforcer.EventRenewed, enforcer.EventEnded:
		s.put(fed{event: *ev, holder: ev.Lease.Holder})
	default:
	}
}

// Tell has an event told that is none of the enforcer's; a nil holder's is for everybody.
func (s *Feeds) Tell(holder *enforcer.Holder, ev wire.Event) {
	if !s.none() {
		s.put(fed{shaped: &ev, holder: holder})
	}
}

// Revoking tells the holders of leases that these are to be revoked, where anybody listens.
func (s *Feeds) Revoking(now time.Time, leases []*enforcer.Lease) {
	if s.none() {
		return
	}
	for _, l := range leases {
		if s.hears(l.Holder.Caller) {
			s.Tell(l.Holder, wire.Event{Type: "lease.revoking", At: now, LeaseID: l.ID.String(),
				Items:  ItemShapes(l.Items),
				Reason: "the licence no longer covers it; it ends at " + l.RevokeAt.UTC().Format(time.RFC3339)})
		}
	}
}

// Heard reports whether there are readers.
func (s *Feeds) Heard() bool { return !s.none() }

// hears reports whether anybody is told of the leases of a holder.
func (s *Feeds) hears(c enforcer.Caller) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.all != nil || s.users[c.Who()] != nil || s.own[processOf(c)] != nil
}

// Waiting tells an acquire that waits, and those who see its leases, of its place. estimate is how long it may still
// wait; zero: not known.
func (s *Feeds) Waiting(now time.Time, p enforcer.Place, estimate time.Duration) {
	by := p.Request.Caller
	if s.none() || !s.hears(by) {
		return
	}
	s.Tell(&enforcer.Holder{Caller: by}, wire.Event{Type: leaseWaiting, At: now.UTC(), LeaseID: p.ID.String(),
		Items: ItemShapes(p.Items), Pool: p.Pool, Position: p.Position, NextEndsAt: Instant(p.Next),
		EstimateSeconds: estimate.Round(time.Second).Seconds(),
		Holder:          &wire.Holder{UID: by.UID, GID: by.GID, PID: by.PID, Exe: by.Exe, Credential: by.Credential}})
}

// leaseWaiting is the event of an acquire that waits.
const leaseWaiting = "lease.waiting"

// put puts an event into the feeds that it concerns.
func (s *Feeds) put(ev fed) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.last = ev.at()
	if ev.holder != nil {
		s.users[ev.holder.Who()].add(ev)
		if len(s.own) > 0 && ev.byOthers() {
			s.own[processOf(ev.holder.Caller)].add(ev)
		}
	} else {
		for _, f := range s.users {
			f.add(ev)
		}
		for _, f := range s.own {
			f.add(ev)
		}
	}
	s.all.add(ev)
}

// add queues an event, and sees to it that somebody passes it on. owner.mu is held; a nil feed has no readers.
func (f *feed) add(ev fed) {
	if f == nil || len(f.subs) == 0 {
		return
	}
	if len(f.queue) >= feedBuffer {
		for sub := range f.subs {
			f.owner.drop(sub, "more happened at once than could be told; connect again")
		}
		return
	}
	ev.number = f.added
	f.added++
	f.queue = append(f.queue, ev)
	if !f.busy {
		f.busy = true
		go f.pass()
	}
}

// pass passes on what is queued, until nothing is.
func (f *feed) pass() {
	var subs []*subscriber
	for first := true; ; first = false {
		if n := len(subs); !first && n > unhurried {
			time.Sleep(min(paceMost, time.Duration(n)*paceEach))
		}
		f.owner.mu.Lock()
		batch := f.queue
		f.queue = nil
		if len(batch) == 0 {
			f.busy = false
			f.owner.mu.Unlock()
			return
		}
		subs = subs[:0]
		for sub := range f.subs {
			subs = append(subs, sub)
		}
		f.owner.mu.Unlock()
		f.tell(batch, subs)
	}
}

// tell passes events on to the readers that see them. Each event is written once, whoever reads it, and readers that
// see the same ones share the list.
func (f *feed) tell(batch []fed, subs []*subscriber) {
	wires, shaped := make([]*wire.Event, len(batch)), make([]*Event, len(batch))
	for i := range batch {
		wires[i] = batch[i].wire()
	}
	var all []*Event // for those that see every one
	for _, sub := range subs {
		seen := all
		if sub.see != nil || all == nil || sub.from > batch[0].number {
			seen = nil
			for i := range batch {
				ev := &batch[i]
				if ev.number < sub.from || ev.holder != nil && sub.see != nil && !sub.see(ev.holder, wires[i]) {
					continue
				}
				if shaped[i] == nil {
					shaped[i] = shape(*wires[i])
				}
				seen = append(seen, shaped[i])
			}
			if len(seen) == len(batch) {
				all = seen
			}
		}
		if len(seen) > 0 {
			f.hand(sub, seen)
		}
	}
}

// hand puts events before a reader, or as many as there is room for, and cuts it off then.
func (f *feed) hand(sub *subscriber, events []*Event) {
	f.owner.mu.Lock()
	defer f.owner.mu.Unlock()
	if sub.gone {
		return
	}
	fits := min(len(events), subscriberBuffer-len(sub.told))
	if sub.told == nil {
		sub.told = events[:fits:fits] // shared: append makes another
	} else {
		sub.told = append(sub.told, events[:fits]...)
	}
	if fits < len(events) {
		f.owner.drop(sub, fmt.Sprintf("this reader was too slow: it is %d events behind; connect again",
			subscriberBuffer))
		return
	}
	select {
	case sub.wake <- struct{}{}:
	default:
	}
}

// byOthers reports whether an event of a lease may be news to its holder: the holder knows of its own calls.
func (ev *fed) byOthers() bool {
	return ev.shaped != nil || ev.event.Kind == enforcer.EventEnded && ev.event.Cause != enforcer.CauseReleased
}

// at returns when the event happened, in licence time.
func (ev *fed) at() time.Time {
	if ev.shaped != nil {
		return ev.shaped.At
	}
	return ev.event.At
}

// wire is the event as it is on the wire.
func (ev *fed) wire() *wire.Event {
	if ev.shaped != nil {
		return ev.shaped
	}
	out := &wire.Event{At: ev.event.At}
	switch ev.event.Kind {
	case enforcer.EventVerdict:
		v := ev.event.Verdict
		out.Type, out.State, out.Code, out.Reason = "license.changed", string(v.State), string(v.Code), v.Reason
		return out
	case enforcer.EventGranted:
		out.Type = "lease.granted"
	case enforcer.EventRenewed:
		out.Type = "lease.renewed"
	default:
		out.Type, out.Cause = "lease.ended", string(ev.event.Cause)
		if ev.event.Rule != "" {
			out.Rule = ev.event.Rule
			out.Reason = "rule " + ev.event.Rule + " of the site ends it"
		}
	}
	out.LeaseID, out.Items = ev.event.Lease.ID.String(), ItemShapes(ev.event.Lease.Items)
	return out
}

// shape writes an event once, for all who read it, and so without secrets and e-mail addresses.
func shape(ev wire.Event) *Event {
	ev.Reason = redact.Text(ev.Reason)
	b, err := marshal(ev)
	if err != nil {
		b, _ = json.Marshal(wire.Event{Type: ev.Type, At: ev.At, LeaseID: ev.LeaseID})
	}
	return &Event{Event: ev, JSON: b}
}

// Close ends all subscriptions: the agent ends. now is the licence time.
func (s *Feeds) Close(now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.last = now
	s.closed = true
	feeds := []*feed{s.all}
	feeds = slices.AppendSeq(feeds, maps.Values(s.users))
	feeds = slices.AppendSeq(feeds, maps.Values(s.own))
	for _, f := range feeds {
		if f == nil {
			continue
		}
		for sub := range f.subs {
			s.drop(sub, "the agent ends; connect again when it is back")
		}
	}
}
