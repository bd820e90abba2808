package registry

import (
	"cmp"
	"context"
	"maps"
	"slices"
	"time"

	"go.etcd.io/bbolt"

	"github.com/usher-agent/usher/enforcer"
	"github.com/usher-agent/usher/plugin"
	"github.com/usher-agent/usher/plugin/usher/online"
)

// Bounds of watches.
const (
	// watchFor is the longest time of a watch: below the server's write timeout, and below what proxies wait.
	watchFor = 20 * time.Second
	// actWithin is for how long an agent that was told something has the time to act on it, before others are told.
	actWithin = 2 * time.Second
	// maxWatches is how many watches wait at one time. Further agents learn of the others' wants when they next ask for
	// more time.
	maxWatches = 4096
	// statedFor is for how long an agent's word for its idle slots counts after its watch.
	statedFor = 5 * time.Second
)

// count is a number of slots of one agent, which counts until an instant.
type count struct {
	slots int64
	until time.Duration
}

// want is slots that an agent has asked for in vain, and needs.
type want struct {
	count
	since  time.Duration
	labels map[string]string // of the agent's host
	told   count             // the free slots that the agent was told of since
}

// calls is what agents have said of their wants and idle slots, and were told. It is a matter of speed alone: none of
// it decides on which agent has slots, and a restarted server has none of it.
type calls struct {
	totals  map[share]enforcer.Limit
	missing map[share]map[string]want  // by agent
	idle    map[share]map[string]count // likewise: what the agent could return
	recalls map[share]map[string]count // likewise: what the agent was told to return
}

func newCalls() calls {
	return calls{map[share]enforcer.Limit{}, map[share]map[string]want{}, map[share]map[string]count{},
		map[share]map[string]count{}}
}

// miss notes how many of the slots that an agent needs it has not got; got is how many it has of those it asked for.
// With some of them it goes to the end of those that wait.
func (c *calls) miss(s share, a *ask, got int64, some bool) {
	was := c.missing[s][a.agent]
	delete(c.missing[s], a.agent)
	if slots := a.Slots - max(0, a.Ahead) - got; slots > 0 {
		if c.missing[s] == nil {
			c.missing[s] = map[string]want{}
		}
		w := want{count: count{slots, a.now + a.ttl/2}, since: a.now, labels: a.labels}
		if was.until > a.now && !some {
			w.since = was.since
		}
		c.missing[s][a.agent] = w
	}
	delete(c.idle[s], a.agent) // it asks for more: what it said before is old
}

// toldOthers returns how many free slots others than an agent were told of a moment ago: they come first.
func (c *calls) toldOthers(s share, agent string, now time.Duration) (n int64) {
	for who, w := range c.missing[s] {
		if who != agent && w.told.until > now {
			n += w.told.slots
		}
	}
	return n
}

// returned notes that an agent gives n slots back.
func (c *calls) returned(s share, agent string, n int64) {
	delete(c.recalls[s], agent)
	if w, ok := c.idle[s][agent]; ok {
		if w.slots -= n; w.slots > 0 {
			c.idle[s][agent] = w
		} else {
			delete(c.idle[s], agent)
		}
	}
}

// live returns the counts of a map that still count, but for one agent's, and forgets the others.
func live(m map[string]count, but string, now time.Duration) (sum int64) {
	for who, n := range m {
		if n.until <= now {
			delete(m, who)
		} else if who != but {
			sum += n.slots
		}
	}
	return sum
}

// wanted returns how many slots of a pool other agents need that are neither free nor on their way back.
func (b *blocks) wanted(s share, agent string, now time.Duration) (n int64) {
	if rules := b.rules.On(s.pool); len(rules) > 0 {
		return b.wantedOf(rules, s, agent, now)
	}
	for who, w := range b.missing[s] {
		if w.until <= now {
			delete(b.missing[s], who)
		} else if who != agent {
			n += w.slots
		}
	}
	if n == 0 {
		return 0
	}
	return max(0, n-b.room(s, "", b.totals[s], now)-live(b.recalls[s], agent, now))
}

// elsewhere returns where the slots are that an agent does not have; rule is the one that leaves it none, or empty.
func (b *blocks) elsewhere(s share, agent, rule string, now time.Duration) *online.Elsewhere {
	e := &online.Elsewhere{Rule: rule}
	for _, x := range b.of[s] {
		if x.Agent != agent && x.until > now {
			e.Out += x.Slots
		}
	}
	e.Idle = min(e.Out, live(b.idle[s], agent, now))
	return e
}

// state notes what an agent could return. It counts as no more than what the agent has.
func (b *blocks) state(agent, license string, idle map[string]int64, until, now time.Duration) {
	for s := range b.of {
		if s.license != license {
			continue
		}
		has := int64(0)
		for _, x := range b.of[s] {
			if x.Agent == agent && x.until > now {
				has += x.size()
			}
		}
		if n := min(has, idle[s.pool]); n > 0 {
			if b.idle[s] == nil {
				b.idle[s] = map[string]count{}
			}
			b.idle[s][agent] = count{n, until}
		} else {
			delete(b.idle[s], agent)
		}
	}
}

// news decides which of the agents that watch are told what of a licence: those that have asked in vain, the longest
// waiting first, of as many slots as are free, and those with the most idle slots of what the others lack. So of many
// agents only as many move as have something to do.
func (b *blocks) news(license string, watch func(agent string) bool,
	now time.Duration) map[string]map[string]online.PoolNews {
	out := map[string]map[string]online.PoolNews{}
	tell := func(agent, pool string, n online.PoolNews) {
		if out[agent] == nil {
			out[agent] = map[string]online.PoolNews{}
		}
		out[agent][pool] = n
	}
	for s, missing := range b.missing {
		if s.license != license || len(missing) == 0 || now < b.settling {
			continue
		}
		free := b.room(s, "", b.totals[s], now)
		lacking := b.wanted(s, "", now) // which forgets those that are over
		for _, w := range missing {
			if w.told.until > now {
				free -= w.told.slots
			}
		}
		for _, who := range slices.SortedFunc(maps.Keys(missing), func(x, y string) int {
			return cmp.Or(cmp.Compare(missing[x].since, missing[y].since), cmp.Compare(x, y))
		}) {
			w := missing[who]
			if free <= 0 {
				break
			}
			if w.told.until > now || !watch(who) {
				continue
			}
			n := min(free, w.slots, b.letting(s, w, now))
			if n <= 0 {
				continue // a rule keeps it from what is free
			}
			w.told, free = count{n, now + actWithin}, free-n
			missing[who] = w
			tell(who, s.pool, online.PoolNews{Free: n})
		}
		idle := b.idle[s]
		for _, who := range slices.SortedFunc(maps.Keys(idle), func(x, y string) int {
			return cmp.Or(cmp.Compare(idle[y].slots, idle[x].slots), cmp.Compare(x, y))
		}) {
			if lacking <= 0 {
				break
			}
			_, asked := b.recalls[s][who]
			_, needs := missing[who]
			if asked || needs || !watch(who) {
				continue
			}
			n := min(lacking, idle[who].slots, b.useful(s, who, now))
			if n <= 0 {
				continue
			}
			if b.recalls[s] == nil {
				b.recalls[s] = map[string]count{}
			}
			b.recalls[s][who], lacking = count{n, now + actWithin}, lacking-n
			tell(who, s.pool, online.PoolNews{Wanted: n})
		}
	}
	return out
}

// watchers are those that wait, by licence and agent. A channel takes one value.
type watchers map[string]map[string]chan map[string]online.PoolNews

// end answers one watch. It is over then.
func (w watchers) end(license, agent string, n map[string]online.PoolNews) {
	if c := w[license][agent]; c != nil {
		c <- n
		w.forget(license, agent)
	}
}

func (w watchers) forget(license, agent string) {
	if delete(w[license], agent); len(w[license]) == 0 {
		delete(w, license)
	}
}

// tell answers the watches of a licence for which there is news. p.mu is held.
func (p *Blocks) tell(license string) {
	all := p.watchers[license]
	if len(all) == 0 {
		return
	}
	for agent, n := range p.blocks.news(license, func(agent string) bool { return all[agent] != nil }, p.up()) {
		p.watchers.end(license, agent, n)
	}
}

// Watch waits for news for an agent. A second watch of an agent ends its first.
func (p *Blocks) Watch(ctx context.Context, agent, license string, r *online.WatchRequest) (
	news map[string]online.PoolNews, refused *online.Refusal) {
	span := time.Duration(min(max(0, r.Seconds), int64(watchFor/time.Second))) * time.Second
	mine := make(chan map[string]online.PoolNews, 1)
	p.mu.Lock()
	p.watchers.end(license, agent, nil)
	waiting := 0
	for _, of := range p.watchers {
		waiting += len(of)
	}
	if refused = p.left(agent, nil); refused == nil && (p.ending || waiting >= maxWatches) {
		refused = &online.Refusal{System: online.SystemBusy, Reason: "too many agents wait for news",
			Hint: "the agent learns of it when it next asks for more time"}
	}
	if refused != nil {
		p.mu.Unlock()
		return nil, refused
	}
	if p.watchers[license] == nil {
		p.watchers[license] = map[string]chan map[string]online.PoolNews{}
	}
	p.watchers[license][agent] = mine
	now := p.up()
	p.blocks.state(agent, license, r.Idle, now+span+statedFor, now)
	p.tell(license)
	p.mu.Unlock()
	over := time.NewTimer(span)
	defer over.Stop()
	select {
	case news = <-mine:
	case <-ctx.Done():
	case <-over.C:
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.watchers[license][agent] == mine {
		p.watchers.forget(license, agent)
	}
	select {
	case news = <-mine: // it came at the last moment
	default:
	}
	return news, p.left(agent, nil)
}

// endWatches answers all watches, and has no more wait.
func (g *Registry) endWatches() {
	p, ok := g.cfg.Pools.(*Blocks)
	if !ok {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.ending = true
	p.answerAll()
}

// answerAll answers all watches. p.mu is held.
func (p *Blocks) answerAll() {
	for license, of := range p.watchers {
		for agent := range of {
			p.watchers.end(license, agent, nil)
		}
	}
}

// watch answers a call that waits for news. It writes nothing, needs no chain, and tells nobody anything who has no
// place on the licence.
func (g *Registry) watch(ctx context.Context, r *online.Request, agent string) (*Answer, error) {
	now := g.cfg.Now()
	reply := &online.Reply{Call: r.Call, Issued: now.Unix(), Nonce: r.Nonce, License: r.License, AgentKey: agent}
	known := false
	err := g.db.View(func(tx *bbolt.Tx) error {
		host, err := get[Activation](tx.Bucket(activations), activationKey(r.License, agent))
		known = host != nil
		return err
	})
	if err != nil {
		return nil, err
	}
	age := now.Sub(time.Unix(r.Issued, 0))
	switch {
	case age.Abs() > online.Fresh:
		reply.Refused = stale("the request's date is %s off", enforcer.Span(age.Round(time.Second)))
	case g.cfg.Pools == nil || r.Watch == nil:
		reply.Refused = &online.Refusal{System: plugin.SystemNoPools, Reason: "this upstream serves no slots",
			Hint: "run it with --serve-pools"}
	case !known:
		reply.Refused = notActivated
	default:
		reply.Watch, reply.Refused = g.cfg.Pools.Watch(ctx, agent, r.License, r.Watch)
	}
	// The wait is over now: an answer that tells the time of before it would be evidence of an old one.
	reply.Issued = g.cfg.Now().Unix()
	return &Answer{Reply: reply}, nil
}
