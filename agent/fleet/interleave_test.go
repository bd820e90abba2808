package fleet

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/usher-agent/usher/agent/bubble"
	"github.com/usher-agent/usher/enforcer"
	"github.com/usher-agent/usher/plugin"
)

// between has something happen right before the first transaction that is. The returned function says whether it did.
func (h *hooked) between(is func(*Txn) bool, do func()) (happened func() bool) {
	done := false
	h.before = func(t *Txn) {
		if !done && is(t) {
			done = true
			do()
		}
	}
	return func() bool { return done }
}

// What a transaction is, by what it puts or deletes first.
func writesTotal(t *Txn) bool  { return len(t.Then) > 0 && strings.HasSuffix(t.Then[0].Put, "/s") }
func raisesTerms(t *Txn) bool  { return len(t.Then) > 0 && strings.HasSuffix(t.Then[0].Put, "/t") }
func takesOver(t *Txn) bool    { return writesTotal(t) && len(t.Then) == 2 && t.Then[1].Delete != "" }
func joins(t *Txn) bool        { return len(t.Then) > 0 && strings.HasPrefix(t.Then[0].Put, "/u/a/") }
func (r *rig) put(k, v string) { r.do(Op{Put: k, Value: v}) }

func (r *rig) do(ops ...Op) {
	r.t.Helper()
	if _, err := r.sim.txn(&Txn{Then: ops}); err != nil {
		r.t.Fatal(err)
	}
}

func (r *rig) value(key string) string { return r.sim.kvs[key].Value }

// adds looks that the total is the sum of the blocks.
func (r *rig) adds() {
	r.t.Helper()
	if out, blocks := (&crowd{t: r.t, sim: r.sim}).sum(); out != blocks {
		r.t.Errorf("the total is %d, and the blocks have %d", out, blocks)
	}
}

func code(err error) string {
	var e *plugin.Error
	if errors.As(err, &e) {
		return e.SystemCode
	}
	return ""
}

var streams = poolName(site(1), "streams")

// A quarantine that begins between an agent's reading and its writing keeps slots from it, and so does one that is
// there.
func TestQuarantineBetween(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		r := newRig(t)
		a, way := r.agent("a", new([]byte))
		if _, err := a.ready(t.Context(), false); err != nil {
			t.Fatal(err)
		}
		b := r.bound(a, 10)
		if _, err := r.checkOut(b, "1", 3); code(err) != plugin.SystemSettling {
			t.Errorf("in a new store's first moments: %v", err)
		}
		time.Sleep(11 * time.Second)
		happened := way.between(writesTotal, func() { r.put("/u/q", text(quarantine{Reason: "x"})) })
		if _, err := r.checkOut(b, "1", 3); code(err) != plugin.SystemSettling || !happened() {
			t.Errorf("in a quarantine that has just begun: %v", err)
		}
		r.do(Op{Delete: "/u/q"})
		r.must(r.checkOut(b, "1", 3))
		r.put("/u/q", text(quarantine{Reason: "x"}))
		asks := 0
		way.before = func(x *Txn) { asks++ }
		if _, err := r.checkOut(b, "2", 3); code(err) != plugin.SystemSettling || asks > 2 {
			t.Errorf("in a quarantine, after %d calls: %v", asks, err)
		}
	})
}

// Nobody takes a dead agent's blocks over while there is a quarantine, or the hold of one that was put out, though it
// came at the last instant; and what others took meanwhile counts.
func TestTakingOverBetween(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		r := newRig(t)
		a, _ := r.agent("a", new([]byte))
		b, way := r.agent("b", new([]byte))
		r.join(a, b)
		ba, bb := r.bound(a, 10), r.bound(b, 10)
		r.must(r.checkOut(ba, "1", 8))
		mine := "/u/p/" + streams + "/g/a"
		tries := func(what string, do, undo func()) {
			t.Helper()
			happened := way.between(takesOver, do)
			for range 30 {
				if _, err := b.ready(t.Context(), true); err != nil {
					t.Fatal(err)
				}
				bb.CheckOut(t.Context(),
					&plugin.CheckOut{Pool: "streams", Slots: 10, AtLeast: 5, For: time.Hour, Token: "x"})
				time.Sleep(2 * time.Second)
				if happened() {
					break
				}
			}
			if !happened() {
				t.Fatalf("%s: nobody tried", what)
			}
			if what[0] == 'a' && r.value(mine) == "" {
				t.Errorf("%s: the blocks were taken over", what)
			}
			way.before = nil
			undo()
			r.adds()
		}
		r.must(r.checkOut(bb, "2", 2))
		tries("a quarantine", func() {
			r.put("/u/q", text(quarantine{Reason: "x"}))
		}, func() { r.do(Op{Delete: "/u/q"}) })
		tries("a hold", func() { r.put("/u/e/a/hold", "") }, func() { r.do(Op{Delete: "/u/e/a/hold"}) })
		tries("what another takes", func() {
			key := "/u/p/" + streams + "/s"
			out, err := read[total](r.sim.kvs[key], true)
			if err != nil {
				t.Fatal(err)
			}
			out.Out++
			r.do(Op{Put: key, Value: text(out)}, Op{Put: "/u/p/" + streams + "/g/c",
				Value: text(held{Incarnation: "c", Blocks: map[string]int64{"x": 1}})})
		}, func() {})
		r.untilGot(bb, "4", 3)
		r.adds()
	})
}

// An agent whose key somebody has deleted joins again, though its lease goes on.
func TestKeyThatIsDeleted(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		r := newRig(t)
		a, _ := r.agent("a", new([]byte))
		r.join(a)
		if _, err := a.ready(t.Context(), true); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second)
		r.do(Op{Delete: "/u/a/a"})
		if _, err := a.ready(t.Context(), true); err != nil || r.value("/u/a/a") == "" {
			t.Errorf("the key is %q, %v", r.value("/u/a/a"), err)
		}
	})
}

// Of two hosts with one key that join at the same time, one is told. An agent that is put out while it joins is out.
func TestJoiningBetween(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		r := newRig(t)
		other, _ := r.agent("b", new([]byte))
		r.join(other)
		a, way := r.agent("a", new([]byte))
		twin, _ := r.agent("a", new([]byte))
		happened := way.between(joins, func() {
			if _, err := twin.ready(t.Context(), false); err != nil {
				t.Error(err)
			}
		})
		if _, err := a.ready(t.Context(), false); err == nil || !happened() {
			t.Errorf("two hosts with one key have joined: %v", err)
		}
		for _, key := range []string{"/u/e/c", "/u/e/c/hold"} {
			c, way := r.agent("c", new([]byte))
			happened = way.between(joins, func() { r.put(key, "{}") })
			if _, err := c.ready(t.Context(), false); err == nil || !happened() {
				t.Errorf("%s: an agent that was put out has joined: %v", key, err)
			}
			r.do(Op{Delete: key}, Op{Delete: "/u/a/c"})
		}
	})
}

// The terms are never higher than a block names, whatever comes between an agent's reading and its writing.
func TestTermsBetween(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		r := newRig(t)
		a, wayA := r.agent("a", new([]byte))
		b, wayB := r.agent("b", new([]byte))
		r.join(a, b)
		key := "/u/p/" + streams + "/t"
		low, mid, high := r.bound(a, 5), r.bound(a, 8), r.bound(b, 20)
		x := r.must(r.checkOut(low, "1", 1))
		back := func(b *Bound, block *plugin.Block) {
			t.Helper()
			if err := b.Return(t.Context(), &plugin.Return{Block: block.ID}); err != nil {
				t.Fatal(err)
			}
		}
		back(low, x)
		// Others raise the terms while an agent with a lower document has read them, and not yet written its block.
		happened := wayA.between(writesTotal, func() {
			v, err := b.look(t.Context(), streams)
			if err != nil {
				t.Fatal(err)
			}
			high.lowest(t.Context(), streams, &attempt{v: v}, 20)
		})
		x = r.must(r.checkOut(mid, "2", 1))
		if got, err := read[terms](r.sim.kvs[key], true); err != nil || got.Limit > 8 || !happened() {
			t.Errorf("a block names a limit of 8, and the terms are %+v, %v", got, err)
		}
		back(mid, x)
		r.put(key, text(terms{Limit: 5}))
		// An agent takes a block by the lower document while another, that saw none, raises the terms.
		happened = wayB.between(raisesTerms, func() { r.must(r.checkOut(low, "3", 1)) })
		r.checkOut(high, "4", 20)
		if got, err := read[terms](r.sim.kvs[key], true); err != nil || got.Limit > 5 || !happened() {
			t.Errorf("a block names a limit of 5, and the terms are %+v, %v", got, err)
		}
	})
}

// An agent that looked at an old copy of the store before anybody knew that it was one does not write what it saw.
func TestOldCopyBetween(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		r := newRig(t)
		a, way := r.agent("a", new([]byte))
		b, _ := r.agent("b", new([]byte))
		r.join(a, b)
		ba := r.bound(a, 10)
		one := r.must(r.checkOut(ba, "1", 3))
		old := r.sim.snapshot()
		r.must(ba.Extend(t.Context(), &plugin.Extend{Block: one.ID, Slots: 6, For: time.Hour}))
		r.must(r.checkOut(ba, "2", 1))
		for range 9 {
			r.write()
		}
		time.Sleep(time.Millisecond)
		if _, err := b.ready(t.Context(), true); err != nil { // it has seen a later revision than a
			t.Fatal(err)
		}
		r.sim.restore(old)
		r.sim.cluster--
		for range 5 {
			r.write()
		}
		happened := way.between(writesTotal, func() {
			time.Sleep(time.Millisecond)
			if _, err := b.ready(t.Context(), true); err != nil {
				t.Error(err)
			}
		})
		if err := ba.Return(t.Context(), &plugin.Return{Block: blockID("2")}); err != nil {
			t.Fatal(err)
		}
		ba.Extend(t.Context(), &plugin.Extend{Block: one.ID, Slots: 5, For: time.Hour})
		time.Sleep(time.Second)
		a.sweep(t.Context())
		h, err := read[held](r.sim.kvs["/u/p/"+streams+"/g/a"], true)
		if n := h.Blocks[one.ID]; err != nil || !happened() || n != 5 {
			t.Errorf("of a block of 5 the store has %d; asked between: %v; %v", n, happened(), err)
		}
		r.adds()
	})
}

// lying is a store whose leases have another time to live than was asked for.
type lying struct {
	Store
	ttl time.Duration
}

func (l *lying) Grant(ctx context.Context, ttl time.Duration) (Lease, time.Duration, error) {
	lease, _, err := l.Store.Grant(ctx, ttl)
	return lease, l.ttl, err
}

func (l *lying) Renew(ctx context.Context, lease Lease) (ttl, late time.Duration, err error) {
	_, late, err = l.Store.Renew(ctx, lease)
	return l.ttl, late, err
}

// The fence is counted from the shorter of what an agent asks for and what the store gives: the store ends the key by
// the one, and others wait by the other. It is a sixteenth and a second before that.
func TestFenceOfTheShorterTime(t *testing.T) {
	if got := fence(time.Hour, 16*time.Second); got != time.Hour+14*time.Second {
		t.Errorf("the fence of 16 s is %s", got)
	}
	for _, c := range []struct{ gives, want time.Duration }{{8 * time.Second, fence(0, 8*time.Second)},
		{20 * time.Second, fence(0, 10*time.Second)}} {
		bubble.Test(t, func(t *testing.T) {
			r := newRig(t)
			a, way := r.agent("a", new([]byte))
			a.cfg.Store = &lying{way, c.gives}
			for range 2 { // it joins, and renews
				began := a.cfg.Now()
				me, err := a.ready(t.Context(), true)
				if err != nil || me.until-began != c.want {
					t.Errorf("where the store gives %s, the fence is after %s, want %s; %v", c.gives, me.until-began,
						c.want, err)
				}
				time.Sleep(time.Second)
			}
		})
	}
}

// The fence is counted from when a call was sent, however long it takes.
func TestFenceOfSlowCalls(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		r := newRig(t)
		a, way := r.agent("a", new([]byte))
		first, _ := r.agent("b", new([]byte))
		r.join(first)
		way.set(false, nil, func(string) time.Duration { return 300 * time.Millisecond })
		for _, calls := range []time.Duration{3, 2} { // it joins: a look, a lease, a write; it renews, and looks
			began := a.cfg.Now()
			me, err := a.ready(t.Context(), true)
			took := a.cfg.Now() - began
			if most := fence(began, 10*time.Second) + (calls-2)*600*time.Millisecond; err != nil || me.until > most {
				t.Errorf("after calls of %s the fence is %s late; %v", took, me.until-most, err)
			}
		}
	})
}

// The blocks that a new start of a host finds are over, and free.
func TestBlocksOfAnEarlierStart(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		r := newRig(t)
		var disk []byte
		a, _ := r.agent("a", &disk)
		r.join(a)
		block := r.must(r.checkOut(r.bound(a, 10), "1", 10))
		time.Sleep(20 * time.Second)
		again, _ := r.agent("a", &disk)
		again.cfg.Epoch = "another boot"
		b := r.bound(again, 10)
		_, err := b.Extend(t.Context(), &plugin.Extend{Block: block.ID, For: time.Hour})
		if code(err) != plugin.SystemLapsed {
			t.Errorf("a block of the former start goes on: %v", err)
		}
		// They are free once the fence of a copy of the host, which might have them still, is over.
		if took := r.untilGot(b, "2", 10); took < 9*time.Second || took > 11*time.Second {
			t.Errorf("they are free after %s", took)
		}
		r.adds()
	})
}

// metered is a licence with a meter.
func metered(n int64) *enforcer.License {
	l := site(1)
	l.Meters = map[string]enforcer.MeterTerm{"renders": {Max: enforcer.Limit(n)}}
	return l
}

// Draws count once for each token, add up over hosts, wait for the end of a quarantine, and are stated again to a store
// that has forgotten them.
func TestDraws(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		r := newRig(t)
		a, way := r.agent("a", new([]byte))
		b, _ := r.agent("b", new([]byte))
		r.join(a, b)
		all := func(string) bool { return true }
		da, db := a.DrawerFor(metered(10), nil, nil, all), b.DrawerFor(metered(10), nil, nil, all)
		draw := func(d plugin.Drawer, token string, n int64) int64 {
			t.Helper()
			got, err := d.Draw(t.Context(), &plugin.Draw{Meter: "renders", N: n, Token: token})
			if isFull(err) {
				return 0
			}
			if err != nil {
				t.Fatal(err)
			}
			return got.N
		}
		meter := poolName(metered(1), "renders")
		total := func() int64 {
			t.Helper()
			d, err := read[drawn](r.sim.kvs["/u/m/"+meter+"/ever/s"], true)
			if err != nil {
				t.Fatal(err)
			}
			return d.Drawn
		}
		if x, y := draw(da, "1", 3), draw(da, "1", 3); x != 3 || y != 3 || total() != 3 {
			t.Errorf("a draw that is asked for twice: %d and %d, of the meter %d", x, y, total())
		}
		happened := way.between(writesTotal, func() { draw(db, "2", 2) })
		if draw(da, "3", 1); total() != 6 || !happened() {
			t.Errorf("draws of 3, 2 and 1 are %d", total())
		}
		way.between(writesTotal, func() { r.put("/u/q", text(quarantine{Reason: "x"})) })
		for range 2 {
			if _, err := da.Draw(t.Context(), &plugin.Draw{Meter: "renders", N: 1, Token: "4"}); code(err) !=
				plugin.SystemSettling {
				t.Errorf("in a quarantine: %v", err)
			}
		}
		r.do(Op{Delete: "/u/q"})
		old := r.sim.snapshot()
		draw(da, "5", 2)
		r.sim.restore(old)
		if _, err := b.ready(t.Context(), true); err != nil {
			t.Fatal(err)
		}
		time.Sleep(11 * time.Second)
		if got := draw(da, "6", 9); got != 2 || total() != 10 {
			t.Errorf("of 10 draws, 8 taken, %d more were given, and the meter has %d", got, total())
		}
		if got := draw(db, "7", 1); got != 0 {
			t.Errorf("an eleventh draw of ten")
		}
	})
}
