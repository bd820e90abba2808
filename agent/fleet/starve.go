package fleet

import (
	"cmp"
	"context"
	"slices"
	"strings"
	"time"
)

// Bounds of what an agent does that waits for slots.
const (
	callEvery  = time.Second // the least time between words to those who have slots
	mostCalled = 16          // agents, at one time
	staleAfter = 6 * time.Second
)

// free returns how many of the free slots an agent may take: less what agents wait for that asked before.
func (v *view) free(ticketKey string, free int64) int64 {
	for _, kv := range v.first {
		if kv.Key == ticketKey {
			break
		}
		if t, err := read[ticket](kv, true); err == nil {
			free -= max(0, t.Slots)
		}
	}
	return free
}

// starve has the agent wait in turn for n slots, and asks others for their idle ones. It is a help only: an error means
// that the next try does it.
func (f *Fleet) starve(ctx context.Context, me membership, name string, p *pool, n int64) {
	if n <= 0 {
		return // nobody needs them yet
	}
	now := f.cfg.Now()
	f.mu.Lock()
	p.askedAt = now
	ask, call := p.asked != n, now-p.called >= callEvery || p.called == 0
	if call {
		p.called = now
	}
	f.mu.Unlock()
	var ops []Op
	if ask {
		ops = append(ops, Op{Put: f.keys.ticket(name, f.cfg.Agent), Value: text(ticket{n}), Lease: me.lease})
	}
	if call {
		ops = append(ops, f.callOthers(ctx, me, name, n)...)
	}
	if len(ops) == 0 {
		return
	}
	res, err := f.cfg.Store.Txn(ctx,
		&Txn{Kind: KindWait, If: []Is{has(f.keys.agent(f.cfg.Agent), me.value)}, Then: ops})
	if err == nil && res.Done && ask {
		f.mu.Lock()
		p.asked = n
		f.mu.Unlock()
	}
}

// tidy gives back what is over, and takes the agent out of the turn for pools that it has not asked for lately, until
// ctx ends.
func (f *Fleet) tidy(ctx context.Context) {
	tick := time.NewTicker(staleAfter / 3)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-f.asks:
			f.sayUse(ctx)
		case <-f.gathers:
			f.gather(ctx)
		case <-tick.C:
			f.sweep(ctx)
			f.census(ctx)
			f.leaveTurn(ctx, func(name string, p *pool) bool { return f.cfg.Now()-p.askedAt >= staleAfter })
		}
	}
}

// leaveTurn takes the agent out of the turn for the pools that over names. mu is held for it.
func (f *Fleet) leaveTurn(ctx context.Context, over func(name string, p *pool) bool) {
	f.mu.Lock()
	var ops []Op
	for name, p := range f.pools {
		if p.asked > 0 && over(name, p) && len(ops) < maxGets {
			p.asked = 0
			ops = append(ops, Op{Delete: f.keys.ticket(name, f.cfg.Agent)})
		}
	}
	f.mu.Unlock()
	if len(ops) > 0 {
		// What is not taken out now goes when the agent next gets slots, or with its lease.
		f.cfg.Store.Txn(ctx, &Txn{Kind: KindWait, Then: ops})
	}
}

// callOthers returns the words to agents that have slots, those with the most first.
func (f *Fleet) callOthers(ctx context.Context, me membership, name string, n int64) (ops []Op) {
	res, err := f.cfg.Store.Txn(ctx, &Txn{Kind: KindWait, Then: []Op{{List: f.keys.blocks(name)}}})
	if err != nil {
		return nil
	}
	type other struct {
		id string
		n  int64
	}
	var others []other
	for _, kv := range res.Got[0] {
		id := strings.TrimPrefix(kv.Key, f.keys.blocks(name))
		if h, err := read[held](kv, true); err == nil && id != f.cfg.Agent && h.sum() > 0 {
			others = append(others, other{id, h.sum()})
		}
	}
	slices.SortFunc(others, func(a, b other) int { return cmp.Or(cmp.Compare(b.n, a.n), cmp.Compare(a.id, b.id)) })
	if len(others) > mostCalled { // half of them those with the most, half at random
		rest := others[mostCalled/2:]
		for i := range mostCalled / 2 {
			j := i + int(f.cfg.Jitter()*float64(len(rest)-i-1))
			rest[i], rest[j] = rest[j], rest[i]
		}
		others = others[:mostCalled]
	}
	for _, o := range others {
		ops = append(ops, Op{Put: f.keys.word(o.id, name), Value: text(word{Wanted: n, Shares: true}), Lease: me.lease})
	}
	return ops
}

// served returns what ends the agent's ticket.
func (f *Fleet) served(name string, p *pool, v *view) []Op {
	f.mu.Lock()
	defer f.mu.Unlock()
	p.asked = 0
	key := f.keys.ticket(name, f.cfg.Agent)
	if slices.ContainsFunc(v.first, func(kv KV) bool { return kv.Key == key }) {
		return []Op{{Delete: key}}
	}
	return nil
}

// tell returns the words to those who wait first for the slots that are free.
func (f *Fleet) tell(name string, v *view, free int64) (ops []Op) {
	for _, kv := range v.first {
		t, err := read[ticket](kv, true)
		id := strings.TrimPrefix(kv.Key, f.keys.tickets(name))
		if err != nil || id == f.cfg.Agent {
			continue
		}
		if free <= 0 || len(ops) >= mostCalled {
			break
		}
		ops = append(ops, Op{Put: f.keys.word(id, name), Value: text(word{Free: min(free, t.Slots)})})
		free -= t.Slots
	}
	return ops
}
