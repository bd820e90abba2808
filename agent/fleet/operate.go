package fleet

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/usher-agent/usher/client/wire"
	"github.com/usher-agent/usher/plugin"
)

// UnknownAgentError says that no agent of the fleet, or more than one, is meant by a word.
type UnknownAgentError struct {
	Host  string
	Known []string // agents that are meant, or, where none is, all: by name and the beginning of the key
	Many  bool
}

func (e *UnknownAgentError) Error() string {
	known := strings.Join(e.Known, ", ")
	switch {
	case e.Many:
		return fmt.Sprintf("%q means several agents of the fleet: %s; name one by the beginning of its key", e.Host,
			known)
	case len(e.Known) == 0:
		return fmt.Sprintf("the fleet has no agent %q, and no other", e.Host)
	}
	return fmt.Sprintf("the fleet has no agent %q (known: %s)", e.Host, known)
}

// shortKey is how much of a key's thumbprint people are shown.
const shortKey = 12

func known(a wire.FleetAgent) string {
	key := a.Agent[:min(len(a.Agent), shortKey)]
	if !a.Alive { // another may have its name now
		key += ", gone"
	}
	if a.Name == "" {
		return key
	}
	return a.Name + " (" + key + ")"
}

// meant returns the agent that a word means: its host's name, its key, or the beginning of that.
func (p *picture) meant(host string) (*wire.FleetAgent, error) {
	var named, begin []int
	for i, a := range p.Agents {
		switch {
		case a.Agent == host:
			return &p.Agents[i], nil
		case a.Name == host:
			named = append(named, i)
		case len(host) >= 4 && strings.HasPrefix(a.Agent, host):
			begin = append(begin, i)
		}
	}
	if len(named) == 0 {
		named = begin
	}
	if len(named) == 1 {
		return &p.Agents[named[0]], nil
	}
	e := &UnknownAgentError{Host: host, Many: len(named) > 1}
	const most = 20
	for i, a := range p.Agents {
		if (!e.Many || slices.Contains(named, i)) && len(e.Known) < most {
			e.Known = append(e.Known, known(a))
		}
	}
	if !e.Many && len(p.Agents) > most {
		e.Known = append(e.Known, fmt.Sprintf("and %d more", len(p.Agents)-most))
	}
	return nil, e
}

// tell has an agent look at once what it was told. It is a help only: it looks with its next renewal.
func (o *Operator) tell(ctx context.Context, id string) {
	lease, _, err := o.Store.Grant(ctx, askLives)
	if err == nil {
		_, _ = o.Store.Txn(ctx, &Txn{Kind: KindOperate,
			Then: []Op{{Put: o.keys().word(id, wordLook), Value: "{}", Lease: lease}}})
	}
}

func (o *Operator) order(name string) string {
	return text(order{Name: name, By: o.By, At: o.Time().UTC().Truncate(time.Second)})
}

// Drain has an agent give its idle slots back and take none, or ends that, also for one that is gone for good.
func (o *Operator) Drain(ctx context.Context, host string, undo bool) (wire.FleetDone, error) {
	a, _, err := o.find(ctx, host)
	if err != nil {
		return wire.FleetDone{}, err
	}
	op := Op{Put: o.keys().drained(a.Agent), Value: o.order(a.Name)}
	if undo {
		op = Op{Delete: o.keys().drained(a.Agent)}
	}
	if _, err := o.Store.Txn(ctx, &Txn{Kind: KindOperate, Then: []Op{op}}); err != nil {
		return wire.FleetDone{}, err
	}
	o.tell(ctx, a.Agent)
	return wire.FleetDone{Agent: a.Agent, Name: a.Name, Done: true, Gone: !a.Alive, Evicted: a.Evicted != nil}, nil
}

// Readmit lets an agent join again that was put out.
func (o *Operator) Readmit(ctx context.Context, host string) (wire.FleetDone, error) {
	a, _, err := o.find(ctx, host)
	if err != nil {
		return wire.FleetDone{}, err
	}
	if _, err := o.Store.Txn(ctx, &Txn{Kind: KindOperate,
		Then: []Op{{Delete: o.keys().evicted(a.Agent)}}}); err != nil {
		return wire.FleetDone{}, err
	}
	o.mu.Lock()
	delete(o.gone, a.Agent)
	o.mu.Unlock()
	o.tell(ctx, a.Agent)
	return wire.FleetDone{Agent: a.Agent, Name: a.Name, Done: true, Gone: !a.Alive, Draining: a.Draining != nil}, nil
}

func (o *Operator) find(ctx context.Context, host string) (*wire.FleetAgent, *picture, error) {
	p, err := o.picture(ctx)
	if err != nil {
		return nil, nil, err
	}
	a, err := p.meant(host)
	return a, p, err
}

// holdSlack is how much longer than a fence an evicted agent's key is held: for as long as the order may take.
const holdSlack = 5 * time.Second

// Evict puts an agent out of the fleet and waits until its fence is over, but no longer than wait. Then it frees the
// agent's slots. The fence is counted by this host's clock, from when the store said that the agent's key has gone. A
// call after one that ended early goes on where that was, within one process.
func (o *Operator) Evict(ctx context.Context, host string, wait time.Duration) (wire.FleetDone, error) {
	a, p, err := o.find(ctx, host)
	if err != nil {
		return wire.FleetDone{}, err
	}
	done := wire.FleetDone{Agent: a.Agent, Name: a.Name}
	span, mod, err := o.putOut(ctx, a, p)
	if err != nil {
		return done, err
	}
	is := eviction{mod: mod, epochMod: p.epochMod, at: o.Now()}
	o.mu.Lock()
	if was := o.gone[a.Agent]; was.mod == is.mod && was.epochMod == is.epochMod {
		is = was
	}
	if o.gone == nil {
		o.gone = map[string]eviction{}
	}
	o.gone[a.Agent] = is
	o.mu.Unlock()
	o.tell(ctx, a.Agent)
	began := o.Now()
	if left := is.at + span - began; left > 0 && wait > 0 && o.Waits != nil {
		o.Waits(a.Name, a.Agent, left)
	}
	for left := is.at + span - o.Now(); left > 0; left = is.at + span - o.Now() {
		if ctx.Err() != nil || o.Now()-began >= wait {
			done.LeftSeconds, done.Reason = left.Seconds(), "its fence is not over"
			return done, nil
		}
		select {
		case <-ctx.Done():
		case <-time.After(min(left, time.Second)):
		}
	}
	done.Slots, err = o.free(ctx, a.Agent, is)
	if done.Done = err == nil; err != nil {
		done.Reason = err.Error()
	}
	return done, err
}

// eviction is when the store said that an agent is out.
type eviction struct {
	mod      int64 // the revision of the order
	epochMod int64 // of the key c: another is an old copy of the store
	at       time.Duration
}

// putOut takes an agent's key away and keeps it from joining. It returns for how long its fence may last, and the
// revision of the order.
func (o *Operator) putOut(ctx context.Context, a *wire.FleetAgent,
	p *picture) (span time.Duration, mod int64, err error) {
	k := o.keys()
	ctx, cancel := context.WithTimeout(ctx, holdSlack)
	defer cancel()
	for try := 0; ; try++ {
		res, err := o.Store.Txn(ctx, &Txn{Kind: KindOperate, Then: []Op{{Get: k.agent(a.Agent)},
			{Get: k.longest()}, {Get: k.evicted(a.Agent)}}})
		if err != nil {
			return 0, 0, err
		}
		kv, alive := res.one(0)
		m, _ := read[member](kv, alive)
		longest, err := read[longest](res.one(1))
		if err != nil {
			return 0, 0, err
		}
		ttl := max(m.TTL, p.spans[a.Agent])
		if ttl == 0 { // it has no blocks, or they cannot be read
			ttl = max(longest.TTL, DefaultTTL.Seconds())
		}
		span := time.Duration(ttl * float64(time.Second))
		if kv, out := res.one(2); out && !alive {
			return span, kv.Mod, nil
		}
		hold, _, err := o.Store.Grant(ctx, span+holdSlack)
		if err != nil {
			return 0, 0, err
		}
		is := still(k.agent(a.Agent), kv.Mod)
		res, err = o.Store.Txn(ctx, &Txn{Kind: KindOperate, If: []Is{is}, Then: []Op{
			{Put: k.evicted(a.Agent), Value: o.order(a.Name)},
			{Put: k.hold(a.Agent), Value: "{}", Lease: hold}, {Delete: k.agent(a.Agent)}}})
		if err != nil {
			return 0, 0, err
		}
		if res.Done {
			return span, res.Rev, nil
		}
		if try == maxTries {
			return 0, 0, plugin.Transiently("the agent's key changes all the time; try again")
		}
	}
}

// free takes the blocks of an agent that is out and whose fence is over.
func (o *Operator) free(ctx context.Context, id string, is eviction) (slots int64, err error) {
	k := o.keys()
	p, err := o.picture(ctx)
	if err != nil {
		return 0, err
	}
	for _, pool := range p.Pools {
		if !slices.ContainsFunc(pool.Agents, func(s wire.FleetShare) bool { return s.Agent == id }) {
			continue
		}
		for try := 0; ; try++ {
			n, done, err := o.freeOf(ctx, id, pool.Key, is)
			if err != nil {
				return slots, err
			}
			if slots += n; done {
				break
			}
			if try == maxTries {
				return slots, plugin.Transiently("too many agents change the pool %s at the same time", pool.Pool)
			}
		}
	}
	_, err = o.Store.Txn(ctx, &Txn{Kind: KindOperate, If: []Is{absent(k.agent(id))},
		Then: []Op{{Delete: k.hold(id)}, {Delete: k.owns(id)}}})
	return slots, err
}

// freeOf takes the blocks of one pool, in one transaction; done is false where others came before it.
func (o *Operator) freeOf(ctx context.Context, id, name string, is eviction) (n int64, done bool, err error) {
	k := o.keys()
	sum, block, ticket := k.total(name), k.block(name, id), k.ticket(name, id)
	res, err := o.Store.Txn(ctx, &Txn{Kind: KindReap, Then: []Op{{Get: sum}, {Get: block},
		{Get: k.quarantine()}, {Get: k.cluster()}}})
	if err != nil {
		return 0, false, err
	}
	if _, there := res.one(2); there {
		return 0, false, plugin.Transiently("the fleet is in quarantine; try again in a moment")
	}
	kvCluster, known := res.one(3)
	if c, err := read[identity](kvCluster, known); err != nil || c.Cluster != res.Cluster || res.Rev < is.mod ||
		kvCluster.Mod != is.epochMod {
		return 0, false, plugin.Transiently("the store was restored from a backup meanwhile; evict the agent again")
	}
	kvSum, hasSum := res.one(0)
	kv, there := res.one(1)
	out, err := read[total](kvSum, hasSum)
	if err != nil {
		return 0, false, err
	}
	h, err := read[held](kv, there)
	if err != nil {
		return 0, false, err
	}
	n = h.sum()
	ops := []Op{{Delete: ticket}}
	if there {
		ops = append(ops, Op{Put: sum, Value: text(total{out.Out - n})}, Op{Delete: block})
	}
	res, err = o.Store.Txn(ctx, &Txn{Kind: KindReap, If: []Is{absent(k.agent(id)), absent(k.quarantine()),
		still(k.evicted(id), is.mod), still(k.cluster(), is.epochMod), still(sum, kvSum.Mod), still(block, kv.Mod)},
		Then: ops})
	if err != nil || !res.Done {
		return 0, false, err
	}
	return n, true, nil
}
