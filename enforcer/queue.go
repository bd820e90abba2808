package enforcer

import (
	"cmp"
	"container/list"
	"fmt"
	"iter"
	"slices"
	"time"
)

// queue is the waiters for one pool or meter, in their turn. It is made with the first.
type queue struct {
	list.List       // of *waiting
	waiting   int64 // draws, or parts of slots, that are waited for
	sharers   sharers
}

// Len and Front are the list's; a queue that was never needed is nil, and empty.
func (q *queue) Len() int {
	if q == nil {
		return 0
	}
	return q.List.Len()
}

func (q *queue) Front() *list.Element {
	if q == nil {
		return nil
	}
	return q.List.Front()
}

// first returns the waiter that is served next; nil: none waits.
func (q *queue) first() *waiting {
	if x := q.Front(); x != nil {
		return x.Value.(*waiting)
	}
	return nil
}

// ahead reports whether others wait before w; nil is a request that has just come.
func (q *queue) ahead(w *waiting) bool {
	first := q.first()
	return first != nil && first != w
}

// waiting is a waiter in the queues of its pools or meters. A waiter for several is served once it heads every queue,
// but for those where it would share. The turns are one order over all queues, so some waiter always does.
type waiting struct {
	*Waiter
	turn   uint64
	rank   time.Time       // by which it has its place; of one rank the turn counts
	holder *Holder         // that the lease would have
	says   []*stance       // of the rules, by item
	units  []string        // as which it counts, by item; nil: none is known
	at     int             // in the timetable of patience
	places []*list.Element // in the queue of each item
}

func (w *waiting) due() time.Time { return w.Until }
func (w *waiting) place() *int    { return &w.at }

// queueOf returns the queue of a pool or meter that a waiter waits for.
func (e *Enforcer) queueOf(w *Waiter, name string) *queue {
	if w.Draws {
		return e.forDraws[name]
	}
	return e.pools[name].queue
}

// weigh returns how many draws, or parts of slots, a waiter waits for with one of its items.
func (e *Enforcer) weigh(w *Waiter, it Item) int64 {
	if w.Draws {
		return it.N
	}
	return e.pools[it.Pool].grant.parts(it)
}

// behind reports whether others are before a waiter in any of its queues, but for those where it would share.
func (e *Enforcer) behind(w *waiting) bool {
	for i, it := range w.Items {
		if e.queueOf(w.Waiter, it.Pool).ahead(w) && !e.shares(w, i) {
			return true
		}
	}
	return false
}

// heads yields the first waiter of each queue of the pools among (all for nil), and of each meter's, in no particular
// order. One that waits for several may be yielded more than once.
func (e *Enforcer) heads(among []string) iter.Seq[*waiting] {
	return func(yield func(*waiting) bool) {
		for p := range e.stirred(among) {
			if w := p.queue.first(); w != nil && !yield(w) {
				return
			}
		}
		for _, q := range e.forDraws {
			if w := q.first(); w != nil && !yield(w) {
				return
			}
		}
	}
}

// Stirs appends to names the pools in which an event may let a waiter be served: slots of them have come free, or
// another waiter is the first. everywhere says that these may be any. See Serve.Among.
func (e Event) Stirs(names []string) (pools []string, everywhere bool) {
	add := func(items []Item) {
		for _, it := range items {
			if len(names) == 0 || names[len(names)-1] != it.Pool {
				names = append(names, it.Pool)
			}
		}
	}
	switch e.Kind {
	case EventVerdict, EventStepped, EventPolicies:
		return names, true
	case EventGranted, EventEnded, EventChanged:
		add(e.Lease.Items)
	case EventLingerOver:
		add([]Item{e.Linger.Item})
	default:
	}
	if e.Waiter != nil {
		add(e.Waiter.Items)
	}
	return names, false
}

// wait decides that an acquire waits; d is why it is not granted at once.
func (r *Acquire) wait(e *Enforcer, items []Item, token *ClientToken, d *Denial, now time.Time) Decision {
	if r.Wait <= 0 || !d.MayGrow && (d.Code != NoSlots && !d.waits || e.never(r, items)) {
		return Decision{Denial: d}
	}
	if d := r.denyWaiter(e); d != nil {
		return Decision{Denial: d}
	}
	// Nothing waits for a borrow that would be over by then.
	w := &Waiter{ID: r.ID, Items: items, Draws: d.MayGrow, Request: r, Token: token, Since: now,
		Until: sooner(now.Add(r.Wait), r.Until)}
	w.Ahead = e.aheadOf(w)
	return Decision{Waiter: w, Events: []Event{{Kind: EventQueued, At: now, Waiter: w}}}
}

// never reports whether a request asks for more slots than there are, whatever is released.
func (e *Enforcer) never(r *Acquire, items []Item) bool {
	says := e.stances(r, items)
	for i, it := range items {
		p := e.pool(it.Pool)
		if p == nil || !p.covers(p.most(), it.least(r)) || says != nil && p.neverUnder(says[i], it.least(r)) {
			return true
		}
	}
	return false
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
	among := r.Among
	if v != e.verdict { // it has turned since
		among = nil
	}
	if e.policies != nil {
		return e.serveRuled(among, v, now)
	}
	var first *waiting
	var out Decision
	for w := range e.turns(among) {
		if w == first || first != nil && first.turn < w.turn || e.behind(w) {
			continue
		}
		if dec := e.serve(v, w, now); len(dec.Events) > 0 {
			first, out = w, dec
		}
	}
	return out
}

// serve answers a waiter whose turn it is; no events: it waits on.
func (e *Enforcer) serve(v *Verdict, w *waiting, now time.Time) Decision {
	if dec, known := e.replayed(w, now); known {
		return dec
	}
	q := w.Request
	if !v.Good() || v.deny(q.Version) != nil || q.denyBorrow(e, v, now) != nil {
		return Decision{}
	}
	var dec Decision
	if w.Draws {
		granted, draws, d := e.fitDraws(q, v, w.Items, w, now)
		switch {
		case d == nil:
			dec = e.grantDraws(q, granted, draws, w.Token, now)
		case d.MayGrow:
			return Decision{}
		default: // draws do not come back, so that others may have left too few
			return leave(w, now, CauseDenied, d)
		}
	} else {
		a := e.asked(w)
		if e.denyBorrowByRule(a, now) != nil {
			return Decision{}
		}
		granted, d := e.fitAll(q, v, w.Items, w, a)
		if d != nil {
			return Decision{}
		}
		dec = e.grant(q, v, granted, w.Token, e.sharedBy(q), now)
	}
	dec.Events[0].Waiter = w.Waiter
	return dec
}

// hasReplay reports whether a waiter's client token has got a lease meanwhile.
func (e *Enforcer) hasReplay(w *waiting) bool { return w.Token != nil && e.tokens[w.Token.Key] != nil }

// replayed answers a waiter whose client token has got a lease meanwhile; known says that it has.
func (e *Enforcer) replayed(w *waiting, now time.Time) (dec Decision, known bool) {
	if !e.hasReplay(w) {
		return Decision{}, false
	}
	replay := e.tokens[w.Token.Key].replay(w.Request, w.Items, w.Token)
	dec = leave(w, now, CauseReplayed, replay.Denial)
	dec.Events[0].Lease = replay.Lease
	return dec, true
}

// turnAway turns away every waiter that waits in vain.
func (e *Enforcer) turnAway(now time.Time) Decision {
	var dec Decision
	for _, w := range e.waiters {
		if d := e.vain(w, now); d != nil {
			dec.Events = append(dec.Events, e.turnedAway(w, now, CauseDenied, d)...)
		}
	}
	slices.SortFunc(dec.Events, func(a, b Event) int {
		return cmp.Compare(e.waiters[a.Waiter.ID].turn, e.waiters[b.Waiter.ID].turn)
	})
	return dec
}

// turnedAway is the end of a waiting. A waiter whose client token has got a lease meanwhile gets that, and no denial.
func (e *Enforcer) turnedAway(w *waiting, now time.Time, cause Cause, d *Denial) []Event {
	if dec, known := e.replayed(w, now); known {
		return dec.Events
	}
	return leave(w, now, cause, d).Events
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
	a := e.asked(w)
	if d := a.denyByRule(); d != nil {
		return d
	}
	if d := e.denyBorrowByRule(a, now); d != nil && !d.waits {
		return d
	}
	if w.Draws {
		if _, _, d := e.fitDraws(w.Request, v, w.Items, w, now); d != nil && !d.MayGrow {
			return d
		}
		return nil
	}
	for i, it := range w.Items {
		p := e.pool(it.Pool)
		if !p.named {
			return &Denial{Code: PoolUnknown, Field: "pool", Pool: it.Pool, Hint: v.knownPools(),
				Detail: fmt.Sprintf("pool %q is no longer in the licence", it.Pool)}
		}
		if why := e.verdict.Withheld.Slots; why != "" {
			return withheld("pool", it.Pool, why)
		}
		if p.grant.NotShared != "" && p.grant.Budget == 0 {
			return notShared("pool", it.Pool, p.grant.NotShared, p.grant.Cut)
		}
		if d := p.divides(it); d != nil {
			return d
		}
		if !p.covers(p.most(), it.least(w.Request)) {
			return p.denial(it)
		}
		if a != nil && p.neverUnder(a.stance(i), it.least(w.Request)) {
			return p.deniedForEver(a, i)
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
	d := &Denial{Code: NoSlots, Pool: w.Items[0].Pool, Detail: "the caller stopped waiting"}
	if w.Draws {
		d.Code = MeterEmpty
	}
	return leave(w, now, CauseLeft, d)
}

func (e *Enforcer) applyQueued(w *Waiter) {
	x := &waiting{Waiter: w, turn: e.turn}
	e.judgeWaiter(x)
	e.turn++
	if len(w.Items) > 1 {
		e.several++
	}
	e.waiters[w.ID] = x
	e.patience.add(x)
	u := w.Request.Caller.Who()
	e.account(u).waiters++
	e.keep(u, w.Request.bytes())
	for i, it := range w.Items {
		q := e.queueOf(w, it.Pool)
		switch {
		case q != nil:
		case w.Draws:
			q = &queue{}
			e.forDraws[it.Pool] = q
		default:
			q = &queue{}
			e.pools[it.Pool].queue = q
		}
		q.place(x)
		if !w.Draws {
			e.pools[it.Pool].enter(x, i)
		}
		for _, l := range e.lines {
			l.came(q, x)
		}
		q.waiting += e.weigh(w, it)
	}
}

// unqueue takes a waiter out of the queues.
func (e *Enforcer) unqueue(w *Waiter) {
	x := e.waiters[w.ID]
	delete(e.waiters, w.ID)
	e.patience.remove(x)
	if len(w.Items) > 1 {
		e.several--
	}
	u := w.Request.Caller.Who()
	e.account(u).waiters--
	e.keep(u, -w.Request.bytes())
	e.settle(u, e.account(u))
	for i, it := range w.Items {
		q := e.queueOf(w, it.Pool)
		for _, l := range e.lines {
			l.leaves(q, x, x.places[i])
		}
		q.Remove(x.places[i])
		q.waiting -= e.weigh(w, it)
		switch {
		case !w.Draws:
			e.pools[it.Pool].exit(x, i)
			e.drop(it.Pool, e.pools[it.Pool])
		case q.Len() == 0:
			delete(e.forDraws, it.Pool)
		}
	}
}

// drop forgets a pool that the verdict does not name once it has no lease and no waiter, and nothing lingers.
func (e *Enforcer) drop(name string, p *pool) {
	if !p.named && p.idle() {
		e.discard(p)
	}
}

// giveUp ends the waiting of every waiter whose time is up by now, in their turn.
func (e *Enforcer) giveUp(now time.Time, most int) (out []Event) {
	due := e.patience.until(now, most)
	slices.SortFunc(due, func(a, b *waiting) int { return cmp.Compare(a.turn, b.turn) })
	for _, w := range due {
		out = append(out, e.turnedAway(w, now, CauseWaitOver, e.unserved(w, now))...)
	}
	return out
}

// unserved says why a waiter whose time is up was not served.
func (e *Enforcer) unserved(w *waiting, now time.Time) *Denial {
	v := e.at(now)
	if d := v.deny(w.Request.Version); d != nil {
		return d
	}
	it := w.Items[0]
	if w.Draws {
		_, _, d := e.fitDraws(w.Request, v, w.Items, w, now)
		if d == nil { // they arrive in this very moment
			d = e.forDraws[it.Pool].denial(it.Pool, e.stand(v.Meters[it.Pool], now))
		}
		return d
	}
	a := e.asked(w)
	if d := e.denyBorrowByRule(a, now); d != nil {
		return d
	}
	_, d := e.fitAll(w.Request, v, w.Items, w, a)
	if d == nil { // it would fit, but others are before it in another queue
		d = e.pools[it.Pool].behind(it)
	}
	return d
}

// Waiting returns how many acquires wait.
func (e *Enforcer) Waiting() int { return len(e.waiters) }
