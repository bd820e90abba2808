package fleet

import (
	"cmp"
	"context"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/usher-agent/usher/client/wire"
)

// Bounds of what an operator reads.
const (
	mostKeys   = 20_000                 // of one kind
	mostAsked  = 100                    // agents that are asked how many slots are held there
	askWithin  = 500 * time.Millisecond // for the answers
	askLives   = 10 * time.Second       // a question that nobody has taken back
	leftAtOnce = 8
)

// Operator looks at a fleet, and tells its agents what an operator wants. It is no member.
type Operator struct {
	Store  Store
	Prefix string
	By     string               // who asks, for people
	Now    func() time.Duration // time since boot
	Time   func() time.Time     // for people
	// Waits is told of an eviction that is about to wait for an agent's fence, and for how long; optional.
	Waits func(name, agent string, left time.Duration)

	mu   sync.Mutex // guards gone
	gone map[string]eviction
}

func (o *Operator) keys() keys { return keys{o.Prefix} }

// picture is the keys of a fleet at one revision.
type picture struct {
	wire.Fleet
	rev      int64
	epochMod int64
	leases   map[string]Lease   // of the agents that live
	spans    map[string]float64 // by agent: for how many seconds its slots may be in use after a sign of life
}

// Look reads the fleet. With ask, it asks the agents, too, how many slots are held there.
func (o *Operator) Look(ctx context.Context, ask bool) (wire.Fleet, error) {
	p, err := o.picture(ctx)
	if err != nil {
		return wire.Fleet{}, err
	}
	var sizes sync.WaitGroup
	sizes.Go(func() {
		if store, ok := o.Store.(sized); ok {
			p.Sizes = store.Sizes(ctx)
		}
	})
	o.fences(ctx, p)
	if ask {
		o.ask(ctx, p)
	}
	sizes.Wait()
	return p.Fleet, nil
}

func (o *Operator) picture(ctx context.Context) (*picture, error) {
	k := o.keys()
	lists := []string{k.agents(), k.prefix + "e/", k.prefix + "o/", k.prefix + "p/"}
	ops := []Op{{Get: k.cluster()}, {Get: k.quarantine()}}
	for _, prefix := range lists {
		ops = append(ops, Op{List: prefix, Most: mostKeys})
	}
	res, err := o.Store.Txn(ctx, &Txn{Kind: KindOperate, Then: ops})
	if err != nil {
		return nil, err
	}
	p := &picture{rev: res.Rev, leases: map[string]Lease{}, spans: map[string]float64{}}
	p.Current = true
	kv, _ := res.one(0)
	p.epochMod = kv.Mod
	if kv, ok := res.one(1); ok {
		q, _ := read[quarantine](kv, true)
		p.Quarantine = q.Reason
	}
	for i := range lists {
		p.Truncated = p.Truncated || len(res.Got[2+i]) == mostKeys
	}
	agents := map[string]*wire.FleetAgent{}
	of := func(id string) *wire.FleetAgent {
		if agents[id] == nil {
			agents[id] = &wire.FleetAgent{Agent: id}
		}
		return agents[id]
	}
	for _, kv := range res.Got[4] {
		owned, _ := read[owned](kv, true)
		if id := strings.TrimPrefix(kv.Key, lists[2]); id != "" {
			of(id).Name = owned.Name
		}
	}
	for _, kv := range res.Got[3] {
		id, what, _ := strings.Cut(strings.TrimPrefix(kv.Key, lists[1]), "/")
		if id == rulesKey || id == "" {
			continue
		}
		a, order := of(id), ordered(kv)
		a.Name = cmp.Or(order.Name, a.Name)
		switch what {
		case "":
			a.Evicted = &wire.FleetOrder{By: order.By, At: order.At}
		case "drain":
			a.Draining = &wire.FleetOrder{By: order.By, At: order.At}
		}
	}
	for _, kv := range res.Got[2] {
		id := strings.TrimPrefix(kv.Key, lists[0])
		if id == "" {
			continue
		}
		m, _ := read[member](kv, true)
		a := of(id)
		a.Name, a.Version, a.Alive, a.TTLSeconds = cmp.Or(m.Name, a.Name), m.Version, true, m.TTL
		p.leases[id] = kv.Lease
	}
	p.pools(res.Got[5], lists[3], of)
	for id, a := range agents {
		if a.Alive || a.Evicted != nil || a.Draining != nil || p.has(id) {
			p.Agents = append(p.Agents, *a)
		}
	}
	slices.SortFunc(p.Agents, func(a, b wire.FleetAgent) int {
		return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.Agent, b.Agent))
	})
	return p, nil
}

func ordered(kv KV) order {
	o, _ := read[order](kv, true)
	return o
}

func shareOf(kv KV) share {
	x, _ := read[share](kv, true)
	return x
}

// pools takes the keys p/. It passes over those that no agent writes.
func (p *picture) pools(kvs []KV, prefix string, of func(string) *wire.FleetAgent) {
	pools := map[string]*wire.FleetPool{}
	shares := map[[2]string]*wire.FleetShare{}
	turns := map[string]int{}
	for _, kv := range kvs {
		name, rest, _ := strings.Cut(strings.TrimPrefix(kv.Key, prefix), "/")
		kind, id, _ := strings.Cut(rest, "/")
		if name == "" || kind == "" || (kind == "g" || kind == "w") != (id != "") {
			continue
		}
		pool := pools[name]
		if pool == nil {
			pool = &wire.FleetPool{Pool: plainOf(name), Key: name}
			pools[name] = pool
		}
		share := shares[[2]string{name, id}]
		if share == nil && id != "" {
			share = &wire.FleetShare{Agent: id, Name: of(id).Name}
			shares[[2]string{name, id}] = share
		}
		switch kind {
		case "t":
			t, _ := read[terms](kv, true)
			pool.Limit, pool.Document = t.Limit, t.Document
		case "s":
			s, _ := read[total](kv, true)
			pool.Out += s.Out // without what is free in its shares
		case "g":
			h, _ := read[held](kv, true)
			share.Slots, share.Limit, share.Document = h.sum(), h.Limit, h.Document
			h.title.of(pool)
			p.spans[id] = max(p.spans[id], h.TTL)
			for _, x := range h.Former {
				p.spans[id] = max(p.spans[id], x.TTL)
			}
			if !h.Since.IsZero() {
				share.Since = &h.Since
			}
		case "w":
			t, _ := read[ticket](kv, true)
			turns[name]++
			share.Waiting, share.Turn = t.Slots, turns[name]
		default:
			if strings.HasPrefix(kind, "f") {
				pool.Out -= shareOf(kv).Free
			}
		}
	}
	for of, share := range shares {
		pools[of[0]].Agents = append(pools[of[0]].Agents, *share)
	}
	for _, pool := range pools {
		slices.SortFunc(pool.Agents, func(a, b wire.FleetShare) int {
			return cmp.Or(cmp.Compare(b.Slots, a.Slots), cmp.Compare(a.Turn, b.Turn), cmp.Compare(a.Name, b.Name),
				cmp.Compare(a.Agent, b.Agent))
		})
		p.Pools = append(p.Pools, *pool)
	}
	slices.SortFunc(p.Pools, func(a, b wire.FleetPool) int { return cmp.Compare(a.Key, b.Key) })
}

// has reports whether an agent has blocks, or waits for slots.
func (p *picture) has(id string) bool {
	return slices.ContainsFunc(p.Pools, func(pool wire.FleetPool) bool {
		return slices.ContainsFunc(pool.Agents, func(s wire.FleetShare) bool { return s.Agent == id })
	})
}

// lefts is a store that says for how long a lease lives on, of how long.
type lefts interface {
	Left(context.Context, Lease) (left, made time.Duration, err error)
}

// sized is a store that says how full its members are.
type sized interface {
	Sizes(context.Context) []wire.FleetSize
}

// fences adds how long each agent may use its blocks, as far as the store says it in time.
func (o *Operator) fences(ctx context.Context, p *picture) {
	store, ok := o.Store.(lefts)
	if !ok {
		return
	}
	var all sync.WaitGroup
	places := make(chan struct{}, leftAtOnce)
	for i := range p.Agents[:min(len(p.Agents), mostAsked)] {
		a := &p.Agents[i]
		if !a.Alive {
			continue
		}
		all.Go(func() {
			places <- struct{}{}
			defer func() { <-places }()
			left, made, err := store.Left(ctx, p.leases[a.Agent])
			if err != nil {
				return
			}
			s := max(0, fence(left-made, made)).Seconds() // it was renewed so long ago
			a.FenceSeconds = &s
		})
	}
	all.Wait()
}

// ask asks agents how many slots are held there, and adds what they answer soon.
func (o *Operator) ask(ctx context.Context, p *picture) {
	k := o.keys()
	var ops []Op
	wanted := map[string]bool{}
	lease, _, err := o.Store.Grant(ctx, askLives)
	if err != nil {
		return // it is a help only
	}
	for _, a := range p.Agents {
		if a.Alive && len(ops) < mostAsked {
			wanted[a.Agent] = true
			ops = append(ops, Op{Put: k.word(a.Agent, wordAsk), Value: "{}", Lease: lease})
		}
	}
	asked, err := o.Store.Txn(ctx, &Txn{Kind: KindOperate, Then: ops})
	if len(ops) == 0 || err != nil {
		return
	}
	answers := map[string]used{}
	for until := o.Now() + askWithin; len(answers) < len(wanted) && o.Now() < until; {
		select {
		case <-ctx.Done():
			return
		case <-time.After(askWithin / 20):
		}
		res, err := o.Store.Txn(ctx, &Txn{Kind: KindOperate, Then: []Op{{List: k.used(""), Most: mostKeys}}})
		if err != nil {
			break
		}
		for _, kv := range res.Got[0] {
			id := strings.TrimPrefix(kv.Key, k.used(""))
			if u, err := read[used](kv, true); err == nil && wanted[id] && kv.Mod > asked.Rev {
				answers[id] = u
			}
		}
	}
	for i := range p.Pools {
		for j := range p.Pools[i].Agents {
			s := &p.Pools[i].Agents[j]
			if n, ok := answers[s.Agent].InUse[p.Pools[i].Key]; ok {
				s.InUse = &n
			}
		}
	}
}
