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
