package enforcer

import (
	"fmt"
	"math"
)

// Bounds of pools with a quantum.
const (
	// MaxQuantum is into how many parts a slot can be divided.
	MaxQuantum = 1 << 16
	// maxParts is how many parts a limited pool may have in all, overage included.
	maxParts = 1 << 50
)

// per returns how many parts a slot of the pool has.
func (g *PoolGrant) per() int64 { return max(1, g.Quantum) }

// parts returns how much of the pool an item takes: whole parts, and never less than the item says. It is bounded as
// MaxSlots is, so that no sum overflows.
func (g *PoolGrant) parts(it Item) int64 {
	of := max(1, it.Of)
	if it.N > (math.MaxInt64-of)/g.per() {
		return MaxSlots
	}
	return min((it.N*g.per()+of-1)/of, MaxSlots)
}

// slots returns how many slots a number of parts needs: the sum is rounded up, and not each holder's share of it.
func (g *PoolGrant) slots(parts int64) int64 {
	if parts < 0 {
		return -g.slots(-parts)
	}
	return (parts + g.per() - 1) / g.per()
}

// limit returns a limit of slots in parts.
func (g *PoolGrant) limit(slots Limit) Limit {
	if slots == Unlimited || g.per() == 1 {
		return slots
	}
	if slots > math.MaxInt64/Limit(g.per()) {
		return math.MaxInt64
	}
	return slots * Limit(g.per())
}

// whole returns what of parts an item of the same denominator can have.
func (g *PoolGrant) whole(parts int64, it Item) Item {
	it.N = parts
	if of := max(1, it.Of); of != g.per() {
		it.N = parts / (g.per() / of)
	}
	return it
}

// divides denies an item in parts that the pool's slots do not have.
func (p *pool) divides(it Item) *Denial {
	per := p.grant.per()
	switch {
	case it.Of > 1 && per == 1:
		return bad("of", "pool %s: its slots have no parts; leave of out", it.Pool)
	case it.Of > 1 && per%it.Of != 0:
		return bad("of", "pool %s: a slot has %d parts, which do not make up %d equal ones; of must divide %d", it.Pool,
			per, it.Of, per)
	case per > 1 && it.N > MaxN/(per/max(1, it.Of)):
		return bad("n", "n is %s: at most %d parts of a slot can be asked for at once", it.Amount(), int64(MaxN))
	}
	return nil
}

// Amount is how much of a pool an item is, for people: slots, or a fraction of a slot.
func (it Item) Amount() string {
	if it.Of > 1 {
		return fmt.Sprintf("%d/%d", it.N, it.Of)
	}
	return fmt.Sprint(it.N)
}

// Slots returns how many slots an item takes by itself: a part of one counts as one.
func (it Item) Slots() int64 {
	of := max(1, it.Of)
	return it.N/of + min(1, it.N%of)
}

// least returns the least of an item that a request is content with.
func (it Item) least(r *Acquire) Item {
	if r.MinN > 0 {
		it.N = r.MinN
	}
	return it
}

// part returns an item of a number of parts.
func (p *pool) part(it Item, parts int64) Item {
	return Item{Pool: it.Pool, N: parts, Of: p.grant.per()}
}

// checkParts denies what no pool's slots are divided into.
func checkParts(field string, of int64) *Denial {
	if of < 0 || of > MaxQuantum {
		return bad(field, "of is %d: give the number of equal parts of a slot, 1 to %d", of, MaxQuantum)
	}
	return nil
}
