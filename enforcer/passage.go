package enforcer

import (
	"slices"
	"time"
)

// asking is a request that is looked at under the rules.
type asking struct {
	r      *Acquire
	items  []Item
	holder *Holder
	says   []*stance // of the rules, by item; nil: there are no rules
	w      *waiting  // its place in the queue; nil: it has just come
	rank   time.Time // see waiting.rank
}

// stanceRoom is room for a request that is looked at under the rules.
type stanceRoom struct {
	asking
	holder Holder
}

// ask returns a request that has just come under the rules; nil: there are none. It is good until the next one. shared
// is as of sharedBy.
func (e *Enforcer) ask(r *Acquire, items []Item, shared *sharedHolder, now time.Time) *asking {
	if e.policies == nil {
		return nil
	}
	room := &e.room
	a := &room.asking
	a.items, a.says = append(a.items[:0], items...), a.says[:0] // a request that waits has its own
	a.r = r
	if shared != nil {
		a.holder = shared.Holder
	} else {
		room.holder = Holder{Caller: r.Caller, Labels: r.Labels}
		a.holder = &room.holder
	}
	for _, it := range items {
		a.says = append(a.says, e.stanceIn(it.Pool, shared, a.holder))
	}
	a.rank = rankOf(a.says, now)
	return a
}

// asked returns a waiter as a request under the rules; nil: there are none.
func (e *Enforcer) asked(w *waiting) *asking {
	if e.policies == nil {
		return nil
	}
	return w.asking()
}

// stance returns what the rules say of an item.
func (a *asking) stance(i int) *stance {
	if a.says == nil {
		return nil
	}
	return a.says[i]
}

// rankOf returns the instant by which an acquire that comes now has its place in the queue: each step of its priority
// counts as a PriorityStep that it has waited. Of several pools the lowest priority counts.
func rankOf(says []*stance, now time.Time) time.Time {
	if len(says) == 0 {
		return now
	}
	priority := MaxPriority
	for _, s := range says {
		if s == nil {
			return now
		}
		priority = min(priority, s.priority)
	}
	return now.Add(-time.Duration(priority) * PriorityStep)
}

// priority returns the steps of priority that a waiter's place was given by.
func (w *waiting) priority() int { return int(w.Since.Sub(w.rank) / PriorityStep) }

// before orders waiters: by rank, and of one rank the one that came first.
func (w *waiting) before(o *waiting) bool {
	if d := w.rank.Compare(o.rank); d != 0 {
		return d < 0
	}
	return w.turn < o.turn
}

// bar is a limit of a holder's own that keeps a waiter from being served. While it does, others may pass the waiter
// that do not count in that limit: what the pool has free is of no use to it.
type bar struct {
	tally *tally
	unit  string
}

// barred returns the bar that keeps a waiter from being served; ok is false: none does.
func (e *Enforcer) barred(w *waiting) (b bar, ok bool) {
	for i, it := range w.Items {
		s := w.says[i]
		if s == nil || w.Draws {
			continue
		}
		p := e.pool(it.Pool)
		least := p.grant.parts(it.least(w.Request))
		if room, by := p.ownRoom(s, unitOf(p.grant.CountBy, w.holder)); !room.Covers(least) {
			return bar{by.tally, by.unit}, true
		}
		if w.Request.Lifetime == LifetimeBorrow && !p.mayBorrow(s).Covers(p.borrowed+least) {
			return bar{tally: &p.rules.water}, true
		}
	}
	return b, false
}

// barsOf returns the bars in which a request counts, whether they keep a waiter from anything or not.
func (e *Enforcer) barsOf(a *asking) (all []bar) {
	for i, it := range a.items {
		s := a.stance(i)
		if s == nil {
			continue
		}
		for _, x := range s.limits {
			all = append(all, bar{x.tally, x.unit})
		}
		if a.r.Lifetime == LifetimeBorrow && s.water != nil {
			all = append(all, bar{tally: &e.pools[it.Pool].rules.water})
		}
	}
	return all
}

// passage is what stands in a request's way in one pool: the waiters before it.
type passage struct {
	bars  map[bar]bool // of those that are barred; many may be, each by a limit of its own
	hard  bool         // one of them is not barred
	owns  []*reserve
	users []User
}

// bar adds a waiter that is barred.
func (q *passage) bar(b bar) {
	if q.bars == nil {
		q.bars = map[bar]bool{}
	}
	q.bars[b] = true
}

// add adds a waiter that is not barred.
func (q *passage) add(p *pool, w *waiting) {
	q.hard = true
	if u := w.Request.Caller.Who(); !slices.Contains(q.users, u) {
		q.users = append(q.users, u)
	}
	i := slices.IndexFunc(w.Items, func(it Item) bool { return it.Pool == p.name })
	if s := w.says[i]; s != nil && s.own != nil && !slices.Contains(q.owns, s.own) {
		q.owns = append(q.owns, s.own)
	}
}

// shut reports whether nobody passes any more.
func (q *passage) shut(p *pool) bool {
	return q.hard && p.lingers.all() == 0 && (p.rules == nil || p.rules.unused == 0)
}

// blocks reports whether what is before it keeps a request from an item's slots. It passes waiters that are barred
// where it does not count in the bar, and any others where it takes no more than what is kept for it and not for them.
func (q *passage) blocks(e *Enforcer, a *asking, p *pool, i int) bool {
	if len(q.bars) > 0 && slices.ContainsFunc(e.barsOf(a), func(b bar) bool { return q.bars[b] }) {
		return true
	}
	if !q.hard {
		return false
	}
	var kept int64
	if u := a.r.Caller.Who(); p.lingers.all() > 0 && !slices.Contains(q.users, u) {
		kept += p.lingers.of[u]
	}
	if s := a.stance(i); s != nil && !slices.Contains(q.owns, s.own) {
		kept += s.own.unused()
	}
	return p.grant.parts(a.items[i]) > kept
}

// blocked reports whether waiters before a request keep it from the slots of one of its items.
func (e *Enforcer) blocked(a *asking, p *pool, i int) bool {
	if p.queue.Len() == 0 {
		return false
	}
	var q passage
	own := e.barsOf(a)
	for x := p.queue.Front(); x != nil; x = x.Next() {
		w := x.Value.(*waiting)
		if w == a.w || a.w == nil && a.rank.Before(w.rank) {
			break
		}
		b, barred := e.barred(w)
		if barred && slices.Contains(own, b) {
			return true
		}
		if barred {
			continue
		}
		if q.add(p, w); q.shut(p) {
			return true
		}
	}
	return q.blocks(e, a, p, i)
}

// asking returns a waiter as a request under the rules.
func (w *waiting) asking() *asking {
	return &asking{r: w.Request, items: w.Items, holder: w.holder, says: w.says, w: w, rank: w.rank}
}

// serveRuled is Serve under rules: the first waiter is served that can be, and that nobody before it blocks.
func (e *Enforcer) serveRuled(among []string, v *Verdict, now time.Time) (out Decision) {
	if among == nil || e.several > 0 { // a bar in one pool may open another
		among = make([]string, 0, len(e.pools))
		for name := range e.pools {
			among = append(among, name)
		}
	}
	var first *waiting
	for _, name := range among {
		p := e.pools[name]
		if p == nil {
			continue
		}
		var q passage
		for x := p.queue.Front(); x != nil && !q.shut(p); x = x.Next() {
			w := x.Value.(*waiting)
			if first != nil && !w.before(first) {
				break
			}
			b, barred := e.barred(w)
			if (!barred || e.hasReplay(w)) && !e.obstructed(w, p, &q) {
				if dec := e.serve(v, w, now); len(dec.Events) > 0 {
					first, out = w, dec
					break
				}
			}
			if barred {
				q.bar(b)
			} else {
				q.add(p, w)
			}
		}
		for w := range p.sharing() {
			if _, barred := e.barred(w); first != nil && !w.before(first) || barred || e.obstructed(w, p, &q) {
				continue
			}
			if dec := e.serve(v, w, now); len(dec.Events) > 0 {
				first, out = w, dec
			}
		}
	}
	for _, q := range e.forDraws {
		if w := q.first(); w != nil && (first == nil || w.before(first)) && !e.behind(w) {
			if dec := e.serve(v, w, now); len(dec.Events) > 0 {
				first, out = w, dec
			}
		}
	}
	return out
}

// obstructed reports whether those before a waiter keep it from being served; q are those in the pool p.
func (e *Enforcer) obstructed(w *waiting, p *pool, q *passage) bool {
	a := w.asking()
	for i, it := range w.Items {
		o := e.pools[it.Pool]
		if e.shares(w, i) {
			continue // it costs nothing
		}
		if o == p && q.blocks(e, a, o, i) || o != p && e.blocked(a, o, i) {
			return true
		}
	}
	return false
}

// place puts a waiter in its place in a queue.
func (q *queue) place(w *waiting) {
	at := q.Back()
	for at != nil && w.before(at.Value.(*waiting)) {
		at = at.Prev()
	}
	if at == nil {
		w.places = append(w.places, q.PushFront(w))
		return
	}
	w.places = append(w.places, q.InsertAfter(w, at))
}

// judgeWaiter takes over what the rules say of a waiter, and the place that they give it.
func (e *Enforcer) judgeWaiter(w *waiting) {
	w.holder = &Holder{Caller: w.Request.Caller, Labels: w.Request.Labels}
	if w.says = e.stances(w.Request, w.Items); w.says == nil {
		w.says = make([]*stance, len(w.Items))
	}
	w.rank = rankOf(w.says, w.Since)
}

// reorder gives every waiter the place that new rules give it.
func (e *Enforcer) reorder() {
	all := make([]*waiting, 0, len(e.waiters))
	for _, w := range e.waiters {
		for i, it := range w.Items {
			e.queueOf(w.Waiter, it.Pool).Remove(w.places[i])
		}
		w.places = nil
		e.judgeWaiter(w)
		all = append(all, w)
	}
	slices.SortFunc(all, func(a, b *waiting) int {
		if a.before(b) {
			return -1
		}
		return 1
	})
	for _, w := range all {
		for _, it := range w.Items {
			e.queueOf(w.Waiter, it.Pool).place(w)
		}
	}
}

// aheadOf returns how many wait before an acquire that is about to wait, in the pool or meter where these are most.
func (e *Enforcer) aheadOf(w *Waiter) (most int) {
	rank := w.Since
	if e.policies != nil {
		rank = rankOf(e.stances(w.Request, w.Items), w.Since)
	}
	for _, it := range w.Items {
		q := e.forDraws[it.Pool]
		if !w.Draws {
			q = e.pools[it.Pool].queue
		}
		if q == nil {
			continue
		}
		n := q.Len()
		for x := q.Back(); x != nil && rank.Before(x.Value.(*waiting).rank); x = x.Prev() {
			n--
		}
		most = max(most, n)
	}
	return most
}
