package shares

import (
	"path/filepath"
	"testing"
	"time"

	"github.com/usher-agent/usher/agent/bubble"
	"github.com/usher-agent/usher/plugin"
)

// TestUpstreamThatTakesNoWrites: an upstream that can prove blocks, and can make none larger or smaller, as a store
// without space: what is held stays, though the agent has slots to give back, and though it wants more. The reason is
// told meanwhile, and no longer than it is so.
func TestUpstreamThatTakesNoWrites(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		c := newLender(40, time.Minute)
		h := openTenant(t, filepath.Join(t.TempDir(), "blocks"), time.Now(), c)
		h.want(20)
		time.Sleep(time.Second)
		c.change(func() { c.sized = plugin.Transiently("the store is out of space") })
		h.release(15)
		for range 60 {
			time.Sleep(10 * time.Second)
			if n := h.demand("").Capacity; n < 5 {
				t.Fatalf("5 are held, and the budget is %d", n)
			}
		}
		h.want(40)
		told := 0
		for range 60 {
			time.Sleep(10 * time.Second)
			if n := h.demand("").Capacity; n < 5 {
				t.Fatalf("5 are held, more are wanted, and the budget is %d", n)
			}
			f := h.Failing()[seats]
			if f.Reason == "the store is out of space" && time.Since(f.Since) > 0 {
				told++
			}
		}
		if told < 55 {
			t.Errorf("the reason is told at %d of 60 looks", told)
		}
		c.change(func() { c.sized = nil })
		time.Sleep(time.Minute)
		if f := h.Failing(); len(f) != 0 {
			t.Errorf("all is well, and it fails: %+v", f)
		}
		if n := h.demand("").Capacity; n != 40 {
			t.Errorf("40 are wanted, and the budget is %d", n)
		}
	})
}
