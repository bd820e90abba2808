package registry

import (
	"time"

	"github.com/usher-agent/usher/enforcer"
	"github.com/usher-agent/usher/plugin"
	"github.com/usher-agent/usher/plugin/usher/online"
)

// A broker stops lending when it is stopped, or when an operator drains it: it decides on no block any more, then says
// in its fleet what its agents have, and then tells the agents, which ask another server at once.

// lending is whether a broker lends.
type lending int

const (
	lends   lending = iota // it does
	leaves                 // it gives and extends nothing
	hasLeft                // others may take over what it has given: agents are told to ask them
)

// Leave has the broker give and extend no block from now on. What was decided before counts.
func (p *Blocks) Leave() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.lending = max(p.lending, leaves)
}

// Stop is Leave of a broker whose process ends: agents give nothing back to it any more, because it would not say so in
// the fleet. They give it back to others.
func (p *Blocks) Stop() {
	p.Leave()
	p.mu.Lock()
	defer p.mu.Unlock()
	p.stops = true
}

// Left says that other servers may take over what agents have of this one: those that watch are told to ask them.
func (p *Blocks) Left() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.lending = hasLeft
	p.answerAll()
}

// Stay has the broker lend again.
func (p *Blocks) Stay() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.lending = lends
}

// LentOf returns the slots of the blocks that agents have of a pool of a licence, by block.
func (p *Blocks) LentOf(license, pool string) map[string]int64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	out, now := map[string]int64{}, p.up()
	for id, x := range p.blocks.of[share{license, pool}] {
		if x.until > now {
			out[id] = x.Slots
		}
	}
	return out
}

// Pressed reports whether an agent has lately asked for more time of a block of which half the time is over, although
// this server has stopped lending: no other takes the block over.
func (p *Blocks) Pressed() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.up() < p.pressed
}

// left is the answer of a broker that has stopped lending; nil: it has not. r is nil for a watch. p.mu is held.
func (p *Blocks) left(agent string, r *online.BlockRequest) *online.Refusal {
	if p.lending == lends || r == nil && p.lending != hasLeft {
		return nil
	}
	if r != nil {
		now := p.up()
		if x := p.blocks.by[r.ID]; x != nil && x.Agent == agent && x.until > now && x.until-now < x.span()/2 {
			p.pressed = now + p.ttl
			p.lacking()
		}
	}
	return leavesRefusal()
}

func leavesRefusal() *online.Refusal {
	return &online.Refusal{System: plugin.SystemAway, Leaves: true,
		Reason: "this site server is being stopped or drained: it gives no slots, and no more time",
		Hint:   "the agent goes on with its slots, and asks another server at once"}
}

// justMoved is the answer to an agent whose block this broker had just taken over when it stopped to lend: without it
// the agent could show no other server who has the block. It has no more time than the block was kept for before. nil:
// there is no such block. p.mu is held.
func (p *Blocks) justMoved(agent string, r *online.BlockRequest) *online.BlockReply {
	x, now := p.blocks.by[r.ID], p.up()
	if p.lending == lends || r.Moved == "" || x == nil || x.Pending || x.Agent != agent {
		return nil
	}
	left := int64((x.until-now)/time.Second) - x.Hold
	if left <= 0 {
		return nil
	}
	return &online.BlockReply{ID: x.ID, Pool: x.Pool, Slots: x.size(), Seconds: min(left, x.Seconds)}
}

// elsewhere has an agent ask another broker for a block that this one lacks because another has taken it over, of which
// the agent may not have heard: its slots are kept for it there. p.mu is held.
func (p *Blocks) elsewhere(id string, refused *online.Refusal) *online.Refusal {
	if refused.System != plugin.SystemLapsed || p.up() >= p.gone[id] {
		return refused
	}
	return &online.Refusal{System: plugin.SystemAway, Hint: "the agent asks that one",
		Reason: "another site server of the fleet has taken the block over"}
}

// Adoption is a block of another broker that this one is to take over: that one is gone, or has stopped lending.
type Adoption struct {
	From       string // the other broker
	License    *enforcer.License
	Pool, Part string // Part is the block
	Slots      int64  // as the agent has heard, or wants
	// Reserve keeps n slots of this broker's for the agent, before the fleet is asked. fresh says that it kept none
	// before.
	Reserve func(n int64) (fresh bool, err error)
	// Put has the agent have n slots, with the stock that there is then.
	Put func(n, slots, part int64, until time.Duration) error
}

// reserve keeps n slots for an agent while it is not known whether this broker has them. fresh says that it had kept
// none before.
func (p *Blocks) reserve(agent string, l *enforcer.License, pool, id string, n int64) (fresh bool, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	now, was := p.up(), p.blocks.by[id]
	if was != nil && was.until > now && !was.Pending {
		return false, nil
	}
	fresh = was == nil || was.until <= now
	if !fresh {
		n = max(n, was.Slots)
	}
	b := &Block{ID: id, License: l.ID, Pool: pool, Agent: agent, Slots: n, Taken: p.now().UTC(),
		Seconds: int64(p.ttl / time.Second), Hold: hold(l), Pending: true}
	b.until = now + b.span()
	return fresh, p.keep(change{put: []*Block{b}})
}

// release gives up what was reserved.
func (p *Blocks) release(id string) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if x := p.blocks.by[id]; x == nil || !x.Pending {
		return nil
	}
	return p.keep(change{drop: []string{id}})
}

// adopt gives an agent a block that it had of another broker, out of a stock that has become larger by it.
func (p *Blocks) adopt(agent string, a *Adoption, n int64, x stock) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	s, now := share{a.License.ID, a.Pool}, p.up()
	p.blocks.stocks[s] = x
	p.blocks.totals[s] = enforcer.Limit(min(x.slots, x.part))
	if was := p.blocks.by[a.Part]; was != nil && !was.Pending {
		return nil
	}
	b := &Block{ID: a.Part, License: a.License.ID, Pool: a.Pool, Agent: agent, Slots: n, Taken: p.now().UTC(),
		Seconds: int64(p.ttl / time.Second), Hold: hold(a.License)}
	b.until = now + b.span()
	return p.keep(change{put: []*Block{b}})
}

// has reports whether an agent may have a block of an id, and this broker has its slots. Where the store does not know
// the block, the fleet does, also while the store may be an old copy.
func (p *Blocks) has(id string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	x := p.blocks.by[id]
	return x != nil && !x.Pending
}
