package fleet

import (
	"cmp"
	"context"
	"hash/fnv"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Where many agents change their blocks of a pool at the same time, each of them would undo the others' transactions if
// all compared the one total. So free slots are set aside in up to 15 shares of the total. A share has slots that are
// free, and the total counts them as out:
//
//	p/POOL/s = the sum of all blocks + the sum of all shares
//
// An agent that takes slots from its share, or gives them back to it, leaves the total as it is and compares that share
// alone. Versions that know no shares see their slots as out, so they cannot give one twice; what they take over from
// a dead agent they give back to the total, which is right wherever the slots came from.
//
// A share's slots may be taken while the terms and the epoch hold by which they were set aside: the total was not over
// the limit then, and nobody has taken it there since. Other shares are only given back to the total.
//
// Shares are made where others undo transactions, and not before. Nothing is set aside while anybody waits.

// Bounds of the shares.
const (
	maxShards  = 16 // the total is one of them
	shardLeast = 16 // slots of the limit for each
	// racedLately is for how long an agent sets slots aside once others have undone a transaction of its.
	racedLately = 10 * time.Second
)

// spread is how a total is spread over shares, see shard.go. Tests make it another.
type spread struct {
	none  bool  // it is not, as in earlier versions
	eager bool  // also where nobody undoes transactions
	least int64 // slots of the limit for each share
}

// shards returns over how many keys a total may be spread.
func (f *Fleet) shards(limit int64) int { return int(max(1, min(maxShards, limit/f.cfg.spread.least))) }

// home returns the share that the agent uses; 0: it uses the total alone.
func (f *Fleet) home(name string, limit int64) int {
	n := f.shards(limit) - 1
	if n == 0 || f.cfg.spread.none {
		return 0
	}
	h := fnv.New32a()
	h.Write([]byte(f.cfg.Agent + "/" + name))
	return 1 + int(h.Sum32()%uint32(n))
}

// seenShare is a share as the store has it.
type seenShare struct {
	kv KV
	share
}

// readShares reads the shares of a pool, by number.
func (k keys) readShares(name string, kvs []KV) (map[int]seenShare, error) {
	all := make(map[int]seenShare, len(kvs))
	for _, kv := range kvs {
		x, err := read[share](kv, true)
		if err != nil {
			return nil, err
		}
		if n, err := strconv.Atoi(strings.TrimPrefix(kv.Key, k.shares(name))); err == nil {
			all[n] = seenShare{kv, x}
		}
	}
	return all, nil
}

// free adds up the slots of shares.
func freeOf(shares map[int]seenShare) (n int64) {
	for _, x := range shares {
		n += x.Free
	}
	return n
}

// usable reports whether slots may be taken from a share.
func (v *view) usable(x seenShare) bool {
	return x.kv.Mod > 0 && x.Terms == v.termsKV.Mod && x.Epoch == v.store.Epoch
}

// placing is where slots come from and go to: the new total, and the shares that change.
type placing struct {
	total  int64
	rests  bool          // on the total as it was
	shares map[int]int64 // free slots, by number
}

// place returns where delta more slots of the agent's blocks come from, or go to where it is negative. limit is the
// one that holds. The caller has seen that there are as many free slots.
func (f *Fleet) place(name string, v *view, delta, limit int64, c *change, raced bool) placing {
	waits := v.waits(f.keys.ticket(name, f.cfg.Agent))
	gather := c.gather || v.setsTerms(c) || waits && delta < 0 // those that wait may know of the total alone
	at, parts := f.home(name, limit), 2*int64(f.shards(limit))
	own, most := v.shares[at], max(1, limit/parts)
	p := placing{total: v.total.Out, shares: map[int]int64{}}
	if left := own.Free - delta; at > 0 && !gather && v.usable(own) && delta != 0 && left >= 0 &&
		(delta > 0 || left <= most) {
		p.shares[at] = left
		return p
	}
	p.total += delta
	p.rests = delta != 0
	for n, x := range v.shares {
		if x.Free > 0 && (gather || !v.usable(x)) {
			p.shares[n] = 0
			p.total -= x.Free
		}
	}
	if delta <= 0 {
		return p
	}
	order := slices.SortedFunc(maps.Keys(v.shares), func(a, b int) int {
		return cmp.Or(cmp.Compare(b2i(b == at), b2i(a == at)), cmp.Compare(v.shares[b].Free, v.shares[a].Free),
			cmp.Compare(a, b))
	})
	for _, n := range order { // of all shares, where the total has too few
		if _, gone := p.shares[n]; !gone && p.total > limit && v.shares[n].Free > 0 {
			take := min(v.shares[n].Free, p.total-limit)
			p.shares[n], p.total = v.shares[n].Free-take, p.total-take
		}
	}
	if at > 0 && raced && !waits && !gather && v.termsKV.Mod > 0 && c.grows {
		has := p.has(v, at)
		if more := min(most-has, limit-p.total, max(1, (limit-p.total)/parts)); more > 0 {
			p.shares[at], p.total = has+more, p.total+more
		}
	}
	return p
}

func b2i(b bool) int {
	if b {
		return 1
	}
	return 0
}

// has returns how many free slots a share has then.
func (p *placing) has(v *view, n int) int64 {
	if has, changed := p.shares[n]; changed {
		return has
	}
	return v.shares[n].Free
}

// write returns what a transaction compares and writes for it.
func (p *placing) write(k keys, name string, v *view) (is []Is, ops []Op) {
	writes := p.total != v.total.Out || v.totalKV.Mod == 0
	if writes || p.rests {
		is = append(is, same(v.totalKV))
	}
	if writes {
		ops = append(ops, Op{Put: k.total(name), Value: text(total{p.total})})
	}
	for _, n := range slices.Sorted(maps.Keys(p.shares)) {
		key, was := k.share(name, n), v.shares[n].kv
		was.Key = key
		is = append(is, same(was))
		switch free := p.shares[n]; {
		case free == 0 && !v.usable(v.shares[n]):
			ops = append(ops, Op{Delete: key})
		default:
			ops = append(ops, Op{Put: key, Value: text(share{free, v.termsKV.Mod, v.store.Epoch})})
		}
	}
	return is, ops
}

// after returns the shares once it is written, at a revision.
func (p *placing) after(k keys, name string, v *view, rev int64) map[int]seenShare {
	if len(p.shares) == 0 {
		return v.shares
	}
	all := maps.Clone(v.shares)
	for n, free := range p.shares {
		if free == 0 && !v.usable(v.shares[n]) {
			delete(all, n)
			continue
		}
		x := share{free, v.termsKV.Mod, v.store.Epoch}
		kv := KV{Key: k.share(name, n), Value: text(x), Mod: rev}
		all[n] = seenShare{kv, x}
	}
	return all
}

// gather gives the slots of all shares of a pool back to the total, for those that know of that alone.
func (f *Fleet) gather(ctx context.Context) {
	f.mu.Lock()
	var due []string
	for name, p := range f.pools {
		if p.gather {
			p.gather, due = false, append(due, name)
		}
	}
	f.mu.Unlock()
	for _, name := range due {
		// What fails is tried again at the next word.
		f.try(ctx, name, func(a *attempt) (step, error) {
			if a.cached {
				return step{look: true}, nil
			}
			if freeOf(a.v.shares) == 0 || !a.v.assumed(a.me) {
				return step{}, nil
			}
			f.mu.Lock()
			terms := a.p.namedTerms(a.v)
			f.mu.Unlock()
			return step{write: &change{blocks: a.blocks, terms: terms, gather: true,
				also: f.tell(name, a.v, a.v.terms.Limit-a.v.out(a.blocks))}}, nil
		})
	}
}
