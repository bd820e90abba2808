package fleet

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/usher-agent/usher/agent/bubble"
	"github.com/usher-agent/usher/plugin"
)

// A part that another lender has taken over moves no second time when its lender, which is back, dies again: not even
// where the agent has not heard of the move because the answer was lost. The one that has it goes on with it, whether
// the lender lives or not.
func TestPartMovesOnce(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		r, told := newRig(t), []string(nil)
		all, records, of := r.threeLenders(&told)
		a, b, c := of[0], of[1], of[2]
		r.must(r.checkOut(a, "broker", 10)) // x, of four slots, and y, of six, are lent
		adopt := func(by *Bound, part string, n int64, fresh bool) (int64, error) {
			_, got, err := by.Adopt(t.Context(), "a", "streams", part, BlockID("broker"), n,
				func(int64) (bool, error) { return fresh, nil })
			return got, err
		}
		dead := func(by *Bound) { // its key has gone after ten seconds, its fence is over ten seconds later
			for range 40 {
				time.Sleep(time.Second)
				if _, err := adopt(by, "z", 100, true); isLapsed(err) {
					return
				}
			}
			t.Fatal("the lender does not die")
		}
		dead(b)
		way := all[1].store.(*hooked)
		way.set(false, func(call string) bool {
			return strings.HasPrefix(call, string(KindChange)) && r.moved("a")
		}, nil)
		var unsure *UnsureError
		if _, err := adopt(b, "x", 4, true); !errors.As(err, &unsure) || !r.moved("a") {
			t.Fatalf("the answer was lost: %v", err)
		}
		way.set(false, nil, nil)
		back := r.lender("a", records[0], &told)
		r.must(r.checkOut(r.bound(back, 10), "broker", 10))
		if got, err := adopt(b, "x", 4, false); err != nil || got != 4 {
			t.Errorf("the one that has the part, while its lender lives: %d, %v", got, err)
		}
		if _, err := adopt(b, "x", 4, true); !isLapsed(err) {
			t.Errorf("one that keeps the slots no more: %v", err)
		}
		if _, err := adopt(c, "x", 4, true); err == nil {
			t.Error("the part has moved twice while its lender lives")
		}
		dead(c)
		if _, err := adopt(c, "x", 4, true); !isLapsed(err) {
			t.Errorf("the part moves twice: %v", err)
		}
		if got, err := adopt(c, "y", 6, true); err != nil || got != 6 {
			t.Errorf("another part of six slots: %d, %v", got, err)
		}
		if out, sum := r.sums(); out != 10 || sum != 10 {
			t.Errorf("the total is %d, the blocks have %d", out, sum)
		}
	})
}

// A part that has come back to its lender moves from there again.
func TestPartThatComesBack(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		l := openLeft(t)
		if _, err := l.adopt(l.b, "x", 4); err != nil {
			t.Fatal(err)
		}
		l.all[0].Stay()
		l.again(l.a)
		if err := l.b.Leave(t.Context(), "streams", BlockID("broker"), map[string]int64{"x": 4}); err != nil {
			t.Fatal(err)
		}
		_, n, err := l.a.Adopt(t.Context(), "b", "streams", "x", BlockID("broker"), 4, reserved)
		if err != nil || n != 4 {
			t.Fatalf("the part comes back: %d, %v", n, err)
		}
		l.leaves(map[string]int64{"x": 4, "y": 3})
		if n, err := l.adopt(l.c, "x", 4); err != nil || n != 4 {
			t.Errorf("the part moves again: %d, %v", n, err)
		}
		l.adds()
	})
}

// What is known of parts that have moved is forgotten when their time is over, and is no part of the sums.
func TestMovedIsForgotten(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		l := openLeft(t)
		for _, part := range []string{"x", "y"} {
			if _, err := l.adopt(l.b, part, 9); err != nil {
				t.Fatal(err)
			}
		}
		l.all[0].Stay()
		key := "/u/p/" + streams + "/g/a"
		back := l.again(l.a)
		if is := l.value(key); !strings.Contains(is, `"went"`) || back != 3 {
			t.Errorf("the lender has %d slots, and does not know what has moved: %s", back, is)
		}
		for range 12 {
			time.Sleep(10 * time.Second)
			l.must(l.a.Extend(t.Context(), &plugin.Extend{Block: BlockID("broker"), For: time.Hour}))
			l.all[0].sweep(t.Context())
		}
		if is := l.value(key); strings.Contains(is, `"went"`) {
			t.Errorf("it knows it still after two minutes: %s", is)
		}
		if out, sum := l.sums(); out != 10 || sum != 10 {
			t.Errorf("the total is %d, the blocks have %d", out, sum)
		}
	})
}

// moved reports whether a part of a lender's block has moved.
func (r *rig) moved(id string) bool {
	r.sim.mu.Lock()
	defer r.sim.mu.Unlock()
	return strings.Contains(r.sim.kvs["/u/p/"+streams+"/g/"+id].Value, `"moved"`)
}

// Slots are kept for a part before it is taken over: whoever takes it over may not hear that it has, and its block has
// more slots all the same, which others must not get while the part's agent has them.
func TestPartIsKeptBeforeItMoves(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		l := openLeft(t)
		way, kept := l.all[1].store.(*hooked), int64(0)
		reserve := func(n int64) (bool, error) { kept = n; return true, nil }
		happened := way.between(func(x *Txn) bool {
			return slices.ContainsFunc(x.Then, func(o Op) bool { return o.Put == "/u/p/"+streams+"/g/a" })
		}, func() {
			if kept != 4 {
				t.Errorf("the part moves while %d slots are kept for it", kept)
			}
			way.set(false, func(string) bool { return l.moved("a") }, nil)
		})
		var unsure *UnsureError
		_, _, err := l.b.Adopt(t.Context(), "a", "streams", "x", BlockID("broker"), 4, reserve)
		if !errors.As(err, &unsure) || !happened() {
			t.Errorf("the answer was lost: %v", err)
		}
		way.set(false, nil, nil)
		if kept = 0; l.must(l.checkOut(l.b, "broker", 1)).Slots != 4 {
			t.Error("the block does not have the part's slots")
		}
		l.adds()
	})
}
