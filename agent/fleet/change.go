package fleet

import (
	"context"
	"slices"
	"time"

	"github.com/usher-agent/usher/enforcer"
	"github.com/usher-agent/usher/plugin"
)

// view is a pool as the store had it at one revision, or as this agent's own writes have left it since.
type view struct {
	store  identity
	total  total
	shares map[int]seenShare // of the total, by number; it is not changed
	terms  terms
	mine   held
	former map[string]former // as held.Former, without what is over by now
	went   map[string]moved  // as held.Went, with what has moved since, and without what is over by now
	first  []KV              // the tickets, first made first
	closed *quarantine       // nil: there is none
	rev    int64             // the tickets are as of this revision
	unsure bool              // a change of the agent's blocks may be done still that the view does not have
	// As the store has them; without a value and Mod where there is no such key.
	storeKV, totalKV, termsKV, mineKV KV
	rules                             enforcer.SiteRules // of all pools
	rulesKV                           KV
}

// same says that a key has the value that it had: with a value that somebody else has written again, all that rests on
// it is as it was.
func same(kv KV) Is {
	if kv.Mod == 0 {
		return absent(kv.Key)
	}
	return has(kv.Key, kv.Value)
}

// maxTickets is how many tickets are read: the slots that those before one's own ask for are not free.
const maxTickets = 64

// reads are what a view of a pool is made of.
func (f *Fleet) reads(name string) []Op {
	return []Op{{Get: f.keys.cluster()}, {Get: f.keys.quarantine()}, {Get: f.keys.total(name)},
		{Get: f.keys.terms(name)}, {Get: f.keys.block(name, f.cfg.Agent)},
		{List: f.keys.tickets(name), Most: maxTickets}, {List: f.keys.shares(name)},
		{Get: f.keys.rules()}}
}

// look reads a pool.
func (f *Fleet) look(ctx context.Context, name string) (*view, error) {
	for {
		was, known := f.lastSeen(), f.knownMod(name)
		res, err := f.cfg.Store.Txn(ctx, &Txn{Kind: KindRead, Then: f.reads(name)})
		if err != nil {
			return nil, f.transient(err)
		}
		v, err := f.seeing(ctx, name, res, was, known)
		if v != nil || err != nil {
			return v, err
		}
	}
}

// seeing makes a view of what was read. It is nil where this agent has just begun a quarantine, which is not in what
// was read. was is what had been seen of the store before, and known the revision
// of the agent's block that it had then.
func (f *Fleet) seeing(ctx context.Context, name string, res *Result, was seen, known int64) (*view, error) {
	if err := f.sane(ctx, res, was); err != nil {
		return nil, err
	}
	v := &view{rev: res.Rev, first: res.Got[5]}
	at := func(i int, key string) KV {
		kv, _ := res.one(i)
		kv.Key = key
		return kv
	}
	v.storeKV, v.totalKV = at(0, f.keys.cluster()), at(2, f.keys.total(name))
	v.termsKV, v.mineKV = at(3, f.keys.terms(name)), at(4, f.keys.block(name, f.cfg.Agent))
	v.rulesKV = at(7, f.keys.rules())
	q, closed := res.one(1)
	var errs [7]error
	v.store, errs[0] = read[identity](v.storeKV, v.storeKV.Mod > 0)
	v.total, errs[1] = read[total](v.totalKV, v.totalKV.Mod > 0)
	v.terms, errs[2] = read[terms](v.termsKV, v.termsKV.Mod > 0)
	v.mine, errs[3] = read[held](v.mineKV, v.mineKV.Mod > 0)
	v.shares, errs[4] = f.keys.readShares(name, res.Got[6])
	v.rules, errs[6] = readRules(v.rulesKV)
	if closed {
		v.closed = new(quarantine)
		*v.closed, errs[5] = read[quarantine](q, true)
	}
	for _, err := range errs {
		if err != nil {
			return nil, plugin.Transiently("%v", err)
		}
	}
	if err := f.complete(ctx, v.storeKV, was, f.lacking(name, known, v.mineKV.Mod)); err != nil {
		return nil, err
	}
	if !f.sees(name, v, known) {
		return nil, nil
	}
	return v, nil
}

// net is how many slots all agents have: the total without what is free in its shares.
func (v *view) net() int64 { return v.total.Out - freeOf(v.shares) }

// out returns how many slots all agents have once this one has these blocks.
func (v *view) out(blocks map[string]int64) int64 {
	return v.net() - v.mine.sum() + sum(blocks) + rest(v.former)
}

// since returns since when the agent has blocks of the pool, for people.
func (v *view) since(now func() time.Time) time.Time {
	if v.mine.sum() > 0 && !v.mine.Since.IsZero() {
		return v.mine.Since
	}
	return now().UTC().Truncate(time.Second)
}

// waits reports whether others wait for slots.
func (v *view) waits(own string) bool {
	return slices.ContainsFunc(v.first, func(kv KV) bool { return kv.Key != own })
}

// setsTerms reports whether a change lowers the terms, or is the first to name any: the lowest wins at once.
func (v *view) setsTerms(c *change) bool {
	return c.terms.Limit > 0 && sum(c.blocks)+rest(v.former) > 0 &&
		(v.termsKV.Mod == 0 || c.terms.Limit < v.terms.Limit)
}

// change is what one transaction makes of the agent's blocks of a pool.
type change struct {
	blocks map[string]int64
	terms  terms
	grows  bool   // there must be no quarantine
	adopts string // the part that comes from another agent's blocks; empty: none does
	moved  int64  // slots of the blocks that come from another agent's, and are in the total already
	gather bool   // the shares' slots go back to the total
	also   []Op   // in the same transaction
	is     []Is   // likewise
	// left is what the agent had lent when it stopped lending; nil: it goes on.
	left map[string]int64
}

// attempt is one try at a change.
type attempt struct {
	p      *pool
	me     membership
	v      *view
	blocks map[string]int64 // that the agent goes on with; it may be changed
	began  time.Duration
	cached bool // v is what this agent last saw: others may have changed the pool since
}

// step is what becomes of an attempt.
type step struct {
	look  bool    // the pool must be read again
	write *change // nil: nothing is written
	then  func() (*plugin.Block, error)
	more  bool // another attempt follows what is written
}

// try tries a change of the agent's blocks of a pool until it is done. decide says what an attempt comes to.
//
// The first attempt goes by what this agent last saw of the pool, where that has lately been so still: then it takes
// one round trip. The transaction compares all that it rests on, and reads the pool where that has changed.
//
// An agent that has stopped lending changes nothing.
func (f *Fleet) try(ctx context.Context, name string, decide func(*attempt) (step, error)) (*plugin.Block,
	error) {
	return f.tryAlso(ctx, name, func(a *attempt) (step, error) {
		if err := f.lends(); err != nil {
			return step{}, err
		}
		return decide(a)
	})
}

// tryAlso is try, also once the agent has stopped lending.
func (f *Fleet) tryAlso(ctx context.Context, name string, decide func(*attempt) (step, error)) (*plugin.Block,
	error) {
	p := f.named(name)
	if err := p.calls.take(ctx); err != nil {
		return nil, f.transient(err)
	}
	defer p.calls.give()
	a := &attempt{p: p}
	for try := 0; ; {
		var err error
		a.began = f.cfg.Now()
		if a.me, err = f.ready(ctx, false); err != nil {
			return nil, err
		}
		if try == 0 && a.v == nil {
			a.v = f.lastView(p)
			a.cached = a.v != nil
		}
		if a.v == nil {
			if a.v, err = f.look(ctx, name); err != nil {
				return nil, err
			}
			f.compare(p, a.v)
		}
		f.mayCome(p, a.v)
		a.blocks = f.mine(a.me, p, a.v)
		s, err := decide(a)
		switch {
		case err != nil:
			return nil, err
		case s.look:
			a.v, a.cached, try = nil, false, try+1
			continue
		case s.write == nil && s.then == nil:
			return nil, nil
		case s.write == nil:
			return s.then()
		}
		done, now, err := f.write(ctx, a, name, s.write)
		switch {
		case err != nil:
			return nil, err
		case done && !s.more && s.then == nil:
			return nil, nil
		case done && !s.more:
			return s.then()
		}
		wasCached := a.cached
		a.v, a.cached = now, false
		if try++; done || wasCached && now != nil {
			continue // at once
		}
		a.v = nil
		if err := f.again(ctx, try, contenders(now)); err != nil {
			return nil, err
		}
	}
}

// mayCome says in a view whether a change of the agent's blocks may come late.
func (f *Fleet) mayCome(p *pool, v *view) {
	f.mu.Lock()
	defer f.mu.Unlock()
	v.unsure = p.unsure != 0
}

func contenders(v *view) int {
	if v == nil {
		return 0
	}
	return len(v.first)
}

// lastView returns the pool as this agent last saw it; nil: it must look.
func (f *Fleet) lastView(p *pool) *view {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !p.known || p.restate || p.unsure != 0 || p.view == nil || p.view.closed != nil || p.busy > 0 || p.asked > 0 {
		return nil
	}
	v := *p.view
	return &v
}

// mostBusy is how many looks must find nothing new before the agent goes by what it last saw again.
const mostBusy = 4

// compare takes note whether what this agent last saw of a pool would have served.
func (f *Fleet) compare(p *pool, v *view) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if was := p.view; was != nil {
		at := f.home(p.name, v.terms.Limit)
		if was.totalKV.Value != v.totalKV.Value && (at == 0 || was.shares[at].kv.Value != v.shares[at].kv.Value) {
			p.busy = min(p.busy+1, mostBusy)
		} else {
			p.busy = max(p.busy-1, 0)
		}
	}
}
