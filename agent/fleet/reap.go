package fleet

import (
	"context"
	"slices"
	"strings"
	"time"
)

// A leased key that has gone does not show that its agent's fence is over: a member of the store that led once and was
// stopped ends leases as soon as it goes on, also those that a new leader has renewed (etcd before 3.4.31 and 3.5.13),
// and a leader's clock may go wrong. What an agent's fence rests on is that it has read its own key after it renewed.
// So whoever takes blocks over waits on its own clock for as long as a fence lasts, counted from when the key was gone.
//
// Nobody starves for longer than need be: an agent notes which revision the store had at which time, and asks the store
// whether the key was gone at an earlier one already.

// mark is a revision that the store had by a time on the clock of the fence.
type mark struct {
	rev int64
	at  time.Duration
}

// sighting is when a dead agent's blocks were first seen here without its key.
type sighting struct {
	mod int64 // the revision of the blocks
	at  time.Duration
}

// Bounds of the marks: those of the last hour, three in a lease's time.
const maxMarks, oldestMark = 512, time.Hour

// mark notes the store's revision. mu is held.
func (f *Fleet) mark(rev int64, now time.Duration) {
	if n := len(f.marks); n > 0 && (rev <= f.marks[n-1].rev || now-f.marks[n-1].at < f.cfg.TTL/16) {
		return
	}
	f.marks = append(f.marks, mark{rev, now})
	drop := max(0, len(f.marks)-maxMarks)
	for drop < len(f.marks)-1 && now-f.marks[drop].at > oldestMark {
		drop++
	}
	f.marks = slices.Delete(f.marks, 0, drop)
}

// dead is an agent without a leased key that has blocks of a pool.
type dead struct {
	id   string
	kv   KV
	held held
	wait time.Duration // for how long its fence may last
}

// bury takes over the blocks of agents that are dead, and reports whether it did. An error means that it could not.
func (f *Fleet) bury(ctx context.Context, me membership, name string, p *pool, v *view) (buried bool, err error) {
	now := f.cfg.Now()
	f.mu.Lock()
	due := p.reaped == 0 || now-p.reaped >= f.cfg.TTL/8
	if due {
		p.reaped = now
	}
	was := p.reapErr
	f.mu.Unlock()
	if !due {
		return false, was
	}
	defer func() {
		f.mu.Lock()
		p.reapErr = err
		f.mu.Unlock()
	}()
	gone, err := f.gone(ctx, name, p)
	if err != nil {
		return false, err
	}
	for _, d := range f.over(ctx, p, gone) {
		out := total{v.total.Out - d.held.sum()}
		var res *Result
		if res, err = f.cfg.Store.Txn(ctx,
			&Txn{Kind: KindReap, If: []Is{absent(f.keys.agent(d.id)), absent(f.keys.hold(d.id)),
				absent(f.keys.quarantine()), still(d.kv.Key, d.kv.Mod), still(f.keys.total(name), v.totalKV.Mod),
				still(f.keys.cluster(), v.storeKV.Mod), has(f.keys.agent(f.cfg.Agent), me.value)},
				Then: []Op{{Put: f.keys.total(name), Value: text(out)}, {Delete: d.kv.Key}}}); err != nil || !res.Done {
			break
		}
		v.total, v.totalKV.Mod, buried = out, res.Rev, true
		f.cfg.Observer.Reaped(d.held.sum())
		f.cfg.Log.Info("the slots of an agent that is gone are free", "pool", name, "agent", d.id, "slots",
			d.held.sum())
	}
	if buried {
		f.mu.Lock()
		p.reaped = 0
		f.mu.Unlock()
		if ops := f.tell(name, v, v.terms.Limit-v.total.Out); len(ops) > 0 { // others may be first in turn
			f.cfg.Store.Txn(ctx, &Txn{Kind: KindWait, Then: ops})
		}
	}
	return buried, err
}

// gone returns the agents that have blocks and no leased key.
func (f *Fleet) gone(ctx context.Context, name string, p *pool) (all []dead, err error) {
	res, err := f.cfg.Store.Txn(ctx,
		&Txn{Kind: KindReap, Then: []Op{{List: f.keys.blocks(name)}, {List: f.keys.agents()}}})
	if err != nil {
		return nil, err
	}
	lives := map[string]bool{}
	for _, kv := range res.Got[1] {
		lives[strings.TrimPrefix(kv.Key, f.keys.agents())] = true
	}
	now, seen := f.cfg.Now(), map[string]sighting{}
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, kv := range res.Got[0] {
		id := strings.TrimPrefix(kv.Key, f.keys.blocks(name))
		h, err := read[held](kv, true)
		if lives[id] || id == f.cfg.Agent || err != nil {
			continue
		}
		seen[id] = sighting{kv.Mod, now}
		if was := p.gone[id]; was.mod == kv.Mod {
			seen[id] = was
		}
		wait := max(f.cfg.TTL, time.Duration(h.TTL*float64(time.Second)))
		all = append(all, dead{id, kv, h, wait})
	}
	p.gone = seen
	return all, nil
}

// over returns those of the dead whose fence is over.
func (f *Fleet) over(ctx context.Context, p *pool, all []dead) (out []dead) {
	next := time.Duration(0)
	defer func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		p.overAt = next
	}()
	for _, d := range all {
		now := f.cfg.Now()
		f.mu.Lock()
		first := p.gone[d.id].at
		var then mark
		for _, m := range f.marks {
			if now-m.at >= d.wait && m.rev >= d.kv.Mod {
				then = m
			}
		}
		f.mu.Unlock()
		if now-first < d.wait {
			if at := first + d.wait; next == 0 || at < next {
				next = at
			}
			if then.rev == 0 {
				continue
			}
			// If the agent had been back since, it would have written its blocks again.
			res, err := f.cfg.Store.Txn(ctx, &Txn{Kind: KindReap, Then: []Op{{Get: f.keys.agent(d.id), Rev: then.rev}}})
			if err != nil { // that revision has been compacted away
				continue
			}
			if _, there := res.one(0); there {
				continue
			}
		}
		out = append(out, d)
	}
	return out
}
