package shares

import (
	"testing"
	"time"

	"github.com/usher-agent/usher/plugin"
)

// A block whose leases may run on beyond its time grants nothing then, is asked for still, and once all is over the
// pool says so until another block comes.
func TestKeptAfterItsTime(t *testing.T) {
	p := &Pool{total: 8}
	step := &Step{Kind: CheckOut, Slots: 4}
	give := func(at time.Duration) {
		p.answered(step, &plugin.Block{ID: "a", Slots: 4, For: 32 * time.Second, Keep: time.Minute}, at, at, 0.5)
	}
	give(0)
	d := PoolDemand{InUse: 3, Capacity: 4}
	look := func(at time.Duration, have, kept int64, until time.Duration, bounded bool) {
		t.Helper()
		n, _ := p.have(at)
		k, end, b := p.keeps(at)
		if n != have || k != kept || end != until || b != bounded {
			t.Errorf("at %s: %d to hand out, %d kept until %s (%v)", at, n, k, end, b)
		}
	}
	look(29*time.Second, 4, 0, 0, false)
	look(30*time.Second, 0, 4, time.Minute, true)
	if !p.lapse(30*time.Second) || p.lapse(31*time.Second) {
		t.Error("that a block is over is told once")
	}
	if s, _ := p.Next(31*time.Second, d, false); s == nil || s.Kind != Extend || s.Slots != 4 {
		t.Errorf("what is kept is asked for: %+v", s)
	}
	look(time.Minute, 0, 0, 0, true)
	if !p.lapse(time.Minute) || len(p.Blocks) > 0 {
		t.Error("all is over, and it is not told")
	}
	look(2*time.Minute, 0, 0, 0, true)
	give(3 * time.Minute)
	look(3*time.Minute, 4, 0, 0, false)
}
