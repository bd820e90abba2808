package enforcer

import (
	"math"
	"time"
)

// pool is the state of one pool. A pool that the verdict no longer names stays, with a grant of nothing, while leases
// hold slots of it.
type pool struct {
	name  string
	grant PoolGrant
	named bool // the verdict names it
	usage
	peak    int64 // parts
	leases  int
	rules   *poolRules // of the site; nil: it has none
	lingers *lingers
	// members are the leases that hold slots of it, whichever of their items those are.
	members *series
	queue   *queue
	// borrowed is how many of the slots in use are borrowed.
	borrowed int64
	counted  *usageCount // nil: its usage is not counted
	users    *userCounts // nil: nor is it by user

	expiry   paged[expiring] // a heap by ExpiresAt of the leases that have one
	last     []Item          // of the last lease of this pool alone
	revokeAt time.Time       // when leases over the limit are revoked; zero: never
	// the leases over the limit were granted under a licence that another has replaced, and that says that they are
	// revoked
	revoke bool

	next time.Time // the soonest of expiry and revokeAt; zero: never
	at   int       // in the timetable of what is due, unless next is zero
}

// expiring is a lease in the heap of a pool. The instant lies beside it, so that the heap is sifted without a look at
// the leases.
type expiring struct {
	*held
	end  int64 // nanoseconds since 1970, or the first or last instant that can be written so
	item int32 // which of the lease's items the pool is
}

// The years that nanoseconds since 1970 can tell apart lie between these seconds.
const firstSecond, lastSecond = -9_000_000_000, 9_000_000_000

// refresh takes over when the lease ends now.
func (x *expiring) refresh() {
	switch at := x.ExpiresAt; {
	case at.Unix() < firstSecond:
		x.end = math.MinInt64
	case at.Unix() > lastSecond:
		x.end = math.MaxInt64
	default:
		x.end = at.UnixNano()
	}
}

// first returns the lease that ends first; nil: none has an end.
func (p *pool) first() *held {
	if p.expiry.len() == 0 {
		return nil
	}
	return p.expiry.at(0).held
}

func (p *pool) due() time.Time { return p.next }
func (p *pool) place() *int    { return &p.at }

// reschedule puts a pool where it belongs in the timetable of what is due.
func (e *Enforcer) reschedule(p *pool) {
	at := p.revokeAt
	if first := p.first(); first != nil {
		at = sooner(at, first.ExpiresAt)
	}
	was := p.next
	p.next = at
	switch {
	case at.Equal(was): // zero ones are equal, too
	case was.IsZero():
		e.due.add(p)
	case at.IsZero():
		e.due.remove(p)
	default:
		e.due.moved(p)
	}
}

// idle reports whether nobody has or wants anything of a pool.
func (p *pool) idle() bool {
	return p.leases == 0 && p.queue.Len() == 0 && len(p.lingers.listed()) == 0
}

// discard forgets a pool of which no lease is held.
func (e *Enforcer) discard(p *pool) {
	e.endCount(p)
	p.revokeAt = zeroTime
	e.reschedule(p)
	delete(e.pools, p.name)
	if e.lately == p {
		e.lately = nil
	}
}

// capacity returns how many slots may be in use, overage included.
func (p *pool) capacity() Limit { return p.grant.Budget.Plus(p.grant.Overage) }

// most returns how far the capacity may grow while the licence stands as it is.
func (p *pool) most() Limit {
	if c := p.capacity(); c == Unlimited || !p.grant.Most.Covers(int64(c)) {
		return c
	}
	return p.grant.Most
}

// under returns the pool under another grant of it, where that grant is less.
func (p *pool) under(g PoolGrant) *pool {
	q := *p
	q.grant = g
	if g := p.grant; g.NotShared == "" && q.capacity().Min(p.capacity()) == p.capacity() {
		q.grant.Budget, q.grant.Overage, q.grant.Most, q.grant.Kept = g.Budget, g.Overage, g.Most, g.Kept
	}
	return &q
}

// over reports whether more is in use than may stay so.
func (p *pool) over() bool { return !p.staying().Covers(p.inUse) }

// staying returns how many parts may stay in use: no more than capacity is granted.
func (p *pool) staying() Limit { return p.grant.limit(p.capacity().Plus(p.grant.Kept)) }

// eased calls off the revocation of leases over the limit once nothing is over it.
func (p *pool) eased() {
	if !p.over() {
		p.revokeAt, p.revoke = zeroTime, false
	}
}

// The expiry heap. Each lease knows its place, so that a renewal costs one sift.

func (p *pool) push(h *held, item int) {
	i := p.expiry.len()
	x := expiring{held: h, item: int32(item)}
	x.refresh()
	p.expiry.push(x)
	*h.index(item) = int32(i)
	p.up(i)
}

func (p *pool) drop(h *held, item int) {
	i := int(*h.index(item))
	last := p.expiry.pop()
	if i < p.expiry.len() {
		p.put(i, last)
		p.fix(i)
	}
}

// fix puts a lease in its place, which ends at another time than before.
func (p *pool) fix(i int) {
	p.expiry.at(i).refresh()
	if !p.down(i) {
		p.up(i)
	}
}

func (p *pool) swap(i, j int) {
	x, y := *p.expiry.at(i), *p.expiry.at(j)
	p.put(i, y)
	p.put(j, x)
}

func (p *pool) put(i int, x expiring) {
	*p.expiry.at(i) = x
	*x.index(int(x.item)) = int32(i)
}

func (p *pool) less(i, j int) bool {
	a, b := p.expiry.at(i), p.expiry.at(j)
	if a.end != b.end || a.end != math.MinInt64 && a.end != math.MaxInt64 {
		return a.end < b.end // after a recovery most ends are the same: no lease is looked at for that
	}
	return a.ExpiresAt.Before(b.ExpiresAt)
}

func (p *pool) up(i int) {
	for i > 0 {
		parent := (i - 1) / 2
		if !p.less(i, parent) {
			return
		}
		p.swap(i, parent)
		i = parent
	}
}

func (p *pool) down(i int) (moved bool) {
	for {
		least := i
		for c := 2*i + 1; c <= 2*i+2 && c < p.expiry.len(); c++ {
			if p.less(c, least) {
				least = c
			}
		}
		if least == i {
			return moved
		}
		p.swap(i, least)
		i, moved = least, true
	}
}

// ended calls yield for each lease that is over by now and counts this pool as its first item, until yield says no.
func (p *pool) ended(now time.Time, yield func(*held) bool) bool {
	stack := []int{0}
	for len(stack) > 0 {
		i := stack[len(stack)-1]
		stack = stack[:len(stack)-1]
		if i >= p.expiry.len() || p.expiry.at(i).ExpiresAt.After(now) {
			continue
		}
		if x := p.expiry.at(i); x.item == 0 && !yield(x.held) {
			return false
		}
		stack = append(stack, 2*i+1, 2*i+2)
	}
	return true
}

func (p *pool) status(name string) PoolStatus {
	s := PoolStatus{
		Name: name, Limit: p.grant.Limit, Overage: p.grant.Overage, Budget: p.grant.Budget, Scope: p.grant.Scope,
		CountBy: p.grant.CountBy, Unit: p.grant.Unit, NotShared: p.grant.NotShared, InUse: p.grant.slots(p.inUse),
		Peak: p.grant.slots(p.peak), Leases: p.leases, Borrowed: p.grant.slots(p.borrowed),
	}
	if p.queue != nil {
		s.Waiting = p.grant.slots(p.queue.waiting)
	}
	if p.rules != nil {
		s.Reserved = p.grant.slots(p.rules.unused)
	}
	s.Lingering = p.grant.slots(p.lingers.all())
	if p.grant.per() > 1 {
		s.Quantum, s.Parts = p.grant.Quantum, p.inUse
	}
	if first := p.first(); first != nil {
		s.NextFree = first.ExpiresAt
	}
	return s
}

// PoolNames returns the names of the pools and meters that the verdict names or leases still hold slots of, in no
// particular order.
func (e *Enforcer) PoolNames() []string {
	out := make([]string, 0, len(e.pools))
	for name := range e.pools {
		out = append(out, name)
	}
	if e.verdict != nil {
		for name := range e.verdict.Meters {
			if e.pools[name] == nil {
				out = append(out, name)
			}
		}
	}
	return out
}

// AppendPools appends the pools and meters of these names at the instant now, in the order of the names.
func (e *Enforcer) AppendPools(out []PoolStatus, names []string, now time.Time) []PoolStatus {
	before, paused := len(out), e.pausedAt(now)
	for _, name := range names {
		if p, ok := e.pools[name]; ok {
			out = append(out, p.status(name))
		}
		if e.verdict != nil {
			if m, ok := e.verdict.Meters[name]; ok { // beside a pool, where that was one under an earlier licence
				out = append(out, e.meterStatus(name, m, now))
			}
		}
	}
	holdOffs := e.HoldOffs()
	for i := before; i < len(out); i++ {
		out[i].Paused = paused
		out[i].holdOffsAmong(holdOffs)
	}
	return out
}

// Pool returns one pool or meter at the instant now.
func (e *Enforcer) Pool(name string, now time.Time) (s PoolStatus, ok bool) {
	if p, has := e.pools[name]; has {
		s, ok = p.status(name), true
	} else if e.verdict != nil {
		var m MeterGrant
		if m, ok = e.verdict.Meters[name]; ok {
			s = e.meterStatus(name, m, now)
		}
	}
	s.Paused = ok && e.pausedAt(now)
	s.holdOffsAmong(e.HoldOffs())
	return s, ok
}

// pausedAt reports whether the verdict grants nothing new.
func (e *Enforcer) pausedAt(now time.Time) bool {
	v := e.at(now)
	return v != nil && v.Paused != ""
}
