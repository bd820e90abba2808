package enforcer

import (
	"cmp"
	"fmt"
	"slices"
	"time"
)

// MaxOthers is how many co-holders a lease may have.
const MaxOthers = 256

// is reports whether two callers are one process. A visible process is known by its number and start time, whether or
// not its inode is known. A process that is not visible is known by the inode alone.
func (c Caller) is(o Caller) bool {
	if c.PID != o.PID || c.Start != o.Start || c.Who() != o.Who() {
		return false
	}
	return c.Inode == o.Inode || c.PID != 0 && (c.Inode == 0 || o.Inode == 0)
}

func (r *End) decide(e *Enforcer, now time.Time) Decision {
	h, ok := e.leases.Get(r.ID)
	if !ok {
		return Decision{Denial: e.unknown(r.ID)}
	}
	events := []Event{{Kind: EventEnded, At: now, Lease: h.Lease, Cause: r.Cause}}
	if r.Cause == CauseHolderGone {
		events = append(events, e.linger(h, now)...)
	}
	return Decision{Lease: h.Lease, Events: events}
}

func (r *Join) decide(e *Enforcer, now time.Time) Decision {
	h, d := e.find(r.ID, &r.Caller, "", false, now)
	switch {
	case d != nil:
		return Decision{Denial: d}
	case h.Lifetime != LifetimeProcess:
		return Decision{Denial: bad("lifetime",
			"lease %s has lifetime %s; only a lease of lifetime process can be joined", r.ID,
			h.Lifetime)}
	case r.Caller.is(h.Holder.Caller) || slices.ContainsFunc(h.Others, func(o *Holder) bool { return o.is(r.Caller) }):
		return Decision{Lease: h.Lease}
	case len(h.Others) >= MaxOthers:
		return deny(RateLimited, "lease %s has %d co-holders, the most one may have", r.ID, len(h.Others))
	}
	if d := e.denyBytes(h.Holder.Who(), holderBytes); d != nil {
		return Decision{Denial: d}
	}
	l := *h.Lease
	by := &Holder{Caller: r.Caller}
	l.Others = append(slices.Clip(l.Others), by)
	return e.rehold(h.Lease, &l, by, now)
}

// rehold decides that one of a lease's holders changes who they are. Where more slots are in use after that, it is a
// grant like any other.
func (e *Enforcer) rehold(was, is *Lease, by *Holder, now time.Time) Decision {
	var grown *Holder
	for _, it := range is.Items {
		own := e.pools[it.Pool]
		more := own.cost(was, is, own.grant.parts(it))
		if more <= 0 {
			continue
		}
		grown = by
		v := e.at(now)
		if d := v.deny(""); d != nil {
			return Decision{Denial: d}
		}
		if d := e.heldOff(by.Caller, []Item{it}, now); d != nil {
			return Decision{Denial: d}
		}
		p, d := e.open(v, it.Pool)
		switch {
		case d != nil:
		case p.queue.ahead(nil):
			d = p.behind(own.part(it, more))
		case !p.grant.limit(p.capacity()).Covers(p.inUse + more):
			d = p.denial(own.part(it, more))
		default:
			if d = e.denyGrown(p, by, own.part(it, more)); d == nil {
				continue
			}
		}
		if d.Code == NoSlots {
			d.Detail += fmt.Sprintf("; lease %s would count once more, by %s", is.ID,
				cmp.Or(e.pools[it.Pool].grant.HoldersBy, e.pools[it.Pool].grant.CountBy))
		}
		return Decision{Denial: d}
	}
	return Decision{Lease: is, Events: []Event{{Kind: EventChanged, At: now, Lease: is, Other: by}}, Grown: grown}
}

// sameUnits reports whether a caller counts as one of the lease's holders in each of its pools.
func (e *Enforcer) sameUnits(l *Lease, c Caller) bool {
	if l.Holder.Caller == c {
		return true
	}
	as, labels := &Holder{Caller: c}, l.Holder.Labels
	return !slices.ContainsFunc(l.Items, func(it Item) bool {
		g := e.pools[it.Pool].grant
		by := g.CountBy
		if by == CountLease {
			by = g.HoldersBy
		}
		if by == CountLease || by == "" {
			return false
		}
		unit, _ := joined(by, as, labels)
		same := func(o *Holder) bool {
			is, _ := joined(by, o, labels)
			return unit == is
		}
		return !same(l.Holder) && !slices.ContainsFunc(l.Others, same)
	})
}

func (r *Leave) decide(e *Enforcer, now time.Time) Decision {
	h, ok := e.leases.Get(r.ID)
	if !ok {
		return Decision{Denial: e.unknown(r.ID)}
	}
	events := e.leave(nil, h, r.Holder, now)
	if len(events) == 0 { // it left before
		return Decision{Lease: h.Lease}
	}
	return Decision{Lease: events[0].Lease, Events: events}
}

// leave appends what becomes of a lease that a holder leaves: nothing, where that one has left before.
func (e *Enforcer) leave(out []Event, h *held, by Caller, now time.Time) []Event {
	others := h.Others
	if i := slices.IndexFunc(others, func(o *Holder) bool { return o.is(by) }); i >= 0 {
		l := *h.Lease
		l.Others = slices.Delete(slices.Clone(others), i, i+1)
		return append(out, Event{Kind: EventChanged, At: now, Lease: &l, Other: others[i]})
	}
	switch {
	case !by.is(h.Holder.Caller):
		return out
	case len(others) == 0:
		out = append(out, Event{Kind: EventEnded, At: now, Lease: h.Lease, Cause: CauseHolderGone})
		return append(out, e.linger(h, now)...)
	}
	// The next co-holder becomes the holder; it keeps the labels that the lease was taken with.
	l := *h.Lease
	l.Holder = &Holder{Caller: others[0].Caller, Labels: l.Holder.Labels}
	l.Others = others[1:]
	return append(out, Event{Kind: EventChanged, At: now, Lease: &l, Other: h.Holder})
}

func (r *Gone) decide(e *Enforcer, now time.Time) Decision {
	out := Decision{Events: slices.Grow(r.Room[:0], len(r.IDs))}
	seen := make(map[LeaseID]struct{}, len(r.IDs))
	for _, id := range r.IDs {
		if _, again := seen[id]; again {
			continue
		}
		seen[id] = struct{}{}
		if h, ok := e.leases.Get(id); ok {
			out.Events = e.leave(out.Events, h, r.Holder, now)
		}
	}
	return out
}

func (r *Doubt) decide(e *Enforcer, now time.Time) Decision {
	h, ok := e.leases.Get(r.ID)
	if !ok {
		return Decision{Denial: e.unknown(r.ID)}
	}
	if h.Lifetime == LifetimeHeld || h.Lifetime == LifetimeBorrow {
		return Decision{Lease: h.Lease} // such a lease stands whatever becomes of its holder
	}
	l := *h.Lease
	l.ExpiresAt = r.Until
	l.Unconfirmed = l.Lifetime != LifetimeTTL
	return Decision{Lease: &l, Events: []Event{{Kind: EventChanged, At: now, Lease: &l}}}
}

func (r *Attach) decide(e *Enforcer, now time.Time) Decision {
	h, d := e.find(r.ID, &r.Caller, "", false, now)
	if d != nil {
		return Decision{Denial: d}
	}
	if !h.Unconfirmed {
		if h.Lifetime == LifetimeProcess && r.Caller.is(h.Holder.Caller) {
			return Decision{Lease: h.Lease}
		}
		return Decision{Denial: &Denial{Code: NotHolder,
			Detail: fmt.Sprintf("lease %s has its holder, and nobody else can attach to it", r.ID),
			Hint:   "join it, or acquire another"}}
	}
	l := *h.Lease
	l.Unconfirmed, l.ExpiresAt = false, zeroTime
	// A co-holder that becomes the holder is no co-holder any more: otherwise it would have to leave twice.
	l.Others = slices.DeleteFunc(slices.Clone(l.Others), func(o *Holder) bool { return o.is(r.Caller) })
	l.Holder = &Holder{Caller: r.Caller, Labels: l.Holder.Labels}
	return e.rehold(h.Lease, &l, l.Holder, now)
}

// applyChanged replaces the lease with its id by one that may differ in all but its items.
func (e *Enforcer) applyChanged(l *Lease, at time.Time) {
	h := e.must(l.ID)
	was := h.Lease
	e.keep(l.Holder.Who(), l.bytes()-was.bytes())
	for i, it := range l.Items {
		p := e.pools[it.Pool]
		if !was.ExpiresAt.IsZero() {
			p.drop(h, i)
		}
		if was.Holder != l.Holder || !slices.Equal(was.Others, l.Others) {
			n := p.grant.parts(it)
			p.give(was, nil, n)
			p.take(l, nil, n)
			p.eased()
		}
	}
	if was.Holder != l.Holder {
		e.unshare(h.shared)
		if h.shared = e.share(l.Holder); h.shared != nil {
			h.shared.account = e.account(l.Holder.Who()) // a lease stays its user's
		}
	}
	e.replace(h, l)
	for i, it := range l.Items {
		if !l.ExpiresAt.IsZero() {
			e.pools[it.Pool].push(h, i)
		}
	}
	if was.Holder != l.Holder && e.policies != nil {
		used := at
		if h.timer != nil {
			used = h.timer.used
		}
		e.timeLease(h, used)
	}
}

// share counts a lease in the holder that leases without labels share, and unshare counts it out; nil: it has labels.
func (e *Enforcer) share(h *Holder) *sharedHolder {
	if len(h.Labels) > 0 {
		return nil
	}
	s := e.latest
	if s == nil || s.Holder != h { // in a recovery most leases are of the holder of the one before
		if s = e.holders[h.Caller]; s == nil {
			s = &sharedHolder{Holder: h}
			e.holders[h.Caller] = s
		}
		e.latest, s = s, e.latest
		if s != nil && s != e.latest && s.leases == 0 {
			delete(e.holders, s.Caller)
		}
		s = e.latest
	}
	s.leases++
	return s
}

func (e *Enforcer) unshare(s *sharedHolder) {
	if s == nil {
		return
	}
	if s.leases--; s.leases > 0 {
		return
	}
	s.account, s.rules, s.stance = nil, nil, nil // nothing keeps those for it
	if s != e.latest {
		delete(e.holders, s.Caller)
	}
}
