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

// A grant whose answer comes after what it was granted from is over, for the agent was stopped meanwhile, is withdrawn: unless it fits
// into what is left. So is one that waited.
func TestFenceBeforeTheAnswer(t *testing.T) {
	for name, c := range map[string]struct {
		left  enforcer.Limit
		waits bool
		late  bool
		lease bool
	}{
		"in time":                    {0, false, false, true},
		"late":                       {0, false, true, false},
		"late, and another block":    {1, false, true, true},
		"it waited, in time":         {0, true, false, true},
		"it waited, late":            {0, true, true, false},
		"it waited, late, but it is": {1, true, true, true},
	} {
		t.Run(name, func(t *testing.T) {
			d := newDesk(time.Now, unseen{}, enforcer.Options{})
			verdict := func(n enforcer.Limit) *enforcer.Verdict {
				return &enforcer.Verdict{State: enforcer.StateValid, Code: enforcer.Valid,
					Pools: map[string]enforcer.PoolGrant{"streams": {Name: "streams", Limit: 9, Most: 9, Budget: n}}}
			}
			d.relapse = func() { d.setVerdict(verdict(c.left), 0) }
			r := &enforcer.Acquire{Pool: "streams", N: 1, Lifetime: enforcer.LifetimeHeld}
			r.ID[0] = 1
			fence := clock.Boot() + time.Hour
			var out outcome
			if c.waits {
				d.setVerdict(verdict(0), 0)
				r.Wait = time.Minute
				answer := make(chan outcome, 1)
				if out = d.decide(r); out.Waiter == nil {
					t.Fatalf("nobody waits: %v", out.Denial)
				}
				d.mu.Lock()
				d.waiting[r.ID] = waiter{answer: answer}
				d.mu.Unlock()
				d.mu.Lock()
				d.fence = fence
				d.mu.Unlock()
				d.setVerdict(verdict(1), fence)
				out = <-answer
			} else {
				d.setVerdict(verdict(1), fence)
				out = d.decide(r)
			}
			if out.Lease == nil || out.fence != fence {
				t.Fatalf("granted: %+v until %v; want a lease until %v", out.Denial, out.fence, fence)
			}
			if c.late { // as if it were an hour later
				out.fence = clock.Boot()
				d.setFence(out.fence)
			}
			dec := d.await(out)
			if c.lease {
				if dec.Lease == nil || len(d.core.Leases(nil)) != 1 {
					t.Errorf("denied: %v", dec.Denial)
				}
				return
			}
			if dec.Lease != nil || dec.Denial == nil || dec.Denial.Code != enforcer.NotShared {
				t.Errorf("answered: %+v, %+v", dec.Lease, dec.Denial)
			}
			if n := len(d.core.Leases(nil)); n != 0 {
				t.Errorf("%d leases stand", n)
			}
		})
	}
}
