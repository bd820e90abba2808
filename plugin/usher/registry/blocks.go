package registry

import (
	"fmt"
	"time"

	"github.com/usher-agent/usher/enforcer"
	"github.com/usher-agent/usher/plugin"
	"github.com/usher-agent/usher/plugin/usher/online"
)

// Block is slots of one pool of one licence that one agent has, and nobody else before it is over.
type Block struct {
	ID      string    `json:"id"`
	License string    `json:"license"`
	Pool    string    `json:"pool"`
	Agent   string    `json:"agent_key"`
	Slots   int64     `json:"slots"`
	Seconds int64     `json:"seconds"` // the longest that it was given for at once
	Hold    int64     `json:"hold,omitzero"`
	Token   string    `json:"token,omitempty"`
	Taken   time.Time `json:"taken"` // for people

	until time.Duration // on the server's boot-time clock: over then
}

// span is for how long the server keeps a block's slots from others, counted from when it answers: as long as the agent was
// told, which counts from when it asked, and for as long again as its holders have once it is over.
func (b *Block) span() time.Duration { return time.Duration(b.Seconds+b.Hold) * time.Second }

// share names one pool of one licence.
type share struct{ license, pool string }

// blocks is the accounting of blocks: what is out of each pool, and what more may be. It does no input or output and tells no
// time: now is the time since boot. What it decides is a change, which counts once it is applied.
type blocks struct {
	by      map[string]*Block
	of      map[share]map[string]*Block
	missing map[share]map[string]want // by agent: what it was denied a while ago
}

// want is slots that an agent has asked for in vain.
type want struct {
	slots int64
	until time.Duration
}

// change is what a decision changes: blocks that are there from now on, as they are now, and those that are not.
type change struct {
	put  []*Block
	drop []string
}

func newBlocks() *blocks {
	return &blocks{by: map[string]*Block{}, of: map[share]map[string]*Block{}, missing: map[share]map[string]want{}}
}

func (b *blocks) apply(c change) {
	for _, id := range c.drop {
		if x := b.by[id]; x != nil {
			delete(b.by, id)
			delete(b.of[share{x.License, x.Pool}], id)
		}
	}
	for _, x := range c.put {
		s := share{x.License, x.Pool}
		if b.of[s] == nil {
			b.of[s] = map[string]*Block{}
		}
		b.by[x.ID], b.of[s][x.ID] = x, x
	}
}

// out returns the slots of a pool that agents have now, but for those of one block.
func (b *blocks) out(s share, but string, now time.Duration) (n int64) {
	for id, x := range b.of[s] {
		if id != but && x.until > now {
			n += x.Slots
		}
	}
	return n
}

// inTheWay returns the blocks of a pool that are over and whose slots are needed where a block, new or not, is to have n. All
// that are kept fit into total together, so that after a restart, which forgets what was over, nothing is had twice.
func (b *blocks) inTheWay(s share, but string, n int64, total enforcer.Limit, now time.Duration) (ids []string) {
	for id, x := range b.of[s] {
		if id != but {
			if n += x.Slots; x.until <= now {
				ids = append(ids, id)
			}
		}
	}
	if total.Covers(n) {
		return nil
	}
	return ids
}

// room returns how many slots of a pool a block can have, beside the others, of at most total.
func (b *blocks) room(s share, but string, total enforcer.Limit, now time.Duration) int64 {
	if total == enforcer.Unlimited {
		return enforcer.MaxN
	}
	return max(0, int64(total)-b.out(s, but, now))
}

// wanted returns how many slots of a pool other agents were denied a while ago.
func (b *blocks) wanted(s share, agent string, now time.Duration) (n int64) {
	for who, w := range b.missing[s] {
		if w.until <= now {
			delete(b.missing[s], who)
		} else if who != agent {
			n += w.slots
		}
	}
	return n
}

// miss notes that an agent has so many slots fewer than it asked for.
func (b *blocks) miss(s share, agent string, slots int64, until time.Duration) {
	if b.missing[s] == nil {
		b.missing[s] = map[string]want{}
	}
	if delete(b.missing[s], agent); slots > 0 {
		b.missing[s][agent] = want{slots, until}
	}
}

// ask is a request for a block, or for more time for one.
type ask struct {
	agent   string
	license *enforcer.License
	*online.BlockRequest
	newID string        // of a block to be
	now   time.Duration // since boot
	wall  time.Time
	ttl   time.Duration // the longest that a block is given for
}

func (a *ask) seconds() int64 {
	most := int64(a.ttl / time.Second)
	if a.Seconds <= 0 || a.Seconds > most {
		return most
	}
	return a.Seconds
}

// hold is for how many seconds longer than its agent may use it a block's slots are kept back: where the licence has what is
// over revoked, until that is done.
func hold(l *enforcer.License) int64 {
	if l.OnExpiry == enforcer.Revoke {
		return int64(enforcer.RevokeDelay/time.Second) + 5
	}
	return 0
}

// checkOut decides who asks for a block. The same agent gets for one token one block.
func (b *blocks) checkOut(a *ask) (*Block, change, *online.Refusal) {
	total, ok := a.license.SitePools()[a.Pool]
	s := share{a.license.ID, a.Pool}
	switch {
	case !ok:
		return nil, change{}, &online.Refusal{System: "NOT_SHARED", Reason: fmt.Sprintf("licence %s has no pool %q that is a whole site's", a.license.ID, a.Pool)}
	case a.Slots < 1 || a.Slots > enforcer.MaxN || a.AtLeast < 0 || a.AtLeast > a.Slots:
		return nil, change{}, &online.Refusal{System: "BAD_REQUEST", Reason: fmt.Sprintf("%d slots, at least %d, cannot be had", a.Slots, a.AtLeast)}
	}
	for _, x := range b.of[s] {
		if a.Token != "" && x.Token == a.Token && x.Agent == a.agent {
			a.ID, a.Slots = x.ID, 0
			return b.extend(a)
		}
	}
	n := min(a.Slots, b.room(s, "", total, a.now))
	b.miss(s, a.agent, a.Slots-n, a.now+a.ttl/2)
	least := a.AtLeast
	if least == 0 {
		least = a.Slots
	}
	if n < least {
		return nil, change{}, full(a.Pool, b.out(s, "", a.now), total)
	}
	x := &Block{ID: a.newID, License: a.license.ID, Pool: a.Pool, Agent: a.agent, Slots: n, Token: a.Token, Taken: a.wall}
	return x, change{put: []*Block{x.from(a)}, drop: b.inTheWay(s, "", n, total, a.now)}, nil
}

// from sets a block's time anew. It is never over sooner than before: the agent may not hear that it was to be.
func (b *Block) from(a *ask) *Block {
	b.Seconds, b.Hold = max(b.Seconds, a.seconds()), max(b.Hold, hold(a.license))
	b.until = a.now + b.span()
	return b
}

func full(pool string, out int64, total enforcer.Limit) *online.Refusal {
	return &online.Refusal{System: plugin.SystemFull, Reason: fmt.Sprintf("pool %s: agents have %d of its %s slots", pool, out, total), Hint: "what they give back can be had"}
}

// extend decides who asks for more time for a block, and perhaps for another size. One that is over is had again while there
// is room. It never becomes smaller than asked, nor larger than there is room for.
func (b *blocks) extend(a *ask) (*Block, change, *online.Refusal) {
	was := b.by[a.ID]
	if was == nil || was.Agent != a.agent || was.License != a.license.ID {
		return nil, change{}, &online.Refusal{System: plugin.SystemLapsed, Reason: "the block is over, and its slots may be another's", Hint: "check another out"}
	}
	s := share{was.License, was.Pool}
	total := a.license.SitePools()[was.Pool]
	x, room := *was, b.room(s, was.ID, total, a.now)
	if a.Slots > 0 && a.Slots < x.Slots {
		x.Slots = a.Slots
	}
	if was.until <= a.now && x.Slots > room {
		return nil, change{}, &online.Refusal{System: plugin.SystemLapsed, Reason: fmt.Sprintf("the block is over, and pool %s has %d slots left", was.Pool, room), Hint: "check another out"}
	}
	if a.Slots > x.Slots {
		x.Slots = max(x.Slots, min(a.Slots, room, enforcer.MaxN))
		b.miss(s, a.agent, a.Slots-x.Slots, a.now+a.ttl/2)
	}
	return &x, change{put: []*Block{x.from(a)}, drop: b.inTheWay(s, x.ID, x.Slots, total, a.now)}, nil
}

// giveBack decides who gives a block back. What is nobody's is given back already.
func (b *blocks) giveBack(agent, id string) (c change) {
	if x := b.by[id]; x != nil && x.Agent == agent {
		c.drop = []string{id}
	}
	return c
}
