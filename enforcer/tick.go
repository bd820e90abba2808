package enforcer

import (
	"slices"
	"strings"
	"time"
)

// Batch bounds the events of one Tick, and of whatever else is decided of many leases at once, so that no call takes
// long. NextTick stays due meanwhile.
const Batch = 256

// ending gathers what ends in one Tick.
type ending struct {
	e      *Enforcer
	now    time.Time
	events []Event
	over   map[LeaseID]struct{}
	leases []*held // of over
}

func (x *ending) full() bool { return len(x.events) >= x.e.options.batch }

// end ends a lease, unless it has ended already, and reports whether there is room for more.
func (x *ending) end(h *held, c Cause) bool {
	if _, has := x.over[h.ID]; !has {
		x.over[h.ID] = struct{}{}
		x.leases = append(x.leases, h)
		x.events = append(x.events, Event{Kind: EventEnded, At: x.now, Lease: h.Lease, Cause: c,
			found: found{by: x.e, lease: h}})
	}
	return !x.full()
}

// endBy ends a lease whose timer has run out, and reports whether there is room for more.
func (x *ending) endBy(t *timer) bool {
	n := len(x.events)
	more := x.end(t.h, t.cause)
	if len(x.events) > n {
		x.events[n].Rule = t.rule.Name
	}
	return more
}

// decide ends first what has expired, then the leases of licences that have ended, then what is over the limits. One
// begins when nothing of the former is left. So it does not matter in how many steps all is done, and what others do
// between two steps counts.
func (*Tick) decide(e *Enforcer, now time.Time) Decision {
	x := &ending{e: e, now: now, over: map[LeaseID]struct{}{}}
	due := e.due.until(now, len(e.due.heap))
	slices.SortFunc(due, func(a, b *pool) int { return strings.Compare(a.name, b.name) })
	for _, p := range due {
		p.ended(now, func(h *held) bool {
			if h.Unconfirmed {
				return x.end(h, CauseHolderGone)
			}
			return x.end(h, CauseExpired)
		})
		if x.full() {
			return Decision{Events: x.events}
		}
	}
	for _, t := range e.timing.until(now, e.options.batch-len(x.events)) {
		if !x.endBy(t) {
			return Decision{Events: x.events}
		}
	}
	for _, t := range e.tenures {
		root := t
		if t.heir != nil {
			root = t.heir
		}
		if root.isOver(now) {
			t.granted.all(func(h *held) bool { return x.end(h, CauseRevoked) })
		}
		if x.full() {
			return Decision{Events: x.events}
		}
	}
	for _, p := range due {
		if !p.revokeAt.IsZero() && !now.Before(p.revokeAt) {
			x.excess(p)
		}
		if x.full() {
			return Decision{Events: x.events}
		}
	}
	x.events = append(x.events, e.giveUp(now, e.options.batch-len(x.events))...)
	x.events = append(x.events, e.liftDue(now, e.options.batch-len(x.events))...)
	x.events = append(x.events, e.lingersDue(now, e.options.batch-len(x.events))...)
	for _, r := range e.memory.until(now, e.options.batch-len(x.events)) {
		x.events = append(x.events, Event{Kind: EventForgot, At: now, Token: r.Key})
	}
	return Decision{Events: x.events}
}

// excess ends leases of a pool, the youngest first, until the pool is within its limit.
func (x *ending) excess(p *pool) {
	left := remains{pool: p, inUse: p.inUse, groups: map[string]*group{}}
	for _, h := range x.leases {
		left.give(h)
	}
	p.members.latest(func(h *held) bool {
		if !left.over() {
			return false
		}
		if _, has := x.over[h.ID]; has {
			return true
		}
		left.give(h)
		return x.end(h, CauseRevoked)
	})
}

// remains is a pool as it is without some of its leases.
type remains struct {
	pool   *pool
	inUse  int64
	groups map[string]*group // those that differ from the pool's
}

func (r *remains) over() bool { return !r.pool.staying().Covers(r.inUse) }

// give takes a lease out, if it is one of the pool's.
func (r *remains) give(h *held) {
	it := h.item(r.pool.name)
	if it.N == 0 {
		return
	}
	n := r.pool.grant.parts(it)
	u := r.pool.grant.units(h.Lease)
	r.inUse -= u.alone * n
	for _, unit := range u.groups {
		g := r.groups[unit]
		if g == nil {
			g = r.pool.groups[unit].clone()
			r.groups[unit] = g
		}
		r.inUse += g.change(n, -1)
	}
}
