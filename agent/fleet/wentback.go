package fleet

import "context"

// A backup that is restored within one cluster has the cluster's id, and once others have written enough, a revision
// no earlier than any that an agent has seen. Yet it lacks what agents have written since the backup was made: nobody
// else changes an agent's block before its fence is over, and the revision of a key only grows. So each heartbeat reads
// the agent's own blocks, each look at a pool compares the block there, and each draw the draws before it.

// reasonLacks is why a quarantine begins that this shows.
const reasonLacks = "the store was restored from a backup: it lacks what an agent has written"

// knownMods returns the revisions of the agent's own blocks in these pools, as they are known before a call to the
// store. Take what was last seen of the store before that.
func (f *Fleet) knownMods(names []string) map[string]int64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	out := make(map[string]int64, len(names))
	for _, name := range names {
		if p := f.pools[name]; p != nil {
			out[name] = p.mod
		}
	}
	return out
}

// knownMod is [Fleet.knownMods] of one pool.
func (f *Fleet) knownMod(name string) int64 { return f.knownMods([]string{name})[name] }

// lacking reports whether an answer lacks the agent's block in a pool as the agent knew it before the call. now is the
// block's revision in the answer; 0: there is none, which others may have done once the fence was over, and this agent
// itself during the call.
func (f *Fleet) lacking(name string, known, now int64) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	p := f.pools[name]
	switch {
	case p == nil || known <= 0:
		return false
	case now == 0:
		return p.mod == known && f.cfg.Now() < f.until
	}
	return now < known
}

// changed has the agent read its block in a pool again where an answer has a later one than the agent knew before the
// call, and knows still: a change that it had given up was done after all.
func (f *Fleet) changed(name string, known, now int64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if p := f.pools[name]; p != nil && known > 0 && p.mod == known && now > known {
		p.known, p.view = false, nil
	}
}

// unwrite takes note that the agent's block in a pool is about to be deleted: whether it is there is not known until
// the answer comes.
func (f *Fleet) unwrite(p *pool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	p.mod = 0
}

// meanwhile is what stands for a known revision in a look at a pool while others of this process may change it: the
// look tells nothing of the agent's block.
const meanwhile = -1

// sees takes note of the agent's block in a view, and reports whether the view is of the epoch that holds. known is by
// [Fleet.knownMod], or meanwhile.
func (f *Fleet) sees(name string, v *view, known int64) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if v.store.Epoch != f.seen.Epoch {
		return false
	}
	if p := f.pools[name]; p != nil && known != meanwhile {
		if v.mineKV.Mod > p.mod { // a change that it had given up was done after all: see changed
			p.known = false
		}
		p.mod = v.mineKV.Mod
	}
	return true
}

// complete begins a quarantine where the store lacks what the agent has written. kv is the key c in its answer, and was
// what had been seen before.
func (f *Fleet) complete(ctx context.Context, kv KV, was seen, lacks bool) error {
	is, err := read[identity](kv, kv.Mod > 0)
	if err != nil || !lacks || is.Epoch != was.Epoch || is.Epoch != f.lastSeen().Epoch {
		return nil // what cannot be read is an error elsewhere; a quarantine has begun already
	}
	return f.quarantine(ctx, kv, is, reasonLacks)
}

// beheld takes note of what a heartbeat has read of pools, from the second answer on, and reports whether the store
// lacks a block of the agent there; known is by [Fleet.knownMods].
func (f *Fleet) beheld(res *Result, names []string, known map[string]int64) (lacks bool) {
	for i, name := range names {
		at := 1 + readsInUse*i
		kv, ok := res.one(at)
		t, err := read[terms](kv, ok)
		kv, _ = res.one(at + 1)
		out, errOut := read[total](kv, ok)
		shares, errShares := f.keys.readShares(name, res.Got[at+2])
		mine, _ := res.one(at + 3)
		lacks = lacks || f.lacking(name, known[name], mine.Mod)
		f.changed(name, known[name], mine.Mod)
		if err == nil && errOut == nil && errShares == nil && ok {
			f.told(name, t, out.Out-freeOf(shares))
		}
	}
	return lacks
}
