package fleet

import (
	"context"
	"maps"
	"slices"
	"time"

	"github.com/usher-agent/usher/plugin"
)

// A lender is a member of the fleet that lends its blocks on in parts: a site server. When it dies, those to whom it
// has lent go on with their parts for a while, see Config.Keep, and meanwhile another lender takes each over. So nobody
// lets go of slots because a lender is gone. A part is taken over once, and only after the dead lender's fence, or once
// it has said that it lends no more (leave.go). One that comes back goes on with what is left.

// without takes from blocks the parts that are others' now.
func (h *held) without(blocks map[string]int64) {
	n := sum(h.Blocks) - h.own()
	for _, id := range slices.Sorted(maps.Keys(blocks)) {
		take := min(n, blocks[id])
		if blocks[id], n = blocks[id]-take, n-take; blocks[id] == 0 {
			delete(blocks, id)
		}
	}
}

// UnsureError says that a change may have been done or not.
type UnsureError struct{ cause error }

func (e *UnsureError) Error() string { return e.cause.Error() }

// Unwrap returns why that is not known.
func (e *UnsureError) Unwrap() error { return e.cause }

// Adopt takes a part of n slots that a lender has lent, which is dead or has stopped lending, over into this agent's
// block, and returns how many slots the part has: a lender that has stopped knows that better. It changes nothing where
// it has done so before. reserve keeps that many of the block's slots for the part, before anything is changed: after
// an [UnsureError] they stay kept for as long as the part lasts, and after any other error they need not. fresh says
// that they were not kept before.
func (b *Bound) Adopt(ctx context.Context, from, pool, part, block string, n int64,
	reserve func(n int64) (fresh bool, err error)) (got *plugin.Block, slots int64, err error) {
	f, name := b.fleet, poolName(b.licence, pool)
	if _, ok := b.limits[pool]; !ok || n < 1 {
		return nil, 0, lapsed()
	}
	sent := false
	got, err = f.try(ctx, name, func(a *attempt) (step, error) {
		sent = false
		blocks := a.blocks
		answer := func() (*plugin.Block, error) { return b.block(a.me, a.began, pool, block, blocks[block]) }
		if s, settled, err := b.before(a, block, false); settled {
			return s, err
		}
		d, lives, err := f.lender(ctx, name, from)
		if err != nil {
			return step{}, err
		}
		if was, done := d.held.Moved[part]; done {
			if was.To != f.cfg.Agent {
				return step{}, lapsed()
			}
			sent, slots = true, was.Slots
			_, err := reserve(slots) // the answer was lost
			return step{then: answer}, err
		}
		if was, before := d.held.Went[part]; before { // and the lender has been back since
			if was.To != f.cfg.Agent {
				return step{}, lapsed()
			}
			if fresh, err := reserve(was.Slots); err != nil {
				return step{}, err
			} else if fresh { // they are kept no more: others may have them
				return step{}, lapsed()
			}
			sent, slots = true, was.Slots
			return step{then: answer}, nil
		}
		if err := f.lendsNoMore(ctx, a.p, d, lives); err != nil {
			return step{}, err
		}
		take, is := n, []Is{still(d.kv.Key, d.kv.Mod)}
		if left, there := d.held.Left[part]; d.held.Left == nil {
			is = append(is, absent(f.keys.agent(from)))
		} else if take = left; !there {
			return step{}, lapsed()
		}
		switch {
		case d.held.own() >= take:
		case d.held.Left == nil:
			return step{}, lapsed()
		default: // what a former incarnation of the lender gave: it counts on until its time is over
			return step{}, plugin.Transiently("the site server that gave the slots has too few of its own")
		}
		next := d.held
		if next.Moved = maps.Clone(d.held.Moved); next.Moved == nil {
			next.Moved = map[string]moved{}
		}
		if _, err := reserve(take); err != nil {
			return step{}, err
		}
		next.Moved[part] = moved{take, f.cfg.Agent}
		blocks[block] += take
		sent, slots = true, take
		return step{write: &change{blocks: blocks, terms: b.terms(pool), grows: true, adopts: part,
			moved: take, is: is, also: []Op{{Put: d.kv.Key, Value: text(next)}}},
			then: func() (*plugin.Block, error) {
				f.touch(a.p, block, a.began)
				f.cfg.Log.Info("a part of another site server's slots was taken over", "pool", name, "from", from,
					"slots", take, "stopped", d.held.Left != nil)
				return answer()
			}}, nil
	})
	if err != nil && sent {
		err = &UnsureError{err}
	}
	return got, slots, err
}

// lender returns the blocks of another lender, and whether that is in the fleet.
func (f *Fleet) lender(ctx context.Context, name, id string) (d dead, lives bool, err error) {
	res, err := f.cfg.Store.Txn(ctx,
		&Txn{Kind: KindReap, Then: []Op{{Get: f.keys.block(name, id)}, {Get: f.keys.agent(id)}}})
	if err != nil {
		return dead{}, false, f.transient(err)
	}
	kv, ok := res.one(0)
	h, err := read[held](kv, ok)
	_, lives = res.one(1)
	switch {
	case err != nil:
		return dead{}, false, plugin.Transiently("%v", err)
	case lives && !ok:
		return dead{}, false, errLives
	case !ok || id == f.cfg.Agent:
		return dead{}, false, lapsed()
	}
	return dead{id, kv, h, max(f.cfg.TTL, time.Duration(h.Fence*float64(time.Second)))}, lives, nil
}

// errLives is why nothing is taken over from a lender that may lend.
var errLives = plugin.Transiently("the site server that gave the slots is in the fleet still, or not gone for long " +
	"enough")

// lendsNoMore returns why a lender may lend; nil: it has stopped, or it is dead and its fence is over.
func (f *Fleet) lendsNoMore(ctx context.Context, p *pool, d dead, lives bool) error {
	switch {
	case d.held.Left != nil:
		return nil
	case lives:
		return errLives
	}
	f.mu.Lock()
	if p.gone == nil {
		p.gone = map[string]sighting{}
	}
	if was, seen := p.gone[d.id]; !seen || was.mod != d.kv.Mod && len(d.held.Moved) == 0 {
		p.gone[d.id] = sighting{d.kv.Mod, f.cfg.Now()}
	}
	f.mu.Unlock()
	if len(d.held.Moved) == 0 && len(f.over(ctx, p, []dead{d})) == 0 { // else another has seen that it is over
		return plugin.Transiently("the site server that gave the slots has not been gone for long enough")
	}
	return nil
}
