package enforcer

import "time"

// zeroTime stands for "never" and "not stated".
var zeroTime time.Time

// Apply carries out one event. It accepts only the events that Decide returned, in their order. The same events in the
// same order always make the same state.
func (e *Enforcer) Apply(ev Event) { e.apply(&ev) }

// CarryOut is Apply for an event that stands somewhere, and is not copied.
func (e *Enforcer) CarryOut(ev *Event) { e.apply(ev) }

// Restore is Apply for an event that a journal tells of. It reports whether the event has changed anything: a grant of
// a lease that is held does not, as a snapshot and a record behind it may both tell of it.
func (e *Enforcer) Restore(ev *Event) bool {
	if ev.Kind == EventGranted {
		at, known := e.leases.Place(ev.Lease.ID)
		if !known {
			e.applyGranted(ev, at)
			e.touched(ev)
		}
		return !known
	}
	e.apply(ev)
	return true
}

func (e *Enforcer) apply(ev *Event) {
	if ev.Waiter != nil && ev.Kind != EventQueued && e.waiters[ev.Waiter.ID] != nil {
		e.unqueue(ev.Waiter)
	}
	switch ev.Kind {
	case EventVerdict:
		e.applyVerdict(*ev)
	case EventGranted:
		e.applyGranted(ev, e.leases.New(ev.Lease.ID))
	case EventRenewed:
		e.applyRenewed(ev)
	case EventEnded:
		e.applyEnded(ev)
	case EventForgot:
		e.applyForgot(*ev)
	case EventRemembered:
		e.remember(&remembered{ClientToken: *ev.Lease.Token, lease: ev.Lease, ended: ev.Cause, until: ev.At})
	case EventChanged:
		e.applyChanged(ev.Lease, ev.At)
	case EventQueued:
		e.applyQueued(ev.Waiter)
	case EventLeft: // no longer queued is all
	case EventStepped:
		e.applyStepped(*ev)
	case EventDrawn, EventSet:
		e.applyDraws(*ev)
	case EventHeldOff:
		e.applyHeldOff(ev.HoldOff)
	case EventLifted:
		e.applyLifted(ev.HoldOff)
	case EventNoted:
		e.applyNoted(ev.Lease)
	case EventPolicies:
		e.applyPolicies(ev.Policies, ev.At)
	case EventLingers:
		e.applyLingers(ev.Linger)
	case EventLingerOver:
		e.applyLingerOver(ev.Linger)
	case EventUsed:
		e.renewed(e.held(ev), ev.At)
	}
	e.touched(ev)
}

// touched follows up in the pools of the lease that an event was about.
func (e *Enforcer) touched(ev *Event) {
	if ev.Lease == nil {
		return
	}
	for _, it := range ev.Lease.Items {
		if p := e.pool(it.Pool); p != nil {
			e.lately = p
			e.reschedule(p)
			if e.counting {
				e.count(p, ev.At)
				if ev.Kind == EventGranted {
					p.counted.grants++
					p.grantedTo(ev.Lease.Holder.Who())
				}
			}
		}
	}
}

func (e *Enforcer) applyVerdict(ev Event) {
	v := ev.Verdict
	e.verdict = v
	revoke := e.applyTerms(v, ev.At)
	for name, g := range v.Pools {
		p := e.pools[name]
		if p == nil {
			p = e.newPool(name, PoolGrant{})
		}
		e.regrant(p, g)
		p.named = true
	}
	for name, p := range e.pools {
		if _, ok := v.Pools[name]; ok {
			continue
		}
		if p.idle() {
			e.discard(p)
			continue
		}
		// The pool grants nothing any more; how its leases are counted stays.
		e.regrant(p, PoolGrant{Name: name, Scope: p.grant.Scope, CountBy: p.grant.CountBy, HoldersBy: p.grant.HoldersBy,
			Unit: p.grant.Unit, Quantum: p.grant.Quantum})
		p.named = false
	}
	for _, p := range e.pools {
		p.revoke = p.over() && (p.revoke || revoke)
		switch {
		case !p.over() || !v.Good() || v.OnExpiry != Revoke && !p.revoke && !p.grant.Bounded:
			p.revokeAt = zeroTime
		case p.revokeAt.IsZero():
			p.revokeAt = ev.At.Add(RevokeDelay)
		}
		e.reschedule(p)
		if p.counted != nil {
			e.count(p, ev.At)
		}
	}
}

// regrant gives a pool new terms. Where they count otherwise than before, it counts the pool's leases again.
func (e *Enforcer) regrant(p *pool, g PoolGrant) {
	was := p.grant
	p.grant = g
	if was.per() != g.per() {
		e.repart(p, was)
		p.relinger()
	}
	if was.CountBy != g.CountBy {
		defer p.reunite()
	}
	if p.leases == 0 || was.CountBy == g.CountBy && was.HoldersBy == g.HoldersBy && was.per() == g.per() {
		p.fitReserves()
		return
	}
	p.usage = usage{}
	for h := range p.members.all {
		p.add(p.grant.units(h.Lease), g.parts(h.item(p.name)))
	}
	p.peak = max(p.peak, p.inUse)
	p.recountUsers()
	p.recount()
}

// repart counts again, in the parts that a pool's slots have now, what does not hang on how leases count.
func (e *Enforcer) repart(p *pool, was PoolGrant) {
	p.borrowed = 0
	if p.queue != nil {
		p.queue.waiting = 0
	}
	p.peak = was.slots(p.peak) * p.grant.per()
	for h := range p.members.all {
		if h.Lifetime == LifetimeBorrow {
			p.borrowed += p.grant.parts(h.item(p.name))
		}
	}
	for _, w := range e.waiters {
		for _, it := range w.Items {
			if it.Pool == p.grant.Name && !w.Draws {
				p.queue.waiting += p.grant.parts(it)
			}
		}
	}
}

// applyGranted has a lease held, whose place among all is at.
func (e *Enforcer) applyGranted(ev *Event, at **held) {
	l := ev.Lease
	h := &held{Lease: l, terms: e.intern(ev.Terms), seen: e.taken}
	e.tenures[h.terms].add(h)
	if len(l.Items) > 1 {
		more := make([]int32, len(l.Items)-1)
		h.more = &more
	}
	*at = h
	if s := ev.found.holder; ev.found.by == e && s != nil && s.leases > 0 {
		s.leases++
		h.shared = s
	} else {
		h.shared = e.share(l.Holder)
	}
	e.hold(h)
	for i, it := range l.Items {
		p := e.pool(it.Pool)
		if p == nil { // recovery: the lease is known before the licence is
			p = e.newPool(it.Pool, PoolGrant{Name: it.Pool, CountBy: CountLease})
		}
		n := p.grant.parts(it)
		p.take(l, h.shared, n)
		if p.members == nil {
			p.members = &series{}
		}
		p.members.add(h)
		if l.Lifetime == LifetimeBorrow {
			p.borrowed += n
		}
		if !l.ExpiresAt.IsZero() {
			p.push(h, i)
		}
		if len(l.Items) == 1 {
			p.last = l.Items
		}
	}
	if e.policies != nil {
		e.timeLease(h, ev.At)
	}
	e.rememberLease(l)
}

func (e *Enforcer) applyRenewed(ev *Event) {
	h, l := e.held(ev), ev.Lease
	e.replace(h, l)
	e.renewed(h, ev.At)
	for i, it := range l.Items {
		e.pools[it.Pool].fix(int(*h.index(i)))
	}
}

// applyNoted takes over a lease's data alone: in a recovery the rest of it may be as it was before.
func (e *Enforcer) applyNoted(noted *Lease) {
	h := e.must(noted.ID)
	l := *h.Lease
	l.Data = noted.Data
	e.keep(l.Holder.Who(), l.bytes()-h.bytes())
	e.replace(h, &l)
}

// replace puts a lease in the place of the one with its id, in the leases held and in what is remembered of its client
// token.
func (e *Enforcer) replace(h *held, l *Lease) {
	if !l.AcquiredAt.Equal(h.AcquiredAt) { // no such record is ever written; its places go by that time
		as := *l
		as.AcquiredAt = h.AcquiredAt
		l = &as
	}
	e.save(h)
	h.Lease = l
	if r := e.tokenOf(l); r != nil {
		e.saveToken(r)
		r.lease = l
	}
}

func (e *Enforcer) applyEnded(ev *Event) {
	h := e.held(ev)
	e.save(h)
	l := h.Lease
	e.leases.Delete(l.ID)
	e.untenure(h)
	e.unhold(h)
	e.untime(h)
	for i, it := range l.Items {
		p := e.pool(it.Pool)
		if !l.ExpiresAt.IsZero() {
			p.drop(h, i)
		}
		n := p.grant.parts(it)
		p.give(l, h.shared, n)
		p.members.remove(h)
		if l.Lifetime == LifetimeBorrow {
			p.borrowed -= n
		}
		p.eased()
		if e.counting && !p.named { // it may be forgotten now
			e.count(p, ev.At)
		}
		e.drop(it.Pool, p)
	}
	e.unshare(h.shared)
	if r := e.tokenOf(l); r != nil && ev.Cause == CauseUndelivered { // whoever asked was told no, and may ask again
		e.forget(r)
	} else if r != nil {
		e.saveToken(r)
		r.ended = ev.Cause
		if l.Data != nil { // the token outlives the lease, the data does not
			bare := *l
			bare.Data, r.lease = nil, &bare
		}
	}
	rec := endedLease{id: l.ID, lifetime: l.Lifetime, cause: ev.Cause, at: ev.At}
	if len(e.ended) < endedKept {
		e.ended = append(e.ended, rec)
		return
	}
	e.ended[e.endedPos] = rec
	e.endedPos = (e.endedPos + 1) % endedKept
}

func (e *Enforcer) applyForgot(ev Event) {
	r := e.tokens[ev.Token]
	if r.ended == "" && r.lease.Lifetime != LifetimeDraw { // still held: the token is remembered for a further day
		e.saveToken(r)
		r.until = ev.At.Add(TokenKept)
		e.memory.moved(r)
		return
	}
	e.forget(r)
}
