package registry

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/usher-agent/usher/enforcer"
	"github.com/usher-agent/usher/plugin"
	"github.com/usher-agent/usher/plugin/usher/online"
)

// siteLicence has one pool of a whole site's.
func siteLicence(max, overage enforcer.Limit) *enforcer.License {
	return &enforcer.License{ID: "L1", Pools: map[string]enforcer.PoolTerm{"seats": {Max: max, Overage: overage},
		"each": {Max: 9, Scope: enforcer.ScopeHost}}}
}

// believed is a block as an agent has it.
type believed struct {
	id    string
	slots int64
	until time.Duration
}

// neverOver is a server and the agents that it gives blocks to; answers to them may be lost.
type neverOver struct {
	b              *blocks
	now            time.Duration
	n              int
	total, overage enforcer.Limit
	l              *enforcer.License
	agents         map[string][]believed
	labels         map[string]map[string]string
}

// blockTTL is how long the blocks of these tests last.
const blockTTL = 10 * time.Second

// usable is how many slots the agents may use together.
func (c *neverOver) usable() (sum int64) {
	for _, own := range c.agents {
		for _, x := range own {
			if x.until > c.now {
				sum += x.slots
			}
		}
	}
	return sum
}

// pick draws an agent and one of its blocks, -1 where it has none.
func (c *neverOver) pick(t *rapid.T) (string, int) {
	who := rapid.SampledFrom([]string{"a", "b", "c"}).Draw(t, "agent")
	if len(c.agents[who]) == 0 {
		return who, -1
	}
	return who, rapid.IntRange(0, len(c.agents[who])-1).Draw(t, "block")
}

// drop has an agent forget a block.
func (c *neverOver) drop(who string, i int) {
	c.agents[who] = append(c.agents[who][:i:i], c.agents[who][i+1:]...)
}

// hear has an agent hear of a block at the place that it has in its list, -1 for one that may be new to it.
func (c *neverOver) hear(who string, at int, x believed) {
	if at < 0 {
		at = slices.IndexFunc(c.agents[who], func(o believed) bool { return o.id == x.id })
	}
	if at < 0 {
		c.agents[who] = append(c.agents[who], x)
	} else {
		c.agents[who][at] = x
	}
}

// extend asks for more time for a block, and for another size.
func (c *neverOver) extend(t *rapid.T, who string, i int, a *ask, hear func(*Block, int), lost bool) {
	had := &c.agents[who][i]
	a.ID, a.Slots = had.id, rapid.Int64Range(0, 8).Draw(t, "new size")
	if a.Slots > 0 && a.Slots < had.slots {
		had.slots = a.Slots // an agent that wants less uses less from before it asks
	}
	fits := c.total.Plus(c.overage).Covers(told(c.b, c.now))
	var was int64
	if x := c.b.by[a.ID]; x != nil {
		was = x.size() // less than the agent has, where it has not heard of it
	}
	x, change, refused := c.b.extend(a)
	if c.b.apply(change); refused == nil {
		if fits && had.until > c.now && a.Slots > 0 && x.size() < min(a.Slots, was) {
			t.Fatalf("a block of %d was to have %d slots, and has %d", was, a.Slots, x.size())
		}
		hear(x, i)
	} else if !lost && refused.System == plugin.SystemLapsed {
		c.drop(who, i)
	}
}

// restart starts the server again with what it has kept.
func (c *neverOver) restart() {
	kept := newBlocks()
	kept.rules = c.b.rules
	for _, x := range c.b.by {
		y := *x
		y.until = c.now + y.span()
		y.old = y.until
		kept.apply(change{put: []*Block{&y}})
	}
	c.b = kept
}

// step is one thing that an agent asks, or that happens to the server.
func (c *neverOver) step(t *rapid.T) {
	who, i := c.pick(t)
	c.n++
	a := &ask{agent: who, labels: c.labels[who], license: c.l, newID: fmt.Sprint("new", c.n), now: c.now, ttl: blockTTL,
		BlockRequest: &online.BlockRequest{Pool: "seats",
			Slots: rapid.Int64Range(1, 6).Draw(t, "slots"), AtLeast: 1,
			Seconds: rapid.Int64Range(0, 12).Draw(t, "seconds"),
			Token:   rapid.SampledFrom([]string{"", "t1", "t2"}).Draw(t, "token")}}
	sent := c.now - time.Duration(rapid.Int64Range(0, int64(3*time.Second)).Draw(t, "on the way"))
	lost := rapid.IntRange(0, 4).Draw(t, "lost") == 0
	hear := func(x *Block, at int) {
		if !lost {
			c.hear(who, at, believed{x.ID, x.size(), sent + time.Duration(a.seconds())*time.Second})
		}
	}
	switch step := rapid.IntRange(0, 9).Draw(t, "step"); {
	case step < 4:
		x, change, refused := c.b.checkOut(a)
		if c.b.apply(change); refused == nil {
			hear(x, -1)
		}
	case step < 6 && i >= 0:
		c.extend(t, who, i, a, hear, lost)
	case step == 6 && i >= 0:
		id := c.agents[who][i].id
		c.drop(who, i) // before it says so
		if !lost {
			c.b.apply(c.b.giveBack(who, id))
		}
	case step == 7:
		c.restart()
	case step == 8:
		c.total = enforcer.Limit(rapid.Int64Range(0, 12).Draw(t, "new limit"))
		c.l = siteLicence(c.total, c.overage)
	default:
		c.now += time.Duration(rapid.Int64Range(0, int64(blockTTL)).Draw(t, "time"))
	}
}

// In whatever order agents ask, with answers lost, the server restarted and time passing, agents never have more slots
// together than the licence grants, and the kept blocks fit into it too.
func TestBlocksNeverExceed(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		c := &neverOver{b: newBlocks(), agents: map[string][]believed{"a": nil, "b": nil, "c": nil},
			total:   enforcer.Limit(rapid.Int64Range(0, 12).Draw(t, "limit")),
			overage: enforcer.Limit(rapid.Int64Range(0, 3).Draw(t, "overage"))}
		c.l = siteLicence(c.total, c.overage)
		for range rapid.IntRange(1, 60).Draw(t, "steps") {
			// It may be more only where the limit became less.
			before := max(c.usable(), c.b.out(share{"L1", "seats"}, "", c.now))
			c.step(t)
			if sum := c.usable(); sum > int64(c.total+c.overage) && sum > before {
				t.Fatalf("agents may use %d slots of %d and %d beyond", sum, c.total, c.overage)
			}
			if sum, out := c.usable(), c.b.out(share{"L1", "seats"}, "", c.now); sum > out {
				t.Fatalf("agents may use %d slots, and %d are counted as out", sum, out)
			}
			var kept int64
			for _, x := range c.b.by {
				kept += x.Slots
			}
			if kept > 15 { // the largest limit there is
				t.Fatalf("%d slots are kept as out", kept)
			}
		}
	})
}

// told is what agents were told to have.
func told(b *blocks, now time.Duration) (n int64) {
	for _, x := range b.by {
		if x.until > now {
			n += x.size()
		}
	}
	return n
}

// A limit becomes less than what is out. Each agent is cut to its part when it next asks for more time, in any order
// and with any answers lost. A block time after each has heard, they use no more than the new limit. Nobody has the
// slots that an agent has lost before the server knows that it has heard, or a block's time is over. The parts are
// equal.
func TestShrunkLimit(t *testing.T) {
	const ttl = 12 * time.Second
	s := share{"L1", "seats"}
	rapid.Check(t, func(t *rapid.T) {
		b, now, n := newBlocks(), time.Duration(0), 0
		has := map[string]map[string]*believed{}
		try := func(who, id string, slots int64, l *enforcer.License, lost bool) {
			n++
			a := &ask{agent: who, license: l, newID: fmt.Sprint("b", n), now: now, ttl: ttl,
				BlockRequest: &online.BlockRequest{ID: id, Pool: "seats", Slots: slots, AtLeast: 1}}
			how := b.extend
			if id == "" {
				how = b.checkOut
			}
			x, c, refused := how(a)
			if b.apply(c); lost {
				return
			}
			switch {
			case refused == nil:
				has[who][x.ID] = &believed{x.ID, x.size(), now + ttl}
			case refused.System == plugin.SystemLapsed:
				delete(has[who], id)
			}
		}
		usable := func() (sum int64) {
			for _, own := range has {
				for _, x := range own {
					if x.until > now {
						sum += x.slots
					}
				}
			}
			return sum
		}
		large, small := siteLicence(24, 0), siteLicence(enforcer.Limit(rapid.Int64Range(0, 12).Draw(t, "small")), 0)
		for _, who := range []string{"a", "b", "c", "d"} {
			has[who] = map[string]*believed{}
			for range rapid.IntRange(1, 3).Draw(t, "blocks") {
				try(who, "", rapid.Int64Range(1, 6).Draw(t, "slots"), large, false)
			}
		}
		before, limit := usable(), int64(small.SitePools()["seats"])
		// Each block asks once in a third of its time, in any order; up to one answer in each round is lost.
		for round := range 9 {
			now += ttl / 3
			var ids []string
			owner := map[string]string{}
			for who, own := range has {
				for id := range own {
					ids, owner[id] = append(ids, id), who
				}
			}
			slices.Sort(ids)
			lost := rapid.IntRange(0, 2*len(ids)).Draw(t, "lost")
			for i, id := range rapid.Permutation(ids).Draw(t, "order") {
				x := has[owner[id]][id]
				if x.until <= now {
					delete(has[owner[id]], id)
					continue
				}
				slots := x.slots
				if rapid.Bool().Draw(t, "more") {
					slots += rapid.Int64Range(0, 4).Draw(t, "how many")
				}
				try(owner[id], id, slots, small, i == lost)
				if rapid.IntRange(0, 3).Draw(t, "newcomer") == 0 {
					try(owner[id], "", 1, small, false)
				}
				if sum, out := usable(), b.out(s, "", now); sum > out || sum > max(before, limit) {
					t.Fatalf("agents may use %d slots of %d, formerly %d; %d are counted as out", sum, limit, before,
						out)
				}
			}
			if sum := usable(); round >= 5 && sum > limit {
				t.Fatalf("two block times after the limit became %d agents may use %d slots", limit, sum)
			}
		}
	})
}

func TestFill(t *testing.T) {
	for _, c := range []struct {
		n           int64
		sizes, want []int64
	}{
		{3, []int64{4, 4, 4}, []int64{1, 1, 1}},
		{5, []int64{4, 4, 4}, []int64{2, 2, 1}},
		{5, []int64{2, 4, 4}, []int64{2, 2, 1}},
		{2, []int64{4, 4, 4}, []int64{1, 1, 0}},
		{9, []int64{1, 9, 2, 9}, []int64{1, 3, 2, 3}},
		{0, []int64{1, 2}, []int64{0, 0}},
		{7, []int64{3, 4}, []int64{3, 4}},
	} {
		if got := fill(c.sizes, c.n); !slices.Equal(got, c.want) {
			t.Errorf("%d among %v: %v; want %v", c.n, c.sizes, got, c.want)
		}
	}
	rapid.Check(t, func(t *rapid.T) {
		sizes, n := rapid.SliceOfN(rapid.Int64Range(0, 9), 1, 6).Draw(t, "sizes"), rapid.Int64Range(0, 40).Draw(t, "n")
		parts := fill(sizes, n)
		at := rapid.IntRange(0, len(sizes)-1).Draw(t, "first")
		after := slices.Clone(sizes)
		after[at] = parts[at]
		if again := fill(after, n); !slices.Equal(again, parts) {
			t.Fatalf("%d among %v: %v; and once %d is cut, %v", n, sizes, parts, at, again)
		}
	})
}

// blockDesk asks one server for blocks.
type blockDesk struct {
	b   *blocks
	l   *enforcer.License
	now time.Duration
	n   int
}

// take checks a block out, and more extends one.
func (d *blockDesk) take(agent, token string, slots, least int64) (*Block, *online.Refusal) {
	d.n++
	x, c, refused := d.b.checkOut(&ask{agent: agent, license: d.l, newID: fmt.Sprint(d.n), now: d.now, ttl: blockTTL,
		BlockRequest: &online.BlockRequest{Pool: "seats", Slots: slots, AtLeast: least, Token: token}})
	d.b.apply(c)
	return x, refused
}

func (d *blockDesk) more(agent, id string, slots int64) (*Block, *online.Refusal) {
	x, c, refused := d.b.extend(&ask{agent: agent, license: d.l, now: d.now, ttl: blockTTL,
		BlockRequest: &online.BlockRequest{ID: id, Slots: slots}})
	d.b.apply(c)
	return x, refused
}

func TestBlocks(t *testing.T) {
	d := &blockDesk{b: newBlocks(), l: siteLicence(4, 1)}
	b, take, more := d.b, d.take, d.more
	first, _ := take("a", "t", 3, 1)
	if again, _ := take("a", "t", 3, 1); again == nil || again.ID != first.ID || again.Slots != 3 {
		t.Errorf("with one token: %+v, %+v", first, again)
	}
	if other, _ := take("b", "t", 4, 1); other == nil || other.ID == first.ID || other.Slots != 2 {
		t.Errorf("another agent with that token has %+v", other)
	}
	if _, refused := take("c", "", 2, 1); refused == nil || refused.System != plugin.SystemFull || refused.Code != "" {
		t.Errorf("of a pool that is full: %+v", refused)
	}
	if got := b.wanted(share{"L1", "seats"}, "a", 0); got != 4 { // b's two and c's two
		t.Errorf("others want %d", got)
	}
	if got := b.wanted(share{"L1", "seats"}, "a", 6*time.Second); got != 0 {
		t.Errorf("after a while others want %d still", got)
	}
	if _, refused := more("b", first.ID, 0); refused == nil || refused.System != plugin.SystemLapsed {
		t.Errorf("another's block was extended: %+v", refused)
	}
	b.apply(b.giveBack("b", first.ID))
	if b.by[first.ID] == nil {
		t.Error("another's block was given back")
	}
	if x, _ := more("a", first.ID, 1); x == nil || x.Slots != 1 {
		t.Errorf("smaller: %+v", x)
	}
	if x, _ := more("a", first.ID, 9); x == nil || x.Slots != 3 {
		t.Errorf("larger, where 2 are left: %+v", x)
	}
	// It is over; while nobody has the slots it comes back.
	d.now = 11 * time.Second
	if x, refused := more("a", first.ID, 0); x == nil {
		t.Errorf("over, and room: %+v", refused)
	}
	d.now = 22 * time.Second
	if x, _ := take("c", "", 5, 5); x == nil {
		t.Fatal("the slots of a block that is over are not free")
	}
	if _, refused := more("a", first.ID, 0); refused == nil || refused.System != plugin.SystemLapsed {
		t.Errorf("over, and no room: %+v", refused)
	}
	if _, refused := take("a", "", 1, 1); refused == nil {
		t.Error("a sixth slot of five")
	}
}

func TestBlocksRefused(t *testing.T) {
	d := &blockDesk{b: newBlocks(), l: siteLicence(4, 1)}
	for _, bad := range []online.BlockRequest{{Pool: "each", Slots: 1}, {Pool: "none", Slots: 1}, {Pool: "seats"},
		{Pool: "seats", Slots: 1, AtLeast: 2}, {Pool: "seats", Slots: 1 << 50}} {
		if _, _, refused := d.b.checkOut(&ask{agent: "a", license: d.l, newID: "x", BlockRequest: &bad,
			ttl: time.Second}); refused == nil {
			t.Errorf("%+v was given", bad)
		}
	}
}

// Where holders are told to stop, the slots are kept back until they have.
func TestBlocksAreKeptBackUntilHoldersStop(t *testing.T) {
	d := &blockDesk{b: newBlocks(), l: siteLicence(4, 1), now: time.Hour}
	d.l.OnExpiry = enforcer.Revoke
	d.take("d", "", 5, 5)
	d.now += 20 * time.Second
	if _, refused := d.take("e", "", 1, 1); refused == nil {
		t.Error("slots were had before their holders were told to stop")
	}
	d.now += 6 * time.Second
	if _, refused := d.take("e", "", 1, 1); refused != nil {
		t.Errorf("after that: %+v", refused)
	}
}
