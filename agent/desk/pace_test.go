package desk

import (
	"testing"
	"time"

	"github.com/usher-agent/usher/agent/bubble"
	"github.com/usher-agent/usher/enforcer"
)

// Work in many steps pauses once it has gone on for a stretch, and never sooner.
func TestPace(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		var p pace
		for step, want := range []time.Duration{0, 0, 0, 0, pause, 0, 0, 0, pause} {
			begin := time.Now()
			p.giveWay()
			if took := time.Since(begin); took != want {
				t.Errorf("after step %d: it pauses for %s, want %s", step, took, want)
			}
			time.Sleep(stretch / 4)
		}
	})
}

// A long list pauses, however fast its caller reads.
func TestLongListPauses(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		d := busyDesk()
		for range 20 * listed {
			d.take(t, 1)
		}
		begin, parts := time.Now(), 0
		d.List(enforcer.Filter{}, enforcer.Cursor{}, func([]*enforcer.Lease) bool {
			parts++
			time.Sleep(stretch / 2) // the work that a part is
			return true
		})
		if paused := time.Since(begin) - time.Duration(parts)*stretch/2; parts < 20 || paused < 5*pause {
			t.Errorf("%d parts, paused for %s", parts, paused)
		}
	})
}
