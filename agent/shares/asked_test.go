package shares

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/usher-agent/usher/agent/bubble"
	"github.com/usher-agent/usher/plugin"
)

// An operator has the upstream called about each pool at once, long before the plan would: for more time of what there
// is, and for a slot where there is none. What came of it is told, also that others have all, and that nobody answers.
func TestCalledOnDemand(t *testing.T) {
	file := t.TempDir() + "/blocks.json"
	bubble.Test(t, func(t *testing.T) {
		c := newLender(5, time.Hour)
		h := openTenant(t, file, time.Now(), c)
		h.want(3)
		h.has(3, 5)
		within := func(h *tenant) []Outcome {
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
			defer cancel()
			return h.Ask(ctx)
		}
		ask := func() Outcome {
			t.Helper()
			out := within(h)
			if len(out) != 1 || out[0].LicenseID != "L1" || out[0].Pool != "seats" {
				t.Fatalf("it was told %+v", out)
			}
			return out[0]
		}
		extended := c.took("extend")
		if o := ask(); o.Call != Extend || o.Failure != nil || !o.Answered() || o.Have < 3 {
			t.Errorf("of a block it is told %+v", o)
		}
		if n := c.took("extend"); n != extended+1 {
			t.Errorf("the upstream was called %d times for more time", n-extended)
		}
		c.change(func() { c.err = plugin.Transiently("no route to host") })
		if o := ask(); o.Answered() || o.Failure == nil || o.Failure.Reason != "no route to host" || o.Have < 3 {
			t.Errorf("of an upstream that is away it is told %+v", o)
		}
		if o := ask(); o.Answered() { // at once, and not after the back-off of the failure before
			t.Errorf("of an upstream that is away it is told %+v", o)
		}
		c.change(func() { c.err, c.slow = nil, time.Minute })
		if o := ask(); o.Call != "" || o.Answered() {
			t.Errorf("of an upstream that does not answer in time it is told %+v", o)
		}
		c.change(func() { c.slow = 0 })
		synctest.Wait()
		time.Sleep(2 * time.Minute)

		other := openTenant(t, t.TempDir()+"/other.json", time.Now(), c)
		other.want(2)
		time.Sleep(time.Minute)
		third := openTenant(t, t.TempDir()+"/third.json", time.Now(), c)
		time.Sleep(time.Minute)
		for range 2 {
			out := within(third)
			if o := out[0]; o.Call != CheckOut || !o.Answered() || o.Failure == nil ||
				o.Failure.SystemCode != plugin.SystemFull || o.Have != 0 {
				t.Errorf("of an upstream whose slots others have it is told %+v", o)
			}
		}
		third.mu.Lock()
		third.draining = true
		third.mu.Unlock()
		if out := within(third); len(out) != 0 {
			t.Errorf("while it drains, a slot was asked for: %+v", out)
		}
		if h.mu.Lock(); h.inUse+other.inUse > 5 {
			t.Errorf("%d and %d are in use of 5", h.inUse, other.inUse)
		}
		h.mu.Unlock()
	})
}
