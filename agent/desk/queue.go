package desk

import (
	"math"
	"slices"
	"time"

	"github.com/usher-agent/usher/enforcer"
)

// placesStep is how many places are looked at while the desk's lock is held.
const placesStep = 256

// Places calls each with the places of those that wait for some pools and meters, some at a time and without the lock;
// those of one queue follow on each other, in their order. Others are served in between. It may keep nothing of some.
func (d *Desk) Places(names []string, each func(now time.Time, some []enforcer.Place)) {
	d.walk(names, math.MaxInt, each)
}

// walk is Places of the first most of each queue.
func (d *Desk) walk(names []string, most int, each func(now time.Time, some []enforcer.Place)) {
	var out []enforcer.Place
	var line *enforcer.Line
	var p pace
	left := most
	for len(names) > 0 {
		d.mu.Lock()
		now := d.licenceTime()
		out = out[:0]
		for looked := 0; looked < placesStep && len(names) > 0; {
			if line == nil {
				line, left = d.core.Line(names[0]), most
			}
			n := len(out)
			var more bool
			out, more = line.AppendNext(out, min(left, placesStep-looked))
			if left -= len(out) - n; !more || left == 0 {
				line.Close()
				line, names = nil, names[1:]
			}
			looked += len(out) - n + 1 // a queue costs something, too
		}
		d.mu.Unlock()
		if len(out) > 0 {
			each(now, out)
		}
		p.giveWay()
	}
}

// Queue returns the first most acquires that wait and that own accepts, in the order in which they would be served were
// nothing in their way; more says that there are others. A nil own accepts all. It looks at some at a time, and others
// are served in between: the list has those that wait throughout, each at a place that it had meanwhile.
func (d *Desk) Queue(own func(*enforcer.Waiter) bool, most int) (out []*enforcer.InQueue, more bool) {
	d.lockSettled()
	rules := d.core.Policies()
	d.mu.Unlock()
	for range queueWalks {
		out, more = d.walkQueues(own, most)
		before := rules
		if rules, _ = d.RuleUses(); rules == before {
			return d.stillWait(out), more
		}
	}
	return d.stillWait(out), true // as far as the walk came before the last change
}

// queueWalks is how often a list is begun while new rules keep changing the order.
const queueWalks = 4

// walkQueues is one walk along the queues for Queue.
func (d *Desk) walkQueues(own func(*enforcer.Waiter) bool, most int) (_ []*enforcer.InQueue, more bool) {
	found := map[enforcer.LeaseID]*enforcer.InQueue{}
	order := func() []*enforcer.InQueue {
		all := make([]*enforcer.InQueue, 0, len(found))
		for _, q := range found {
			all = append(all, q)
		}
		slices.SortFunc(all, func(x, y *enforcer.InQueue) int { return x.Compare(y.Place) })
		for _, q := range all[min(len(all), most):] {
			more = true
			delete(found, q.ID)
		}
		return all[:min(len(all), most)]
	}
	far := math.MaxInt
	if own == nil {
		far = most + 1 // those behind it are behind most others
	}
	d.walk(d.Queues(), far, func(_ time.Time, some []enforcer.Place) {
		for _, p := range some {
			if own != nil && !own(p.Waiter) {
				continue
			}
			if q := found[p.ID]; q != nil {
				q.Meet(p)
			} else {
				found[p.ID] = enforcer.NewInQueue(p)
			}
		}
		if len(found) > 4*most { // it keeps no more than that
			order()
		}
	})
	return order(), more
}

// stillWait leaves those of a list that wait still, and says what bars them.
func (d *Desk) stillWait(all []*enforcer.InQueue) (out []*enforcer.InQueue) {
	var p pace
	for some := range slices.Chunk(all, placesStep) {
		d.mu.Lock()
		for _, q := range some {
			var waits bool
			if q.Barred, waits = d.core.Barred(q.ID); waits && !slices.Contains(q.Positions, 0) {
				out = append(out, q)
			}
		}
		d.mu.Unlock()
		p.giveWay()
	}
	return out
}
