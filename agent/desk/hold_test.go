package desk

import (
	"testing"
	"time"

	"github.com/usher-agent/usher/agent/bubble"
)

// The longest time that the desk's lock is held counts from when somebody measures, and nothing is measured otherwise.
func TestMeasureHolds(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		d := newDesk(testOptions(time.Now))
		hold := func(held time.Duration) {
			d.mu.Lock()
			defer d.mu.Unlock()
			time.Sleep(held)
		}
		hold(time.Hour)
		longest := d.MeasureHolds()
		hold(time.Second)
		second := d.MeasureHolds()
		hold(3 * time.Second)
		hold(2 * time.Second)
		if got := longest(); got != 3*time.Second {
			t.Errorf("held for %v at the longest", got)
		}
		hold(4 * time.Second)
		if got := second(); got != 4*time.Second {
			t.Errorf("the other was told of %v", got)
		}
		if hold(time.Hour); d.mu.most != 4*time.Second {
			t.Errorf("it is measured although nobody does: %v", d.mu.most)
		}
		if got := d.MeasureHolds()(); got != 0 {
			t.Errorf("what was before counts: %v", got)
		}
	})
}
