package agent

import (
	"sync"
	"sync/atomic"

	"github.com/usher-agent/usher/client/wire"
	"github.com/usher-agent/usher/enforcer"
)

// subscriberBuffer is how many events a subscriber may be behind before it is cut off.
const subscriberBuffer = 256

// subscribers are the readers of events.
type subscribers struct {
	mu     sync.Mutex // guards all below; taken under desk.mu, never the other way round
	all    map[*subscriber]struct{}
	n      atomic.Int32
	closed bool
}

type subscriber struct {
	ch chan wire.Event
	// see says whether the subscriber may and will see an event of a holder's lease.
	see func(*enforcer.Holder, *wire.Event) bool
}

// Subscribe returns a channel of events: changes of the licence, and what becomes of leases, where see
// accepts it. The channel is closed by cancel, when the agent ends, and when the reader is too slow.
func (d *desk) Subscribe(see func(*enforcer.Holder, *wire.Event) bool) (<-chan wire.Event, func()) {
	s := &d.subs
	sub := &subscriber{ch: make(chan wire.Event, subscriberBuffer), see: see}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		close(sub.ch)
		return sub.ch, func() {}
	}
	if s.all == nil {
		s.all = map[*subscriber]struct{}{}
	}
	s.all[sub] = struct{}{}
	s.n.Store(int32(len(s.all)))
	return sub.ch, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.drop(sub)
	}
}

// drop ends a subscription. s.mu is held.
func (s *subscribers) drop(sub *subscriber) {
	if _, ok := s.all[sub]; ok {
		delete(s.all, sub)
		close(sub.ch)
		s.n.Store(int32(len(s.all)))
	}
}

func (s *subscribers) none() bool { return s.n.Load() == 0 }

func (s *subscribers) publish(ev enforcer.Event) {
	if s.none() {
		return
	}
	out := wire.Event{At: ev.At}
	var holder *enforcer.Holder
	switch ev.Kind {
	case enforcer.EventVerdict:
		out.Type = "license.changed"
		out.State, out.Code, out.Reason = string(ev.Verdict.State), string(ev.Verdict.Code), ev.Verdict.Reason
	case enforcer.EventGranted:
		out.Type = "lease.granted"
	case enforcer.EventRenewed:
		out.Type = "lease.renewed"
	case enforcer.EventEnded:
		out.Type, out.Cause = "lease.ended", string(ev.Cause)
	default:
		return
	}
	if l := ev.Lease; l != nil {
		out.LeaseID, out.Items, holder = l.ID.String(), itemShapes(l.Items), l.Holder
	}
	s.send(holder, out)
}

// send passes an event to all who may see it; a nil holder's event is for everybody.
func (s *subscribers) send(holder *enforcer.Holder, ev wire.Event) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for sub := range s.all {
		if holder != nil && sub.see != nil && !sub.see(holder, &ev) {
			continue
		}
		select {
		case sub.ch <- ev:
		default:
			s.drop(sub)
		}
	}
}

func (s *subscribers) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	for sub := range s.all {
		s.drop(sub)
	}
}
