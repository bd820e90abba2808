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
// an [UnsureError] they stay kept for as long as the part lasts, and after any other error they need not.
func (b *Bound) Adopt(ctx context.Context, from, pool, part, block string, n int64, reserve func(n int64) error) (
	got *plugin.Block, slots int64, err error) {
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
		d, err := f.lender(ctx, a.p, name, from)
		if err != nil {
			return step{}, err
		}
		if was, done := d.held.Moved[part]; done {
			if was.To != f.cfg.Agent {
				return step{}, lapsed()
			}
			sent, slots = true, was.Slots
			return step{then: answer}, reserve(slots) // the answer was lost
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
		if err := reserve(take); err != nil {
			return step{}, err
		}
		next.Moved[part] = moved{take, f.cfg.Agent}
		blocks[block] += take
		sent, slots = true, take
		return step{write: &change{blocks: blocks, terms: b.terms(pool), grows: true, moved: take, is: is,
			also: []Op{{Put: d.kv.Key, Value: text(next)}}},
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

// lender returns the blocks of a lender that has stopped lending, or that is dead and whose fence is over.
func (f *Fleet) lender(ctx context.Context, p *pool, name, id string) (dead, error) {
	res, err := f.cfg.Store.Txn(ctx,
		&Txn{Kind: KindReap, Then: []Op{{Get: f.keys.block(name, id)}, {Get: f.keys.agent(id)}}})
	if err != nil {
		return dead{}, f.transient(err)
	}
	kv, ok := res.one(0)
	h, err := read[held](kv, ok)
	_, lives := res.one(1)
	switch {
	case err != nil:
		return dead{}, plugin.Transiently("%v", err)
	case lives && h.Left == nil:
		return dead{}, plugin.Transiently(
			"the site server that gave the slots is in the fleet still, or not gone for long " +
				"enough")
	case !ok || id == f.cfg.Agent:
		return dead{}, lapsed()
	}
	d := dead{id, kv, h, max(f.cfg.TTL, time.Duration(h.Fence*float64(time.Second)))}
	if h.Left != nil {
		return d, nil
	}
	f.mu.Lock()
	if p.gone == nil {
		p.gone = map[string]sighting{}
	}
	if was, seen := p.gone[id]; !seen || was.mod != kv.Mod && len(h.Moved) == 0 {
		p.gone[id] = sighting{kv.Mod, f.cfg.Now()}
	}
	f.mu.Unlock()
	if len(h.Moved) == 0 && len(f.over(ctx, p, []dead{d})) == 0 { // else another has seen that it is over
		return dead{}, plugin.Transiently("the site server that gave the slots has not been gone for long enough")
	}
	return d, nil
}
