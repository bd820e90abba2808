package registry

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"go.etcd.io/bbolt"

	"github.com/usher-agent/usher/enforcer"
	"github.com/usher-agent/usher/plugin/usher/online"
)

// DefaultBlockTTL is the time of a block where none was configured. A dead agent's slots are free for others after it,
// and an agent goes on for nearly as long without the server.
const DefaultBlockTTL = 2 * time.Minute

var blocksBucket = []byte("blocks")

// Pools serves blocks of slots to agents, each known by its key's thumbprint.
type Pools interface {
	CheckOut(agent string, l *enforcer.License, r *online.BlockRequest,
		had map[string]Had) (*online.BlockReply, *online.Refusal, error)
	Extend(agent string, l *enforcer.License, r *online.BlockRequest,
		had map[string]Had) (*online.BlockReply, *online.Refusal, error)
	Return(agent string, r *online.BlockRequest) (*online.Refusal, error)
	// Watch waits until an agent should do something for the others of a licence, or they have for it; at most until
	// ctx ends.
	Watch(ctx context.Context, agent, license string,
		r *online.WatchRequest) (news map[string]online.PoolNews, refused *online.Refusal)
	// Knows reports whether an agent may have a block of an id.
	Knows(id string) bool
	// Settling reports whether no new blocks go out, because the store may be an old copy.
	Settling() bool
	// Aged tells that the store is an old copy: an agent was answered at a time that the store does not know of.
	Aged(at time.Time)
}

// Blocks is the pools' blocks, kept in the registry's store. It implements [Pools]. Its answers are on the disk before
// they go out.
type Blocks struct {
	db  *bbolt.DB
	ttl time.Duration
	up  func() time.Duration
	now func() time.Time
	log *slog.Logger

	mu         sync.Mutex // one decision at a time; guards all below
	blocks     *blocks
	stamp      *stamp
	generation int64         // how often the store was changed
	longest    time.Duration // the longest that a block may have been given for
	unstamped  bool          // it was logged that the stamp cannot be written
	watchers   watchers
	drains     bool   // of a broker: agents ask another one for blocks
	why        string // of a broker: why its place in the fleet is not proved
	lacking    func() // of a broker: told when agents ask for more than there is, or are pressed
	lending    lending
	stops      bool                     // of a broker: see Stop
	pressed    time.Duration            // see Pressed
	gone       map[string]time.Duration // see Moved
	ending     bool                     // nobody waits any more
}

// ServePools has the registry serve blocks for at most ttl (zero: DefaultBlockTTL), in whole seconds. up is the time
// since boot (CLOCK_BOOTTIME): wall clocks are set. Every block that is kept has its whole time again, for nobody has
// watched the clock meanwhile.
func (g *Registry) ServePools(ttl time.Duration, up func() time.Duration) error {
	if ttl == 0 {
		ttl = DefaultBlockTTL
	}
	if ttl < time.Second {
		return fmt.Errorf("blocks of slots cannot be given for %s: give at least 1s", enforcer.Span(ttl))
	}
	p := &Blocks{db: g.db, ttl: ttl, up: up, now: g.cfg.Now, log: g.cfg.Log, blocks: newBlocks(),
		watchers: watchers{}}
	err := g.db.Update(func(tx *bbolt.Tx) error {
		first := tx.Bucket(blocksBucket) == nil
		b, err := tx.CreateBucketIfNotExists(blocksBucket)
		if err != nil {
			return err
		}
		err = b.ForEach(func(_, v []byte) error {
			x := &Block{}
			if err := json.Unmarshal(v, x); err != nil {
				return err
			}
			x.until = up() + x.span()
			x.old = x.until
			p.blocks.apply(change{put: []*Block{x}})
			return nil
		})
		if err != nil {
			return err
		}
		if p.blocks.rules, err = rulesOf(tx); err != nil {
			return err
		}
		return p.start(g, tx, first)
	})
	if err != nil {
		p.stamp.close()
		return fmt.Errorf("blocks of slots: %w", err)
	}
	p.restamp()
	g.cfg.Pools = p
	return nil
}

// keep writes a change, and carries it out. p.mu is held.
func (p *Blocks) keep(c change) error {
	if len(c.put)+len(c.drop) == 0 {
		return nil
	}
	err := p.db.Update(func(tx *bbolt.Tx) error {
		b := tx.Bucket(blocksBucket)
		var faults []error
		for _, id := range c.drop {
			faults = append(faults, b.Delete([]byte(id)))
		}
		for _, x := range c.put {
			faults = append(faults, put(b, []byte(x.ID), x))
		}
		return errors.Join(append(faults, putNumber(tx.Bucket(meta), metaGeneration, p.generation+1))...)
	})
	if err != nil {
		return err
	}
	p.blocks.apply(c)
	p.generation++
	p.restamp()
	return nil
}

// CheckOut hands out a block, or says why not.
func (p *Blocks) CheckOut(agent string, l *enforcer.License, r *online.BlockRequest,
	had map[string]Had) (*online.BlockReply, *online.Refusal, error) {
	return p.decide(agent, l, r, had, p.blocks.checkOut)
}

// Extend gives a block more time, and perhaps another size.
func (p *Blocks) Extend(agent string, l *enforcer.License, r *online.BlockRequest,
	had map[string]Had) (*online.BlockReply, *online.Refusal, error) {
	return p.decide(agent, l, r, had, p.blocks.extend)
}

func (p *Blocks) decide(agent string, l *enforcer.License, r *online.BlockRequest, had map[string]Had,
	how func(*ask) (*Block, change, *online.Refusal)) (*online.BlockReply, *online.Refusal, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if away := p.away(agent, l.ID, r); away != nil {
		if x := p.justMoved(agent, r); x != nil {
			return x, nil, nil
		}
		return nil, away, nil
	}
	copied := *r
	labels, err := p.bound(l.ID, agent)
	if err != nil {
		return nil, nil, err
	}
	a := &ask{agent: agent, labels: labels, license: l, BlockRequest: &copied, had: had, newID: newChain(), now: p.up(),
		wall: p.now().UTC(), ttl: p.ttl}
	x, c, refused := how(a)
	defer p.tell(l.ID)
	if p.lacking != nil && len(p.blocks.missing) > 0 {
		p.lacking()
	}
	if refused != nil {
		return nil, p.elsewhere(r.ID, refused), nil
	}
	if err := p.keep(c); err != nil {
		return nil, nil, err
	}
	s := share{x.License, x.Pool}
	p.freed(s)
	reply := &online.BlockReply{ID: x.ID, Pool: x.Pool, Slots: x.size(), Seconds: a.seconds(),
		Wanted: p.blocks.wanted(s, agent, a.now)}
	if a.Slots > reply.Slots {
		_, rule := p.blocks.roomFor(s, "", a.labels, p.blocks.totals[s], a.now)
		reply.Elsewhere = p.blocks.elsewhere(s, agent, rule, a.now)
	}
	return reply, nil, nil
}

// Knows reports whether an agent may have a block of an id. It may have one that is not in the store while the store
// may be an old copy.
func (p *Blocks) Knows(id string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.blocks.by[id] != nil || p.up() < p.blocks.settling
}

// Settling reports whether no new blocks go out.
func (p *Blocks) Settling() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.up() < p.blocks.settling
}

// Return takes a block back, or says why not.
func (p *Blocks) Return(agent string, r *online.BlockRequest) (*online.Refusal, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.stops { // the fleet would not hear of it
		return leavesRefusal(), nil
	}
	license := ""
	if x := p.blocks.by[r.ID]; x != nil {
		license = x.License
		defer p.freed(share{x.License, x.Pool})
	}
	defer p.tell(license)
	return nil, p.keep(p.blocks.giveBack(agent, r.ID))
}

// OutBlock is a block that an agent has, as operators see it.
type OutBlock struct {
	Block
	Left time.Duration `json:"left"` // until it is over unless it is extended
}

// OutBlocks returns the blocks that agents have, by licence, pool and age; none where no pools are served.
func (g *Registry) OutBlocks() (out []OutBlock) {
	p, ok := g.cfg.Pools.(*Blocks)
	if !ok {
		return nil
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	now := p.up()
	for _, x := range p.blocks.by {
		if x.until > now {
			out = append(out, OutBlock{*x, (x.until - now).Truncate(time.Second)})
		}
	}
	slices.SortFunc(out, func(a, b OutBlock) int {
		return cmp.Or(strings.Compare(a.License, b.License), strings.Compare(a.Pool, b.Pool), a.Taken.Compare(b.Taken),
			strings.Compare(a.ID, b.ID))
	})
	return out
}
