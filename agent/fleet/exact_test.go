package fleet

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/usher-agent/usher/agent/bubble"
	"github.com/usher-agent/usher/plugin"
)

// A part of a lender's slots stays the lender's where that comes back at the last instant: what another takes over is
// taken over from the dead alone.
func TestAdoptBetween(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		r := newRig(t)
		var told []string
		a := r.lender("a", new([]byte), &told)
		b, way := r.agent("b", new([]byte))
		b.cfg.Keep, b.cfg.Lends = time.Minute, true
		b.cfg.OnMoved = func(string, []string) error { return nil }
		r.join(a, b)
		time.Sleep(2 * time.Minute)
		r.must(r.checkOut(r.bound(a, 10), "broker", 10))
		dead := "/u/p/" + streams + "/g/a"
		happened := way.between(func(x *Txn) bool {
			return slices.ContainsFunc(x.Then, func(o Op) bool { return o.Put == dead })
		}, func() { r.put("/u/a/a", text(member{Incarnation: "back"})) })
		bb := r.bound(b, 10)
		for range 60 {
			time.Sleep(time.Second)
			_, _, err := bb.Adopt(t.Context(), "a", "streams", "x", BlockID("broker"), 4, reserved)
			if err == nil {
				t.Fatal("a part of a lender that is back was taken over")
			}
			if happened() {
				break
			}
		}
		if !happened() || strings.Contains(r.value(dead), "moved") {
			t.Errorf("asked between: %v; the lender's blocks are %s", happened(), r.value(dead))
		}
		r.adds()
	})
}

// An operator who puts an agent out has its slots once its fence is over, exactly: no sooner, and within a second.
func TestEvictWaitsOutTheFence(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		r := newRig(t)
		a, _ := r.agent("a", new([]byte))
		b, way := r.agent("b", new([]byte))
		r.join(a, b)
		ba, bb := r.bound(a, 10), r.bound(b, 10)
		r.must(r.checkOut(ba, "1", 4))
		r.must(r.checkOut(ba, "2", 2))
		o := &Operator{Store: way, Prefix: "/u/", Now: b.cfg.Now, Time: time.Now}
		if _, err := a.ready(t.Context(), true); err != nil { // its fence is as late as can be
			t.Fatal(err)
		}
		fence := a.Until()
		began := time.Now()
		done, err := o.Evict(t.Context(), "a", time.Minute)
		took := time.Since(began)
		if err != nil || !done.Done || done.Slots != 6 {
			t.Errorf("an operator puts an agent out: %+v, %v", done, err)
		}
		if took < 10*time.Second || took > 11*time.Second || a.cfg.Now() < fence {
			t.Errorf("it took %s, and the fence was %s before that", took, a.cfg.Now()-fence)
		}
		r.must(r.checkOut(bb, "3", 10))
		if _, err := a.ready(t.Context(), true); err == nil {
			t.Error("an agent that was put out has joined again")
		}
		if _, err := ba.Extend(t.Context(), &plugin.Extend{Block: blockID("1"), For: time.Hour}); err == nil {
			t.Error("an agent that was put out goes on with its blocks")
		}
		r.adds()
	})
}

// Idle slots of one host are with another that needs them within 2 s.
func TestIdleSlotsMove(t *testing.T) {
	for seed := range uint64(5) {
		bubble.Test(t, func(t *testing.T) {
			c := newCrowd(t, seed, 3, 12)
			for _, h := range c.agents {
				h.start()
			}
			time.Sleep(12 * time.Second)
			a, b := c.agents[0], c.agents[1]
			a.act(12, false)
			a.wait()
			a.act(11, true)
			time.Sleep(time.Second + time.Duration(c.rng.Int64N(int64(time.Second))))
			began := time.Now()
			b.act(8, false)
			if b.wait(); time.Since(began) > 2*time.Second {
				t.Errorf("seed %d: idle slots moved after %s", seed, time.Since(began))
			}
			c.calm()
		})
	}
}

// A lower limit that came while an agent was away holds for what it hands out at once, before the fleet has heard of
// it.
func TestPartOfALimitThatNobodyHasHeardOf(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		r := newRig(t)
		a, _ := r.agent("a", new([]byte))
		b, _ := r.agent("b", new([]byte))
		r.join(a, b)
		r.must(r.checkOut(r.bound(b, 10), "1", 2))
		r.must(r.checkOut(r.bound(a, 10), "1", 8))
		if n := r.bound(a, 6).Part("streams", 8); n != 4 {
			t.Errorf("of 8 slots of 10, %d may be handed out under a limit of 6", n)
		}
	})
}
