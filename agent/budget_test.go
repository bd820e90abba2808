package agent

import (
	"testing"
	"time"

	"github.com/usher-agent/usher/agent/clock"
	"github.com/usher-agent/usher/enforcer"
	"github.com/usher-agent/usher/metrics"
)

// What is over on the boot-time clock is out of the verdict before the next decision, and before a waiter is served.
func TestFence(t *testing.T) {
	d := newDesk(time.Now, metrics.New(metrics.Options{Snapshot: func() metrics.Snapshot { return metrics.Snapshot{} }}), enforcer.Options{})
	verdict := func(n enforcer.Limit) *enforcer.Verdict {
		return &enforcer.Verdict{State: enforcer.StateValid, Code: enforcer.Valid,
			Pools: map[string]enforcer.PoolGrant{"streams": {Name: "streams", Limit: 9, Most: 9, Budget: n}}}
	}
	judged := 0
	d.relapse = func() {
		judged++
		d.setVerdict(verdict(1), clock.Boot()+time.Hour)
	}
	acquire := func(wait time.Duration) enforcer.Decision {
		r := &enforcer.Acquire{Pool: "streams", N: 1, Lifetime: enforcer.LifetimeHeld, Wait: wait}
		r.ID[0] = byte(len(d.core.Leases(nil)) + d.core.Waiting() + 1)
		return d.do(r)
	}
	d.setVerdict(verdict(2), clock.Boot()+time.Hour)
	if dec := acquire(0); dec.Lease == nil || judged != 0 {
		t.Fatalf("in time: %v, judged %d times", dec.Denial, judged)
	}
	d.setFence(1)
	if dec := acquire(0); dec.Lease != nil || judged != 1 {
		t.Fatalf("granted of what is over, judged %d times", judged)
	}
	if dec := acquire(time.Minute); dec.Waiter == nil {
		t.Fatalf("nobody waits: %v", dec.Denial)
	}
	d.relapse = func() {}
	d.setVerdict(verdict(2), 1) // over before it is in force
	if n := len(d.core.Leases(nil)); n != 1 {
		t.Errorf("a waiter was served of what is over: %d leases", n)
	}
	d.setVerdict(verdict(2), 0)
	if n := len(d.core.Leases(nil)); n != 2 {
		t.Errorf("a waiter is not served of what is not over: %d leases", n)
	}
}
