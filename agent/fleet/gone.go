package fleet

import (
	"context"
	"maps"
	"slices"
	"strings"
	"time"
)

// Two kinds of keys outlive their agents: the one that names an agent's pools, and words for it. Where hosts come and
// go, each with a key of its own, they would fill the store. So the member that joined first deletes those of agents
// that it has not seen for an hour, by its own clock since it first saw them so. It deletes nothing of an agent that
// has a block of a pool that it names: whoever needs slots takes that over, and the keys go after it.
//
// An agent that comes back just then joins with a transaction that compares the key of its pools. Words are for agents
// that live: a lost one was for callers that are gone.

// keeping says for how long keys of agents that are gone stay.
type keeping struct {
	after time.Duration // without the agent, and unchanged
	every time.Duration // between two looks
}

// Bounds of one look.
const (
	keptAfter, keptEvery = time.Hour, 10 * time.Minute
	mostForgotten        = 64          // agents
	forgetsOn            = time.Minute // until the next look, where there were more
	mostCompared         = 100         // keys in one transaction, of which etcd takes 128 by default
)

// leftover is what an agent without a leased key has left, as this agent first saw it.
type leftover struct {
	keys  []KV
	pools []string // that it names
	at    time.Duration
}

// same reports whether two looks have found the same.
func (l *leftover) same(o *leftover) bool {
	return slices.EqualFunc(l.keys, o.keys, func(a, b KV) bool { return a.Key == b.Key && a.Mod == b.Mod })
}

// forgets is what the member that joined first knows of agents that are gone. Only tidy uses it.
type forgets struct {
	next time.Duration        // when to look again; 0: it has not begun
	of   string               // the incarnation that has looked
	left map[string]*leftover // by agent
	past time.Duration        // when to look at meters again
}

// forgetGone deletes keys of agents that are long gone, if this agent is the one to do so and the time has come.
func (f *Fleet) forgetGone(ctx context.Context) {
	now, x := f.cfg.Now(), &f.forgets
	f.mu.Lock()
	me, well, members := f.me, f.fault == nil && f.quarantined == "", f.members
	f.mu.Unlock()
	every := max(f.cfg.keeping.every, time.Duration(members)*(time.Second/10))
	if x.next == 0 {
		x.next = now + every
	}
	if !well || me.lease == 0 || now < x.next {
		return
	}
	x.next = now + every
	if first, err := f.isFirst(ctx); err != nil {
		return
	} else if !first {
		x.left = nil
		return
	}
	if now >= x.past {
		if err := f.forgetPeriods(ctx, me); err == nil {
			x.past = now + max(every, pastEvery)
		}
	}
	if x.of != me.incarnation {
		x.of, x.left = me.incarnation, nil
	}
	left, err := f.leftovers(ctx, now)
	if err != nil {
		return // what was seen stays; the next look goes on from it
	}
	for id, l := range left {
		if was := x.left[id]; was != nil && was.same(l) {
			l.at = was.at
		}
	}
	x.left = left
	forgotten := 0
	for _, id := range slices.Sorted(maps.Keys(left)) {
		if now-left[id].at < f.cfg.keeping.after {
			continue
		}
		if forgotten == mostForgotten {
			x.next = now + min(every, forgetsOn)
			break
		}
		if f.forgetAgent(ctx, me, id, left[id]) {
			forgotten++
			delete(left, id)
		}
	}
	if forgotten > 0 {
		f.cfg.Log.Info("keys of agents that are long gone were deleted from etcd", "agents", forgotten)
	}
}

// isFirst reports whether no other member joined before this one.
func (f *Fleet) isFirst(ctx context.Context) (bool, error) {
	res, err := f.cfg.Store.Txn(ctx, &Txn{Kind: KindReap, Then: []Op{{List: f.keys.agents(), Most: 1}}})
	if err != nil {
		return false, err
	}
	kv, ok := res.one(0)
	return ok && kv.Key == f.keys.agent(f.cfg.Agent), nil
}

// leftovers returns what agents without a leased key have left, at an instant.
func (f *Fleet) leftovers(ctx context.Context, now time.Duration) (map[string]*leftover, error) {
	k, out := f.keys, map[string]*leftover{}
	res, err := f.cfg.Store.Txn(ctx,
		&Txn{Kind: KindReap, Then: []Op{{List: k.agents()}, {List: k.owns(""), Most: mostKeys},
			{List: k.anyWords(), Most: mostKeys}}})
	if err != nil {
		return nil, err
	}
	lives := map[string]bool{}
	for _, kv := range res.Got[0] {
		lives[strings.TrimPrefix(kv.Key, k.agents())] = true
	}
	of := func(id string) *leftover {
		if out[id] == nil {
			out[id] = &leftover{at: now}
		}
		return out[id]
	}
	strange := map[string]bool{}
	for _, kv := range res.Got[1] {
		id := strings.TrimPrefix(kv.Key, k.owns(""))
		if o, err := read[owned](kv, true); lives[id] {
			continue
		} else if err != nil || len(o.Pools) >= mostCompared {
			strange[id] = true // of a later version, it may be
		} else {
			l := of(id)
			l.keys, l.pools = append(l.keys, kv), o.Pools
		}
	}
	for _, kv := range res.Got[2] {
		id, _, ok := strings.Cut(strings.TrimPrefix(kv.Key, k.anyWords()), "/")
		if ok && !lives[id] && !strange[id] && kv.Lease == 0 {
			if l := of(id); len(l.keys)+len(l.pools) < mostCompared {
				l.keys = append(l.keys, kv)
			}
		}
	}
	return out, nil
}

// forgetAgent deletes what an agent has left, and reports whether it did: not where the agent is back, where a key has
// changed, nor where it has a block.
func (f *Fleet) forgetAgent(ctx context.Context, me membership, id string, l *leftover) bool {
	k := f.keys
	x := &Txn{Kind: KindReap, If: []Is{has(k.agent(f.cfg.Agent), me.value), absent(k.agent(id)), absent(k.hold(id)),
		absent(k.quarantine())}}
	for _, pool := range l.pools {
		x.If = append(x.If, absent(k.block(pool, id)))
	}
	for _, kv := range l.keys {
		x.If, x.Then = append(x.If, still(kv.Key, kv.Mod)), append(x.Then, Op{Delete: kv.Key})
	}
	res, err := f.cfg.Store.Txn(ctx, x)
	return err == nil && res.Done
}
