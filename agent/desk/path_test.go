package desk

import (
	"testing"
	"time"

	"github.com/usher-agent/usher/enforcer"
)

// A session asks with each acquire whether it is for a meter. That waits for no decision of others.
func TestVerdictIsReadWithoutALock(t *testing.T) {
	d := newDesk(testOptions(time.Now))
	d.SetVerdict(&enforcer.Verdict{State: enforcer.StateValid, Code: enforcer.Valid,
		Meters: map[string]enforcer.MeterGrant{"hours": {Name: "hours"}}}, 0)
	d.mu.Lock()
	defer d.mu.Unlock()
	if !d.IsMeter(&enforcer.Acquire{Pool: "hours"}) || d.IsMeter(&enforcer.Acquire{Pool: "streams"}) {
		t.Error("a meter is none, or a pool is one")
	}
}

// hears calls a function with each event.
type hears struct {
	unseen
	event func(enforcer.Event)
}

func (h hears) Observe(ev *enforcer.Event) { h.event(*ev) }

// Whoever hears of a verdict and asks for it at once is told of that one.
func TestVerdictIsReadAsItIsHeardOf(t *testing.T) {
	var d *Desk
	heard := 0
	o := testOptions(time.Now)
	o.Observer = hears{event: func(ev enforcer.Event) {
		if ev.Kind != enforcer.EventVerdict {
			return
		}
		if heard++; d.Verdict() != ev.Verdict {
			t.Errorf("verdict %d is heard of, and the one before is read", heard)
		}
	}}
	d = newDesk(o)
	for range 2 {
		d.SetVerdict(&enforcer.Verdict{State: enforcer.StateValid, Code: enforcer.Valid}, 0)
	}
	if heard != 2 {
		t.Errorf("%d verdicts were heard of", heard)
	}
}
