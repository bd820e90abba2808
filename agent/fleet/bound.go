package fleet

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"strings"
	"time"

	"github.com/usher-agent/usher/enforcer"
	"github.com/usher-agent/usher/plugin"
)

// Bound gives the blocks of one licence's pools from the fleet.
type Bound struct {
	plugin.Upstream // the licence's own, for all other calls
	fleet           *Fleet
	licence         *enforcer.License
	own             plugin.Budgeter  // gives its other pools; nil: nobody does
	limits          map[string]int64 // of its site pools that are the fleet's
	document        string
}

var _ plugin.Watcher = (*Bound)(nil)

// For returns what gives a licence's pools: the fleet those that shared names, own all others. Without a pool of the
// fleet it returns own.
func (f *Fleet) For(l *enforcer.License, document []byte, own plugin.Budgeter,
	shared func(pool string) bool) plugin.Budgeter {
	b := &Bound{Upstream: own, fleet: f, licence: l, own: own, limits: map[string]int64{}}
	for name, n := range l.SitePools() {
		if shared(name) {
			b.limits[name] = int64(n)
			f.calls(poolName(l, name), ownPool{titleOf(l, name), int64(n)})
		}
	}
	if len(b.limits) == 0 {
		return own
	}
	if l.OnExpiry == enforcer.Revoke {
		f.mu.Lock()
		f.revokes = true
		f.mu.Unlock()
	}
	sum := sha256.Sum256(document)
	b.document = base64.RawURLEncoding.EncodeToString(sum[:])
	return b
}

// Capabilities says that the fleet gives blocks.
func (b *Bound) Capabilities() plugin.Capabilities {
	var c plugin.Capabilities
	if b.Upstream != nil {
		c = b.Upstream.Capabilities()
	}
	c.Budget = true
	return c
}

// System returns the licence's.
func (b *Bound) System() string { return b.licence.System }

// CheckOut takes slots in a block of its own.
func (b *Bound) CheckOut(ctx context.Context, r *plugin.CheckOut) (*plugin.Block, error) {
	if _, ok := b.limits[r.Pool]; !ok && b.own != nil {
		return b.own.CheckOut(ctx, r)
	}
	least := r.AtLeast
	if least == 0 {
		least = r.Slots
	}
	got, err := b.grow(ctx, r.Pool, blockID(r.Token), 0, r.Slots, least, r.Ahead)
	if got != nil {
		got.State = r.State
	}
	return got, err
}

// Return gives a block back.
func (b *Bound) Return(ctx context.Context, r *plugin.Return) error {
	if !strings.HasPrefix(r.Block, blockPrefix) && b.own != nil {
		return b.own.Return(ctx, r)
	}
	name, _, known := b.find(r.Block)
	if name == "" && !known {
		for pool := range b.limits {
			if err := b.fetch(ctx, pool); err != nil {
				return err
			}
		}
		name, _, _ = b.find(r.Block)
	}
	if name == "" {
		return nil
	}
	_, err := b.shrink(ctx, name, r.Block, 0)
	if e, ok := err.(*plugin.Error); ok && e.SystemCode == plugin.SystemLapsed {
		return nil
	}
	return err
}

func lapsed() error {
	return &plugin.Error{Class: plugin.Transient, SystemCode: plugin.SystemLapsed,
		Reason: "the block is not this agent's any more"}
}

// find returns the pool and the size of a block. known says that all pools of the licence are.
func (b *Bound) find(block string) (pool string, n int64, known bool) {
	f := b.fleet
	f.mu.Lock()
	defer f.mu.Unlock()
	known = true
	for name := range b.limits {
		p := f.pools[poolName(b.licence, name)]
		if p == nil || !p.known {
			known = false
			continue
		}
		if n, ok := p.held.Blocks[block]; ok {
			return name, n, true
		}
	}
	return "", 0, known
}

// fetch reads this agent's blocks of a pool.
func (b *Bound) fetch(ctx context.Context, pool string) error {
	return b.fleet.settle(ctx, poolName(b.licence, pool), false)
}

func (b *Bound) terms(pool string) terms { return terms{b.limits[pool], b.document} }

// Part returns how many of the slots that it has of a pool this agent may hand out from now on: fewer while more is out
// than the limit, which was lowered.
func (b *Bound) Part(pool string, has int64) int64 {
	f := b.fleet
	f.mu.Lock()
	defer f.mu.Unlock()
	p := f.pools[poolName(b.licence, pool)]
	if p == nil {
		return has
	}
	limit := p.terms.Limit
	if own := b.limits[pool]; own > 0 && (limit <= 0 || own < limit) { // it may have come while this agent was away
		limit = own
	}
	if p.out <= 0 || limit <= 0 || p.out <= limit {
		return has
	}
	return int64(float64(has) * float64(limit) / float64(p.out))
}

// block is the answer: a block that may be used as long as the membership is proved.
func (b *Bound) block(me membership, began time.Duration, pool, id string, n int64) (*plugin.Block, error) {
	if err := b.fleet.lends(); err != nil {
		return nil, err
	}
	left := me.until - began
	if left <= 0 || b.fleet.cfg.Now() >= me.until {
		return nil, plugin.Transiently("the answer of the fleet came too late: the agent's place may be another's")
	}
	out := &plugin.Block{ID: id, Pool: pool, Slots: n, For: left}
	if b.fleet.cfg.Keep > 0 && b.heldTTL(pool) >= me.span.Seconds() {
		out.Keep = max(0, me.held-windDown-began)
	}
	return out, nil
}

// heldTTL returns for how long others are told to wait for what is held of a pool, in seconds.
func (b *Bound) heldTTL(pool string) float64 {
	f := b.fleet
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.pools[poolName(b.licence, pool)].held.TTL
}

// keep proves the membership, and changes nothing.
func (b *Bound) keep(ctx context.Context, pool, id string) (*plugin.Block, error) {
	f := b.fleet
	began := f.cfg.Now()
	me, err := f.ready(ctx, false)
	if err != nil {
		return nil, err
	}
	f.mu.Lock()
	p := f.pools[poolName(b.licence, pool)]
	n, ok := p.held.Blocks[id]
	known := p.known && p.held.Incarnation == me.incarnation && p.held.Left == nil
	if ok {
		p.touched[id] = began
	}
	f.mu.Unlock()
	switch {
	case !known: // the membership is a new one
		if err := b.fetch(ctx, pool); err != nil {
			return nil, err
		}
		if _, n, _ = b.find(id); n == 0 {
			return nil, lapsed()
		}
	case !ok:
		return nil, lapsed()
	}
	return b.block(me, began, pool, id, n)
}

// again waits before a transaction is tried again that another agent's undid: at random over those who are seen to
// wait.
func (f *Fleet) again(ctx context.Context, try, contenders int) error {
	if try >= maxTries {
		return plugin.Transiently("too many agents ask for slots at the same time")
	}
	wait := time.Duration(f.cfg.Jitter() * float64(min(1+contenders, 32)*min(try+1, 4)) * float64(2*time.Millisecond))
	select {
	case <-ctx.Done():
		return f.transient(ctx.Err())
	case <-time.After(wait):
		return nil
	}
}

// grow takes more slots into a block, as many as are free of those that it lacks. has is its size.
func (b *Bound) grow(ctx context.Context, pool, id string, has, want, least, ahead int64) (*plugin.Block, error) {
	f, name := b.fleet, poolName(b.licence, pool)
	own, ok := b.limits[pool]
	if !ok {
		return nil, &plugin.Error{Class: plugin.Transient, SystemCode: plugin.SystemNoPools,
			Reason: "the fleet has no slots of " + pool + " to give: the licence names no site pool of it"}
	}
	return f.try(ctx, name, func(a *attempt) (step, error) {
		v, blocks := a.v, a.blocks
		rule := "" // that leaves the agent the least
		answer := func() (*plugin.Block, error) {
			f.touch(a.p, id, a.began)
			got, err := b.block(a.me, a.began, pool, id, blocks[id])
			if got != nil && blocks[id] < want {
				got.Elsewhere = elsewhere(rule, v)
			}
			return got, err
		}
		if s, settled, err := b.before(a, id, has > 0); settled {
			return s, err
		}
		if n, ok := blocks[id]; ok && (n >= want || has == 0) {
			return step{then: answer}, nil // the answer to the same request was lost
		}
		if f.Drained() {
			if has > 0 {
				return step{then: answer}, nil
			}
			return step{}, f.drainedError(pool)
		}
		limit := b.lowest(ctx, name, a, own)
		free, asked := v.free(f.keys.ticket(name, f.cfg.Agent), limit-v.out(blocks))
		c := &change{blocks: blocks, terms: b.terms(pool), grows: true}
		if rules := v.rules.On(pool); len(rules) > 0 {
			if a.cached {
				return step{look: true}, nil
			}
			room, err := f.ruled(ctx, name, a, rules, limit)
			if err != nil {
				return step{}, err
			}
			free, rule, c.is = room.most(limit-v.out(blocks), asked), room.rule, room.is
		}
		need := want - ahead
		take := min(want-blocks[id], free)
		if a.cached && (take < want-blocks[id] || len(v.first) > 0) {
			return step{look: true}, nil
		}
		if take <= 0 || has == 0 && take < least {
			if buried, err := f.bury(ctx, a.me, name, a.p, v); buried {
				return step{look: true}, nil
			} else if err != nil {
				return step{}, f.transient(err)
			}
			if err := f.starve(ctx, a.me, name, a.p, asked, need-blocks[id]); err != nil {
				return step{}, f.transient(err)
			}
			if has > 0 {
				return step{then: answer}, nil
			}
			return step{}, full(pool, rule, v)
		}
		blocks[id] += take
		var turn []Is
		kept := asked - take
		asked, turn, c.also = f.served(a.me, name, a.p, v, asked, take, blocks[id] >= need)
		if asked == 0 && kept > 0 { // what the ticket has kept for it is others' now
			own := f.keys.ticket(name, f.cfg.Agent)
			c.also = append(c.also, f.tellBehind(own, name, v, limit-v.out(blocks))...)
		}
		c.is = append(c.is, turn...)
		return step{write: c, then: func() (*plugin.Block, error) {
			if blocks[id] < need {
				f.starve(ctx, a.me, name, a.p, asked, need-blocks[id])
			}
			return answer()
		}}, nil
	})
}

// before looks whether the blocks of an attempt may get more slots. settled says that the step is decided.
func (b *Bound) before(a *attempt, id string, has bool) (s step, settled bool, err error) {
	f := b.fleet
	if a.v.closed != nil {
		return s, true, settling(*a.v.closed, f.cfg.TTL)
	}
	// The store must name this membership for them first.
	if (len(a.blocks) > 0 || len(a.v.mine.Moved) > 0) && !a.v.assumed(a.me) {
		v := a.v
		f.mu.Lock()
		defer f.mu.Unlock()
		return step{write: &change{blocks: a.blocks, terms: a.p.namedTerms(v),
			also: f.tell(a.p.name, v, v.terms.Limit-v.out(a.blocks))}, more: true}, true, nil
	}
	if _, ok := a.blocks[id]; !ok && has {
		return s, true, lapsed()
	}
	return s, false, nil
}

// shrink gives slots back, so that a block has n; 0: none. It also writes the terms that hold here, and while more is
// out than the lowest limit, it keeps only this agent's part of that.
func (b *Bound) shrink(ctx context.Context, pool, id string, n int64) (*plugin.Block, error) {
	f, name := b.fleet, poolName(b.licence, pool)
	return f.try(ctx, name, func(a *attempt) (step, error) {
		v, blocks := a.v, a.blocks
		has, ok := blocks[id]
		if !ok {
			return step{}, lapsed()
		}
		limit := b.lowest(ctx, name, a, b.limits[pool])
		keep, out := min(n, has), v.out(blocks)
		if a.cached && (out > limit || len(v.first) > 0) {
			return step{look: true}, nil
		}
		if out > limit && !f.cfg.Lends {
			keep = min(keep, int64(float64(has)*float64(limit)/float64(out)))
		}
		if blocks[id] = keep; keep == 0 {
			delete(blocks, id)
		}
		c := &change{blocks: blocks, terms: b.terms(pool), gather: f.Drained()}
		if keep < has {
			c.also = f.tell(name, v, limit-v.out(blocks))
		}
		return step{write: c, then: func() (*plugin.Block, error) {
			if keep > 0 {
				f.touch(a.p, id, a.began)
				got, err := b.block(a.me, a.began, pool, id, keep)
				if free, _ := v.free(f.keys.ticket(name, f.cfg.Agent), limit-v.out(blocks)); got != nil && !a.cached {
					got.Wanted = max(0, -free) // others wait for more than is free now
				}
				return got, err
			}
			if n > 0 {
				return nil, lapsed()
			}
			return nil, nil
		}}, nil
	})
}

func (f *Fleet) touch(p *pool, id string, at time.Duration) {
	f.mu.Lock()
	defer f.mu.Unlock()
	p.touched[id] = at
}

// lowest returns the limit that holds: the lowest that a living block names, and this agent's own. The terms rise only
// when no block names the lower document any more.
func (b *Bound) lowest(ctx context.Context, name string, a *attempt, own int64) int64 {
	v := a.v
	if v.termsKV.Mod == 0 || own <= v.terms.Limit {
		return own
	}
	if a.cached {
		return v.terms.Limit
	}
	f := b.fleet
	res, err := f.cfg.Store.Txn(ctx, &Txn{Kind: KindTerms, Then: []Op{{List: f.keys.blocks(name)}}})
	if err != nil {
		return v.terms.Limit
	}
	lowest := terms{own, b.document}
	for _, kv := range res.Got[0] {
		if h, err := read[held](kv, true); err != nil {
			return v.terms.Limit
		} else if h.sum() > 0 && kv.Key != f.keys.block(name, f.cfg.Agent) &&
			h.Limit < lowest.Limit {
			lowest = h.terms
		}
	}
	if lowest.Limit <= v.terms.Limit {
		return v.terms.Limit
	}
	up, err := f.cfg.Store.Txn(ctx, &Txn{Kind: KindTerms, If: []Is{still(f.keys.terms(name), v.termsKV.Mod),
		{Prefix: f.keys.blocks(name), Unchanged: res.Rev}},
		Then: []Op{{Put: f.keys.terms(name), Value: text(lowest)}}})
	if err != nil || !up.Done {
		return v.terms.Limit
	}
	v.terms = lowest
	v.termsKV = KV{Key: f.keys.terms(name), Value: text(lowest), Mod: up.Rev}
	return lowest.Limit
}

// full says that others have the slots; rule is the one that leaves the agent none, or empty.
func full(pool, rule string, v *view) error {
	reason := "all slots of " + pool + " are with other hosts of the fleet, or wait for one that asked before"
	if rule != "" {
		reason = "rule " + rule + " of the fleet leaves this host no more slots of " + pool
	}
	return &plugin.Error{Class: plugin.Transient, SystemCode: plugin.SystemFull, Reason: reason,
		Elsewhere: elsewhere(rule, v)}
}

// elsewhere says what other agents have, to one that gets fewer slots than it asked for.
func elsewhere(rule string, v *view) *plugin.Elsewhere {
	return &plugin.Elsewhere{Out: max(0, v.net()-v.mine.sum()), Rule: rule}
}
