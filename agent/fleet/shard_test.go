package fleet

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/usher-agent/usher/agent/bubble"
	"github.com/usher-agent/usher/plugin"
)

// inShares has the total of two histories in three spread over shares, and in one of these some agents of an earlier
// version that knows none.
func (c *crowd) inShares(seed uint64) {
	for i, h := range c.agents {
		switch {
		case seed%3 == 0:
		case seed%3 == 2 && i%3 == 1:
			h.spread.none = true
		default:
			h.spread = spread{eager: true, least: 2 + int64(seed%5)}
		}
	}
}

// key is a key of the pool streams.
func key(rest string) string { return "/u/p/" + streams + "/" + rest }

func (r *rig) total() int64 {
	v, err := read[total](r.sim.kvs[key("s")], true)
	if err != nil {
		r.t.Error(err)
	}
	return v.Out
}

// free adds up what is free in the shares.
func (r *rig) free() (n int64) {
	for k, kv := range r.sim.kvs {
		if strings.HasPrefix(k, key("f")) {
			n += shareOf(kv).Free
		}
	}
	return n
}

// trips counts the transactions of a way to the store, by what they are for.
func (h *hooked) trips() (count func() string) {
	var all []string
	h.before = func(t *Txn) { all = append(all, string(t.Kind)) }
	return func() string {
		defer func() { all = nil }()
		return strings.Join(all, " ")
	}
}

// sharing is a member that sets slots aside at every turn, in shares for as few slots of the limit as that.
func (r *rig) sharing(id string, least int64) (*Fleet, *hooked) {
	f, way := r.agent(id, new([]byte))
	f.cfg.spread = spread{eager: true, least: least}
	return f, way
}

func (r *rig) resize(b *Bound, token string, n int64) *plugin.Block {
	r.t.Helper()
	return r.must(b.Extend(r.t.Context(), &plugin.Extend{Block: BlockID(token), Slots: n, For: time.Hour}))
}

// lower has an agent of an earlier version name lower terms, with a block of one slot.
func (r *rig) lower(limit int64) {
	low := terms{Limit: limit, Document: "x"}
	r.do(Op{Put: key("t"), Value: text(low)}, Op{Put: key("s"), Value: text(total{r.total() + 1})},
		Op{Put: key("g/c"), Value: text(held{Blocks: map[string]int64{"x": 1}, terms: low})})
}

// A block grows, shrinks, comes and goes in one round trip where no other agent has changed the pool since; where one
// has, the transaction that fails brings what the second needs.
func TestOneRoundTrip(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		r := newRig(t)
		a, way := r.agent("a", new([]byte))
		b, wayB := r.agent("b", new([]byte))
		r.join(a, b)
		ba, bb := r.bound(a, 20), r.bound(b, 20)
		r.must(r.checkOut(ba, "1", 1))
		if _, err := b.ready(t.Context(), false); err != nil {
			t.Fatal(err)
		}
		trips, tripsB := way.trips(), wayB.trips()
		want := func(what, got, want string) {
			t.Helper()
			if got != want {
				t.Errorf("%s: %s; want %s", what, got, want)
			}
			r.adds()
		}
		r.resize(ba, "1", 3)
		want("a block grows", trips(), "change")
		r.resize(ba, "1", 2)
		want("a block shrinks", trips(), "change")
		r.must(r.checkOut(ba, "2", 1))
		want("another block", trips(), "change")
		if err := ba.Return(t.Context(), &plugin.Return{Block: BlockID("2")}); err != nil {
			t.Error(err)
		}
		want("a block is given back", trips(), "change")
		r.must(r.checkOut(bb, "1", 1))
		want("the first block of an agent", tripsB(), "read change")
		if got := r.resize(ba, "1", 5); got.Slots != 5 {
			t.Errorf("a block of 5 slots has %d", got.Slots)
		}
		want("others have changed the pool", trips(), "change change")
		// The pool is busy: the next looks first, and finds that this was not needed; so the one after it does not.
		r.resize(ba, "1", 6)
		r.resize(ba, "1", 7)
		want("it is quiet again", trips(), "read change change")
		if r.total() != 8 {
			t.Errorf("the total is %d", r.total())
		}
	})
}

// Though an agent goes by what it last saw, it takes no slot that another has taken since, passes nobody in the turn,
// takes nothing by terms that hold no more, and nothing in a quarantine.
func TestWhatWasLastSeenIsCompared(t *testing.T) {
	for what, between := range map[string]func(r *rig, b *Bound){
		"others have the slots": func(r *rig, b *Bound) { r.must(r.checkOut(b, "1", 8)) },
		"another waits": func(r *rig, b *Bound) {
			r.put(key("w/c"), text(ticket{Slots: 8}))
		},
		"the terms are lower": func(r *rig, _ *Bound) { r.lower(2) },
		"a quarantine":        func(r *rig, b *Bound) { r.put("/u/q", text(quarantine{Reason: "x"})) },
	} {
		for _, shared := range []bool{false, true} {
			t.Run(fmt.Sprint(what, " ", shared), func(t *testing.T) {
				bubble.Test(t, func(t *testing.T) {
					r := newRig(t)
					a, _ := r.agent("a", new([]byte))
					b, _ := r.agent("b", new([]byte))
					limit := int64(10)
					r.join(a, b)
					if shared {
						a.cfg.spread, b.cfg.spread = spread{eager: true, least: 3}, spread{least: 3}
					}
					ba := r.bound(a, limit)
					r.must(r.checkOut(ba, "1", 1))
					r.resize(ba, "1", 2)
					if shared != (r.free() > 0) {
						t.Fatalf("%d slots are in shares", r.free())
					}
					between(r, r.bound(b, limit))
					got, err := ba.Extend(t.Context(), &plugin.Extend{Block: BlockID("1"), Slots: 3, For: time.Hour})
					if err == nil && got.Slots > 2 || err != nil && code(err) != plugin.SystemSettling {
						t.Errorf("the block has %+v, %v", got, err)
					}
					r.adds()
				})
			})
		}
	}
}

// What an agent last saw is compared where others change it and leave the total as it is: its own block, of which
// another has taken a part over; the terms, which were others meanwhile; the epoch.
func TestWhatLeavesTheTotalIsCompared(t *testing.T) {
	for what, between := range map[string]func(r *rig){
		"a part of the block is another's": func(r *rig) {
			h, _ := read[held](r.sim.kvs[key("g/a")], true)
			h.Moved = map[string]moved{"x": {1, "b"}}
			r.do(Op{Put: key("g/a"), Value: text(h)},
				Op{Put: key("g/b"), Value: text(held{Blocks: map[string]int64{"y": 1}})})
		},
		"the terms were others": func(r *rig) { r.put(key("t"), r.value(key("t"))) },
		"the epoch": func(r *rig) {
			v, _ := read[identity](r.sim.kvs["/u/c"], true)
			v.Epoch = "another"
			r.put("/u/c", text(v))
		},
	} {
		t.Run(what, func(t *testing.T) {
			bubble.Test(t, func(t *testing.T) {
				r := newRig(t)
				a, way := r.sharing("a", 8)
				r.join(a)
				ba := r.bound(a, 64)
				r.must(r.checkOut(ba, "1", 2))
				if r.resize(ba, "1", 3); r.free() < 2 {
					t.Fatalf("%d slots are in shares", r.free())
				}
				a.cfg.spread.eager = false
				between(r)
				trips := way.trips()
				r.resize(ba, "1", 4)
				if got := trips(); !strings.HasPrefix(got, "change ") {
					t.Errorf("it took %s", got)
				}
				r.adds()
			})
		})
	}
}

// Slots come from an agent's share and go back to it without a word to the total, so that agents of different shares
// undo no transaction of one another; an agent that finds its share and the total empty looks at all shares.
func TestShares(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		r := newRig(t)
		var all []*Bound
		var members []*Fleet
		for i := range 6 {
			f, _ := r.sharing(fmt.Sprint("agent", i), 4)
			members = append(members, f)
		}
		r.join(members...)
		homes := map[int]bool{}
		for _, f := range members {
			all = append(all, r.bound(f, 32))
			homes[f.home(streams, 32)] = true
		}
		if len(homes) < 3 || homes[0] {
			t.Errorf("six agents use the shares %v", homes)
		}
		for i, b := range all {
			r.must(r.checkOut(b, "1", 1))
			if r.resize(b, "1", 2); r.free() == 0 {
				t.Errorf("after agent %d nothing is in shares", i)
			}
			r.adds()
		}
		one, share := all[0], key(fmt.Sprint("f", members[0].home(streams, 32)))
		had := shareOf(r.sim.kvs[share]).Free
		if had < 1 {
			t.Fatalf("the share of agent 0 has %d slots", had)
		}
		total := r.sim.kvs[key("s")]
		r.resize(one, "1", 2+had)
		r.resize(one, "1", 2)
		if now := shareOf(r.sim.kvs[share]).Free; r.sim.kvs[key("s")] != total || now != had {
			t.Errorf("of %d slots in the share there are %d, and the total is %+v, was %+v", had, now,
				r.sim.kvs[key("s")], total)
		}
		taken := int64(2 * len(all))
		if got := r.resize(one, "1", 32); got.Slots != 32-taken+2 || r.free() != 0 || r.total() != 32 {
			t.Errorf("of %d free slots %d were given; %d are in shares, the total is %d", 32-taken, got.Slots-2,
				r.free(),
				r.total())
		}
		r.adds()
		// Who waits is told of what is given back, and it is in no share.
		if _, err := r.checkOut(all[1], "2", 3); !isFull(err) {
			t.Errorf("a slot too many: %v", err)
		}
		r.resize(one, "1", 10)
		if r.free() != 0 {
			t.Errorf("somebody waits, and %d slots are in shares", r.free())
		}
		r.must(r.checkOut(all[1], "2", 3))
		r.adds()
	})
}

// Slots that were set aside by other terms, or in an old copy of the store, are taken by nobody: they go back to the
// total.
func TestSharesOfOtherTerms(t *testing.T) {
	for _, what := range []string{"terms", "epoch"} {
		bubble.Test(t, func(t *testing.T) {
			r := newRig(t)
			a, _ := r.sharing("a", 8)
			b, _ := r.agent("b", new([]byte))
			r.join(a, b)
			ba := r.bound(a, 40)
			r.must(r.checkOut(ba, "1", 1))
			r.must(r.checkOut(r.bound(b, 40), "1", 4))
			if r.resize(ba, "1", 2); r.free() < 2 {
				t.Fatal("too little is in shares")
			}
			limit, others := int64(40), int64(4)
			if what == "terms" {
				limit, others = 20, 5
				r.lower(limit)
			} else {
				v, _ := read[identity](r.sim.kvs["/u/c"], true)
				v.Epoch = "another"
				r.put("/u/c", text(v))
				if _, err := b.ready(t.Context(), true); err != nil {
					t.Fatal(err)
				}
			}
			a.cfg.spread.eager = false
			if one := r.resize(ba, "1", 3); one.Slots != 3 || r.free() != 0 {
				t.Errorf("%s: a block of %d, and %d slots are in shares still", what, one.Slots, r.free())
			}
			r.adds()
			got := r.resize(ba, "1", 40)
			if out := r.total() - r.free(); got.Slots != limit-others || out != limit || r.free() != 0 {
				t.Errorf("%s: a block of %d, %d slots out of %d, %d in shares", what, got.Slots, out, limit, r.free())
			}
			r.adds()
		})
	}
}

// Agents of an earlier version, which know the total alone, take, give back, take over and evict beside agents that
// know shares, and no slot is lost or out twice. What is set aside is given back to the total for them.
func TestSharesBesideAnEarlierVersion(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		r := newRig(t)
		a, _ := r.sharing("a", 4)
		old, _ := r.agent("old", new([]byte))
		old.cfg.spread.none = true
		r.join(a, old)
		ba, bo := r.bound(a, 20), r.bound(old, 20)
		r.must(r.checkOut(ba, "1", 5))
		r.resize(ba, "1", 6)
		aside := r.free()
		r.must(r.checkOut(bo, "1", 20-r.total()))
		if aside == 0 || r.total() != 20 {
			t.Fatalf("%d slots are set aside, the total is %d", aside, r.total())
		}
		// It sees the total alone, and asks for idle slots by a word without the shares.
		a.hear(KV{Key: a.keys.word("a", streams), Value: text(word{Wanted: 1})})
		if a.gather(t.Context()); r.free() != 0 || r.total() != 20-aside {
			t.Errorf("%d slots are set aside still, the total is %d", r.free(), r.total())
		}
		r.adds()
		if got := r.resize(bo, "1", 20); got.Slots != 20-6 {
			t.Errorf("the earlier one has %d slots", got.Slots)
		}
		r.resize(bo, "1", 10)
		old.leaveTurn(t.Context(), func(string, *pool) bool { return true })
		r.resize(ba, "1", 7)
		if r.free() == 0 {
			t.Error("nothing is set aside")
		}
		// It takes a dead agent's block over, whose slots came from a share.
		began := time.Now()
		for r.value(key("g/a")) != "" && time.Since(began) < time.Minute {
			r.resize(bo, "1", 20)
			time.Sleep(time.Second)
		}
		if took := time.Since(began); took < 18*time.Second || took > 25*time.Second {
			t.Errorf("the dead agent has its block for %s", took)
		}
		aside = r.free()
		if got := r.resize(bo, "1", 20); got.Slots+aside != 20 {
			t.Errorf("of 20 slots it has %d, and %d are set aside", got.Slots, aside)
		}
		r.adds()
		// While one waits that knows the total alone, what is given back goes there, and all that is set aside.
		c, _ := r.sharing("c", 4)
		if _, err := c.ready(t.Context(), false); err != nil {
			t.Fatal(err)
		}
		bc := r.bound(c, 20)
		old.leaveTurn(t.Context(), func(string, *pool) bool { return true })
		r.resize(bo, "1", 2)
		r.must(r.checkOut(bc, "1", 4))
		n := int64(4)
		for r.free() == 0 && n < 12 {
			n++
			r.resize(bc, "1", n)
		}
		r.put(key("w/old"), text(ticket{Slots: 18}))
		if r.resize(bc, "1", 3); n == 12 || r.free() != 0 || r.total() != 5 {
			t.Errorf("%d slots are set aside, the total is %d", r.free(), r.total())
		}
		r.adds()
		// An agent that is drained empties the shares: no newer one may be left.
		r.do(Op{Delete: key("w/old")})
		for n := int64(4); r.free() == 0 && n < 12; n++ {
			r.resize(bc, "1", n)
		}
		aside = r.free()
		c.orders(&Result{Got: [][]KV{{{Key: "x", Mod: 1, Value: "{}"}}, nil}}, 0)
		if c.gather(t.Context()); aside == 0 || r.free() != 0 {
			t.Errorf("of %d slots %d are set aside by an agent that is drained", aside, r.free())
		}
		r.adds()
	})
}

// A word of an agent that has looked at the shares is no reason to empty them.
func TestWordsThatEmptyShares(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		r := newRig(t)
		back, _ := r.sharing("a", 4)
		hears := func(w word) bool {
			back.named(streams)
			back.hear(KV{Key: back.keys.word("a", streams), Value: text(w)})
			return back.pools[streams].gather
		}
		if hears(word{Wanted: 1, Shares: true}) || hears(word{Free: 1}) || !hears(word{Wanted: 1}) {
			t.Error("shares are emptied for the wrong words")
		}
	})
}

// Shares come only where others undo transactions, and where the limit allows.
func TestSharesWhereTheyPay(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		r := newRig(t)
		a, way := r.agent("a", new([]byte))
		b, _ := r.agent("b", new([]byte))
		r.join(a, b)
		ba, bb := r.bound(a, 1000), r.bound(b, 1000)
		r.must(r.checkOut(bb, "1", 1))
		r.must(r.checkOut(ba, "1", 1))
		if r.resize(ba, "1", 2); r.free() != 0 {
			t.Errorf("nobody contends, and %d slots are set aside", r.free())
		}
		r.resize(bb, "1", 2)
		n := int64(2)
		undone := 0
		way.before = func(x *Txn) { // another is quicker, each time
			if x.Kind == KindChange && undone < 2 {
				undone, n = undone+1, n+1
				r.resize(bb, "1", n)
			}
		}
		if r.resize(ba, "1", 3); r.free() == 0 || undone != 2 {
			t.Error("a transaction was undone, and nothing is set aside")
		}
		way.before = nil
		r.adds()
		for limit, want := range map[int64]int{1: 1, 31: 1, 32: 2, 100: 6, 256: 16, 1_000_000: 16} {
			if got := a.shards(limit); got != want {
				t.Errorf("a limit of %d is spread over %d keys, want %d", limit, got, want)
			}
		}
	})
}

// A transaction that comes through in an old copy of the store, which has by chance all that an agent last saw, brings
// no slots.
func TestLastSeenInAnOldCopy(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		r := newRig(t)
		a, _ := r.agent("a", new([]byte))
		b, _ := r.agent("b", new([]byte))
		r.join(a, b)
		ba, bb := r.bound(a, 10), r.bound(b, 10)
		r.must(r.checkOut(bb, "1", 2))
		r.must(r.checkOut(ba, "1", 2))
		r.resize(ba, "1", 3)
		old := r.sim.snapshot()
		r.resize(bb, "1", 7) // all are out
		r.sim.restore(old)
		got, err := ba.Extend(t.Context(), &plugin.Extend{Block: BlockID("1"), Slots: 8, For: time.Hour})
		if err == nil && got.Slots > 3 {
			t.Errorf("a block of 3 has %d slots: 7 are another's", got.Slots)
		}
		time.Sleep(time.Second)
		if _, err := b.ready(t.Context(), true); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second)
		a.sweep(t.Context())
		b.sweep(t.Context())
		if out, blocks := r.sums(); out != 10 || blocks != 10 {
			t.Errorf("the total is %d, the blocks have %d, after all have stated theirs", out, blocks)
		}
	})
}

// An answer that comes after the answer to a later call shows no old copy of the store.
func TestAnswersThatOvertake(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		r := newRig(t)
		a, way := r.agent("a", new([]byte))
		r.join(a)
		if _, err := a.ready(t.Context(), true); err != nil {
			t.Fatal(err)
		}
		was := a.lastSeen()
		res, err := way.way.Txn(t.Context(), &Txn{Then: a.reads(streams)})
		if err != nil {
			t.Fatal(err)
		}
		r.write() // somebody else
		time.Sleep(time.Second)
		if _, err := a.ready(t.Context(), true); err != nil {
			t.Fatal(err)
		}
		if v, err := a.seeing(t.Context(), streams, res, was, 0); err != nil || v == nil || v.closed != nil {
			t.Errorf("%+v, %v", v, err)
		}
		if q := r.value("/u/q"); q != "" {
			t.Errorf("a quarantine has begun: %s", q)
		}
	})
}
