package fleet

import (
	"context"
	"maps"

	"github.com/usher-agent/usher/plugin"
)

// A lender that stops, or that an operator drains, says so in its record: Left names the parts that it had lent then.
// From then on others take those over at once. Nobody waits for its fence, because the lender itself has stopped:
//
//   - It stops lending before it writes Left, in this process for good or until [Fleet.Stay].
//   - Whoever goes on as this lender, after Stay or a restart, lends nothing before a transaction has written its
//     record without Left. That one compares the record as it was, and so does each that takes a part over: one of the
//     two comes first. See [view.assumed].
//   - Left is the lender's own word for who had what. A part that is not in it is nobody's to take, whatever an agent
//     shows. So a part that moved before, and whose agent has not heard of it, is not moved twice.

// errLeaves is why a lender that has stopped lending changes nothing.
var errLeaves = plugin.Transiently("this site server has stopped giving slots: others take over what it has given")

// lends returns why the agent lends nothing; nil: it does.
func (f *Fleet) lends() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.leaves {
		return errLeaves
	}
	return nil
}

// Leave stops this agent's lending, of all pools, and lets others take over what it has lent of one: lent is the slots
// by part. What it has beyond that is free at once. The caller lends and extends nothing from before the call until
// [Fleet.Stay]. It calls again when less is lent, or after an error.
func (b *Bound) Leave(ctx context.Context, pool, block string, lent map[string]int64) error {
	f, name := b.fleet, poolName(b.licence, pool)
	f.mu.Lock()
	f.leaves = true
	f.mu.Unlock()
	_, err := f.tryAlso(ctx, name, func(a *attempt) (step, error) {
		v := a.v
		switch {
		case a.cached:
			return step{look: true}, nil
		case v.closed != nil:
			return step{}, settling(*v.closed, f.cfg.TTL)
		case v.mineKV.Mod < v.storeKV.Mod || !a.me.goesOn(v.mine.Incarnation):
			return step{}, nil // what it has lent is no part of these blocks
		}
		c := leaving(v, block, lent)
		if v.mine.Incarnation == a.me.incarnation && v.mine.Left != nil && maps.Equal(c.left, v.mine.Left) &&
			maps.Equal(c.blocks, v.mine.Blocks) {
			return step{}, nil
		}
		f.mu.Lock()
		defer f.mu.Unlock()
		a.p.asked = 0
		c.terms = a.p.namedTerms(v)
		free := v.terms.Limit - v.out(c.blocks) + v.mine.gone()
		c.also = append(f.tell(name, v, free), Op{Delete: f.keys.ticket(name, f.cfg.Agent)})
		return step{write: c}, nil
	})
	return err
}

// leaving is the change with which a lender stops: it keeps what it has lent, and what has moved of that.
func leaving(v *view, block string, lent map[string]int64) *change {
	c := &change{blocks: maps.Clone(v.mine.Blocks), left: maps.Clone(lent)}
	if c.left == nil {
		c.left = map[string]int64{}
	}
	for part := range v.mine.Moved {
		delete(c.left, part)
	}
	idle := v.mine.own() - sum(c.left)
	if idle = min(idle, c.blocks[block]-v.mine.gone()); idle > 0 {
		c.blocks[block] -= idle
	}
	if c.blocks[block] == 0 {
		delete(c.blocks, block)
	}
	return c
}

// Stay ends what Leave has begun: the agent may lend again what nobody has taken over, as a check-out or an extension
// says.
func (f *Fleet) Stay() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.leaves = false
	for _, p := range f.pools {
		p.known, p.view = false, nil
	}
}

// PoolKey names a pool of the fleet: licences of one product share it.
type PoolKey string

// Key returns the pool of the fleet that a pool of the licence is.
func (b *Bound) Key(pool string) PoolKey { return PoolKey(poolName(b.licence, pool)) }

// gone is the sum of what others have taken over of the blocks.
func (h *held) gone() (n int64) {
	for _, m := range h.Moved {
		n += m.Slots
	}
	return n
}
