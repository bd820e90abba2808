package enforcer

import (
	"maps"
	"slices"
	"strconv"
)

// group is the leases that count as one use: it takes as many slots as the largest of them.
type group struct {
	sizes map[int64]int // slots → number of leases with so many
	max   int64
}

// without returns the largest lease of the group once one of n slots has left it.
func (g *group) without(n int64) (most int64) {
	if n < g.max || g.sizes[n] > 1 {
		return g.max
	}
	for size := range g.sizes {
		if size != n {
			most = max(most, size)
		}
	}
	return most
}

// remove takes a lease of n slots out of the group, and returns how much less the group counts.
func (g *group) remove(n int64) (less int64) {
	left := g.without(n)
	less, g.max = g.max-left, left
	if g.sizes[n]--; g.sizes[n] == 0 {
		delete(g.sizes, n)
	}
	return less
}

func (g *group) clone() *group { return &group{sizes: maps.Clone(g.sizes), max: g.max} }

// unitOf returns the unit that a holder counts as by a licence's count_by. Empty: the unit is not known, and each of
// the holder's leases counts for itself. So a pool counted by process, user or pod is never counted more loosely where
// that is not known.
func unitOf(by CountBy, h *Holder) string {
	switch by {
	case CountProcess:
		// Counted by user first: a process may ask as several users or as nobody, and count_by process is never looser
		// than count_by user.
		user := userUnit(h)
		switch {
		case user == "" || h.PID == 0 && h.Inode == 0:
			return ""
		case h.PID == 0:
			return "inode " + strconv.FormatUint(h.Inode, 10) + "@" + user
		}
		return strconv.Itoa(int(h.PID)) + "@" + strconv.FormatUint(h.Start, 10) + "@" + user
	case CountUser:
		return userUnit(h)
	case CountHost:
		return "host " + h.Host
	case CountPod:
		if h.Pod == "" {
			return ""
		}
		return "pod " + h.Pod
	default:
		return ""
	}
}

func userUnit(h *Holder) string {
	switch {
	case h.User != "":
		return "user " + h.User
	case h.Credential != "":
		return "credential " + h.Credential
	case h.Who().nobody(): // and no user
		return ""
	default:
		return "uid " + strconv.FormatUint(uint64(h.UID), 10)
	}
}

// units returns the units that a lease counts as: the groups that it is in, and how many times it counts besides.
func (g *PoolGrant) units(l *Lease) (groups []string, alone int64) {
	by := g.CountBy
	if by == CountLease || by == "" {
		if by = g.HoldersBy; by == "" || len(l.Others) == 0 {
			return nil, 1
		}
	}
	add := func(h *Holder) {
		if unit := unitOf(by, h); unit == "" {
			alone = 1
		} else if !slices.Contains(groups, unit) {
			groups = append(groups, unit)
		}
	}
	add(l.Holder)
	for _, o := range l.Others {
		add(o)
	}
	if by != g.CountBy { // the holders of one lease, and no other's
		return nil, alone + int64(len(groups))
	}
	return groups, alone
}

// maxInUse is how much of a pool without a limit may be in use when more is granted.
const maxInUse = 1 << 61

// room returns how many slots a holder could be granted now in a lease of its own, and how many of them cost nothing
// because the holder's unit has them already.
//
// A pool without a limit has no more than maxInUse and one item's in use.
func (p *pool) room(h *Holder) (total Limit, free int64) {
	if unit := unitOf(p.grant.CountBy, h); unit != "" {
		if g := p.groups[unit]; g != nil {
			free = g.max
		}
	}
	c := p.grant.limit(p.capacity())
	switch {
	case c == Unlimited && p.inUse <= maxInUse:
		return Unlimited, free
	case c == Unlimited: // so that no sum overflows
		return Limit(free), free
	}
	return Limit(max(0, int64(c)-p.inUse) + free), free
}

// take counts n slots of a lease, and give takes them back. shared is what its holder shares, where that is known.
func (p *pool) take(l *Lease, shared *sharedHolder, n int64) {
	p.leases++
	groups, alone := p.grant.units(l)
	p.add(groups, alone, n)
	p.peak = max(p.peak, p.inUse)
	if p.rules != nil {
		p.tallied(p.rules.says(shared, l.Holder), groups, alone, n, true)
	}
}

func (p *pool) give(l *Lease, shared *sharedHolder, n int64) {
	p.leases--
	groups, alone := p.grant.units(l)
	p.remove(groups, alone, n)
	if p.rules != nil {
		p.tallied(p.rules.says(shared, l.Holder), groups, alone, n, false)
	}
}

// cost returns how many more slots are in use once a lease of n slots has other holders: is are the new ones, was the
// old. Less than 0: fewer are.
func (p *pool) cost(was, is *Lease, n int64) (more int64) {
	before, aloneBefore := p.grant.units(was)
	after, aloneAfter := p.grant.units(is)
	more = (aloneAfter - aloneBefore) * n
	for _, unit := range before {
		if g := p.groups[unit]; !slices.Contains(after, unit) {
			more -= g.max - g.without(n)
		}
	}
	for _, unit := range after {
		if slices.Contains(before, unit) {
			continue
		}
		if g := p.groups[unit]; g != nil {
			more += max(0, n-g.max)
		} else {
			more += n
		}
	}
	return more
}
