package fleet

import (
	"testing"
	"time"

	"github.com/usher-agent/usher/agent/bubble"
	"github.com/usher-agent/usher/plugin"
)

// A site server that an operator puts out gives nothing more: others take over what its agents show them, once its
// fence is over, and the rest is free once nobody can have it.
func TestEvictedLender(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		r := newRig(t)
		var told []string
		all, _ := r.lenders(&told, "a", "b")
		r.join(all...)
		time.Sleep(2 * time.Minute) // the quarantine is as long as slots may be in use
		a, b := r.bound(all[0], 10), r.bound(all[1], 10)
		mine := r.must(r.checkOut(a, "broker", 10))
		ended := make(chan error)
		began := time.Now()
		go func() {
			done, err := all[1].Operator().Evict(t.Context(), "a", 5*time.Minute)
			if err == nil && (!done.Done || done.Slots != 6) {
				t.Errorf("of ten slots, four of which are another's, %+v", done)
			}
			ended <- err
		}()
		time.Sleep(time.Second)
		if _, err := a.Extend(t.Context(), &plugin.Extend{Block: mine.ID, Slots: 9, For: time.Hour}); err == nil {
			t.Error("a site server that was put out changes its blocks")
		}
		for {
			got, _, err := b.Adopt(t.Context(), "a", "streams", "x", BlockID("broker"), 4, reserved)
			if took := time.Since(began); err == nil {
				if got.Slots != 4 || took < 9*time.Second || took > 30*time.Second {
					t.Errorf("another has %d of them after %s", got.Slots, took)
				}
				break
			} else if isLapsed(err) || took > time.Minute {
				t.Fatal(err)
			}
			time.Sleep(time.Second)
		}
		if err := <-ended; err != nil {
			t.Fatal(err)
		}
		if took := time.Since(began); took < 70*time.Second { // ten seconds, and the minute that agents may go on
			t.Errorf("the rest is free after %s", took)
		}
		if out, sum := r.sums(); out != 4 || sum != 4 {
			t.Errorf("the total is %d, the blocks have %d", out, sum)
		}
	})
}
