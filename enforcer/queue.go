package enforcer

import (
	"cmp"
	"container/list"
	"fmt"
	"slices"
	"time"
)

// waiting is a waiter in the queues of its pools. A waiter for several pools is served once it heads every queue. The
// turns are one order over all pools, so some waiter always does.
type waiting struct {
	*Waiter
	turn   uint64
	at     int             // in the timetable of patience
	places []*list.Element // in the queue of each item's pool
}

func (w *waiting) due() time.Time { return w.Until }
func (w *waiting) place() *int    { return &w.at }

// wait decides that an acquire waits; d is why it is not granted at once.
func (r *Acquire) wait(e *Enforcer, items []Item, d *Denial, now time.Time) Decision {
	if d.Code != NoSlots || r.Wait <= 0 || e.never(r, items) {
		return Decision{Denial: d}
	}
	if d := r.denyWaiter(e); d != nil {
		return Decision{Denial: d}
	}
	// Nothing waits for a borrow that would be over by then.
	w := &Waiter{ID: r.ID, Items: items, Request: r, Since: now, Until: sooner(now.Add(r.Wait), r.Until)}
	return Decision{Waiter: w, Events: []Event{{Kind: EventQueued, At: now, Waiter: w}}}
}

// never reports whether a request asks for more than there is, whatever is released.
func (e *Enforcer) never(r *Acquire, items []Item) bool {
	return slices.ContainsFunc(items, func(it Item) bool {
		p := e.pools[it.Pool]
		return p == nil || !p.covers(p.most(), it.least(r))
	})
}

// ahead reports whether others wait for a pool before w; nil is a request that has just come.
func (p *pool) ahead(w *waiting) bool {
	first := p.first()
	return first != nil && first != w
}

// first returns the waiter that is served next; nil: none waits.
func (p *pool) first() *waiting {
	if x := p.queue.Front(); x != nil {
		return x.Value.(*waiting)
	}
	return nil
}

func (r *Serve) decide(e *Enforcer, now time.Time) Decision {
	if len(e.waiters) == 0 {
		return Decision{}
	}
	if r.Recheck {
		if dec := e.turnAway(now); len(dec.Events) > 0 {
			return dec
		}
	}
	v := e.at(now)
	if !v.Good() {
		return Decision{}
	}
	var best *waiting
	for _, p := range e.pools {
		w := p.first()
		if w == nil || best != nil && best.turn <= w.turn || slices.ContainsFunc(w.Items, func(it Item) bool {
			return e.pools[it.Pool].ahead(w)
		}) {
			continue
		}
		if _, _, d := e.fitAll(w.Request, v, w.Items, w); d == nil && v.deny(w.Request.Version) == nil &&
			w.Request.denyBorrow(e, v, now) == nil {
			best = w
		}
	}
	if best == nil {
		return Decision{}
	}
	q := best.Request
	token := q.token(best.Items)
	if token != nil {
		// An acquire with the same token has been granted meanwhile.
		if was := e.tokens[token.Key]; was != nil {
			replay := was.replay(q, best.Items, token)
			dec := leave(best, now, CauseReplayed, replay.Denial)
			dec.Events[0].Lease = replay.Lease
			return dec
		}
	}
	granted, holder, _ := e.fitAll(q, v, best.Items, best)
	dec := e.grant(q, v, granted, holder, token, now)
	dec.Events[0].Waiter = best.Waiter
	return dec
}

// turnAway turns away every waiter that waits in vain.
func (e *Enforcer) turnAway(now time.Time) Decision {
	var dec Decision
	for _, w := range e.waiters {
		if d := e.vain(w, now); d != nil {
			dec.Events = append(dec.Events, leave(w, now, CauseDenied, d).Events...)
		}
	}
	slices.SortFunc(dec.Events, func(a, b Event) int {
		return cmp.Compare(e.waiters[a.Waiter.ID].turn, e.waiters[b.Waiter.ID].turn)
	})
	return dec
}

// vain says why a waiter can never be granted what it waits for.
func (e *Enforcer) vain(w *waiting, now time.Time) *Denial {
	v := e.at(now)
	if d := v.deny(w.Request.Version); d != nil {
		return d
	}
	if d := w.Request.denyBorrow(e, v, now); d != nil {
		return d
	}
	for _, it := range w.Items {
		p := e.pools[it.Pool]
		if !p.named {
			return &Denial{Code: PoolUnknown, Field: "pool", Pool: it.Pool, Hint: v.knownPools(),
				Detail: fmt.Sprintf("pool %q is no longer in the licence", it.Pool)}
		}
		if why := e.verdict.Withheld.Slots; why != "" {
			return withheld("pool", it.Pool, why)
		}
		if p.grant.NotShared != "" && p.grant.Budget == 0 {
			return notShared("pool", it.Pool, p.grant.NotShared)
		}
		if d := p.divides(it); d != nil {
			return d
		}
		if !p.covers(p.most(), it.least(w.Request)) {
			return p.denial(it)
		}
	}
	return nil
}

func leave(w *waiting, now time.Time, cause Cause, d *Denial) Decision {
	if d != nil {
		d.Waited = now.Sub(w.Since)
	}
	return Decision{Events: []Event{{Kind: EventLeft, At: now, Waiter: w.Waiter, Cause: cause, Denial: d}}}
}

func (r *Cancel) decide(e *Enforcer, now time.Time) Decision {
	w := e.waiters[r.ID]
	if w == nil {
		return Decision{}
	}
	return leave(w, now, CauseLeft, nil)
}

func (e *Enforcer) applyQueued(w *Waiter) {
	x := &waiting{Waiter: w, turn: e.turn}
	e.turn++
	e.waiters[w.ID] = x
	e.patience.add(x)
	u := w.Request.Caller.Who()
	e.account(u).waiters++
	e.keep(u, w.Request.bytes())
	for _, it := range w.Items {
		p := e.pools[it.Pool]
		x.places = append(x.places, p.queue.PushBack(x))
		p.waiting += p.grant.parts(it)
	}
}

// unqueue takes a waiter out of the queues.
func (e *Enforcer) unqueue(w *Waiter) {
	x := e.waiters[w.ID]
	delete(e.waiters, w.ID)
	e.patience.remove(x)
	u := w.Request.Caller.Who()
	e.account(u).waiters--
	e.keep(u, -w.Request.bytes())
	e.settle(u, e.account(u))
	for i, it := range w.Items {
		p := e.pools[it.Pool]
		p.queue.Remove(x.places[i])
		p.waiting -= p.grant.parts(it)
		e.drop(it.Pool, p)
	}
}

// drop forgets a pool that the verdict does not name once it has no lease and no waiter.
func (e *Enforcer) drop(name string, p *pool) {
	if !p.named && p.leases == 0 && p.queue.Len() == 0 {
		delete(e.pools, name)
	}
}

// giveUp ends the waiting of every waiter whose time is up by now, in their turn.
func (e *Enforcer) giveUp(now time.Time, most int) (out []Event) {
	due := e.patience.until(now, most)
	slices.SortFunc(due, func(a, b *waiting) int { return cmp.Compare(a.turn, b.turn) })
	for _, w := range due {
		v := e.at(now)
		d := v.deny(w.Request.Version)
		if d == nil {
			_, _, d = e.fitAll(w.Request, v, w.Items, w)
		}
		if d == nil { // it would fit, but others are before it in another queue
			d = e.pools[w.Items[0].Pool].behind(w.Items[0])
		}
		out = append(out, leave(w, now, CauseWaitOver, d).Events...)
	}
	return out
}

// Waiting returns how many acquires wait.
func (e *Enforcer) Waiting() int { return len(e.waiters) }
