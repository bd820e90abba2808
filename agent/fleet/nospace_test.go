package fleet

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/usher-agent/usher/agent/bubble"
	"github.com/usher-agent/usher/plugin"
)

// outOfSpace has the store be out of its quota, or not any more.
func (s *sim) outOfSpace(is bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.full = is
}

// saysQuota reports whether an error tells people that etcd is out of quota.
func saysQuota(err error) bool {
	var e *plugin.Error
	return errors.As(err, &e) && e.Class == plugin.Transient && strings.Contains(e.Reason, "NOSPACE") && e.Hint != ""
}

// TestOutOfQuota: a store that takes no writes takes no block away from whoever lives, be it that the block would grow
// or shrink, or says what is out of date. Whoever wants slots hears of the quota, also where all that could not be
// written was that a dead agent's slots are free, or that somebody waits.
func TestOutOfQuota(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		r := newRig(t)
		open := func(id string) (*Fleet, *Bound) {
			f, _ := r.agent(id, new([]byte))
			r.join(f)
			return f, r.bound(f, 10)
		}
		a, of := open("a")
		b, dies := open("b")
		late, waits := open("c")
		for _, f := range []*Fleet{a, b, late} { // joining has taken a while
			if _, err := f.ready(t.Context(), true); err != nil {
				t.Fatal(err)
			}
		}
		block := r.must(r.checkOut(of, "1", 3))
		r.must(r.checkOut(dies, "1", 7))
		r.sim.outOfSpace(true)
		keeps := func(for_ time.Duration) {
			t.Helper()
			for end := time.Now().Add(for_); time.Now().Before(end); time.Sleep(2 * time.Second) {
				if got, err := of.Extend(t.Context(), &plugin.Extend{Block: block.ID, Slots: 3}); err != nil ||
					got.Slots != 3 || got.For < 5*time.Second {
					t.Fatalf("%+v, %v", got, err)
				}
				if _, err := late.ready(t.Context(), false); err != nil {
					t.Fatal(err)
				}
			}
		}
		wants := func() {
			t.Helper()
			if _, err := r.checkOut(waits, "1", 5); !saysQuota(err) {
				t.Errorf("what waits hears %v", err)
			}
			if _, err := of.Extend(t.Context(), &plugin.Extend{Block: block.ID, Slots: 5}); !saysQuota(err) {
				t.Errorf("what wants more hears %v", err)
			}
			if _, err := of.Extend(t.Context(), &plugin.Extend{Block: block.ID, Slots: 1}); !saysQuota(err) {
				t.Errorf("what gives back hears %v", err)
			}
		}
		wants() // a ticket cannot be written,
		wants() // nor is it tried again at once
		keeps(30 * time.Second)
		for range 3 {
			wants() // and b is dead: its slots cannot be freed
			time.Sleep(300 * time.Millisecond)
		}
		// Its licence is another now, which it cannot write.
		l := site(8)
		of = a.For(l, []byte("another"), nil, func(string) bool { return true }).(*Bound)
		keeps(30 * time.Second)
		r.sim.outOfSpace(false)
		r.must(of.Extend(t.Context(), &plugin.Extend{Block: block.ID, Slots: 3}))
		if got := r.value("/u/p/" + streams + "/t"); !strings.Contains(got, `"limit":8`) {
			t.Errorf("the terms are %s", got)
		}
		if at := r.untilGot(waits, "1", 5); at > 30*time.Second {
			t.Errorf("the slots of the dead came after %v", at)
		}
		r.adds()
	})
}

// An agent that could not tell others that it lacks slots says why until the next word is due. Where nobody is left to
// tell by then, it forgets the reason, which keeps nobody from anything any more.
func TestNobodyIsLeftToTell(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		r := newRig(t)
		a, _ := r.agent("a", new([]byte))
		b, _ := r.agent("b", new([]byte))
		r.join(a, b)
		of, others := r.bound(a, 10), r.bound(b, 10)
		block := r.must(r.checkOut(others, "1", 10))
		lacks := func(asked int64) error { // as an agent that gets no more, though nobody has any: a rule keeps it
			t.Helper()
			me, err := a.ready(t.Context(), false)
			if err != nil {
				t.Fatal(err)
			}
			a.mu.Lock()
			p := a.pools[streams]
			a.mu.Unlock()
			return a.starve(t.Context(), me, streams, p, asked, 5)
		}
		if _, err := r.checkOut(of, "1", 5); !isFull(err) {
			t.Fatal(err)
		}
		time.Sleep(callEvery)
		r.sim.outOfSpace(true)
		for range 2 { // the second one is too early for a word
			if err := lacks(5); err == nil || !saysQuota(a.transient(err)) {
				t.Fatalf("the store takes no writes, and the agent hears %v", err)
			}
		}
		r.sim.outOfSpace(false)
		if _, err := others.Extend(t.Context(), &plugin.Extend{Block: block.ID, Slots: 10}); err != nil {
			t.Fatal(err)
		}
		if err := others.Return(t.Context(), &plugin.Return{Block: block.ID}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(callEvery)
		for range 2 {
			if err := lacks(5); err != nil {
				t.Errorf("nobody is left to tell, and the agent hears %v", err)
			}
		}
	})
}

// A crowd whose store is out of its quota now and then, beside all else that happens to it, hands out no more than the
// licence grants, and is served once there is room. A quarter of the seeds is played: all else is in TestCrowd.
func TestCrowdOutOfQuota(t *testing.T) {
	for i := range (*seeds + 3) / 4 {
		seed := uint64(*from + i)
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			bubble.Test(t, func(t *testing.T) {
				playAs(t, seed, func(y *history) {
					rng := rand.New(rand.NewPCG(seed, 11))
					y.looks = func() {
						if rng.IntN(30) == 0 {
							y.fault("quota", 40*time.Second, func() { y.sim.outOfSpace(true) },
								func() { y.sim.outOfSpace(false) })
						}
					}
				})
			})
		})
		if t.Failed() {
			return
		}
	}
}
