package fleet

import (
	"testing"
	"time"

	"github.com/usher-agent/usher/agent/bubble"
	"github.com/usher-agent/usher/plugin"
)

// revoke ends an agent's lease in the store though its time is not over, as a leader does that was stopped, or whose
// clock went wrong.
func (s *sim) revoke(agent string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if lease := s.kvs["/u/a/"+agent].Lease; lease != 0 {
		s.end(lease)
	}
}

// untilGot asks for slots until there are some, and returns how long that took.
func (r *rig) untilGot(b *Bound, token string, n int64) time.Duration {
	r.t.Helper()
	began := time.Now()
	for time.Since(began) < 2*time.Minute {
		if _, err := r.checkOut(b, token, n); err == nil {
			return time.Since(began)
		} else if !isFull(err) {
			r.t.Fatal(err)
		}
		time.Sleep(200 * time.Millisecond)
	}
	r.t.Fatal("nothing in two minutes")
	return 0
}

// An agent whose key the store has lost may use its blocks until its fence: nobody takes them over before.
func TestKeyThatIsLostTooSoon(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		r := newRig(t)
		a, _ := r.agent("a", new([]byte))
		b, _ := r.agent("b", new([]byte))
		r.join(a, b)
		block := r.must(r.checkOut(r.bound(a, 10), "1", 10))
		r.sim.revoke("a")
		if took := r.untilGot(r.bound(b, 10), "2", 4); took <= block.For {
			t.Errorf("the slots of a block that may be used for %s more were another's after %s", block.For, took)
		} else if took > 12*time.Second {
			t.Errorf("it took %s", took)
		}
	})
}

// Who has been in the fleet since before an agent went needs not wait to take its blocks over, however late it starves:
// it asks the store what there was then. Where the store has forgotten, it waits.
func TestLongDead(t *testing.T) {
	for _, forgotten := range []bool{false, true} {
		bubble.Test(t, func(t *testing.T) {
			r := newRig(t)
			a, _ := r.agent("a", new([]byte))
			b, _ := r.agent("b", new([]byte))
			r.join(a, b)
			r.must(r.checkOut(r.bound(a, 10), "1", 10))
			for range 20 {
				time.Sleep(2 * time.Second)
				if _, err := b.ready(t.Context(), true); err != nil {
					t.Fatal(err)
				}
				r.write()
			}
			if forgotten {
				r.sim.compact()
			}
			if took := r.untilGot(r.bound(b, 10), "2", 4); took > time.Second != forgotten {
				t.Errorf("slots of an agent that died long ago took %s; forgotten: %v", took, forgotten)
			}
		})
	}
}

// write has the store have a later revision.
func (r *rig) write() {
	if _, err := r.sim.txn(&Txn{Then: []Op{{Put: "/other", Value: "x"}}}); err != nil {
		r.t.Fatal(err)
	}
}

// An agent that was gone, and is back, and loses its key once more may use its blocks until its second fence.
func TestBackAndGoneAgain(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		r := newRig(t)
		a, _ := r.agent("a", new([]byte))
		b, _ := r.agent("b", new([]byte))
		r.join(a, b)
		ba, bb := r.bound(a, 10), r.bound(b, 10)
		block := r.must(r.checkOut(ba, "1", 10))
		r.sim.revoke("a")
		if _, err := r.checkOut(bb, "2", 4); !isFull(err) {
			t.Fatal(err)
		}
		time.Sleep(9 * time.Second)
		block = r.must(ba.Extend(t.Context(), &plugin.Extend{Block: block.ID, For: time.Hour})) // it joins again
		if block.For < 7*time.Second {
			t.Fatalf("it is back for %s", block.For)
		}
		r.sim.revoke("a")
		if took := r.untilGot(bb, "2", 4); took <= block.For {
			t.Errorf("the slots of a block that may be used for %s more were another's after %s", block.For, took)
		}
	})
}

// Of two agents with a different fleet.ttl, the one with the shorter waits for the other's.
func TestDifferentTimes(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		r := newRig(t)
		a, _ := r.agent("a", new([]byte))
		b, _ := r.agent("b", new([]byte))
		a.cfg.TTL = 30 * time.Second
		r.join(a, b)
		time.Sleep(20 * time.Second)
		block := r.must(r.checkOut(r.bound(a, 10), "1", 10))
		r.sim.revoke("a")
		if took := r.untilGot(r.bound(b, 10), "2", 4); took <= block.For {
			t.Errorf("the slots of a block that may be used for %s more were another's after %s", block.For, took)
		}
		old := r.sim.snapshot()
		r.write()
		r.sim.restore(old)
		if _, err := b.ready(t.Context(), true); err != nil {
			t.Fatal(err)
		}
		if kv := r.sim.kvs["/u/q"]; r.sim.leases[kv.Lease] == nil || r.sim.leases[kv.Lease].ttl != 30*time.Second {
			t.Errorf("the quarantine after a restored backup: %+v", r.sim.leases[kv.Lease])
		}
	})
}

// An agent that was cut off until others had its blocks does not take them back from a backup, in which they are its.
func TestBackupOfWhatOthersHave(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		r := newRig(t)
		a, _ := r.agent("a", new([]byte))
		b, _ := r.agent("b", new([]byte))
		r.join(a, b)
		ba, bb := r.bound(a, 10), r.bound(b, 10)
		block := r.must(r.checkOut(ba, "1", 10))
		old := r.sim.snapshot()
		r.untilGot(bb, "2", 8)
		r.sim.restore(old)
		for range 40 { // b states its blocks, and a is back
			time.Sleep(time.Second)
			if _, err := b.ready(t.Context(), true); err != nil {
				t.Fatal(err)
			}
			b.sweep(t.Context())
			mine := r.must(bb.Extend(t.Context(), &plugin.Extend{Block: blockID("2"), For: time.Hour}))
			got, err := ba.Extend(t.Context(), &plugin.Extend{Block: block.ID, For: time.Hour})
			if err == nil && got.Slots+mine.Slots > 10 {
				t.Fatalf("of 10 slots, the agents have %d and %d", got.Slots, mine.Slots)
			}
		}
	})
}

// Two copies of a host are in the fleet by turns, when the store loses their key too soon: whoever comes back counts
// what the other has until the other's fence, also where it has seen the other's slots before.
func TestCopiesByTurns(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		r := newRig(t)
		a, _ := r.agent("a", new([]byte))
		b, _ := r.agent("a", new([]byte))
		enter := func(f *Fleet) {
			if _, err := f.ready(t.Context(), true); err != nil {
				t.Fatal(err)
			}
		}
		r.join(a)
		enter(a)
		r.must(r.checkOut(r.bound(a, 10), "1", 1))
		r.sim.revoke("a")
		enter(b)
		r.must(r.checkOut(r.bound(b, 10), "2", 9))
		if got, err := r.checkOut(r.bound(a, 10), "3", 1); err == nil {
			t.Fatalf("it has %+v, and is not in the fleet any more", got)
		}
		for range 10 {
			time.Sleep(2 * time.Second)
			r.resize(r.bound(b, 10), "2", 10)
		}
		r.sim.revoke("a")
		enter(a)
		if got, err := r.checkOut(r.bound(a, 10), "4", 5); err == nil {
			t.Errorf("beside the other's 10 of 10 slots it got %d", got.Slots)
		}
		if took := r.untilGot(r.bound(a, 10), "4", 5); took > 12*time.Second {
			t.Errorf("the other's slots were free after %s", took)
		}
	})
}
