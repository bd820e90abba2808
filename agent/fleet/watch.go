package fleet

import (
	"context"
	"strings"
	"time"

	"github.com/usher-agent/usher/plugin"
)

// listen hears the words of other agents for this one, until ctx ends.
func (f *Fleet) listen(ctx context.Context) {
	for ctx.Err() == nil {
		res, err := f.cfg.Store.Txn(ctx, &Txn{Kind: KindRead, Then: []Op{{List: f.keys.words(f.cfg.Agent)}}})
		if err == nil {
			for _, kv := range res.Got[0] {
				f.hear(kv)
			}
			for c := range f.cfg.Store.Watch(ctx, f.keys.words(f.cfg.Agent), res.Rev) {
				if !c.Deleted {
					f.hear(c.KV)
				}
			}
			if ctx.Err() == nil {
				f.cfg.Observer.WatchEnded()
			}
		}
		select {
		case <-ctx.Done():
		case <-time.After(time.Duration((0.5 + f.cfg.Jitter()) * float64(time.Second))):
		}
	}
}

// hear takes note of a word.
func (f *Fleet) hear(kv KV) {
	w, err := read[word](kv, true)
	if err != nil {
		return
	}
	name := strings.TrimPrefix(kv.Key, f.keys.words(f.cfg.Agent))
	switch name {
	case wordLook:
		ring(f.beats)
		return
	case wordAsk:
		ring(f.asks)
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	was := f.news[name]
	f.news[name] = word{Wanted: max(was.Wanted, w.Wanted), Free: max(was.Free, w.Free)}
	if p := f.pools[name]; p != nil && w.Wanted > 0 && !w.Shares {
		p.gather = true
		ring(f.gathers)
	}
	close(f.rung)
	f.rung = make(chan struct{})
}

// askAgain has those who wait for slots ask at once: what kept them from getting some is over. They would rest for a
// while otherwise, as after any call that failed.
func (f *Fleet) askAgain() {
	f.mu.Lock()
	defer f.mu.Unlock()
	for name := range f.names {
		was := f.news[name]
		f.news[name] = word{Wanted: was.Wanted, Free: max(was.Free, 1)}
	}
	close(f.rung)
	f.rung = make(chan struct{})
}

// Watch waits for words about the licence's pools.
func (b *Bound) Watch(ctx context.Context, r *plugin.Watch) (*plugin.News, error) {
	f := b.fleet
	b.lacks(r)
	b.content(ctx, r.Idle)
	if w, ok := b.own.(plugin.Watcher); ok && len(r.Idle) > 0 {
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		return b.watchBoth(ctx, w, r)
	}
	return b.watch(ctx, r, f)
}

// watchBoth waits for word of the fleet, or of the one who gives the licence's other pools.
func (b *Bound) watchBoth(ctx context.Context, w plugin.Watcher, r *plugin.Watch) (*plugin.News, error) {
	type answer struct {
		news *plugin.News
		err  error
	}
	got := make(chan answer, 2)
	go func() { n, err := w.Watch(ctx, r); got <- answer{n, err} }()
	go func() { n, err := b.watch(ctx, r, b.fleet); got <- answer{n, err} }()
	a := <-got
	if a.err != nil {
		a = <-got // the other's word counts
	}
	return a.news, a.err
}

func (b *Bound) watch(ctx context.Context, r *plugin.Watch, f *Fleet) (*plugin.News, error) {
	over := time.NewTimer(r.For)
	defer over.Stop()
	for {
		f.mu.Lock()
		rung := f.rung
		out := &plugin.News{Pools: map[string]plugin.PoolNews{}}
		for pool := range b.limits {
			name := poolName(b.licence, pool)
			if w, ok := f.news[name]; ok {
				out.Pools[pool] = plugin.PoolNews{Wanted: w.Wanted, Free: w.Free}
				delete(f.news, name)
			}
		}
		f.mu.Unlock()
		if len(out.Pools) > 0 {
			return out, nil
		}
		select {
		case <-rung:
		case <-over.C:
			return out, nil
		case <-ctx.Done():
			return nil, f.transient(ctx.Err())
		}
	}
}

// lacks takes note of the pools for which the agent keeps its turn: as long as callers wait, however seldom it asks.
func (b *Bound) lacks(r *plugin.Watch) {
	if r.Lacks == nil {
		return
	}
	f := b.fleet
	now := f.cfg.Now()
	f.mu.Lock()
	defer f.mu.Unlock()
	for pool := range b.limits {
		p := f.pools[poolName(b.licence, pool)]
		if p == nil {
			continue
		}
		if p.lackedTo = 0; r.Lacks[pool] > 0 {
			p.lackedTo = now + r.For + staleAfter
		}
	}
}

// content takes the agent out of the turn for pools of which it has idle slots: what it waited for would be kept from
// others.
func (b *Bound) content(ctx context.Context, idle map[string]int64) {
	names := map[string]bool{}
	for pool, n := range idle {
		if n > 0 {
			names[poolName(b.licence, pool)] = true
		}
	}
	b.fleet.leaveTurn(ctx, func(name string, _ *pool) bool { return names[name] })
}
