package fleet

import (
	"fmt"
	"testing"
	"time"

	"github.com/usher-agent/usher/agent/bubble"
	"github.com/usher-agent/usher/plugin"
)

// waiting is three agents of which the first has all ten slots, and the others wait for six and for four.
func waiting(t *testing.T) (r *rig, all []*Bound, held *plugin.Block) {
	r = newRig(t)
	for _, id := range []string{"a", "b", "c"} {
		f, _ := r.agent(id, new([]byte))
		r.join(f)
		all = append(all, r.bound(f, 10))
	}
	held = r.must(r.checkOut(all[0], "1", 10))
	for i, n := range []int64{6, 4} {
		if _, err := r.checkOut(all[i+1], fmt.Sprint(n), n); !isFull(err) {
			t.Fatal(err)
		}
	}
	return r, all, held
}

// freeFor is how many free slots an agent was told of.
func (r *rig) freeFor(id string) int64 {
	r.t.Helper()
	kv, ok := r.sim.kvs["/u/r/"+id+"/"+streams]
	w, err := read[word](kv, ok)
	if err != nil {
		r.t.Fatal(err)
	}
	return w.Free
}

// What was kept for an agent that needs less by now, or no more, is others', who hear of it.
func TestTicketThatEnds(t *testing.T) {
	for name, ends := range map[string]func(*rig, *Bound){
		"with less": func(r *rig, b *Bound) { r.must(r.checkOut(b, "less", 1)) },
		"with nothing": func(r *rig, b *Bound) {
			b.fleet.leaveTurn(r.t.Context(), func(string, *pool) bool { return true })
		},
	} {
		t.Run(name, func(t *testing.T) {
			bubble.Test(t, func(t *testing.T) {
				r, all, held := waiting(t)
				r.must(all[0].Extend(t.Context(), &plugin.Extend{Block: held.ID, Slots: 4, For: time.Hour}))
				if b, c := r.freeFor("b"), r.freeFor("c"); b != 6 || c != 0 {
					t.Fatalf("6 slots came free; who waits for 6 heard of %d, who waits behind that of %d", b, c)
				}
				if ends(r, all[1]); r.freeFor("c") != 4 {
					t.Errorf("who waited behind was told of %d free slots, not of 4", r.freeFor("c"))
				}
				r.must(r.checkOut(all[2], "4", 4))
				r.adds()
			})
		})
	}
}

// A block is no larger than its agent asked for, though the store knows of more than the agent does: a change came
// through after the agent had given it up. Its keeper would take it for one whose blocks cannot be made smaller.
func TestExtendGivesNoMore(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		r := newRig(t)
		a, _ := r.agent("a", new([]byte))
		r.join(a)
		b := r.bound(a, 10)
		block := r.must(r.checkOut(b, "1", 4))
		a.mu.Lock()
		p := a.pools[streams]
		p.held.Blocks, p.view = map[string]int64{block.ID: 1}, nil
		a.mu.Unlock()
		got := r.must(b.Extend(t.Context(), &plugin.Extend{Block: block.ID, Slots: 2, For: time.Hour}))
		if got.Slots != 2 {
			t.Errorf("2 slots were asked for, and the block has %d", got.Slots)
		}
		r.adds()
	})
}

// Slots of a host that dies, or is started again, are with whoever waits for them once their time is over: two leases'
// times after its last sign of life, by clocks that differ by a 32nd, and a moment.
func TestSlotsOfTheDeadComeSoon(t *testing.T) {
	const bound = 2*(10*time.Second+10*time.Second/32) + 800*time.Millisecond
	for _, again := range []bool{false, true} {
		for seed := range uint64(6) {
			bubble.Test(t, func(t *testing.T) {
				c := newCrowd(t, seed, 2, 10)
				a, b := c.agents[0], c.agents[1]
				a.start()
				time.Sleep(12 * time.Second)
				a.act(10, false)
				a.wait()
				b.start()
				b.act(8, false) // it has never had any
				time.Sleep(time.Minute + time.Duration(c.rng.Int64N(int64(10*time.Second))))
				a.die()
				died := time.Now()
				if again {
					a.epoch += "'"
					a.start()
				}
				b.wait()
				if took := time.Since(died); took > bound {
					t.Errorf("seed %d, started again %v: the slots were with another after %s, not within %s", seed,
						again, took, bound)
				}
				c.calm()
			})
		}
	}
}

// An agent that counts the living reads none of their keys: in a large fleet each would read all others.
func TestCensusReadsNoKeys(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		r := newRig(t)
		a, way := r.agent("a", new([]byte))
		b, _ := r.agent("b", new([]byte))
		for _, f := range []*Fleet{a, b} {
			if _, err := f.ready(t.Context(), false); err != nil {
				t.Fatal(err)
			}
		}
		lists := 0
		way.before = func(x *Txn) {
			for _, o := range x.Then {
				if o.List != "" {
					lists++
				}
			}
		}
		if a.census(t.Context()); lists > 0 || a.Standing().Members != 2 {
			t.Errorf("it counts %d of 2 agents, with %d lists of keys", a.Standing().Members, lists)
		}
	})
}
