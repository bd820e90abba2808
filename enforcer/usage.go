package enforcer

import (
	"math"
	"math/bits"
	"time"
)

// Usage is what was in use of one pool in one hour, as far as it has been counted since it was last taken: see
// [Enforcer.TakeUsage]. Sums of several for the same hour are added, and the larger of two peaks is the hour's.
type Usage struct {
	Pool     string
	Hour     time.Time // its beginning, UTC
	Peak     int64     // the most slots in use at one time
	OverPeak int64     // the most slots beyond the budget at one time
	Grants   int64     // leases that were granted
	// Slots is slots in use times how long they were, in slot-milliseconds; Over is likewise the slots beyond the
	// budget.
	Slots, Over int64
	OverFor     time.Duration // for how long slots beyond the budget were in use
	Limit       Limit         // the largest that the verdict named while the pool was counted
	Budget      Limit         // likewise
}

// mostClosed bounds the hours that are counted and not taken yet; the oldest are lost.
const mostClosed = 1 << 16

// longestCounted bounds the time that is counted at once, as after a host was suspended.
const longestCounted = 7 * 24 * time.Hour

// usageCount is what is counted of one pool in the present hour. The numbers of slots are in parts.
type usageCount struct {
	since          int64 // nanoseconds since 1970: up to then it is counted
	hour           int64 // since 1970
	inUse, over    int64 // since then
	peak, overPeak int64
	slots, beyond  wide
	overFor        int64 // nanoseconds
	grants         int64
	limit, budget  Limit
	per            int64 // parts of a slot
}

// wide is a sum of 128 bits: of parts of slots times nanoseconds.
type wide struct{ hi, lo uint64 }

// add adds n times d; both are positive.
func (w *wide) add(n, d int64) {
	hi, lo := bits.Mul64(uint64(n), uint64(d))
	var carry uint64
	w.lo, carry = bits.Add64(w.lo, lo, 0)
	w.hi, _ = bits.Add64(w.hi, hi, carry)
}

// take returns how often the sum has unit, and leaves what remains of it.
func (w *wide) take(unit uint64) int64 {
	if w.hi >= unit {
		*w = wide{}
		return math.MaxInt64
	}
	n, rest := bits.Div64(w.hi, w.lo, unit)
	*w = wide{lo: rest}
	return int64(min(n, math.MaxInt64))
}

// TakeUsage returns what was in use of the pools of these names since the last call, by hours, and forgets it. Usage is
// counted from the first call on, of these pools and of those that come later. A pool's count is made when a slot of it
// is first in use, since of many pools most never are. Hours in which nothing was in use are left out. lost is how many
// hours of pools were dropped because nobody took them.
//
// Time that a step of the clock added, or took away, is not counted: see Step. A pool that counts in parts of slots has
// what they make together, rounded down to a slot-millisecond, and the remainder stays for the next call.
func (e *Enforcer) TakeUsage(names []string, now time.Time) (all []Usage, lost int) {
	e.counting = true
	for _, name := range names {
		p := e.pools[name]
		if p == nil {
			continue
		}
		if p.counted == nil {
			if p.inUse > 0 {
				e.beginCount(p, now)
			}
			continue
		}
		e.count(p, now)
		e.close(p)
	}
	all, lost = e.closed, e.lost
	e.closed, e.lost = nil, 0
	return all, lost
}

// beginCount begins to count a pool's usage.
func (e *Enforcer) beginCount(p *pool, now time.Time) {
	at := now.UnixNano()
	p.counted = &usageCount{since: at, hour: hourOf(at)}
	p.counted.look(p)
	if p.users != nil {
		e.countUsers(p)
	}
}

// hourOf returns the hour of an instant, both since 1970.
func hourOf(at int64) int64 {
	h := at / int64(time.Hour)
	if at%int64(time.Hour) < 0 {
		h--
	}
	return h
}

// count counts a pool's usage up to the instant of an event, or of a look, and what is in use from then on.
func (e *Enforcer) count(p *pool, now time.Time) {
	if p.counted == nil {
		if e.counting {
			e.beginCount(p, now)
		}
		return
	}
	e.pass(p, now.UnixNano())
	if p.counted.per != p.grant.per() {
		e.close(p)
	}
	p.counted.look(p)
	if p.users != nil {
		e.countUsers(p)
	}
}

// pass counts the time up to an instant with what was in use, hour by hour.
func (e *Enforcer) pass(p *pool, at int64) {
	c := p.counted
	if at-c.since > int64(longestCounted) {
		e.set(p, at-int64(longestCounted))
	}
	for c.since < at {
		end := (c.hour + 1) * int64(time.Hour)
		c.pass(min(at, end))
		if c.since == end {
			e.set(p, end)
		}
	}
}

// pass counts the time up to an instant of the same hour.
func (c *usageCount) pass(at int64) {
	d := at - c.since
	c.since = at
	c.peak, c.overPeak = max(c.peak, c.inUse), max(c.overPeak, c.over)
	if c.inUse > 0 {
		c.slots.add(c.inUse, d)
	}
	if c.over > 0 {
		c.beyond.add(c.over, d)
		c.overFor += d
	}
}

// set sets the clock of a count, and counts nothing for it.
func (e *Enforcer) set(p *pool, at int64) {
	c := p.counted
	if at != c.since {
		e.setUsers(p, at)
	}
	c.since = at
	if hour := hourOf(at); hour != c.hour {
		e.close(p)
		c.hour = hour
	}
}

// look takes note of what is in use now.
func (c *usageCount) look(p *pool) {
	c.inUse, c.over = p.inUse, 0
	if b := p.grant.limit(p.grant.Budget); b != Unlimited {
		c.over = max(0, p.inUse-int64(b))
	}
	c.per = p.grant.per()
	c.peak, c.overPeak = max(c.peak, c.inUse), max(c.overPeak, c.over)
	c.limit, c.budget = larger(c.limit, p.grant.Limit), larger(c.budget, p.grant.Budget)
}

// larger returns the larger of two limits.
func larger(a, b Limit) Limit {
	if a.less(b) {
		return b
	}
	return a
}

// close ends a stretch of a pool's count: it can be taken.
func (e *Enforcer) close(p *pool) {
	c := p.counted
	unit := uint64(c.per) * uint64(time.Millisecond)
	u := Usage{Pool: p.name, Hour: time.Unix(c.hour*3600, 0).UTC(), Peak: slotsOf(c.peak, c.per),
		OverPeak: slotsOf(c.overPeak, c.per), Slots: c.slots.take(unit), Over: c.beyond.take(unit),
		OverFor: time.Duration(c.overFor), Grants: c.grants, Limit: c.limit, Budget: c.budget}
	c.peak, c.overPeak, c.overFor, c.grants = 0, 0, 0, 0 // what is still in use shows when time passes
	c.limit, c.budget = p.grant.Limit, p.grant.Budget
	if u.Peak == 0 && u.Grants == 0 {
		return
	}
	if len(e.closed) >= mostClosed {
		e.closed = e.closed[1:]
		e.lost++
	}
	e.closed = append(e.closed, u)
}

func slotsOf(parts, per int64) int64 { return (parts + per - 1) / per }

// endCount ends the count of a pool that is forgotten.
func (e *Enforcer) endCount(p *pool) {
	if p.counted != nil {
		e.close(p)
		e.endUsers(p)
		p.counted = nil
	}
}

// stepCounts has a step of the clock not be counted: by is how far it went, and at the time behind it.
func (e *Enforcer) stepCounts(at time.Time, by time.Duration) {
	for _, p := range e.pools {
		if p.counted != nil {
			e.pass(p, at.Add(-by).UnixNano())
			e.set(p, at.UnixNano())
		}
	}
}
