package registry

import (
	"fmt"
	"maps"
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

// Whatever agents ask, in whatever order, with answers lost, the server restarted and time passing: what agents may use
// together is never more than the licence grants, and what is kept fits into it too.
func TestBlocksNeverExceed(t *testing.T) {
	const ttl = 10 * time.Second
	rapid.Check(t, func(t *rapid.T) {
		b, now, n := newBlocks(), time.Duration(0), 0
		total := enforcer.Limit(rapid.Int64Range(0, 12).Draw(t, "limit"))
		overage := enforcer.Limit(rapid.Int64Range(0, 3).Draw(t, "overage"))
		l := siteLicence(total, overage)
		agents := map[string][]believed{"a": nil, "b": nil, "c": nil}
		usable := func() (sum int64) {
			for _, own := range agents {
				for _, x := range own {
					if x.until > now {
						sum += x.slots
					}
				}
			}
			return sum
		}
		pick := func() (string, int) {
			who := rapid.SampledFrom([]string{"a", "b", "c"}).Draw(t, "agent")
			if len(agents[who]) == 0 {
				return who, -1
			}
			return who, rapid.IntRange(0, len(agents[who])-1).Draw(t, "block")
		}
		for range rapid.IntRange(1, 60).Draw(t, "steps") {
			before := max(usable(), b.out(share{"L1", "seats"}, "", now)) // more only where the limit became less
			who, i := pick()
			n++
			a := &ask{agent: who, license: l, newID: fmt.Sprint("new", n), now: now, ttl: ttl,
				BlockRequest: &online.BlockRequest{Pool: "seats",
					Slots: rapid.Int64Range(1, 6).Draw(t, "slots"), AtLeast: 1,
					Seconds: rapid.Int64Range(0, 12).Draw(t, "seconds"),
					Token:   rapid.SampledFrom([]string{"", "t1", "t2"}).Draw(t, "token")}}
			sent := now - time.Duration(rapid.Int64Range(0, int64(3*time.Second)).Draw(t, "on the way"))
			lost := rapid.IntRange(0, 4).Draw(t, "lost") == 0
			hear := func(x *Block, at int) {
				if lost {
					return
				}
				now := believed{x.ID, x.size(), sent + time.Duration(a.seconds())*time.Second}
				if at < 0 {
					for i, o := range agents[who] {
						if o.id == x.ID {
							at = i
						}
					}
				}
				if at < 0 {
					agents[who] = append(agents[who], now)
				} else {
					agents[who][at] = now
				}
			}
			switch step := rapid.IntRange(0, 9).Draw(t, "step"); {
			case step < 4:
				x, c, refused := b.checkOut(a)
				if b.apply(c); refused == nil {
					hear(x, -1)
				}
			case step < 6 && i >= 0:
				a.ID, a.Slots = agents[who][i].id, rapid.Int64Range(0, 8).Draw(t, "new size")
				if a.Slots > 0 && a.Slots < agents[who][i].slots {
					agents[who][i].slots = a.Slots // who wants less uses less from before it asks
				}
				fits := total.Plus(overage).Covers(told(b, now))
				var was int64
				if x := b.by[a.ID]; x != nil {
					was = x.size() // less than the agent has, where it has not heard of it
				}
				x, c, refused := b.extend(a)
				if b.apply(c); refused == nil {
					if had := agents[who][i]; fits && had.until > now && a.Slots > 0 && x.size() < min(a.Slots, was) {
						t.Fatalf("a block of %d was to have %d slots, and has %d", was, a.Slots, x.size())
					}
					hear(x, i)
				} else if !lost && refused.System == plugin.SystemLapsed {
					agents[who] = append(agents[who][:i:i], agents[who][i+1:]...)
				}
			case step == 6 && i >= 0:
				id := agents[who][i].id
				agents[who] = append(agents[who][:i:i], agents[who][i+1:]...) // before it says so
				if !lost {
					b.apply(b.giveBack(who, id))
				}
			case step == 7: // the server is started anew
				kept := newBlocks()
				for _, x := range b.by {
					y := *x
					y.until = now + y.span()
					y.old = y.until
					kept.apply(change{put: []*Block{&y}})
				}
				b = kept
			case step == 8:
				total = enforcer.Limit(rapid.Int64Range(0, 12).Draw(t, "new limit"))
				l = siteLicence(total, overage)
			default:
				now += time.Duration(rapid.Int64Range(0, int64(ttl)).Draw(t, "time"))
			}
			if sum := usable(); sum > int64(total+overage) && sum > before {
				t.Fatalf("agents may use %d slots of %d and %d beyond", sum, total, overage)
			}
			if sum, out := usable(), b.out(share{"L1", "seats"}, "", now); sum > out {
				t.Fatalf("agents may use %d slots, and %d are counted as out", sum, out)
			}
			var kept int64
			for _, x := range b.by {
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

// A limit becomes less than what is out. Each agent is cut to its part when it next asks for more time, whoever asks
// first and whichever answers are lost: a block time after each has heard, they may use no more than the new limit;
// what each has lost nobody has before the server knows that it has heard, or a block's time is over; and parts are
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

// A server is started on an old copy of its store. Until all that it may have given since is over it gives no slots
// that an agent does not have; agents go on with what they have, whether the copy knows of it or not; and at no time
// may they use more than the limit.
func TestOldStore(t *testing.T) {
	const ttl, limit = 12 * time.Second, 10
	rapid.Check(t, func(t *rapid.T) {
		b, now, n, restored := newBlocks(), time.Duration(0), 0, false
		l := siteLicence(limit, 0)
		if rapid.Bool().Draw(t, "revoke") {
			l.OnExpiry = enforcer.Revoke
		}
		type agent struct {
			has  map[string]*believed
			had  map[string]Had
			lost string // the token of a check-out whose answer was lost
		}
		all := map[string]*agent{}
		names := []string{"a", "b", "c", "d"}
		for _, who := range names {
			all[who] = &agent{has: map[string]*believed{}, had: map[string]Had{}}
		}
		usable := func() (sum int64) {
			for _, own := range all {
				for id, x := range own.has {
					if x.until <= now {
						delete(own.has, id)
						continue
					}
					sum += x.slots
				}
			}
			return sum
		}
		copied := newBlocks()
		for range rapid.IntRange(5, 60).Draw(t, "steps") {
			usable()
			who := rapid.SampledFrom(names).Draw(t, "agent")
			own := all[who]
			ids := slices.Sorted(maps.Keys(own.has))
			n++
			a := &ask{agent: who, license: l, newID: fmt.Sprint("b", n), now: now, ttl: ttl, had: maps.Clone(own.had),
				BlockRequest: &online.BlockRequest{Pool: "seats",
					Slots: rapid.Int64Range(1, 6).Draw(t, "slots"), AtLeast: 1}}
			lost := rapid.IntRange(0, 4).Draw(t, "lost") == 0
			hear := func(x *Block) {
				if own.had = maps.Clone(own.had); !lost {
					own.has[x.ID], own.had[x.ID] = &believed{x.ID, x.size(), now + ttl}, Had{x.Pool, x.size()}
				}
			}
			switch step := rapid.IntRange(0, 11).Draw(t, "step"); {
			case step < 4:
				if a.Token = own.lost; a.Token == "" {
					a.Token = a.newID
				}
				x, c, refused := b.checkOut(a)
				b.apply(c)
				if own.lost = ""; lost {
					own.lost = a.Token
				}
				if refused == nil {
					hear(x)
				}
			case step < 8 && len(ids) > 0:
				a.ID = rapid.SampledFrom(ids).Draw(t, "block")
				had := own.has[a.ID]
				if had.slots < own.had[a.ID].Slots {
					// an agent asks for no more before the server has answered that it is to have less
					a.Slots = min(a.Slots, had.slots)
				}
				if had.slots > a.Slots {
					had.slots = a.Slots // out of use before it is said
				}
				x, c, refused := b.extend(a)
				b.apply(c)
				switch {
				case refused == nil:
					if x.size() < min(a.Slots, had.slots) {
						t.Fatalf("a block of %d has %d slots", had.slots, x.size())
					}
					hear(x)
				case restored || refused.System != plugin.SystemLapsed:
					t.Fatalf("a block that an agent has is not extended: %s", refused.Reason)
				}
			case step == 8 && len(ids) > 0:
				id := rapid.SampledFrom(ids).Draw(t, "block")
				delete(own.has, id)
				b.apply(b.giveBack(who, id))
			case step == 9 && !restored:
				copied = newBlocks()
				for _, x := range b.by {
					y := *x
					copied.apply(change{put: []*Block{&y}})
				}
			case step == 10 && !restored && rapid.Bool().Draw(t, "restore"):
				restored = true
				for _, x := range copied.by {
					x.until = now + x.span()
					x.old = x.until
				}
				b = copied
				b.settling = now + ttl
			default:
				now += time.Duration(rapid.Int64Range(0, int64(ttl/2)).Draw(t, "time"))
			}
			if sum := usable(); sum > limit {
				t.Fatalf("agents may use %d slots of %d", sum, limit)
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

func TestBlocks(t *testing.T) {
	b, l, now := newBlocks(), siteLicence(4, 1), time.Duration(0)
	n := 0
	take := func(agent, token string, slots, least int64) (*Block, *online.Refusal) {
		n++
		x, c, refused := b.checkOut(&ask{agent: agent, license: l, newID: fmt.Sprint(n), now: now,
			ttl:          10 * time.Second,
			BlockRequest: &online.BlockRequest{Pool: "seats", Slots: slots, AtLeast: least, Token: token}})
		b.apply(c)
		return x, refused
	}
	more := func(agent, id string, slots int64) (*Block, *online.Refusal) {
		x, c, refused := b.extend(&ask{agent: agent, license: l, now: now, ttl: 10 * time.Second,
			BlockRequest: &online.BlockRequest{ID: id, Slots: slots}})
		b.apply(c)
		return x, refused
	}
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
	if got := b.wanted(share{"L1", "seats"}, "a", now); got != 4 { // b's two and c's two
		t.Errorf("others want %d", got)
	}
	if got := b.wanted(share{"L1", "seats"}, "a", now+6*time.Second); got != 0 {
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
	// It is over; while nobody has the slots it can be had again.
	now = 11 * time.Second
	if x, refused := more("a", first.ID, 0); x == nil {
		t.Errorf("over, and room: %+v", refused)
	}
	now = 22 * time.Second
	if x, _ := take("c", "", 5, 5); x == nil {
		t.Fatal("the slots of what is over cannot be had")
	}
	if _, refused := more("a", first.ID, 0); refused == nil || refused.System != plugin.SystemLapsed {
		t.Errorf("over, and no room: %+v", refused)
	}
	if _, refused := take("a", "", 1, 1); refused == nil {
		t.Error("a sixth slot of five")
	}
	for _, bad := range []online.BlockRequest{{Pool: "each", Slots: 1}, {Pool: "none", Slots: 1}, {Pool: "seats"},
		{Pool: "seats", Slots: 1, AtLeast: 2}, {Pool: "seats", Slots: 1 << 50}} {
		if _, _, refused := b.checkOut(&ask{agent: "a", license: l, newID: "x", BlockRequest: &bad,
			ttl: time.Second}); refused == nil {
			t.Errorf("%+v was given", bad)
		}
	}
	// Where holders are told to stop, the slots are kept back until they have.
	l.OnExpiry = enforcer.Revoke
	now = time.Hour
	take("d", "", 5, 5)
	now += 20 * time.Second
	if _, refused := take("e", "", 1, 1); refused == nil {
		t.Error("slots were had before their holders were told to stop")
	}
	now += 6 * time.Second
	if _, refused := take("e", "", 1, 1); refused != nil {
		t.Errorf("after that: %+v", refused)
	}
}
