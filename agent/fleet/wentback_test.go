package fleet

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/usher-agent/usher/agent/bubble"
	"github.com/usher-agent/usher/plugin"
)

// restoreUnseen restores a backup within one cluster, whose revision then is past what anybody has seen.
func (s *sim) restoreUnseen(backup *sim) {
	rev, cluster := s.rev, s.cluster
	s.restore(backup)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.cluster, s.rev, s.compacted = cluster, rev+10, rev+10
}

// over has agents take slots and give some back for a time, and returns the last instant at which more might be handed
// out than the limit; 0: there was none.
func (c *crowd) over(span time.Duration, rng *rand.Rand) (last time.Duration) {
	const step = 100 * time.Millisecond
	for at := step; at <= span; at += step {
		time.Sleep(step)
		for _, h := range c.agents {
			if rng.Float64() < 0.05 {
				h.act(1+rng.Int64N(4), rng.IntN(2) == 0)
			}
		}
		c.mu.Lock()
		sum := int64(0)
		for _, h := range c.agents {
			sum += h.usable()
		}
		if sum > c.limit {
			last = at
		}
		c.mu.Unlock()
	}
	return last
}

// Agents find out that a backup was restored by what it lacks of theirs, where neither the cluster's id nor its
// revision shows it: from the next heartbeat of all on, they hand out no more than the licence grants. In each of these
// histories they did so for more than ten seconds before they looked.
func TestCrowdOnABackupThatNothingElseShows(t *testing.T) {
	for _, seed := range []uint64{19, 27, 48, 98} {
		bubble.Test(t, func(t *testing.T) {
			c, rng := newCrowd(t, seed, 5, 10), rand.New(rand.NewPCG(seed, 9))
			for _, h := range c.agents {
				h.start()
			}
			c.over(30*time.Second, rng)
			backup := c.sim.snapshot()
			c.over(time.Duration(rng.Int64N(int64(20*time.Second))), rng)
			c.sim.restoreUnseen(backup)
			if last, most := c.over(time.Minute, rng), 5*time.Second; last > most {
				t.Errorf("seed %d: more than the limit might be handed out %s after a backup was restored; at most %s",
					seed, last, most)
			}
			for _, h := range c.agents {
				h.die()
			}
		})
	}
}

// A heartbeat sees that a block of the agent's is older than it knows, or is not there; one that joins again sees it at
// its next look. Each states its blocks again, once a quarantine has begun.
func TestBackupThatLacksABlock(t *testing.T) {
	for name, before := range map[string]func(r *rig, f *Fleet, b *Bound){
		"an older block": func(r *rig, f *Fleet, b *Bound) { r.join(f); r.must(r.checkOut(b, "1", 2)) },
		"no block":       func(r *rig, f *Fleet, b *Bound) { r.join(f) },
		"no member":      func(*rig, *Fleet, *Bound) {},
	} {
		t.Run(name, func(t *testing.T) {
			bubble.Test(t, func(t *testing.T) {
				r := newRig(t)
				first, _ := r.agent("first", new([]byte))
				r.join(first) // the new store's quarantine
				a, _ := r.agent("a", new([]byte))
				b := r.bound(a, 10)
				before(r, a, b)
				old := r.sim.snapshot()
				r.must(r.checkOut(b, "2", 3))
				blocks := a.pools[streams].held.Blocks
				r.sim.restoreUnseen(old)
				time.Sleep(time.Millisecond)
				if _, err := a.ready(t.Context(), true); err != nil {
					t.Fatal(err)
				}
				for range 2 {
					a.sweep(t.Context())
				}
				if q, err := read[quarantine](r.sim.kvs["/u/q"], true); err != nil || q.Reason != reasonLacks {
					t.Errorf("the quarantine is %+v, %v", q, err)
				}
				h, err := read[held](r.sim.kvs[key("g/a")], true)
				if err != nil || sum(h.Blocks) != sum(blocks) || sum(blocks) < 3 {
					t.Errorf("the blocks are %v after %v, %v", h.Blocks, blocks, err)
				}
				r.adds()
			})
		})
	}
}

// What an agent gives back while a heartbeat or a look is under way, and what others took over once its fence was over,
// is no sign of a backup.
func TestNoBackupWasRestored(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		r := newRig(t)
		a, way := r.agent("a", new([]byte))
		other, _ := r.agent("b", new([]byte))
		r.join(a, other)
		b := r.bound(a, 10)
		r.must(r.checkOut(b, "1", 3))
		beats := func(t *Txn) bool { return t.Kind == KindBeat }
		happened := way.between(beats, func() {
			if err := b.Return(t.Context(), &plugin.Return{Block: blockID("1")}); err != nil {
				t.Error(err)
			}
		})
		time.Sleep(time.Millisecond)
		if _, err := a.ready(t.Context(), true); err != nil || !happened() {
			t.Fatal(err, happened())
		}
		r.must(r.checkOut(b, "2", 3))
		time.Sleep(12 * time.Second) // a's fence is over
		for i := range 16 {
			r.checkOut(r.bound(other, 10), fmt.Sprint("other", i), 8)
			time.Sleep(time.Second)
		}
		if v := r.value(key("g/a")); v != "" {
			t.Fatalf("a dead agent has %s", v)
		}
		if _, err := r.checkOut(b, "4", 2); !isFull(err) {
			t.Errorf("of ten slots that another has: %v", err)
		}
		if q, begun := r.sim.kvs["/u/q"]; begun {
			t.Errorf("a quarantine has begun: %s", q.Value)
		}
		r.adds()
	})
}

// A draw sees that the store lacks draws before it, of the agent's own or of others, and states its own again.
func TestBackupThatLacksDraws(t *testing.T) {
	for _, by := range []string{"a", "b"} {
		bubble.Test(t, func(t *testing.T) {
			r := newRig(t)
			a, _ := r.agent("a", new([]byte))
			b, _ := r.agent("b", new([]byte))
			r.join(a, b)
			all := func(string) bool { return true }
			drawers := map[string]plugin.Drawer{"a": a.DrawerFor(metered(10), nil, nil, all),
				"b": b.DrawerFor(metered(10), nil, nil, all)}
			draw := func(who, token string, n int64) error {
				_, err := drawers[who].Draw(t.Context(), &plugin.Draw{Meter: "renders", N: n, Token: token})
				return err
			}
			r.write() // the first quarantine's lease is over
			old := r.sim.snapshot()
			if err := draw(by, "1", 4); err != nil {
				t.Fatal(err)
			}
			if err := draw("a", "2", 2); err != nil {
				t.Fatal(err)
			}
			r.sim.restoreUnseen(old)
			if err := draw("a", "3", 1); code(err) != plugin.SystemSettling {
				t.Errorf("a draw from a store that lacks the last: %v", err)
			}
			time.Sleep(11 * time.Second)
			for i, who := range []string{"a", "b"} {
				if err := draw(who, string(rune('5'+i)), 1); err != nil {
					t.Fatal(err)
				}
			}
			sum, err := read[drawn](r.sim.kvs["/u/m/"+poolName(metered(1), "renders")+"/ever/s"], true)
			if err != nil || sum.Drawn != 8 {
				t.Errorf("of draws of 4, 2, 1 and 1 the store knows %d, %v", sum.Drawn, err)
			}
		})
	}
}
