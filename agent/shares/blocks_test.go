package shares

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"github.com/usher-agent/usher/agent/bubble"
	"github.com/usher-agent/usher/enforcer"
	"github.com/usher-agent/usher/plugin"
)

func TestBlocks(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		c := newLender(40, time.Minute)
		h := openTenant(t, filepath.Join(t.TempDir(), "blocks"), time.Now(), c)
		time.Sleep(time.Second)
		h.has(0, 1) // one ahead, before anybody asks
		if n := c.total(); n != 1 {
			t.Errorf("a licence has come, and %d are out", n)
		}
		// It doubles ahead of use, and waiters get slots at once.
		h.want(1)
		time.Sleep(time.Second)
		h.has(1, 2)
		h.want(15)
		time.Sleep(time.Second)
		h.has(16, 40)
		if n := c.total(); n < 17 {
			t.Errorf("16 are in use, and %d are out: none ahead", n)
		}
		// One acquire without waiting is denied, and the next finds slots.
		h.cfg.Wants.Missed(&enforcer.Acquire{Pool: "seats", N: 20})
		time.Sleep(time.Second)
		if h.has(16, 40); h.demand("").Capacity < 36 {
			t.Errorf("after a denial for 20, %d are here", h.demand("").Capacity)
		}
		// What lies idle goes back in a while; what is in use is extended long before its time.
		h.release(12)
		time.Sleep(10 * time.Minute)
		h.has(4, 8)
		if n := c.total(); n > 8 {
			t.Errorf("4 are in use, and %d are out", n)
		}
		if n := c.took("extend"); n > 10*3*maxBlocks {
			t.Errorf("%d extensions in ten minutes", n)
		}
		// A graceful stop gives back all that is not in use.
		h.stop()
		if n := c.total(); n != 4 {
			t.Errorf("after the stop %d are out, and 4 in use", n)
		}
	})
}

// A host that is drained gives back at once what is not in use, keeps what is for as long as it is, and has nothing
// more.
func TestDraining(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		c := newLender(40, time.Minute)
		h := openTenant(t, filepath.Join(t.TempDir(), "blocks"), time.Now(), c)
		drain := func(on bool) {
			h.mu.Lock()
			h.draining = on
			h.mu.Unlock()
			h.Nudge()
		}
		h.want(8)
		time.Sleep(time.Second)
		h.release(5)
		drain(true)
		time.Sleep(time.Second)
		if n := c.total(); n != 3 {
			t.Errorf("3 are in use, and %d are out", n)
		}
		time.Sleep(10 * time.Minute)
		h.has(3, 3)
		h.release(3)
		time.Sleep(time.Second)
		if n := c.total(); n != 0 {
			t.Errorf("nothing is in use, and %d are out", n)
		}
		drain(false)
		h.want(1)
		time.Sleep(time.Second)
		h.has(1, 4)
	})
}

// Others ask in vain: idle slots go back at once, and nothing is asked ahead.
func TestWanted(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		c := newLender(40, time.Minute)
		h := openTenant(t, filepath.Join(t.TempDir(), "blocks"), time.Now(), c)
		time.Sleep(time.Second)
		c.change(func() { c.missed = true })
		time.Sleep(time.Minute)
		if n := c.total(); n != 0 {
			t.Errorf("others want slots, and %d are kept idle", n)
		}
		h.want(3)
		time.Sleep(time.Second)
		h.has(3, 3)
		h.release(3)
		time.Sleep(2 * time.Minute)
		if n := c.total(); n != 0 {
			t.Errorf("others want slots, and %d are kept idle after use", n)
		}
	})
}

// The server is away: the agent goes on until its own deadline, which is earlier than the server's, and starts over
// after.
func TestAway(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		c := newLender(40, time.Minute)
		h := openTenant(t, filepath.Join(t.TempDir(), "blocks"), time.Now(), c)
		h.want(5)
		time.Sleep(21 * time.Second) // extended once
		c.change(func() { c.err = errors.New("down") })
		time.Sleep(30 * time.Second)
		h.has(5, 40)
		before := c.took("extend")
		time.Sleep(time.Minute)
		if h.has(5, 0); c.total() != 0 {
			t.Error("the server has the slots out after a minute and a half")
		}
		if n := c.took("check_out") + c.took("extend") - before; n > 100 {
			t.Errorf("%d calls to a server that is down for a minute", n)
		}
		c.change(func() { c.err = nil })
		time.Sleep(20 * time.Second)
		h.has(5, 40)
		// Answers that are lost cost nothing: the same is asked again.
		c.change(func() { c.lost = true })
		h.want(3)
		time.Sleep(5 * time.Second)
		c.change(func() { c.lost = false })
		time.Sleep(20 * time.Second)
		if h.has(8, 40); c.total() > 16 {
			t.Errorf("8 are in use, and %d are out", c.total())
		}
	})
}

// A Retry-After, which nobody has signed, costs no slots: a check-out is tried again soon, and blocks get more time
// before they end.
func TestRetryAfterIsBounded(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		c := newLender(40, time.Minute)
		h := openTenant(t, filepath.Join(t.TempDir(), "blocks"), time.Now(), c)
		h.want(5)
		time.Sleep(time.Second)
		h.has(5, 40)
		busy := &plugin.Error{Class: plugin.Transient, Reason: "busy", RetryAfter: 24 * time.Hour}
		// one such answer to the next call for more time
		for asked, n := c.took("extend"), 0; c.took("extend") == asked; n++ {
			c.change(func() { c.err = busy })
			if time.Sleep(time.Second); n > 60 {
				t.Fatal("no more time was asked for")
			}
		}
		c.change(func() { c.err = nil })
		time.Sleep(3 * time.Minute)
		if n := c.total(); n < 5 {
			t.Errorf("5 are in use, and %d are out", n)
		}
		c.change(func() { c.err = busy })
		h.want(30)
		time.Sleep(20 * time.Second)
		c.change(func() { c.err = nil })
		time.Sleep(longestWait + time.Second)
		h.has(35, 40)
	})
}

// An upstream that serves no slots is asked seldom, and the pool has no budget at all.
func TestNoPools(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		c := newLender(40, time.Minute)
		c.err = &plugin.Error{Class: plugin.Misconfigured, Reason: "none", SystemCode: plugin.SystemNoPools}
		h := openTenant(t, filepath.Join(t.TempDir(), "blocks"), time.Now(), c)
		time.Sleep(time.Hour)
		if budgets, fence := h.Budgets(); len(budgets) != 0 || fence != 0 {
			t.Errorf("the budget is %v", budgets)
		}
		if n := c.took("check_out"); n < 2 || n > 20 {
			t.Errorf("it was asked %d times in an hour", n)
		}
	})
}

// onePool serves the slots of one pool alone, and those not yet.
type onePool struct{ plugin.Budgeter }

func (onePool) CheckOut(_ context.Context, r *plugin.CheckOut) (*plugin.Block, error) {
	if r.Pool == "seats" {
		return nil, plugin.Transiently("not yet")
	}
	return nil, &plugin.Error{Class: plugin.Misconfigured, Reason: "none", SystemCode: plugin.SystemNoPools}
}

// An upstream that serves no slots of one pool may serve those of another of the licence: a waiter for that one waits
// for the first block, and is not told that nothing is shared.
func TestNoPoolsOfOne(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		h := openTenantWithout(t, filepath.Join(t.TempDir(), "blocks"), time.Now())
		l := blockLicence("L1", onePool{newLender(40, time.Minute)})
		l.Pools["bays"] = enforcer.PoolTerm{Max: 9}
		h.Set([]Licence{l})
		h.want(1)
		time.Sleep(10 * time.Second)
		budgets, _ := h.Budgets()
		var names []string
		for s := range budgets {
			names = append(names, s.Pool)
		}
		if len(names) != 1 || names[0] != "seats" {
			t.Errorf("there are budgets of %v", names)
		}
	})
}

// What another licence has replaced gives its blocks back after a moment.
func TestReplaced(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		c := newLender(40, time.Minute)
		h := openTenant(t, filepath.Join(t.TempDir(), "blocks"), time.Now(), c)
		time.Sleep(time.Second)
		other := newLender(40, time.Minute)
		h.Set([]Licence{blockLicence("L2", other)})
		time.Sleep(time.Second)
		if c.total() == 0 || other.total() == 0 {
			t.Errorf("at once %d and %d are out", c.total(), other.total())
		}
		time.Sleep(time.Minute)
		if c.total() != 0 || other.total() == 0 {
			t.Errorf("later %d and %d are out", c.total(), other.total())
		}
	})
}

// Whatever is asked and fails, an agent hands out no more than the server knows to be out, and the calls stay few.
func TestNeverMoreThanOut(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		bubble.Test(t, func(t *testing.T) {
			dir, err := os.MkdirTemp("", "budget")
			if err != nil {
				t.Fatal(err)
			}
			defer os.RemoveAll(dir)
			c := newLender(rapid.Int64Range(1, 40).Draw(rt, "limit"), time.Minute)
			c.rigid = rapid.Bool().Draw(rt, "rigid")
			var all []*tenant
			for i := range 3 {
				h := openTenant(t, filepath.Join(dir, fmt.Sprint(i)), time.Now(), c)
				defer h.stop()
				all = append(all, h)
			}
			began := time.Now()
			for range rapid.IntRange(1, 25).Draw(rt, "steps") {
				h := all[rapid.IntRange(0, 2).Draw(rt, "agent")]
				switch rapid.IntRange(0, 7).Draw(rt, "step") {
				case 0, 1:
					h.want(rapid.Int64Range(1, 10).Draw(rt, "want"))
				case 2:
					h.mu.Lock()
					n := rapid.Int64Range(0, h.inUse).Draw(rt, "release")
					h.waiting = 0
					h.mu.Unlock()
					h.release(n)
				case 3:
					c.change(func() { c.lost = rapid.Bool().Draw(rt, "lost") })
				case 4:
					c.change(func() { c.slow = time.Duration(rapid.IntRange(0, 20).Draw(rt, "slow")) * time.Second })
				case 5:
					c.change(func() { c.missed = rapid.Bool().Draw(rt, "missed") })
				case 6:
					c.change(func() {
						if c.sized = nil; rapid.Bool().Draw(rt, "sized") {
							c.sized = plugin.Transiently("no space")
						}
					})
				default:
				}
				for range rapid.IntRange(0, 30).Draw(rt, "seconds") {
					time.Sleep(time.Second)
					synctest.Wait()
					var budget int64
					for _, h := range all {
						budgets, _ := h.Budgets()
						budget += int64(budgets[seats])
					}
					if out := c.total(); budget > out || out > c.limit {
						rt.Fatalf("agents may hand out %d, %d are out of %d", budget, out, c.limit)
					}
				}
			}
			n := c.took("check_out") + c.took("extend") + c.took("return")
			if most := 300 + int(time.Since(began)/time.Second)*6; n > most {
				rt.Fatalf("%d calls in %v", n, time.Since(began))
			}
		})
	})
}
