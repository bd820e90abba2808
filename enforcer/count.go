package enforcer

import (
	"cmp"
	"slices"
	"sort"
)

// group is the leases of one unit. Any number of them count as one use, or no more than most: then the largest lease
// shares its use with the next largest ones, and so on. So the group takes the fewest slots that it can, and it counts
// the same in whatever order its leases came. A use takes as many slots as the largest of its leases.
type group struct {
	sizes []size // the largest first
	most  int64  // leases in one use; 0: any number
	total int64  // parts that the group counts
}

// size is how many leases of a group have so many parts.
type size struct{ n, leases int64 }

// place returns where leases of n parts are among the sizes, or belong.
func (g *group) place(n int64) (at int, there bool) {
	return slices.BinarySearchFunc(g.sizes, n, func(s size, n int64) int { return cmp.Compare(n, s.n) })
}

// with returns how many parts the group would count with by more leases of n parts; by may be less than 0.
func (g *group) with(n, by int64) (total int64) {
	var before int64 // leases that are larger
	add := func(s size) {
		if g.most > 0 {
			total += s.n * ((before+s.leases+g.most-1)/g.most - (before+g.most-1)/g.most)
		} else if before == 0 && s.leases > 0 {
			total = s.n
		}
		before += s.leases
	}
	at, there := g.place(n)
	rest := at
	if g.most == 0 && at > 0 { // the larger ones alone count
		return g.total
	}
	for _, s := range g.sizes[:at] {
		add(s)
	}
	own := size{n, by}
	if there {
		own.leases += g.sizes[at].leases
		rest++
	}
	add(own)
	for _, s := range g.sizes[rest:] {
		if add(s); g.most == 0 {
			break
		}
	}
	return total
}

// change counts leases of n parts in or out, and returns how many parts more the group counts.
func (g *group) change(n, by int64) (more int64) {
	total := g.with(n, by)
	more, g.total = total-g.total, total
	at, there := g.place(n)
	if !there {
		g.sizes = slices.Insert(g.sizes, at, size{n: n})
	}
	if g.sizes[at].leases += by; g.sizes[at].leases == 0 {
		g.sizes = slices.Delete(g.sizes, at, at+1)
	}
	return more
}

// reach returns how many parts one more lease of the group may have at most, where no more than spare are free.
func (g *group) reach(spare int64) int64 {
	largest := g.sizes[0].n
	if g.most == 0 {
		return spare + largest
	}
	// A lease costs no more than its parts, and no less than what it has more of them than the largest.
	return spare + int64(sort.Search(int(largest), func(i int) bool {
		return g.with(spare+int64(i)+1, 1)-g.total > spare
	}))
}

func (g *group) clone() *group {
	return &group{sizes: slices.Clone(g.sizes), most: g.most, total: g.total}
}

// uses are what a lease counts as in a pool.
type uses struct {
	groups []string // the units that it is in
	alone  int64    // how many times it counts besides
	most   int64    // leases of a group in one use; 0: any number
}

// units returns the units that a lease counts as.
func (g *PoolGrant) units(l *Lease) (u uses) {
	by := g.CountBy
	if by == CountLease || by == "" {
		if by = g.HoldersBy; by == "" || len(l.Others) == 0 {
			return uses{alone: 1}
		}
	}
	u.most = by.most()
	labels := l.Holder.Labels
	if unit := unitIn(by, l.Holder, labels); unit != "" {
		u.groups = append(u.groups, unit)
	} else {
		u.alone = 1
	}
	if len(l.Others) > 0 {
		u.addOthers(by, l, labels)
	}
	if by != g.CountBy { // the holders of one lease, and no other's
		return uses{alone: u.alone + int64(len(u.groups))}
	}
	return u
}

// addOthers adds the units of a lease's co-holders. Those whose unit is not known count once for each that can be told
// from the others.
func (u *uses) addOthers(by CountBy, l *Lease, labels map[string]string) {
	var unknown []string
	if u.alone > 0 {
		rest, _ := joined(by, l.Holder, labels)
		unknown = append(unknown, rest)
	}
	for _, o := range l.Others {
		if unit := unitIn(by, o, labels); unit == "" {
			if rest, _ := joined(by, o, labels); !slices.Contains(unknown, rest) {
				unknown = append(unknown, rest)
			}
		} else if !slices.Contains(u.groups, unit) {
			u.groups = append(u.groups, unit)
		}
	}
	u.alone = int64(len(unknown))
}

// maxInUse is how much of a pool without a limit may be in use when more is granted.
const maxInUse = 1 << 61

// room returns how many slots a holder could be granted now in a lease of its own, and how many of them cost nothing
// because the holder's unit has them already.
//
// A pool without a limit has no more than maxInUse and one item's in use.
func (p *pool) room(h *Holder) (total Limit, free int64) {
	unit := unitOf(p.grant.CountBy, h)
	free = p.reach(unit, 0)
	c := p.grant.limit(p.capacity())
	switch {
	case c == Unlimited && p.inUse <= maxInUse:
		return Unlimited, free
	case c == Unlimited: // so that no sum overflows
		return Limit(free), free
	}
	spare := int64(c) - p.inUse
	if spare <= 0 {
		return Limit(free), free
	}
	return Limit(p.reach(unit, spare)), free
}

// take counts n slots of a lease, and give takes them back. shared is what its holder shares, where that is known.
func (p *pool) take(l *Lease, shared *sharedHolder, n int64) {
	p.leases++
	u := p.grant.units(l)
	p.add(u, n)
	if p.queue != nil {
		p.queue.sharers.join(u.groups)
	}
	p.peak = max(p.peak, p.inUse)
	if p.users != nil {
		p.users.ofUser(l.Holder.Who()).add(u, n)
	}
	if p.rules != nil {
		p.tallied(p.rules.says(shared, l.Holder), u, n, true)
	}
}

func (p *pool) give(l *Lease, shared *sharedHolder, n int64) {
	p.leases--
	u := p.grant.units(l)
	p.remove(u, n)
	if p.users != nil {
		p.users.ofUser(l.Holder.Who()).remove(u, n)
	}
	if p.rules != nil {
		p.tallied(p.rules.says(shared, l.Holder), u, n, false)
	}
}

// cost returns how many more slots are in use once a lease of n slots has other holders: is are the new ones, was the
// old. Less than 0: fewer are.
func (p *pool) cost(was, is *Lease, n int64) (more int64) {
	before, after := p.grant.units(was), p.grant.units(is)
	more = (after.alone - before.alone) * n
	for _, unit := range before.groups {
		if g := p.groups[unit]; !slices.Contains(after.groups, unit) {
			more += g.with(n, -1) - g.total
		}
	}
	for _, unit := range after.groups {
		if !slices.Contains(before.groups, unit) {
			more += p.costs(unit, n)
		}
	}
	return more
}
