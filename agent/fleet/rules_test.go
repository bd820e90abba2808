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

// rig is a few agents' fleets on one store, without keepers. The tests call them one by one.
type rig struct {
	t     *testing.T
	sim   *sim
	begin time.Time
}

func newRig(t *testing.T) *rig { return &rig{t, newSim(), time.Now()} }

// hooked is a way to the store that does something before a transaction.
type hooked struct {
	way
	before func(*Txn)
}

func (h *hooked) Txn(ctx context.Context, t *Txn) (*Result, error) {
	if h.before != nil {
		h.before(t)
	}
	return h.way.Txn(ctx, t)
}

// agent makes an agent that is not run: it renews its lease only when a call needs that.
func (r *rig) agent(id string, record *[]byte) (*Fleet, *hooked) {
	h := &hooked{way: way{sim: r.sim}}
	f, err := New(Config{Store: h, Agent: id, Prefix: "/u/", TTL: 10 * time.Second, Epoch: "boot", Time: time.Now,
		Now: func() time.Duration { return time.Hour + time.Since(r.begin) }, Jitter: func() float64 { return 0.5 },
		Load: func() ([]byte, error) { return *record, nil }, Save: func(b []byte) error { *record = b; return nil }})
	if err != nil {
		r.t.Fatal(err)
	}
	return f, h
}

func (r *rig) bound(f *Fleet, limit int64) *Bound {
	l := site(limit)
	return f.For(l, []byte(text(limit)), nil, func(string) bool { return true }).(*Bound)
}

func (r *rig) checkOut(b *Bound, token string, n int64) (*plugin.Block, error) {
	return b.CheckOut(r.t.Context(),
		&plugin.CheckOut{Pool: "streams", Slots: n, AtLeast: 1, For: time.Hour, Token: token})
}

func (r *rig) must(b *plugin.Block, err error) *plugin.Block {
	r.t.Helper()
	if err != nil {
		r.t.Fatal(err)
	}
	return b
}

// join has agents join and the first quarantine end.
func (r *rig) join(all ...*Fleet) {
	for _, f := range all {
		if _, err := f.ready(r.t.Context(), false); err != nil {
			r.t.Fatal(err)
		}
	}
	time.Sleep(11 * time.Second)
}

func isFull(err error) bool {
	var e *plugin.Error
	return errors.As(err, &e) && e.SystemCode == plugin.SystemFull
}

// A block may be used only as long as the lease was renewed for, however late the answer comes.
func TestBlockEndsWithTheLease(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		r := newRig(t)
		a, way := r.agent("a", new([]byte))
		r.join(a)
		b := r.bound(a, 10)
		first := r.must(r.checkOut(b, "1", 3))
		if want := fence(0, 10*time.Second); first.For != want {
			t.Errorf("a block is for %s, want %s", first.For, want)
		}
		time.Sleep(3 * time.Second)
		if got := r.must(r.checkOut(b, "2", 1)); got.For != first.For-3*time.Second {
			t.Errorf("3 s after the lease was renewed, a block is for %s", got.For)
		}
		way.set(false, nil, func(string) time.Duration { return 2 * time.Second })
		if got := r.must(r.checkOut(b, "3", 1)); got.For > first.For-3*time.Second {
			t.Errorf("after a slow call a block is for %s since it began", got.For)
		}
		way.set(false, nil, func(string) time.Duration { return 0 })
		if _, err := b.fleet.ready(t.Context(), true); err != nil {
			t.Fatal(err)
		}
		time.Sleep(3 * time.Second)
		way.before = func(*Txn) { time.Sleep(6 * time.Second) }
		if got, err := r.checkOut(b, "4", 1); err == nil {
			t.Errorf("an answer that comes after the fence has brought a block for %s", got.For)
		}
	})
}

// An agent's slots are another's once its lease is over, and not before.
func TestDeadAgentsSlots(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		r := newRig(t)
		a, _ := r.agent("a", new([]byte))
		b, way := r.agent("b", new([]byte))
		r.join(a, b)
		block := r.must(r.checkOut(r.bound(a, 10), "1", 10))
		took := a.cfg.Now()
		bb := r.bound(b, 10)
		for {
			got, err := r.checkOut(bb, "2", 4)
			if err == nil {
				if over := a.cfg.Now() - took; got.Slots != 4 || over <= block.For {
					t.Errorf("%d slots of a block for %s are another's after %s", got.Slots, block.For, over)
				}
				break
			}
			if !isFull(err) || a.cfg.Now()-took > time.Minute {
				t.Fatal(err)
			}
			time.Sleep(100 * time.Millisecond)
		}
		// An agent that comes back while another is about to take its blocks over keeps them.
		time.Sleep(20 * time.Second)
		c := r.bound(a, 10)
		r.must(r.checkOut(c, "3", 6))
		time.Sleep(20 * time.Second)
		for range 6 { // so that b has seen for long enough that a's key has gone
			r.must(r.checkOut(bb, "4", 4))
			time.Sleep(2 * time.Second)
		}
		way.before = func(t *Txn) {
			if len(t.Then) == 2 && t.Then[1].Delete != "" {
				way.before = nil
				if _, err := a.ready(r.t.Context(), true); err != nil {
					r.t.Error(err)
				}
			}
		}
		if _, err := r.checkOut(bb, "5", 5); !isFull(err) {
			t.Errorf("the blocks of an agent that lives are another's: %v", err)
		}
		if way.before != nil {
			t.Error("nothing was tried")
		}
	})
}

// A copy of a host that takes the agent's place over makes the other's transactions fail.
func TestCopyOfAHost(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		r := newRig(t)
		var disk []byte
		a, way := r.agent("a", &disk)
		r.join(a)
		b := r.bound(a, 10)
		r.must(r.checkOut(b, "1", 3))
		other := []byte{}
		stranger, _ := r.agent("a", &other)
		if _, err := stranger.ready(t.Context(), false); err == nil || !strings.Contains(err.Error(), "another host") {
			t.Errorf("a host with the agent's key and not its record joined: %v", err)
		}
		copied := append([]byte(nil), disk...)
		way.before = func(x *Txn) {
			if len(x.If) > 2 && len(x.Then) > 0 && x.Then[0].Put != "" {
				way.before = nil
				twin, _ := r.agent("a", &copied)
				if _, err := twin.ready(t.Context(), false); err != nil {
					t.Error(err)
				}
			}
		}
		if got, err := r.checkOut(b, "2", 1); err == nil {
			t.Errorf("an agent whose place another has took %d slots more", got.Slots)
		}
		if way.before != nil {
			t.Error("nothing was tried")
		}
	})
}

// Where the limit shrinks below what is out, every agent keeps its part of it; it rises only when no block names the
// lower document any more.
func TestTermsOfTheLowestDocument(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		r := newRig(t)
		a, _ := r.agent("a", new([]byte))
		b, _ := r.agent("b", new([]byte))
		r.join(a, b)
		oldA, oldB := r.bound(a, 20), r.bound(b, 20)
		x, y := r.must(r.checkOut(oldA, "1", 12)), r.must(r.checkOut(oldB, "2", 8))
		newB := r.bound(b, 10)
		extend := func(b *Bound, block *plugin.Block) *plugin.Block {
			t.Helper()
			time.Sleep(5 * time.Second) // the heartbeat brings the terms
			return r.must(b.Extend(t.Context(), &plugin.Extend{Block: block.ID, For: time.Hour}))
		}
		y = extend(newB, y)
		for range 4 {
			x, y = extend(oldA, x), extend(newB, y)
		}
		if x.Slots+y.Slots > 10 || x.Slots < 2 || y.Slots < 2 {
			t.Errorf("of a limit of 10, the agents keep %d and %d", x.Slots, y.Slots)
		}
		if got, err := r.checkOut(oldA, "3", 1); err == nil && got.Slots+x.Slots+y.Slots > 10 {
			t.Error("an agent with the higher document grows beyond the lower")
		}
		if err := newB.Return(t.Context(), &plugin.Return{Block: y.ID}); err != nil {
			t.Fatal(err)
		}
		if got := r.must(r.checkOut(oldA, "4", 20-x.Slots)); got.Slots < 10 {
			t.Errorf("after the last block of the lower document an agent gets %d slots", got.Slots)
		}
	})
}

// Agents that wait are served in turn: one that comes later gets none of what the first needs.
func TestTurns(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		r := newRig(t)
		var all []*Bound
		for _, id := range []string{"a", "b", "c"} {
			f, _ := r.agent(id, new([]byte))
			r.join(f)
			all = append(all, r.bound(f, 10))
		}
		held := r.must(r.checkOut(all[0], "1", 10))
		if _, err := r.checkOut(all[1], "2", 6); !isFull(err) {
			t.Fatal(err)
		}
		if _, err := r.checkOut(all[2], "3", 1); !isFull(err) {
			t.Fatal(err)
		}
		r.must(all[0].Extend(t.Context(), &plugin.Extend{Block: held.ID, Slots: 6, For: time.Hour}))
		if got, err := r.checkOut(all[2], "3", 1); !isFull(err) {
			t.Errorf("the second in turn is served before the first: %+v, %v", got, err)
		}
		if got := r.must(r.checkOut(all[1], "2", 6)); got.Slots != 4 {
			t.Errorf("the first in turn gets %d of 4", got.Slots)
		}
	})
}

// The same token brings the same block, whether or not the answer came.
func TestTokens(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		r := newRig(t)
		a, way := r.agent("a", new([]byte))
		r.join(a)
		b := r.bound(a, 10)
		calls := 0
		way.before = func(x *Txn) {
			if len(x.Then) > 1 && strings.HasSuffix(x.Then[0].Put, "/s") {
				calls++
			}
		}
		one := r.must(r.checkOut(b, "1", 3))
		two := r.must(r.checkOut(b, "1", 3))
		if one.ID != two.ID || two.Slots != 3 || calls != 1 {
			t.Errorf("the same token: %+v, then %+v with %d writes", one, two, calls)
		}
	})
}

// The pool of a renewal is that of the licence it renews; an add-on's is its own.
func TestPoolNames(t *testing.T) {
	l, renewal, addOn := site(8), site(12), site(4)
	renewal.ID, addOn.ID, addOn.Role = "L2", "A1", enforcer.RoleAddOn
	if poolName(l, "streams") != poolName(renewal, "streams") || poolName(l, "streams") == poolName(addOn, "streams") ||
		poolName(l, "streams") == poolName(l, "other") {
		t.Error("the names of pools do not tell sets of slots apart")
	}
	if name := poolName(l, "a/b c\n"); strings.ContainsAny(name, "/ \n") {
		t.Errorf("%q cannot be in a key", name)
	}
}
