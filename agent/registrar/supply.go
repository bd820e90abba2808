package registrar

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"time"

	"github.com/usher-agent/usher/agent/fleet"
	"github.com/usher-agent/usher/enforcer"
	"github.com/usher-agent/usher/plugin"
	"github.com/usher-agent/usher/plugin/usher/registry"
)

// supply is what the broker has of one pool of the fleet. Its block has one and the same id for good, so that a
// restarted broker finds it. All base licences of a product share such a pool, as an old one and its renewal under
// another id: each has a portion of the one block, and never are the portions more together than it.
type supply struct {
	pool     string
	bound    *fleet.Bound // of the licence with the lowest limit
	portions []*portion   // in the order of the licences' ids
	block    string
	has      int64
	until    time.Duration
	wanted   int64         // by the rest of the fleet
	idleAt   time.Duration // since when it has more than it needs; zero: it has not
	told     time.Duration // when agents of one licence were last told that those of another lack slots
	owes     bool          // it is to give its block back, and could not yet
	fault    string
}

// portion is what the agents of one licence may have of a supply.
type portion struct {
	license string
	has     int64
	good    bool // the licence is good
	demand  registry.Demand
	fair    int64         // what it may have at least, as its agents need it
	grown   time.Duration // when it last became larger
}

// need is how many slots the agents have and have asked for in vain. Those of a licence that is no longer good get no
// more.
func (x *portion) need() int64 {
	if !x.good {
		return x.demand.Out
	}
	return x.demand.Out + x.demand.Missing
}

// of returns a licence's portion, which there is.
func (s *supply) of(license string) *portion {
	i := slices.IndexFunc(s.portions, func(x *portion) bool { return x.license == license })
	return s.portions[i]
}

// given is the sum of all portions.
func (s *supply) given() (n int64) {
	for _, x := range s.portions {
		n += x.has
	}
	return n
}

// good reports whether a licence of the supply is good.
func (s *supply) good() bool {
	return slices.ContainsFunc(s.portions, func(x *portion) bool { return x.good })
}

// part returns how many of its slots the broker may give from now on.
func (s *supply) part() int64 {
	if s.has > 0 {
		return s.bound.Part(s.pool, s.has)
	}
	return s.has
}

// partOf is part of a portion of n slots.
func (s *supply) partOf(n int64) int64 {
	if part := s.part(); n == s.has {
		return part
	} else if part < s.has {
		return int64(float64(n) * float64(part) / float64(s.has))
	}
	return n
}

// know has a supply of each pool of the licences.
func (b *broker) know(ctx context.Context, terms []registry.Term) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, s := range b.all {
		for _, x := range s.portions {
			x.good = false
		}
	}
	lowest := map[*supply]enforcer.Limit{}
	for _, l := range terms {
		bound, ok := b.fleet.For(l.License, l.Document, nil, func(string) bool { return true }).(*fleet.Bound)
		if !ok {
			continue // it has no pool of a site
		}
		if !b.heard[l.ID] {
			b.heard[l.ID] = true
			go b.listen(ctx, l.ID, bound)
		}
		for pool, limit := range l.SitePools() {
			s := b.supplyOf(bound.Key(pool), l.ID, pool)
			s.of(l.ID).good = true
			if low, there := lowest[s]; !there || limit.Min(low) == limit {
				lowest[s], s.bound = limit, bound
			}
		}
	}
}

// supplyOf returns the supply of a pool of the fleet, in which a licence has a portion. b.mu is held.
func (b *broker) supplyOf(key fleet.PoolKey, license, pool string) *supply {
	s := b.all[key]
	if s == nil {
		s = &supply{pool: pool}
		b.all[key] = s
	}
	if at := [2]string{license, pool}; b.stocks[at] == nil {
		b.stocks[at] = s
		s.portions = append(s.portions, &portion{license: license})
		slices.SortFunc(s.portions, func(x, y *portion) int { return cmp.Compare(x.license, y.license) })
	}
	return s
}

// demand looks at what all agents have and want of a supply.
func (b *broker) demand(s *supply) (out, need int64) {
	for _, x := range s.portions {
		x.demand = b.pools.Demand(x.license, s.pool)
		out, need = out+x.demand.Out, need+x.need()
	}
	return out, need
}

// spare is how many slots are kept beyond what agents have.
func spare(n int64) int64 { return max(1, n/8) }

// supply has a pool's stock fit what agents have and want.
func (b *broker) supply(ctx context.Context, s *supply) error {
	out, need := b.demand(s)
	now, drains := b.now(), b.fleet.Drained()
	if drains { // what agents have stays theirs until they give it back
		need = out
	}
	if s.has == 0 {
		if s.until = b.fleet.Until(); out > 0 { // what it has of what agents have is not known yet
			s.until = 0
		}
		b.stock(s)
	}
	want, ahead, part := s.has, spare(need), s.part()
	switch {
	case s.owes && need == 0:
		want = 0
	case s.has == 0 && need == 0 && (drains || s.block != ""):
		return nil
	case drains:
		want, s.idleAt = need, 0
	case s.has < need && part == s.has, s.block == "":
		want, s.idleAt = need+ahead, 0
	case s.wanted > 0:
		want = max(need, s.has-s.wanted)
	case s.has <= need+2*ahead:
		s.idleAt = 0
	case s.idleAt == 0:
		s.idleAt = now
	case now-s.idleAt > b.ttl:
		want, s.idleAt = need+ahead, 0
	}
	s.wanted = 0
	if part < s.has { // the limit has shrunk
		want = min(want, max(part, need))
	}
	if want < s.has {
		want = b.lower(s, want)
	}
	var err error
	if want != s.has || s.until-now <= b.ttl/2 || s.owes {
		err = b.call(ctx, s, want, need)
	}
	if len(s.portions) > 1 {
		b.share(s)
	}
	return err
}

// lower takes slots of a supply out of use, down to n, and returns how many must be kept: agents may have more. Slots
// that nobody wants go first.
func (b *broker) lower(s *supply, n int64) int64 {
	for _, floor := range []func(*portion) int64{(*portion).need, func(*portion) int64 { return 0 }} {
		for _, x := range s.portions {
			if over := s.given() - n; over > 0 && x.has > floor(x) {
				x.has = b.pools.Lower(x.license, s.pool, max(floor(x), x.has-over))
			}
		}
	}
	return s.given()
}

// fair gives each portion what its agents need, or, where that is more than the supply, equal parts of what the others
// leave. What cannot be divided goes to the one that has got nothing for longest, so that each has its turn.
func (s *supply) fair() {
	rest := slices.SortedFunc(slices.Values(s.portions), func(x, y *portion) int {
		return cmp.Compare(x.need(), y.need())
	})
	left := s.has
	for len(rest) > 0 && rest[0].need() <= left/int64(len(rest)) {
		rest[0].fair = rest[0].need()
		left, rest = left-rest[0].fair, rest[1:]
	}
	for _, x := range rest {
		x.fair = left / int64(len(rest))
	}
	if len(rest) > 0 {
		left %= int64(len(rest))
	}
	for left > 0 {
		var next *portion
		for _, x := range s.portions {
			if x.fair < x.need() && (next == nil || x.grown < next.grown) {
				next = x
			}
		}
		if next == nil {
			return
		}
		next.fair++
		left--
	}
}

// share gives the agents of one licence what those of another do not use. Where all lack slots, what one has beyond its
// part goes to the others as its agents give it back.
func (b *broker) share(s *supply) {
	b.demand(s)
	lacks := func(x *portion) bool { return x.has < x.need() }
	if !slices.ContainsFunc(s.portions, lacks) {
		for _, x := range s.portions {
			b.pools.Hold(x.license, s.pool, -1)
		}
		if s.given() != s.has {
			b.settle(s)
		}
		return
	}
	s.fair()
	freed := false
	for _, x := range s.portions {
		most := int64(-1)
		if x.has > x.fair {
			most = x.fair
		}
		b.pools.Hold(x.license, s.pool, most)
		if was := x.has; was > x.fair {
			x.has = b.pools.Lower(x.license, s.pool, x.fair)
			freed = freed || x.has < was
		}
	}
	if freed || s.given() < s.has {
		b.settle(s)
	}
	now := b.now()
	if now-s.told < time.Second {
		return
	}
	for _, x := range s.portions {
		if lacks(x) { // agents of the other licences give back what they do not use
			s.told = now
			b.wantOthers(s, x, x.need()-x.has)
		}
	}
}

// settle has the portions fit the supply, and puts them in force.
func (b *broker) settle(s *supply) {
	b.lower(s, s.has)
	b.raise(s, func(x *portion) int64 { return x.demand.Out })
	s.fair()
	b.raise(s, func(x *portion) int64 { return x.fair })
	b.raise(s, (*portion).need)
	b.raise(s, func(x *portion) int64 {
		if !x.good {
			return x.has
		}
		return s.has
	})
	b.stock(s)
}

// raise gives what is left of a supply to the portions that are below a level, to each alike.
func (b *broker) raise(s *supply, level func(*portion) int64) {
	for {
		var below []*portion
		for _, x := range s.portions {
			if x.has < level(x) {
				below = append(below, x)
			}
		}
		free := s.has - s.given()
		if free <= 0 || len(below) == 0 {
			return
		}
		for _, x := range below {
			if n := min(max(1, free/int64(len(below))), level(x)-x.has, s.has-s.given()); n > 0 {
				x.has, x.grown = x.has+n, b.now()
			}
		}
	}
}

// wantOthers has the agents of other licences than one hear that n slots are wanted.
func (b *broker) wantOthers(s *supply, of *portion, n int64) {
	for _, x := range s.portions {
		if x != of && x.demand.Out > 0 {
			b.pools.Want(x.license, s.pool, n)
		}
	}
}

// stock puts the portions of a supply in force.
func (b *broker) stock(s *supply) {
	if len(s.portions) == 1 {
		s.portions[0].has = s.has
	}
	for _, x := range s.portions {
		if over := s.given() - s.has; over > 0 { // agents have more, and get no more time for all of it
			x.has -= min(over, x.has)
		}
	}
	for _, x := range s.portions {
		b.pools.Stock(x.license, s.pool, x.has, s.partOf(x.has), s.until)
	}
}

// empty takes note that the broker has nothing of a pool.
func (b *broker) empty(s *supply) {
	s.has, s.until, s.owes = 0, 0, false
	for _, x := range s.portions {
		x.has = 0
	}
	b.stock(s)
}

// call has the fleet give a pool's stock another size, and more time.
func (b *broker) call(ctx context.Context, s *supply, want, need int64) error {
	sent := b.now()
	var got *plugin.Block
	var err error
	ahead := max(0, want-max(need, s.has))
	switch {
	case want == 0:
		if err = s.bound.Return(ctx, &plugin.Return{Block: s.block}); err == nil {
			s.has, s.owes = 0, false
			return nil
		}
		s.owes = true
	case s.has == 0:
		got, err = s.bound.CheckOut(ctx, &plugin.CheckOut{Pool: s.pool, Slots: max(1, want), AtLeast: 1,
			For: time.Hour, Token: brokerToken, Ahead: min(ahead, max(1, want))})
	default:
		got, err = s.bound.Extend(ctx, &plugin.Extend{Block: s.block, Slots: want, For: time.Hour, Ahead: ahead})
	}
	var e *plugin.Error
	switch errors.As(err, &e); {
	case e != nil && e.SystemCode == plugin.SystemLapsed:
		b.empty(s)
	case got != nil:
		s.block, s.has, s.until, s.owes = got.ID, got.Slots, sent+got.For, false
		b.settle(s)
	case err != nil:
		s.has = min(s.has, want) // what was to be given back may be another's by now, or may be soon
	}
	return err
}
