package fleet

import (
	"context"
	"testing"
	"time"

	"github.com/usher-agent/usher/agent/bubble"
	"github.com/usher-agent/usher/plugin"
)

// stuck has one transaction of an agent that changes its blocks be kept by a member that hangs, and returns what has
// the member go on: then the transaction is tried, however long ago its caller gave it up.
func (r *rig) stuck(way *hooked) (goesOn func() (done bool)) {
	var kept *Txn
	way.before = func(t *Txn) {
		if kept == nil && t.Kind == KindChange {
			kept = t
			way.lose = func(string) bool {
				way.lose = nil
				return true
			}
		}
	}
	return func() bool {
		r.t.Helper()
		if kept == nil {
			r.t.Fatal("no transaction was kept")
		}
		res, err := r.sim.txn(kept)
		if err != nil {
			r.t.Fatal(err)
		}
		return res.Done
	}
}

// openStuck has an agent that has a block of n slots, and whose next change is kept: see stuck.
func openStuck(t *testing.T, n int64) (r *rig, a *Fleet, b *Bound, block *plugin.Block, goesOn func() bool) {
	r = newRig(t)
	a, way := r.agent("a", new([]byte))
	r.join(a)
	b = r.bound(a, 10)
	block = r.must(r.checkOut(b, "1", n))
	return r, a, b, block, r.stuck(way)
}

// A member that hangs may do a change long after its agent has given that up, and has read that it was not done. Then
// the agent's blocks are no smaller than it believes: what it has read before it uses them is written first, so that a
// change from before that does nothing any more.
func TestChangeThatComesLate(t *testing.T) {
	t.Run("read since", func(t *testing.T) {
		bubble.Test(t, func(t *testing.T) {
			r, _, b, block, goesOn := openStuck(t, 5)
			if got, err := b.Extend(t.Context(), &plugin.Extend{Block: block.ID, Slots: 3}); err == nil {
				t.Fatalf("a call that hangs has the answer %+v", got)
			}
			got, err := b.Extend(context.Background(), &plugin.Extend{Block: block.ID, Slots: 5})
			if err != nil || got.Slots != 5 {
				t.Fatalf("%+v, %v", got, err)
			}
			if goesOn() {
				t.Error("an agent uses 5 slots, and the store believes that it has 3")
			}
			r.adds()
		})
	})
	t.Run("written since", func(t *testing.T) {
		bubble.Test(t, func(t *testing.T) {
			r, _, b, block, goesOn := openStuck(t, 5)
			if _, err := b.Extend(t.Context(), &plugin.Extend{Block: block.ID, Slots: 3}); err == nil {
				t.Fatal("a call that hangs has an answer")
			}
			for _, n := range []int64{4, 5} { // as it was, to the letter
				if got, err := b.Extend(t.Context(), &plugin.Extend{Block: block.ID, Slots: n}); err != nil ||
					got.Slots != n {
					t.Fatalf("%+v, %v", got, err)
				}
			}
			if goesOn() {
				t.Error("an agent uses 5 slots, and the store believes that it has 3")
			}
			r.adds()
		})
	})
}

// A growth that comes as late is no loss: a heartbeat sees that the store has more than the agent knows of, and the
// agent gives that back; also where a look at the pool that changed nothing has seen it before.
func TestGrowthThatComesLate(t *testing.T) {
	for name, looks := range map[string]bool{"heartbeat": false, "look and heartbeat": true} {
		t.Run(name, func(t *testing.T) {
			bubble.Test(t, func(t *testing.T) {
				r, a, b, block, goesOn := openStuck(t, 3)
				if _, err := b.Extend(t.Context(), &plugin.Extend{Block: block.ID, Slots: 5}); err == nil {
					t.Fatal("a call that hangs has an answer")
				}
				keeps := func() {
					t.Helper()
					got, err := b.Extend(t.Context(), &plugin.Extend{Block: block.ID, Slots: 3})
					if err != nil || got.Slots != 3 {
						t.Fatalf("%+v, %v", got, err)
					}
				}
				if keeps(); !goesOn() {
					t.Fatal("the member does nothing")
				}
				if looks {
					if _, err := a.look(t.Context(), poolName(b.licence, "streams")); err != nil {
						t.Fatal(err)
					}
				}
				time.Sleep(time.Second)
				if _, err := a.ready(t.Context(), true); err != nil {
					t.Fatal(err)
				}
				if keeps(); r.total() != 3 {
					t.Errorf("%d slots are out, of which 2 are of no use to anybody", r.total())
				}
			})
		})
	}
}
