package fleet

import (
	"context"
	"errors"
	"maps"
	"slices"

	"github.com/usher-agent/usher/plugin"
)

// draft is a change as a transaction.
type draft struct {
	txn   Txn
	held  held // what the agent has then
	at    placing
	owns  owned
	newly bool  // the store is to hear of owns
	turns bool  // it compares the tickets: nobody has begun to wait
	sets  bool  // it sets the terms
	was   seen  // of the store, before the call
	known int64 // the revision of the agent's block, before the call
}

// draft makes the transaction of a change. It compares all that the change rests on.
func (f *Fleet) draft(a *attempt, name string, c *change) *draft {
	v, me := a.v, a.me
	d := &draft{was: f.lastSeen(), known: f.knownMod(name), sets: v.setsTerms(c)}
	d.held = held{Incarnation: me.incarnation, Blocks: c.blocks, TTL: me.span.Seconds(), Since: v.since(f.cfg.Time),
		Former: v.former, terms: c.terms, Fence: f.cfg.TTL.Seconds(), Host: f.cfg.Member.Name,
		Labels: f.cfg.Member.Labels}
	d.held.title = f.title(name)
	d.held.Went = maps.Clone(v.went)
	delete(d.held.Went, c.adopts) // it is back
	if d.held.Left = c.left; c.left != nil {
		d.held.Moved = v.mine.Moved
		maps.DeleteFunc(d.held.Went, func(part string, _ moved) bool { _, still := d.held.Moved[part]; return still })
	}
	f.mu.Lock()
	raced := f.cfg.spread.eager || a.p.racedAt != 0 && f.cfg.Now()-a.p.racedAt < racedLately
	f.mu.Unlock()
	limit := v.terms.Limit
	if v.termsKV.Mod == 0 || c.grows && c.terms.Limit < limit {
		limit = c.terms.Limit
	}
	d.at = f.place(name, v, d.held.sum()-v.mine.sum()-c.moved, limit, c, raced)
	is := []Is{has(f.keys.agent(f.cfg.Agent), me.value), same(v.mineKV), still(f.keys.terms(name), v.termsKV.Mod),
		same(v.storeKV)}
	if v.mineKV.Mod > 0 { // else a change that comes late might find the agent's block as it was, and is again
		is = append(is, still(v.mineKV.Key, v.mineKV.Mod))
	}
	if v.termsKV.Mod > 0 {
		is = append(is, same(v.termsKV))
	}
	placed, ops := d.at.write(f.keys, name, v)
	is = append(append(is, placed...), c.is...)
	if d.turns = a.cached || len(d.at.shares) > 0; d.turns {
		is = append(is, Is{Prefix: f.keys.tickets(name), Unchanged: v.rev})
	}
	if c.grows {
		is = append(is, absent(f.keys.quarantine()), same(v.rulesKV))
	}
	ops = append(ops, c.also...)
	block := f.keys.block(name, f.cfg.Agent)
	switch {
	case !d.held.empty():
		ops = append(ops, Op{Put: block, Value: text(d.held)})
	case v.mineKV.Mod > 0:
		ops = append(ops, Op{Delete: block})
	}
	if d.sets {
		ops = append(ops, Op{Put: f.keys.terms(name), Value: text(c.terms)})
	}
	if d.owns, d.newly = f.owning(name, !d.held.empty()); d.newly {
		ops = append(ops, Op{Put: f.keys.owns(f.cfg.Agent), Value: text(d.owns)})
	}
	d.txn = Txn{Kind: KindChange, If: is, Then: ops, Else: f.reads(name)}
	return d
}

// write writes a change of the agent's blocks, if all is as in the view. It returns the pool as it is after that; where
// the change was not done, that may be nil: it must be read.
func (f *Fleet) write(ctx context.Context, a *attempt, name string, c *change) (done bool, now *view, err error) {
	d := f.draft(a, name, c)
	if moved := a.v.mine.Moved; len(moved) > 0 && f.cfg.OnMoved != nil {
		if err := f.cfg.OnMoved(name, slices.Sorted(maps.Keys(moved))); err != nil {
			return false, nil, plugin.Transiently("%v", err)
		}
	}
	if d.held.empty() {
		f.unwrite(a.p)
	}
	res, err := f.cfg.Store.Txn(ctx, &d.txn)
	if err != nil {
		f.forget(a.p)
		if mayBeDone(err) && (a.v.mineKV.Mod == 0 || shrinks(a.v.mine.Blocks, d.held.Blocks)) {
			f.doubts(a.p)
		}
		if errors.Is(err, errUnsure) {
			return false, nil, nil // a look at the pool tells
		}
		return false, nil, f.transient(err)
	}
	if !res.Done {
		now, err := f.seeing(ctx, name, res, d.was, d.known)
		if err != nil {
			f.forget(a.p)
			return false, nil, err
		}
		f.undone(a, now)
		return false, now, nil
	}
	if res.Cluster != a.v.store.Cluster || d.was.Epoch == a.v.store.Epoch && res.Rev < d.was.Rev {
		// It was done in an old copy of the store, by chance: the next look begins a quarantine.
		f.forget(a.p)
		return false, nil, plugin.Transiently("the store was restored from a backup meanwhile")
	}
	return true, f.written(a, name, c, d, res.Rev), nil
}

// written takes note of a change that was done at a revision, and returns the pool as it is then.
func (f *Fleet) written(a *attempt, name string, c *change, d *draft, rev int64) *view {
	v, p := a.v, a.p
	next := *v
	next.total, next.shares = total{d.at.total}, d.at.after(f.keys, name, v, rev)
	next.mine, next.mineKV = held{}, KV{Key: v.mineKV.Key}
	if !d.held.empty() {
		next.mine, next.mineKV.Value, next.mineKV.Mod = d.held, text(d.held), rev
	}
	if d.at.total != v.total.Out || v.totalKV.Mod == 0 {
		next.totalKV = KV{Key: v.totalKV.Key, Value: text(next.total), Mod: rev}
	}
	if d.sets {
		next.terms, next.termsKV = c.terms, KV{Key: v.termsKV.Key, Value: text(c.terms), Mod: rev}
	}
	if d.turns {
		next.rev = rev
	}
	again := next
	f.mu.Lock()
	defer f.mu.Unlock()
	p.known, p.restate, p.held, p.terms, p.out = true, false, d.held, next.terms, next.net()
	p.view, p.mod, p.unsure = &next, next.mineKV.Mod, 0
	for id := range p.touched {
		if _, has := d.held.Blocks[id]; !has {
			delete(p.touched, id)
		}
	}
	if d.newly {
		f.owns = d.owns.Pools
	}
	f.seen.Rev = max(f.seen.Rev, rev)
	return &again
}

// forget has the agent read its blocks of a pool again before it uses them.
func (f *Fleet) forget(p *pool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	p.known, p.view = false, nil
}

// shrinks reports whether a block has fewer slots than it had.
func shrinks(was, is map[string]int64) bool {
	for id, n := range was {
		if is[id] < n {
			return true
		}
	}
	return false
}

// doubts takes note of a change that may be done at any time from now on, until the agent has written its block again:
// one that takes slots away, or makes its first block. What another change brings too late, the next heartbeat shows.
func (f *Fleet) doubts(p *pool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	p.unsure = f.cfg.Now()
}

// undone takes note of an attempt that did not come through. now is the pool as it is; nil: it is not known.
func (f *Fleet) undone(a *attempt, now *view) {
	f.mu.Lock()
	defer f.mu.Unlock()
	p := a.p
	if a.cached {
		p.busy = min(p.busy+1, mostBusy)
	} else if now != nil && now.totalKV.Value != a.v.totalKV.Value {
		p.racedAt = f.cfg.Now()
	}
	if now != nil {
		p.view = now
	}
}
