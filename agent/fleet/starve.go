package fleet

import (
	"cmp"
	"context"
	"maps"
	"slices"
	"strings"
	"time"
)

// Bounds of what an agent does that waits for slots.
const (
	callEvery  = time.Second            // the least time between words to those who have slots
	mostCalled = 16                     // agents, at one time
	overRest   = 100 * time.Millisecond // the least time between looks at what is over by time alone
	staleAfter = 6 * time.Second        // for how long an agent that asks no more, and does not say why, keeps its turn
)

// free returns how many of the free slots an agent may take, and how many its ticket asks for; zero: it has none, less:
// it has none among those that were read. Those who asked before come first. The agent's own ticket comes next, and
// what it wants beyond that is behind all others: so nobody is passed by what others want later.
func (v *view) free(ticketKey string, free int64) (most, asked int64) {
	var before, after int64
	waits := false
	for _, kv := range v.first {
		t, err := read[ticket](kv, true)
		if err != nil {
			continue
		}
		switch n := max(0, t.Slots); {
		case kv.Key == ticketKey:
			asked, waits = n, true
		case waits:
			after += n
		default:
			before += n
		}
	}
	all := len(v.first) < maxTickets // else more may wait, before or after
	switch {
	case !waits && !all:
		return 0, -1
	case !waits:
		return free - before, 0
	}
	free -= before
	if most = min(free, asked); all {
		most += max(0, free-asked-after)
	}
	return most, asked
}

// starve has the agent wait in turn for n slots, and asks others for their idle ones. asked is what its ticket asks for
// by what was read, as [view.free] has it. A ticket asks for no more than when it was made, else others would wait
// behind what nobody wanted before them: the rest gets a ticket of its own later. The next try does what an error
// has left undone.
func (f *Fleet) starve(ctx context.Context, me membership, name string, p *pool, asked, n int64) error {
	if n <= 0 {
		return nil // nobody needs them yet
	}
	now := f.cfg.Now()
	f.mu.Lock()
	if f.gaveUp {
		f.mu.Unlock()
		return nil
	}
	if asked < 0 {
		asked = p.asked
	}
	turn := n
	if asked > 0 {
		turn = min(n, asked)
	}
	p.askedAt = now
	ask, call := asked != turn, now-p.called >= callEvery || p.called == 0
	if call {
		p.called = now
	}
	if call {
		p.askErr = nil
	}
	was := p.askErr
	f.mu.Unlock()
	var ops []Op
	if ask {
		ops = append(ops, Op{Put: f.keys.ticket(name, f.cfg.Agent), Value: text(f.ticket(turn)), Lease: me.lease})
	}
	if call {
		ops = append(ops, f.callOthers(ctx, me, name, n)...)
	}
	if len(ops) == 0 {
		return was
	}
	res, err := f.cfg.Store.Txn(ctx,
		&Txn{Kind: KindWait, If: []Is{has(f.keys.agent(f.cfg.Agent), me.value)}, Then: ops})
	f.mu.Lock()
	defer f.mu.Unlock()
	if p.askErr = err; err == nil && res.Done && ask {
		p.asked = turn
	}
	return err
}

// tidy gives back what is over, and takes the agent out of the turn for pools that it has not asked for lately, until
// ctx ends.
func (f *Fleet) tidy(ctx context.Context) {
	tick := time.NewTicker(staleAfter / 3)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-f.asks:
			f.sayUse(ctx)
		case <-f.gathers:
			f.gather(ctx)
		case <-time.After(f.untilOver()):
			f.passOver(ctx)
		case <-tick.C:
			f.sweep(ctx)
			f.census(ctx)
			f.forgetGone(ctx)
			f.leaveTurn(ctx, func(name string, p *pool) bool {
				now := f.cfg.Now()
				return now-p.askedAt >= staleAfter && now >= p.lackedTo
			})
		}
	}
}

// untilOver returns when to look again at slots that come free by time alone: those that a former incarnation may have
// in use, and those of the dead that this agent has found while it starves.
func (f *Fleet) untilOver() time.Duration {
	f.mu.Lock()
	defer f.mu.Unlock()
	now, least := f.cfg.Now(), time.Minute
	for _, p := range f.pools {
		for name, x := range p.held.Former {
			least = min(least, p.former[name]+seconds(x.TTL)-now)
		}
		if at := f.wakeAt(p); at != 0 {
			least = min(least, at-now)
		}
	}
	return max(least, overRest)
}

// wakeAt is when an agent whose callers wait asks again, however long its keeper rests after calls in vain: when the
// dead that it has found are over, and before long anyway, to find others. 0: nobody waits. mu is held.
func (f *Fleet) wakeAt(p *pool) time.Duration {
	if p.asked == 0 && f.cfg.Now() >= p.lackedTo {
		return 0
	}
	at := max(p.askedAt, p.wokenAt) + f.cfg.TTL/6
	if p.overAt != 0 {
		at = min(at, p.overAt)
	}
	return at
}

func seconds(n float64) time.Duration { return time.Duration(n * float64(time.Second)) }

// passOver gives slots back that a former incarnation has no more, and has this agent look at the dead whose slots it
// waits for, once their time is over.
func (f *Fleet) passOver(ctx context.Context) {
	now, former := f.cfg.Now(), false
	f.mu.Lock()
	for name, p := range f.pools {
		former = former || len(p.held.Former) > 0
		if at := f.wakeAt(p); at == 0 || now < at {
			continue
		}
		if p.overAt != 0 && now >= p.overAt {
			p.overAt, p.reaped = 0, 0
		}
		p.wokenAt = now
		f.news[name] = word{Wanted: f.news[name].Wanted, Free: max(f.news[name].Free, 1)}
		close(f.rung)
		f.rung = make(chan struct{})
	}
	f.mu.Unlock()
	if former {
		f.sweep(ctx)
	}
}

// leaveTurn takes the agent out of the turn for the pools that over names. mu is held for it. What was kept for the
// agent is others' then, who hear of it.
func (f *Fleet) leaveTurn(ctx context.Context, over func(name string, p *pool) bool) {
	f.mu.Lock()
	left := map[string]int64{}
	for name, p := range f.pools {
		if p.asked > 0 && over(name, p) {
			left[name], p.asked = p.asked, 0
		}
	}
	f.mu.Unlock()
	for _, name := range slices.Sorted(maps.Keys(left)) {
		own, was := f.keys.ticket(name, f.cfg.Agent), f.lastSeen()
		res, err := f.cfg.Store.Txn(ctx, &Txn{Kind: KindWait, Then: append(f.reads(name), Op{Delete: own})})
		if err != nil {
			f.mu.Lock() // it is tried again: others would wait for what nobody wants
			p := f.pools[name]
			p.asked = max(p.asked, left[name])
			f.mu.Unlock()
			continue
		}
		v, err := f.seeing(ctx, name, res, was, meanwhile)
		if err != nil || v == nil {
			continue
		}
		if ops := f.tellBehind(own, name, v, v.terms.Limit-v.net()); len(ops) > 0 {
			f.cfg.Store.Txn(ctx, &Txn{Kind: KindWait, Then: ops}) // a help only: they ask again by themselves
		}
	}
}

// GiveUp takes an agent that stops out of the turn for all pools, and has it wait for nothing from then on: else what
// its tickets ask for would be kept from others until its lease ends. Call it after Run.
func (f *Fleet) GiveUp(ctx context.Context) {
	f.mu.Lock()
	f.gaveUp = true
	all := slices.Collect(maps.Values(f.pools))
	f.mu.Unlock()
	for _, p := range all {
		if p.calls.take(ctx) != nil { // a call under way may make a ticket
			return
		}
		p.calls.give()
		f.mu.Lock()
		if p.askedAt > 0 { // there may be a ticket also where the answer was lost
			p.asked = max(p.asked, 1)
		}
		f.mu.Unlock()
	}
	f.leaveTurn(ctx, func(string, *pool) bool { return true })
}

// callOthers returns the words to agents that have slots, those with the most first.
func (f *Fleet) callOthers(ctx context.Context, me membership, name string, n int64) (ops []Op) {
	res, err := f.cfg.Store.Txn(ctx, &Txn{Kind: KindWait, Then: []Op{{List: f.keys.blocks(name)}}})
	if err != nil {
		return nil
	}
	type other struct {
		id string
		n  int64
	}
	var others []other
	f.mu.Lock()
	site := f.pools[name].site
	f.mu.Unlock()
	for _, kv := range res.Got[0] {
		id := strings.TrimPrefix(kv.Key, f.keys.blocks(name))
		if h, err := read[held](kv, true); err == nil && id != f.cfg.Agent && h.sum() > 0 && site.helps(&h) {
			others = append(others, other{id, h.sum()})
		}
	}
	slices.SortFunc(others, func(a, b other) int { return cmp.Or(cmp.Compare(b.n, a.n), cmp.Compare(a.id, b.id)) })
	if len(others) > mostCalled { // half of them those with the most, half at random
		rest := others[mostCalled/2:]
		for i := range mostCalled / 2 {
			j := i + int(f.cfg.Jitter()*float64(len(rest)-i-1))
			rest[i], rest[j] = rest[j], rest[i]
		}
		others = others[:mostCalled]
	}
	for _, o := range others {
		ops = append(ops, Op{Put: f.keys.word(o.id, name), Value: text(word{Wanted: n, Shares: true}), Lease: me.lease})
	}
	return ops
}

// served returns what the agent's ticket, which asked for so many, becomes when it gets slots: with enough, it ends.
func (f *Fleet) served(me membership, name string, p *pool, v *view, asked, got int64, enough bool) (left int64,
	is []Is, ops []Op) {
	if asked <= 0 {
		return asked, nil, nil
	}
	key := f.keys.ticket(name, f.cfg.Agent)
	if left = max(0, asked-got); enough {
		left = 0
	}
	f.mu.Lock()
	p.asked = left
	f.mu.Unlock()
	for _, kv := range v.first {
		if kv.Key == key { // the agent may have left the turn meanwhile
			is = []Is{still(key, kv.Mod)}
		}
	}
	if left == 0 {
		return 0, is, []Op{{Delete: key}}
	}
	return left, is, []Op{{Put: key, Value: text(f.ticket(left)), Lease: me.lease}}
}

// tell returns the words to those who wait first for the slots that are free.
func (f *Fleet) tell(name string, v *view, free int64) (ops []Op) {
	return f.tellBehind("", name, v, free)
}

// tellBehind is tell for those whose tickets were made after the one with a key; empty: for all.
func (f *Fleet) tellBehind(own, name string, v *view, free int64) (ops []Op) {
	behind := own == ""
	for _, kv := range v.first {
		t, err := read[ticket](kv, true)
		id := strings.TrimPrefix(kv.Key, f.keys.tickets(name))
		if kv.Key == own {
			behind = true
		}
		if err != nil || id == f.cfg.Agent {
			continue
		}
		if free <= 0 || len(ops) >= mostCalled {
			break
		}
		if behind {
			ops = append(ops, Op{Put: f.keys.word(id, name), Value: text(word{Free: min(free, t.Slots)})})
		}
		if len(v.rules) == 0 { // a rule may keep those that wait first from what is free
			free -= t.Slots
		}
	}
	return ops
}
