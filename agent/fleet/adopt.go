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
// lets go of slots because a lender is gone. A part is taken over once, and only after the dead lender's fence: from
// then on it lends nothing. One that comes back goes on with what is left.

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

// Adopt takes a part of n slots that a dead lender has lent over into this agent's block. It changes nothing where it
// has done so before.
func (b *Bound) Adopt(ctx context.Context, from, pool, part, block string, n int64) (*plugin.Block, error) {
	f, name := b.fleet, poolName(b.licence, pool)
	if _, ok := b.limits[pool]; !ok || n < 1 {
		return nil, lapsed()
	}
	return f.try(ctx, name, func(a *attempt) (step, error) {
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
			return step{then: answer}, nil // the answer was lost
		}
		if d.held.own() < n {
			return step{}, lapsed()
		}
		next := d.held
		if next.Moved = maps.Clone(d.held.Moved); next.Moved == nil {
			next.Moved = map[string]moved{}
		}
		next.Moved[part] = moved{n, f.cfg.Agent}
		blocks[block] += n
		return step{write: &change{blocks: blocks, terms: b.terms(pool), grows: true, moved: n,
			is:   []Is{absent(f.keys.agent(from)), still(d.kv.Key, d.kv.Mod)},
			also: []Op{{Put: d.kv.Key, Value: text(next)}}},
			then: func() (*plugin.Block, error) {
				f.touch(a.p, block, a.began)
				f.cfg.Log.Info("a part of a dead site server's slots was taken over", "pool", name, "from", from,
					"slots", n)
				return answer()
			}}, nil
	})
}

// lender returns the blocks of a lender that is dead and whose fence is over.
func (f *Fleet) lender(ctx context.Context, p *pool, name, id string) (dead, error) {
	res, err := f.cfg.Store.Txn(ctx,
		&Txn{Kind: KindReap, Then: []Op{{Get: f.keys.block(name, id)}, {Get: f.keys.agent(id)}}})
	if err != nil {
		return dead{}, f.transient(err)
	}
	if _, lives := res.one(1); lives {
		return dead{}, plugin.Transiently(
			"the site server that gave the slots is in the fleet still, or not gone for long " +
				"enough")
	}
	kv, ok := res.one(0)
	h, err := read[held](kv, ok)
	if err != nil {
		return dead{}, plugin.Transiently("%v", err)
	}
	if !ok || id == f.cfg.Agent {
		return dead{}, lapsed()
	}
	d := dead{id, kv, h, max(f.cfg.TTL, time.Duration(h.Fence*float64(time.Second)))}
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
