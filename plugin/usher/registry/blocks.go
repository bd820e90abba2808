package registry

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/usher-agent/usher/enforcer"
	"github.com/usher-agent/usher/plugin"
	"github.com/usher-agent/usher/plugin/usher/online"
)

// Block is slots of one pool of one licence that one agent has. No other agent has them before it is over.
type Block struct {
	ID      string `json:"id"`
	License string `json:"license"`
	Pool    string `json:"pool"`
	Agent   string `json:"agent_key"`
	Slots   int64  `json:"slots"` // as many as the agent may hand out; no other agent gets them
	// Told is how many the agent was told to have from now on, where the limit has become less; zero: Slots. Slots
	// count until the agent shows that it has heard.
	Told    int64     `json:"told,omitzero"`
	Seconds int64     `json:"seconds"` // the longest time that one answer gave it
	Hold    int64     `json:"hold,omitzero"`
	Token   string    `json:"token,omitempty"`
	Taken   time.Time `json:"taken"` // for people
	// Pending: a broker keeps the slots for the agent, but does not know whether it has taken them over.
	Pending bool `json:"pending,omitzero"`
	// Labels are the host's, by which the site's rules count the block.
	Labels map[string]string `json:"labels,omitempty"`

	until time.Duration // on the server's boot-time clock: over then
	// likewise, where Told is less: an agent that has not heard of it stops handing out Slots before
	old time.Duration
}

// size is how many slots the agent was told to have.
func (b *Block) size() int64 {
	if b.Told > 0 {
		return b.Told
	}
	return b.Slots
}

// span is for how long the server keeps a block's slots from others, counted from its answer: the time that the agent
// was told, which counts from its request, and the time that the agent's holders have after it is over.
func (b *Block) span() time.Duration { return time.Duration(b.Seconds+b.Hold) * time.Second }

// share names one pool of one licence.
type share struct{ license, pool string }

// blocks is the accounting of blocks: what is out of each pool, and what more may go out. It does no input or output
// and reads no clock: now is the time since boot. Its decision is a change, which counts once it is applied.
type blocks struct {
	by map[string]*Block
	of map[share]map[string]*Block
	calls
	// settling is until when no agent gets slots that it does not have: the store may be an old copy, and not know
	// which agent has them.
	settling time.Duration
	stocks   map[share]stock // of a broker; nil: this server has all that licences grant
	most     map[share]int64 // of a broker: see [Blocks.Hold]
	rules    enforcer.SiteRules
}

// change is the result of a decision: blocks to put, as they are now, and blocks to remove.
type change struct {
	put  []*Block
	drop []string
}

func newBlocks() *blocks {
	return &blocks{by: map[string]*Block{}, of: map[share]map[string]*Block{}, calls: newCalls()}
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

// out returns how many slots of a pool agents have now, without those of one block.
func (b *blocks) out(s share, but string, now time.Duration) (n int64) {
	for id, x := range b.of[s] {
		if id != but && x.until > now {
			n += x.Slots
		}
	}
	return n
}

// inTheWay returns the expired blocks of a pool whose slots are needed for a block, new or not, to have n. All blocks
// that are kept fit into total together, so that after a restart, which forgets what was over, no slot is out twice.
// Under rules for hosts none is kept: they bound parts of the total, too.
func (b *blocks) inTheWay(s share, but string, n int64, total enforcer.Limit, now time.Duration) (ids []string) {
	for id, x := range b.of[s] {
		if id != but {
			if n += x.Slots; x.until <= now {
				ids = append(ids, id)
			}
		}
	}
	if total.Covers(n) && len(b.rules.On(s.pool)) == 0 {
		return nil
	}
	return ids
}

// unheld returns how many slots of a pool agents may get, of at most total.
func (b *blocks) unheld(s share, total enforcer.Limit) enforcer.Limit {
	if most, held := b.most[s]; held {
		return total.Min(enforcer.Limit(most))
	}
	return total
}

// room returns how many slots of a pool are free beside those of one block, of at most total, whatever rules say.
func (b *blocks) room(s share, but string, total enforcer.Limit, now time.Duration) int64 {
	total = b.unheld(s, total)
	if total == enforcer.Unlimited {
		return enforcer.MaxN
	}
	return max(0, int64(total)-b.out(s, but, now))
}

// ask is a request for a block, or for more time for one.
type ask struct {
	agent   string
	license *enforcer.License
	*online.BlockRequest
	had    map[string]Had    // what the agent has by the server's own word, as far as it has heard
	newID  string            // of a block to be
	labels map[string]string // of the host, as they are bound to its key
	now    time.Duration     // since boot
	wall   time.Time
	ttl    time.Duration // the longest time of a block
}

func (a *ask) seconds() int64 {
	most := int64(a.ttl / time.Second)
	if a.Seconds <= 0 || a.Seconds > most {
		return most
	}
	return a.Seconds
}

// hold is for how many seconds a block's slots are kept back after its agent may use them: where the licence revokes
// leases that are over, until that is done.
func hold(l *enforcer.License) int64 {
	if l.OnExpiry == enforcer.Revoke {
		return int64(enforcer.RevokeDelay/time.Second) + 5
	}
	return 0
}

// settles is until when an agent gets no slots of a licence that it does not have.
func (b *blocks) settles(a *ask) time.Duration {
	if b.settling == 0 {
		return 0
	}
	return b.settling + time.Duration(hold(a.license))*time.Second
}

// checkOut decides on a request for a block. One agent gets one block for one token.
func (b *blocks) checkOut(a *ask) (*Block, change, *online.Refusal) {
	total, ok := b.total(a.license, a.Pool)
	s := share{a.license.ID, a.Pool}
	switch {
	case !ok:
		return nil, change{}, &online.Refusal{System: "NOT_SHARED",
			Reason: fmt.Sprintf("licence %s has no pool %q that is a whole site's", a.license.ID, a.Pool)}
	case a.Slots < 1 || a.Slots > enforcer.MaxN || a.AtLeast < 0 || a.AtLeast > a.Slots:
		return nil, change{}, &online.Refusal{System: "BAD_REQUEST",
			Reason: fmt.Sprintf("%d slots, at least %d, is not a valid request", a.Slots, a.AtLeast)}
	}
	b.totals[s] = total
	if until := b.settles(a); a.now < until {
		return nil, change{}, settlingRefusal(a, until)
	}
	for _, x := range b.of[s] {
		if a.Token != "" && x.Token == a.Token && x.Agent == a.agent {
			a.ID, a.Slots = x.ID, 0
			return b.extend(a)
		}
	}
	room, rule := b.roomFor(s, "", a.labels, total, a.now)
	n := min(a.Slots, max(0, room-b.toldOthers(s, a.agent, a.now)))
	b.miss(s, a, n, n > 0)
	least := a.AtLeast
	if least == 0 {
		least = a.Slots
	}
	if n < least {
		return nil, change{}, full(a.Pool, b.out(s, "", a.now), total, rule, b.elsewhere(s, a.agent, rule, a.now))
	}
	x := &Block{ID: a.newID, License: a.license.ID, Pool: a.Pool, Agent: a.agent, Slots: n, Token: a.Token,
		Taken: a.wall}
	return x, change{put: []*Block{x.from(a)}, drop: b.inTheWay(s, "", n, total, a.now)}, nil
}

// from sets a block's time from now. It never ends sooner than before: the agent might not hear of that.
func (b *Block) from(a *ask) *Block {
	b.Seconds, b.Hold = max(b.Seconds, a.seconds()), max(b.Hold, hold(a.license))
	b.until = a.now + b.span()
	b.Labels = a.labels
	return b
}

func full(pool string, out int64, total enforcer.Limit, rule string, where *online.Elsewhere) *online.Refusal {
	if rule != "" {
		return &online.Refusal{System: plugin.SystemFull, Reason: fmt.Sprintf(
			"pool %s: agents have %d of its %s slots, and rule %s of the site leaves this host no more", pool, out,
			total,
			rule), Hint: "ask again later: agents may return some", Elsewhere: where}
	}
	return &online.Refusal{System: plugin.SystemFull, Reason: fmt.Sprintf("pool %s: agents have %d of its %s slots",
		pool, out, total), Hint: "ask again later: agents may return some", Elsewhere: where}
}

// extend decides on more time for a block, and perhaps on another size. A block that is over comes back while there is
// room. It becomes smaller than asked only where the limit has become less than what is out: then it is cut to its
// share of that.
func (b *blocks) extend(a *ask) (*Block, change, *online.Refusal) {
	was, settling := b.by[a.ID], a.now < b.settles(a)
	if settling {
		was = b.takeOver(was, a)
	}
	if was == nil || was.Pending || was.Agent != a.agent || was.License != a.license.ID {
		return nil, change{}, lapsed("the block is over, and its slots may be another's")
	}
	s := share{was.License, was.Pool}
	total, _ := b.total(a.license, was.Pool)
	b.totals[s] = total
	x := *was
	room, _ := b.roomFor(s, was.ID, a.labels, total, a.now)
	if settling {
		room = 0 // slots that the store takes for free may be another's
	}
	x.hear(a)
	switch over := was.until <= a.now; {
	case over && x.Slots > room:
		return nil, change{}, lapsed(fmt.Sprintf("the block is over, and pool %s has %d slots left", was.Pool, room))
	case over, settling: // the count may include slots that others have had since: none is cut to a part of that
	default:
		n := b.shareOf(s, &x, total, a.now)
		if n == 0 {
			// It gets no more time: its slots are out until the agent has stopped handing them out in any case.
			return nil, change{},
				lapsed(fmt.Sprintf("pool %s has %s slots now, and other agents have them", was.Pool, total))
		}
		if n < x.size() {
			x.Told, x.old = n, was.until
		}
	}
	if size := x.size(); a.Slots > size {
		x.resize(max(size, min(a.Slots, room-b.toldOthers(s, a.agent, a.now), enforcer.MaxN)))
		b.miss(s, a, x.size(), x.size() > size)
	} else if a.Slots > 0 && a.Slots < was.size() {
		b.returned(s, a.agent, was.size()-a.Slots)
	}
	return &x, change{put: []*Block{x.from(a)}, drop: b.inTheWay(s, x.ID, x.Slots, total, a.now)}, nil
}

// takeOver returns a block as the latest store would know it. The agent has what it has by the server's own word,
// because nobody was given those slots since. was is the block as the store knows it; nil: it does not.
func (b *blocks) takeOver(was *Block, a *ask) *Block {
	h, ok := a.had[a.ID]
	switch {
	case !ok:
		return was
	case was == nil || was.until <= a.now && was.Agent == a.agent:
		return &Block{ID: a.ID, License: a.license.ID, Pool: h.Pool, Agent: a.agent, Slots: h.Slots, Taken: a.wall,
			until: b.settles(a)}
	case was.Slots < h.Slots:
		x := *was
		x.Slots = h.Slots
		return &x
	default:
		return was
	}
}

func lapsed(reason string) *online.Refusal {
	return &online.Refusal{System: plugin.SystemLapsed, Reason: reason, Hint: "check another out"}
}

// hear takes from a request how many slots of the block its agent hands out. An agent that asks for fewer hands out
// fewer before it asks. One that was told to have fewer does so by the time at which it last had more.
func (b *Block) hear(a *ask) {
	if b.Told > 0 && min(b.old, b.until) <= a.now {
		b.Slots = min(b.Slots, b.Told)
	}
	if a.Slots > 0 {
		b.Slots = min(b.Slots, a.Slots)
	}
	if h, ok := a.had[b.ID]; ok {
		b.Slots = min(b.Slots, h.Slots)
	}
	b.resize(min(b.size(), b.Slots))
}

// resize sets how many slots the agent is told to have. Until it hears of that it may hand out no fewer than before.
func (b *Block) resize(n int64) {
	if b.Told = n; n >= b.Slots {
		b.Slots, b.Told = max(b.Slots, n), 0
	}
}

// shareOf returns what a block may have of a pool whose limit has become less than what its agents were told to have:
// each agent has an equal part, and none more than before. While all fits it returns the block's size. A block that is
// pending is no part of the total yet, and takes nothing from others.
func (b *blocks) shareOf(s share, x *Block, total enforcer.Limit, now time.Duration) int64 {
	sum, of := int64(0), map[string]int64{}
	var own []*Block
	for _, y := range b.of[s] {
		if y.ID == x.ID {
			y = x
		} else if y.until <= now || y.Pending {
			continue
		}
		if of[y.Agent] += y.size(); y.Agent == x.Agent {
			own = append(own, y)
		}
		sum += y.size()
	}
	if total.Covers(sum) {
		return x.size()
	}
	agents := slices.Sorted(maps.Keys(of))
	sizes := make([]int64, len(agents))
	for i, who := range agents {
		sizes[i] = of[who]
	}
	mine := fill(sizes, int64(total))[slices.Index(agents, x.Agent)]
	slices.SortFunc(own, func(a, b *Block) int { return strings.Compare(a.ID, b.ID) })
	sizes = sizes[:0]
	for _, y := range own {
		sizes = append(sizes, y.size())
	}
	return fill(sizes, mine)[slices.Index(own, x)]
}

// fill divides n among owners with these sizes. None gets more than it has, and those that get less get equal parts;
// the first parts are larger by one where n is not a multiple. So one after the other may be cut to its part, and no
// part changes.
func fill(sizes []int64, n int64) []int64 {
	out, order := make([]int64, len(sizes)), make([]int, len(sizes))
	for i := range order {
		order[i] = i
	}
	slices.SortStableFunc(order, func(a, b int) int { return cmp.Compare(sizes[a], sizes[b]) })
	for len(order) > 0 && sizes[order[0]] <= n/int64(len(order)) {
		out[order[0]] = sizes[order[0]]
		n -= sizes[order[0]]
		order = order[1:]
	}
	slices.Sort(order)
	for i, at := range order {
		if out[at] = n / int64(len(order)); int64(i) < n%int64(len(order)) {
			out[at]++
		}
	}
	return out
}

// giveBack decides on the return of a block. A block that nobody has counts as returned.
func (b *blocks) giveBack(agent, id string) (c change) {
	if x := b.by[id]; x != nil && x.Agent == agent {
		b.returned(share{x.License, x.Pool}, agent, x.size())
		c.drop = []string{id}
	}
	return c
}
