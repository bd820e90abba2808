package enforcer

import (
	"cmp"
	"container/list"
	"slices"
	"strconv"
	"time"
)

// pool is the state of one pool. A pool that the verdict no longer names stays, with a grant of nothing, while leases
// hold slots of it.
type pool struct {
	grant  PoolGrant
	named  bool // the verdict names it
	inUse  int64
	peak   int64
	leases int
	groups map[string]*group // nil when each lease counts for itself
	queue  list.List         // of *waiting, in their turn
	// waiting is how many slots are waited for, borrowed how many of those in use are borrowed.
	waiting, borrowed int64

	expiry   []*held   // a heap by ExpiresAt of the leases that have one
	slot     []int     // beside expiry: which of the lease's items this pool is
	revokeAt time.Time // when leases over the limit are revoked; zero: never
}

// group is the leases that count as one use: as many slots as the largest of them.
type group struct {
	sizes map[int64]int // slots → number of leases with so many
	max   int64
}

// capacity returns how many slots may be in use, overage included.
func (p *pool) capacity() Limit { return p.grant.Budget.Plus(p.grant.Overage) }

// most returns what the capacity may come to while the licence stands as it is.
func (p *pool) most() Limit {
	if c := p.capacity(); c == Unlimited || !p.grant.Most.Covers(int64(c)) {
		return c
	}
	return p.grant.Most
}

// over reports whether more is in use than may be.
func (p *pool) over() bool { return !p.capacity().Covers(p.inUse) }

// eased calls off the revoking of what was over the limit, where nothing is any more.
func (p *pool) eased() {
	if !p.over() {
		p.revokeAt = zeroTime
	}
}

// groupKey returns what a holder's leases are counted by; empty: each for itself.
func groupKey(by CountBy, h *Holder) string {
	switch by {
	case CountProcess:
		if h.PID == 0 && h.Inode == 0 {
			return ""
		}
		if h.PID == 0 {
			return "inode " + strconv.FormatUint(h.Inode, 10)
		}
		return strconv.Itoa(int(h.PID)) + "@" + strconv.FormatUint(h.Start, 10) + "@" + h.Pod
	case CountUser:
		if h.User != "" {
			return "user " + h.User
		}
		if h.Credential != "" {
			return "credential " + h.Credential
		}
		if h.Who().nobody() { // nobody is no user
			return ""
		}
		return "uid " + strconv.FormatUint(uint64(h.UID), 10)
	case CountHost:
		return "host " + h.Host
	case CountPod:
		if h.Pod != "" {
			return "pod " + h.Pod
		}
		return "host " + h.Host
	default:
		return ""
	}
}

// room returns how many slots the holder could be granted in one lease now, and how many of them cost nothing because
// the group it counts with has them already.
func (p *pool) room(h *Holder) (total Limit, free int64) {
	if key := groupKey(p.grant.CountBy, h); key != "" {
		if g := p.groups[key]; g != nil {
			free = g.max
		}
	}
	c := p.capacity()
	if c == Unlimited {
		return Unlimited, free
	}
	return Limit(max(0, int64(c)-p.inUse) + free), free
}

// take counts a lease's n slots, give takes them back.
func (p *pool) take(h *Holder, n int64) {
	p.leases++
	cost := n
	if key := groupKey(p.grant.CountBy, h); key != "" {
		g := p.groups[key]
		if g == nil {
			if p.groups == nil {
				p.groups = map[string]*group{}
			}
			g = &group{sizes: map[int64]int{}}
			p.groups[key] = g
		}
		g.sizes[n]++
		cost = max(0, n-g.max)
		g.max = max(g.max, n)
	}
	p.inUse += cost
	p.peak = max(p.peak, p.inUse)
}

func (p *pool) give(h *Holder, n int64) {
	p.leases--
	cost := n
	if key := groupKey(p.grant.CountBy, h); key != "" {
		g := p.groups[key]
		if g.sizes[n]--; g.sizes[n] == 0 {
			delete(g.sizes, n)
		}
		was := g.max
		g.max = 0
		for size := range g.sizes {
			g.max = max(g.max, size)
		}
		cost = was - g.max
		if len(g.sizes) == 0 {
			delete(p.groups, key)
		}
	}
	p.inUse -= cost
}

// The expiry heap. Each lease knows its place, so that a renewal costs a sift.

func (p *pool) push(h *held, item int) {
	p.expiry = append(p.expiry, h)
	p.slot = append(p.slot, item)
	i := len(p.expiry) - 1
	*h.index(item) = int32(i)
	p.up(i)
}

func (p *pool) drop(h *held, item int) {
	i := int(*h.index(item))
	last := len(p.expiry) - 1
	p.swap(i, last)
	p.expiry[last] = nil
	p.expiry, p.slot = p.expiry[:last], p.slot[:last]
	if i < last {
		p.fix(i)
	}
}

func (p *pool) fix(i int) {
	if !p.down(i) {
		p.up(i)
	}
}

func (p *pool) swap(i, j int) {
	p.expiry[i], p.expiry[j] = p.expiry[j], p.expiry[i]
	p.slot[i], p.slot[j] = p.slot[j], p.slot[i]
	*p.expiry[i].index(p.slot[i]) = int32(i)
	*p.expiry[j].index(p.slot[j]) = int32(j)
}

func (p *pool) less(i, j int) bool { return p.expiry[i].ExpiresAt.Before(p.expiry[j].ExpiresAt) }

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
		for c := 2*i + 1; c <= 2*i+2 && c < len(p.expiry); c++ {
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

// due calls yield for each lease that is over by now and counts this pool as its first item, until yield says no.
func (p *pool) due(now time.Time, yield func(*held) bool) bool {
	stack := []int{0}
	for len(stack) > 0 {
		i := stack[len(stack)-1]
		stack = stack[:len(stack)-1]
		if i >= len(p.expiry) || p.expiry[i].ExpiresAt.After(now) {
			continue
		}
		if p.slot[i] == 0 && !yield(p.expiry[i]) {
			return false
		}
		stack = append(stack, 2*i+1, 2*i+2)
	}
	return true
}

func (p *pool) status(name string) PoolStatus {
	s := PoolStatus{
		Name: name, Limit: p.grant.Limit, Overage: p.grant.Overage, Budget: p.grant.Budget, Scope: p.grant.Scope,
		Unit: p.grant.Unit, NotShared: p.grant.NotShared, InUse: p.inUse, Peak: p.peak, Leases: p.leases,
		Waiting: p.waiting, Borrowed: p.borrowed,
	}
	if len(p.expiry) > 0 {
		s.NextFree = p.expiry[0].ExpiresAt
	}
	return s
}

// Pools returns every pool and meter that the verdict names or leases still hold slots of, by name.
func (e *Enforcer) Pools() []PoolStatus {
	out := make([]PoolStatus, 0, len(e.pools))
	for name, p := range e.pools {
		out = append(out, p.status(name))
	}
	if e.verdict != nil {
		for name, m := range e.verdict.Meters {
			out = append(out, e.meterStatus(name, m))
		}
	}
	slices.SortFunc(out, func(a, b PoolStatus) int { return cmp.Compare(a.Name, b.Name) })
	return out
}

// Pool returns one pool or meter.
func (e *Enforcer) Pool(name string) (PoolStatus, bool) {
	if p, ok := e.pools[name]; ok {
		return p.status(name), true
	}
	if e.verdict != nil {
		if m, ok := e.verdict.Meters[name]; ok {
			return e.meterStatus(name, m), true
		}
	}
	return PoolStatus{}, false
}
