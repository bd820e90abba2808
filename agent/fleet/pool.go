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
	name  string
	calls turn // for the calls of one change

	tallies map[string]tally // of a meter, by agent; calls guards it

	// The fleet's mu guards what follows.
	known   bool // held is what the store has
	restate bool // the store may be an old copy: held is the truth
	// vouched is until when held may be stated again: the fence of when the agent saw that the store is an old copy.
	vouched time.Duration
	held    held
	mod     int64                    // of the agent's block, as the store is known to have it; 0: it is not known
	touched map[string]time.Duration // by block: when it was last asked for
	terms   terms                    // as last seen
	out     int64                    // slots that all agents have, as last seen
	view    *view                    // as last seen; nil: it must be read. It is not changed
	busy    int                      // above 0: others change the pool so often that what was last seen does not serve
	racedAt time.Duration            // when others last undid a transaction
	gather  bool                     // somebody wants slots that looks at the total alone
	unsure  time.Duration            // when a change came to no answer, which may be done still; 0: there is none
	asked   int64                    // slots of the ticket; 0: there is none
	askedAt time.Duration
	wokenAt time.Duration // when the keeper was last told to ask again
	// lackedTo is until when callers here wait for slots, by the last watch.
	lackedTo time.Duration
	called   time.Duration            // when idle slots were last asked of others
	reaped   time.Duration            // when the dead were last looked for
	reapErr  error                    // what came of that
	askErr   error                    // what came of the last call that would have had others hear of what is lacking
	former   map[string]time.Duration // by incarnation: when this membership first saw what it has left
	went     map[string]time.Duration // by part: when this process first saw that it has moved
	gone     map[string]sighting
	overAt   time.Duration // when the first of those is over that were not yet; 0: none is known
	site     siteUse       // as last counted
}

// named returns a pool.
func (f *Fleet) named(name string) *pool {
	f.mu.Lock()
	defer f.mu.Unlock()
	p := f.pools[name]
	if p == nil {
		p = &pool{name: name, calls: make(turn, 1), touched: map[string]time.Duration{},
			held: held{Blocks: map[string]int64{}}, gone: map[string]sighting{}}
		f.pools[name] = p
	}
	return p
}

// readsInUse is how many reads [Fleet.termsInUse] makes of a pool.
const readsInUse = 4

// termsInUse returns the pools of which this agent has blocks, and for each four reads: of its terms, its total, the
// shares of that, and the agent's own block.
func (f *Fleet) termsInUse() (names []string, gets []Op) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for name, p := range f.pools {
		if len(p.held.Blocks) > 0 && len(names) < maxGets {
			names, gets = append(names, name), append(gets, Op{Get: f.keys.terms(name)}, Op{Get: f.keys.total(name)},
				Op{List: f.keys.shares(name)}, Op{Get: f.keys.block(name, f.cfg.Agent)})
		}
	}
	return names, gets
}

// maxGets is how many pools one heartbeat reads: etcd takes 128 steps a transaction.
const maxGets = 30

// told takes note of the terms that hold, and of how many slots are out.
func (f *Fleet) told(name string, t terms, out int64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if p := f.pools[name]; p != nil {
		p.terms, p.out = t, out
	}
}

func sum(blocks map[string]int64) (n int64) {
	for _, b := range blocks {
		n += b
	}
	return n
}

// assumed reports whether the store names this membership for the agent's blocks. Before one may be used it must: who
// takes a dead agent's blocks over sees by that whether the agent has been back since.
//
// It must also have been written since a change whose answer did not come. Else that may be done later, and take slots
// away that the agent then uses.
func (v *view) assumed(me membership) bool {
	if v.unsure && v.mineKV.Mod > 0 {
		return false
	}
	if !maps.EqualFunc(v.former, v.mine.Former, former.same) || !maps.Equal(v.went, v.mine.Went) ||
		len(v.mine.Moved) > 0 || v.mine.Left != nil {
		return false
	}
	return len(v.mine.Blocks) == 0 && v.mineKV.Mod == 0 ||
		v.mine.Incarnation == me.incarnation && v.mineKV.Mod >= v.storeKV.Mod
}

// namedTerms returns the terms that the agent's blocks name. The fleet's mu is held.
func (p *pool) namedTerms(v *view) terms {
	if v.mineKV.Mod < v.storeKV.Mod {
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
	if p.restate && now >= p.vouched { // others may have had them before they were stated again
		p.held = held{Blocks: map[string]int64{}}
	}
	switch {
	case p.older(v):
		if out = maps.Clone(p.held.Blocks); out == nil {
			out = map[string]int64{}
		}
	case !me.goesOn(v.mine.Incarnation):
		clear(out)
	case len(v.mine.Moved) > 0:
		v.mine.without(out)
	}
	f.former(me, p, v)
	f.went(me, p, v)
	for id := range out {
		at, ok := p.touched[id]
		if !ok {
			p.touched[id] = now
		} else if now-at > me.span { // every block that was answered then is over
			delete(out, id)
		}
	}
	return out
}

// older reports whether the store knows less of the agent's blocks than the agent itself, because it is an old copy in
// which they have not been stated again. Blocks that the latest store does not know are gone: others may have them. The
// fleet's mu is held.
func (p *pool) older(v *view) bool {
	return v.mineKV.Mod < v.storeKV.Mod && (v.mineKV.Mod > 0 || p.restate)
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
	if p.older(v) {
		maps.Copy(v.former, p.held.Former)
	} else if maps.Copy(v.former, v.mine.Former); !me.goesOn(v.mine.Incarnation) && v.mine.own() > 0 {
		v.former[v.mine.Incarnation] = former{v.mine.own(), v.mine.TTL, v.mine.Labels}
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

// went finds the parts that have moved. Whoever has one of them goes on with it for as long as it was lent, and a
// part's time is over once it has been known for as long as this agent's slots may be in use. mu is held.
func (f *Fleet) went(me membership, p *pool, v *view) {
	v.went = map[string]moved{}
	if p.older(v) {
		maps.Copy(v.went, p.held.Went)
	}
	maps.Copy(v.went, v.mine.Went)
	maps.Copy(v.went, v.mine.Moved)
	maps.DeleteFunc(p.went, func(part string, _ time.Duration) bool { _, is := v.went[part]; return !is })
	for part := range v.went {
		if p.went == nil {
			p.went = map[string]time.Duration{}
		}
		if at, ok := p.went[part]; !ok {
			p.went[part] = f.cfg.Now()
		} else if f.cfg.Now()-at >= me.span {
			delete(v.went, part)
		}
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
		if p.unsure != 0 && len(p.held.Blocks) == 0 && now-p.unsure > lateMost {
			p.unsure = 0 // there is no block to write
		}
		old := !p.known || p.restate || len(p.held.Former)+len(p.held.Went) > 0 || p.unsure != 0
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

// lateMost is for how long an agent looks whether a first block has come that it got no answer about.
const lateMost = time.Minute

// settle reads this agent's blocks of a pool, states them again where the store may be an old copy, and gives back
// those that are over. Without swept, it does nothing where the blocks are known.
func (f *Fleet) settle(ctx context.Context, name string, swept bool) error {
	_, err := f.try(ctx, name, func(a *attempt) (step, error) {
		p, v := a.p, a.v
		f.mu.Lock()
		defer f.mu.Unlock()
		switch {
		case p.known && !p.restate && !swept:
			return step{}, nil
		case !maps.Equal(a.blocks, v.mine.Blocks) || !v.assumed(a.me):
			return step{write: &change{blocks: a.blocks, terms: p.namedTerms(v),
				also: f.tell(name, v, v.terms.Limit-v.out(a.blocks))}, then: func() (*plugin.Block, error) {
				f.askAgain() // the agent may be first in turn itself
				return nil, nil
			}}, nil
		case !a.cached:
			p.known, p.restate, p.held, p.view = true, false, v.mine, v
			p.held.Incarnation, p.held.Blocks = a.me.incarnation, a.blocks
			p.terms, p.out = v.terms, v.net()
		}
		return step{}, nil
	})
	return err
}

// blockPrefix begins the ids of the fleet's blocks.
const blockPrefix = "fleet-"

// BlockID is the id of the block that a check-out with a token brings: the same token brings the same block.
func BlockID(token string) string { return blockID(token) }

func blockID(token string) string {
	sum := sha256.Sum256([]byte(token))
	return blockPrefix + base64.RawURLEncoding.EncodeToString(sum[:9])
}
