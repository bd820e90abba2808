package fleet

import (
	"context"
	"strings"

	"github.com/usher-agent/usher/plugin"
)

// Extend proves that the agent lives, which costs the store no write, and gives the block another size if asked to.
func (b *Bound) Extend(ctx context.Context, r *plugin.Extend) (*plugin.Block, error) {
	if !strings.HasPrefix(r.Block, blockPrefix) && b.own != nil {
		return b.own.Extend(ctx, r)
	}
	name, n, known := b.find(r.Block)
	if name == "" && known {
		return nil, lapsed()
	}
	if name == "" { // after a restart: the block is one of these, or over
		for pool := range b.limits {
			if err := b.fetch(ctx, pool); err != nil {
				return nil, err
			}
		}
		if name, n, _ = b.find(r.Block); name == "" {
			return nil, lapsed()
		}
	}
	want := r.Slots
	if want == 0 {
		want = n
	}
	var got *plugin.Block
	var err error
	switch {
	case want > n && b.unstated(name): // a lower limit must not wait until there is more to get
		got, err = b.shrink(ctx, name, r.Block, n)
	case want > n:
		got, err = b.grow(ctx, name, r.Block, n, want, n, r.Ahead)
	case want < n:
		got, err = b.shrink(ctx, name, r.Block, want)
	case b.outdated(name):
		if got, err = b.shrink(ctx, name, r.Block, want); err != nil && b.safeUnwritten(name) {
			// What others are to hear waits until the store takes writes.
			if kept, e := b.keep(ctx, name, r.Block); e == nil {
				got, err = kept, nil
			}
		}
	default:
		got, err = b.keep(ctx, name, r.Block)
	}
	if got != nil && got.Slots > want { // the store knew of more than this agent did
		got, err = b.shrink(ctx, name, r.Block, want)
	}
	if got != nil {
		got.State = r.State
	}
	return got, err
}

// outdated reports whether a pool's blocks are to be written again: see unstated; or more is out than the limit, which
// was lowered.
func (b *Bound) outdated(pool string) bool {
	f := b.fleet
	f.mu.Lock()
	p := f.pools[poolName(b.licence, pool)]
	over := p.terms.Limit < p.out
	f.mu.Unlock()
	return over || b.unstated(pool)
}

// unstated reports whether another document holds here than a pool's blocks name, or others must wait for longer now.
func (b *Bound) unstated(pool string) bool {
	f := b.fleet
	f.mu.Lock()
	defer f.mu.Unlock()
	p := f.pools[poolName(b.licence, pool)]
	return p.restate || p.held.terms != b.terms(pool) || p.held.TTL < f.me.span.Seconds()
}

// safeUnwritten reports whether a pool's blocks may be used on although what they say is out of date: nobody who reads
// them takes them over too soon.
func (b *Bound) safeUnwritten(pool string) bool {
	f := b.fleet
	f.mu.Lock()
	defer f.mu.Unlock()
	p := f.pools[poolName(b.licence, pool)]
	return !p.restate && p.unsure == 0 && p.held.TTL >= f.me.span.Seconds()
}
