package fleet

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/usher-agent/usher/plugin"
)

// pool is what this agent knows of one pool. While the membership holds, nobody else changes the agent's blocks.
type pool struct {
	calls turn // for the calls of one change

	tally tally // of a meter; calls guards it

	// The fleet's mu guards what follows.
	known   bool // held is what the store has
	restate bool // the store may be an old copy: held is the truth
	held    held
	touched map[string]time.Duration // by block: when it was last asked for
	terms   terms                    // as last seen
	out     int64                    // slots in all, as last seen
	asked   int64                    // slots of the ticket; 0: there is none
	askedAt time.Duration
	called  time.Duration            // when idle slots were last asked of others
	reaped  time.Duration            // when the dead were last looked for
	former  map[string]time.Duration // by incarnation: when this agent first saw what it has left
	gone    map[string]sighting
}

// view is a pool as the store has it at one revision.
type view struct {
	total    total
	totalMod int64
	terms    terms
	termsMod int64
	epochMod int64 // when the store was last found to be a new one, or an old copy
	mine     held
	mineMod  int64
	former   map[string]former // as held.Former, without what is over by now
	first    []KV              // the tickets, first made first
	rev      int64
}

// named returns a pool.
func (f *Fleet) named(name string) *pool {
	f.mu.Lock()
	defer f.mu.Unlock()
	p := f.pools[name]
	if p == nil {
		p = &pool{calls: make(turn, 1), touched: map[string]time.Duration{},
			held: held{Blocks: map[string]int64{}}, gone: map[string]sighting{}}
		f.pools[name] = p
	}
	return p
}

// termsInUse returns the pools of which this agent has blocks, and for each two reads: of its terms and its total.
func (f *Fleet) termsInUse() (names []string, gets []Op) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for name, p := range f.pools {
		if len(p.held.Blocks) > 0 && len(names) < maxGets {
			names, gets = append(names, name), append(gets, Op{Get: f.keys.terms(name)}, Op{Get: f.keys.total(name)})
		}
	}
	return names, gets
}

// maxGets is how many pools one heartbeat reads: etcd takes 128 steps a transaction.
const maxGets = 60

// told takes note of the terms that hold, and of how many slots are out.
func (f *Fleet) told(name string, t terms, out int64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if p := f.pools[name]; p != nil {
		p.terms, p.out = t, out
	}
}

// look reads a pool. A quarantine is its error, unless blocks only are stated again.
func (f *Fleet) look(ctx context.Context, name string) (*view, *quarantine, error) {
	res, err := f.cfg.Store.Txn(ctx,
		&Txn{Kind: KindRead, Then: []Op{{Get: f.keys.cluster()}, {Get: f.keys.quarantine()},
			{Get: f.keys.total(name)}, {Get: f.keys.terms(name)}, {Get: f.keys.block(name, f.cfg.Agent)},
			{List: f.keys.tickets(name), Most: maxTickets}}})
	if err != nil {
		return nil, nil, f.transient(err)
	}
	if err := f.sane(ctx, res); err != nil {
		return nil, nil, err
	}
	kv, ok := res.one(0)
	if is, _ := read[identity](kv, ok); is.Epoch != f.lastSeen().Epoch {
		return f.look(ctx, name) // this agent has just begun a quarantine, which is not in what was read
	}
	v := &view{rev: res.Rev, epochMod: kv.Mod}
	var errs [4]error
	kv, ok = res.one(2)
	v.total, errs[0] = read[total](kv, ok)
	v.totalMod = kv.Mod
	kv, ok = res.one(3)
	v.terms, errs[1] = read[terms](kv, ok)
	v.termsMod = kv.Mod
	kv, ok = res.one(4)
	v.mine, errs[2] = read[held](kv, ok)
	v.mineMod = kv.Mod
	v.first = res.Got[5]
	kv, ok = res.one(1)
	q, err := read[quarantine](kv, ok)
	errs[3] = err
	for _, err := range errs {
		if err != nil {
			return nil, nil, plugin.Transiently("%v", err)
		}
	}
	if !ok {
		return v, nil, nil
	}
	return v, &q, nil
}

// readyToLook has the membership hold, and reads a pool.
func (f *Fleet) readyToLook(ctx context.Context, name string) (me membership, v *view, q *quarantine, err error) {
	if me, err = f.ready(ctx, false); err == nil {
		v, q, err = f.look(ctx, name)
	}
	return me, v, q, err
}

// maxTickets is how many tickets are read: the slots that those before one's own ask for are not free.
const maxTickets = 64

// change is what one transaction makes of the agent's blocks of a pool.
type change struct {
	blocks map[string]int64
	terms  terms
	also   []Op // in the same transaction
	is     []Is // likewise
}

// out returns how many slots are out once the agent has these blocks.
func (v *view) out(blocks map[string]int64) int64 {
	return v.total.Out - v.mine.sum() + sum(blocks) + rest(v.former)
}

// since returns since when the agent has blocks of the pool, for people.
func (v *view) since(now func() time.Time) time.Time {
	if v.mine.sum() > 0 && !v.mine.Since.IsZero() {
		return v.mine.Since
	}
	return now().UTC().Truncate(time.Second)
}

func sum(blocks map[string]int64) (n int64) {
	for _, b := range blocks {
		n += b
	}
	return n
}

// write writes a change of the agent's blocks and the total, if all is as in the view; done is false if it is not. me
// must live, and with grows there must be no quarantine.
func (f *Fleet) write(ctx context.Context, me membership, name string, v *view, c change, grows bool) (
	done bool, err error) {
	h := held{Incarnation: me.incarnation, Blocks: c.blocks, TTL: me.span.Seconds(), Since: v.since(f.cfg.Time),
		Former: v.former, terms: c.terms, Fence: f.cfg.TTL.Seconds()}
	out := v.out(c.blocks)
	is := []Is{has(f.keys.agent(f.cfg.Agent), me.value), still(f.keys.total(name), v.totalMod),
		still(f.keys.block(name, f.cfg.Agent), v.mineMod), still(f.keys.terms(name), v.termsMod),
		still(f.keys.cluster(), v.epochMod)}
	if is = append(is, c.is...); grows {
		is = append(is, absent(f.keys.quarantine()))
	}
	ops := append([]Op{{Put: f.keys.total(name), Value: text(total{out})}}, c.also...)
	if h.sum() == 0 {
		ops = append(ops, Op{Delete: f.keys.block(name, f.cfg.Agent)})
	} else {
		ops = append(ops, Op{Put: f.keys.block(name, f.cfg.Agent), Value: text(h)})
	}
	if now := c.terms; h.sum() > 0 && now.Limit > 0 && (v.termsMod == 0 || now.Limit < v.terms.Limit) {
		ops = append(ops, Op{Put: f.keys.terms(name), Value: text(now)}) // the lowest wins at once
		v.terms = now
	}
	owns, newly := f.owning(name, h.sum() > 0)
	if newly {
		ops = append(ops, Op{Put: f.keys.owns(f.cfg.Agent), Value: text(owns)})
	}
	if len(v.mine.Moved) > 0 && f.cfg.OnMoved != nil {
		if err := f.cfg.OnMoved(name, slices.Sorted(maps.Keys(v.mine.Moved))); err != nil {
			return false, plugin.Transiently("%v", err)
		}
	}
	res, err := f.cfg.Store.Txn(ctx, &Txn{Kind: KindChange, If: is, Then: ops})
	if err != nil {
		f.mu.Lock()
		f.pools[name].known = false // it may have been done
		f.mu.Unlock()
		return false, f.transient(err)
	}
	if !res.Done {
		return false, nil
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	p := f.pools[name]
	p.known, p.restate, p.held, p.terms, p.out = true, false, h, v.terms, out
	if newly {
		f.owns = owns.Pools
	}
	f.seen.Rev = max(f.seen.Rev, res.Rev)
	return true, nil
}

// assumed reports whether the store names this membership for the agent's blocks. Before one may be used it must: who
// takes a dead agent's blocks over sees by that whether the agent has been back since.
func (v *view) assumed(me membership) bool {
	if !maps.Equal(v.former, v.mine.Former) || len(v.mine.Moved) > 0 {
		return false
	}
	return len(v.mine.Blocks) == 0 && v.mineMod == 0 || v.mine.Incarnation == me.incarnation && v.mineMod >= v.epochMod
}

// assume has the store name this membership for the agent's blocks.
func (f *Fleet) assume(ctx context.Context, me membership, name string, v *view, blocks map[string]int64) error {
	f.mu.Lock()
	terms := f.pools[name].namedTerms(v)
	f.mu.Unlock()
	_, err := f.write(ctx, me, name, v, change{blocks: blocks, terms: terms}, false)
	return err
}

// namedTerms returns the terms that the agent's blocks name. The fleet's mu is held.
func (p *pool) namedTerms(v *view) terms {
	if v.mineMod < v.epochMod {
		return p.held.terms
	}
	return v.mine.terms
}

// owning returns the pools of which the agent will have blocks, and whether the store is to hear of it. That it has
// none any more of a pool is not worth a write.
func (f *Fleet) owning(name string, has bool) (owned, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !has || slices.Contains(f.owns, name) {
		return owned{}, false
	}
	return owned{append(slices.Clone(f.owns), name), f.cfg.Member.Name}, true
}

// mine returns the blocks that the agent goes on with, given those that the store has: none where this process began
// without a former one that could have used them, those that it knows where the store is an old copy, and none that
// nobody has asked for within a lease's time.
func (f *Fleet) mine(me membership, p *pool, v *view) map[string]int64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	out := maps.Clone(v.mine.Blocks)
	if out == nil {
		out = map[string]int64{}
	}
	now := f.cfg.Now()
	switch {
	case v.mineMod < v.epochMod:
		if out = maps.Clone(p.held.Blocks); out == nil {
			out = map[string]int64{}
		}
	case !me.goesOn(v.mine.Incarnation):
		clear(out)
	case len(v.mine.Moved) > 0:
		v.mine.without(out)
	}
	f.former(me, p, v)
	for id := range out {
		at, ok := p.touched[id]
		if !ok {
			p.touched[id] = now
		} else if now-at > me.span { // every block that was answered then is over
			delete(out, id)
			delete(p.touched, id)
		}
	}
	return out
}

// goesOn reports whether the membership goes on with the blocks of an incarnation.
func (me *membership) goesOn(incarnation string) bool {
	return incarnation == "" || incarnation == me.incarnation || slices.Contains(me.follows, incarnation)
}

// former finds what former incarnations of this agent may have in use still, which it does not go on with: those that
// keep what is held. Each is over once it has been seen for as long as it may last. mu is held.
func (f *Fleet) former(me membership, p *pool, v *view) {
	now := f.cfg.Now()
	v.former = map[string]former{}
	if v.mineMod < v.epochMod { // the store is an old copy
		maps.Copy(v.former, p.held.Former)
	} else if maps.Copy(v.former, v.mine.Former); !me.goesOn(v.mine.Incarnation) && v.mine.own() > 0 {
		v.former[v.mine.Incarnation] = former{v.mine.own(), v.mine.TTL}
	}
	for name, x := range v.former {
		if p.former == nil {
			p.former = map[string]time.Duration{}
		}
		if at, ok := p.former[name]; !ok {
			p.former[name] = now
		} else if now-at >= time.Duration(x.TTL*float64(time.Second)) {
			delete(v.former, name)
		}
	}
	if len(v.former) == 0 {
		v.former = nil
	}
}

// sweep gives back, of all pools, the blocks that nobody here has asked for within a lease's time, and states blocks
// again where the store may be an old copy.
func (f *Fleet) sweep(ctx context.Context) {
	now := f.cfg.Now()
	f.mu.Lock()
	var due []string
	for name, p := range f.pools {
		if strings.Contains(name, "@") {
			continue // a meter's
		}
		old := !p.known || p.restate || len(p.held.Former) > 0
		for id := range p.held.Blocks {
			old = old || now-p.touched[id] > f.me.span
		}
		if old {
			due = append(due, name)
		}
	}
	f.mu.Unlock()
	for _, name := range due {
		f.settle(ctx, name, true) // what fails is tried again soon
	}
}

// settle reads this agent's blocks of a pool, states them again where the store may be an old copy, and gives back
// those that are over. Without swept, it does nothing where the blocks are known.
func (f *Fleet) settle(ctx context.Context, name string, swept bool) error {
	p := f.named(name)
	if err := p.calls.take(ctx); err != nil {
		return f.transient(err)
	}
	defer p.calls.give()
	for try := 0; ; try++ {
		me, err := f.ready(ctx, false)
		if err != nil {
			return err
		}
		f.mu.Lock()
		known := p.known && !p.restate
		f.mu.Unlock()
		if known && !swept {
			return nil
		}
		v, _, err := f.look(ctx, name)
		if err != nil {
			return err
		}
		blocks := f.mine(me, p, v)
		f.mu.Lock()
		terms := p.namedTerms(v)
		if maps.Equal(blocks, v.mine.Blocks) && v.assumed(me) {
			p.known, p.restate, p.held = true, false, v.mine
			p.held.Incarnation, p.held.Blocks = me.incarnation, blocks
			p.terms, p.out = v.terms, v.total.Out
			f.mu.Unlock()
			return nil
		}
		f.mu.Unlock()
		done, err := f.write(ctx, me, name, v, change{blocks: blocks, terms: terms,
			also: f.tell(name, v, v.terms.Limit-v.out(blocks))}, false)
		if done || err != nil {
			return err
		}
		if err := f.again(ctx, try, v); err != nil {
			return err
		}
	}
}

// blockPrefix begins the ids of the fleet's blocks.
const blockPrefix = "fleet-"

// BlockID is the id of the block that a check-out with a token brings: the same token brings the same block.
func BlockID(token string) string { return blockID(token) }

func blockID(token string) string {
	sum := sha256.Sum256([]byte(token))
	return blockPrefix + base64.RawURLEncoding.EncodeToString(sum[:9])
}
