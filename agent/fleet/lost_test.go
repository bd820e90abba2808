package fleet

import (
	"testing"
	"time"

	"github.com/usher-agent/usher/agent/bubble"
	"github.com/usher-agent/usher/plugin"
)

// loseAnswer has the next call be made, and its answer be lost.
func (h *hooked) loseAnswer() {
	steps := 0
	h.set(false, func(string) bool {
		if steps++; steps == 2 {
			h.set(false, nil, nil)
		}
		return steps == 2
	}, nil)
}

// What an agent has given back is gone, though the answer was lost: it does not take it again when it finds that the
// store knows no block of it. Others may have the slots by then.
func TestGivenBackAndTheAnswerLost(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		r := newRig(t)
		a, way := r.agent("a", new([]byte))
		b, _ := r.agent("b", new([]byte))
		r.join(a, b)
		ba, bb := r.bound(a, 10), r.bound(b, 10)
		r.must(r.checkOut(ba, "1", 7))
		happened := way.between(writesTotal, way.loseAnswer)
		if err := ba.Return(t.Context(), &plugin.Return{Block: blockID("1")}); err == nil || !happened() {
			t.Fatalf("the answer was not lost: %v", err)
		}
		r.must(r.checkOut(bb, "2", 10))
		got, err := ba.Extend(t.Context(), &plugin.Extend{Block: blockID("1"), For: time.Hour})
		if !isLapsed(err) {
			t.Errorf("a block that was given back goes on: %+v, %v", got, err)
		}
		if out, sum := r.sums(); out != 10 || sum != 10 {
			t.Errorf("of 10 slots %d are out, and the blocks have %d", out, sum)
		}
	})
}

// An agent that has seen that the store is an old copy, and comes to state its blocks again only after its fence,
// states none: others may have the slots since the quarantine is over.
func TestStatedAgainTooLate(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		r := newRig(t)
		a, _ := r.agent("a", new([]byte))
		b, _ := r.agent("b", new([]byte))
		r.join(a, b)
		ba, bb := r.bound(a, 10), r.bound(b, 10)
		old := r.sim.snapshot()
		r.must(r.checkOut(ba, "1", 3))
		renew := func(all ...*Fleet) {
			t.Helper()
			for _, f := range all {
				time.Sleep(time.Millisecond)
				if _, err := f.ready(t.Context(), true); err != nil {
					t.Fatal(err)
				}
			}
		}
		renew(a)
		r.sim.restore(old)
		renew(b) // the quarantine begins
		time.Sleep(3 * time.Second)
		r.must(ba.Extend(t.Context(), &plugin.Extend{Block: blockID("1"), For: time.Hour}))
		renew(a) // it sees that, too
		time.Sleep(7 * time.Second)
		renew(a, b)
		r.must(r.checkOut(bb, "2", 10))
		got, err := ba.Extend(t.Context(), &plugin.Extend{Block: blockID("1"), For: time.Hour})
		if !isLapsed(err) {
			t.Errorf("a block that the store did not know of in time goes on: %+v, %v", got, err)
		}
		if out, sum := r.sums(); out != 10 || sum != 10 {
			t.Errorf("of 10 slots %d are out, and the blocks have %d", out, sum)
		}
	})
}
