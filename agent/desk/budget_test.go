package desk

import (
	"testing"
	"time"

	"github.com/usher-agent/usher/agent/clock"
	"github.com/usher-agent/usher/enforcer"
)

// What is over on the boot-time clock is out of the verdict before the next decision, and before a waiter is served.
func TestFence(t *testing.T) {
	d := newDesk(testOptions(time.Now))
	verdict := func(n enforcer.Limit) *enforcer.Verdict {
		return &enforcer.Verdict{State: enforcer.StateValid, Code: enforcer.Valid,
			Pools: map[string]enforcer.PoolGrant{"streams": {Name: "streams", Limit: 9, Most: 9, Budget: n}}}
	}
	judged := 0
	d.signals.FencePassed = func() {
		judged++
		d.SetVerdict(verdict(1), clock.Boot()+time.Hour)
	}
	acquire := func(wait time.Duration) enforcer.Decision {
		r := &enforcer.Acquire{Pool: "streams", N: 1, Lifetime: enforcer.LifetimeHeld, Wait: wait}
		r.ID[0] = byte(len(d.core.Leases(nil)) + d.core.Waiting() + 1)
		return d.Do(r)
	}
	d.SetVerdict(verdict(2), clock.Boot()+time.Hour)
	if dec := acquire(0); dec.Lease == nil || judged != 0 {
		t.Fatalf("in time: %v, judged %d times", dec.Denial, judged)
	}
	d.SetFence(1)
	if dec := acquire(0); dec.Lease != nil || judged != 1 {
		t.Fatalf("granted of what is over, judged %d times", judged)
	}
	if dec := acquire(time.Minute); dec.Waiter == nil {
		t.Fatalf("nobody waits: %v", dec.Denial)
	}
	d.signals.FencePassed = func() {}
	d.SetVerdict(verdict(2), 1) // over before it is in force
	if n := len(d.core.Leases(nil)); n != 1 {
		t.Errorf("a waiter was served of what is over: %d leases", n)
	}
	d.SetVerdict(verdict(2), 0)
	if n := len(d.core.Leases(nil)); n != 2 {
		t.Errorf("a waiter is not served of what is not over: %d leases", n)
	}
}

// A grant whose answer comes after what it was granted from is over, for the agent was stopped meanwhile, is withdrawn:
// unless it fits into what is left. So is one that waited, and one that was looked at in time before it was written,
// and not after.
func TestFenceBeforeTheAnswer(t *testing.T) {
	for name, c := range map[string]struct {
		left  enforcer.Limit
		waits bool
		late  int // at which look the fence has passed; 0: at none
		lease bool
	}{
		"in time":                          {0, false, 0, true},
		"late":                             {0, false, 1, false},
		"late when it is written":          {0, false, 2, false},
		"late, and another block":          {1, false, 1, true},
		"late when written, another block": {1, false, 2, true},
		"it waited, in time":               {0, true, 0, true},
		"it waited, late":                  {0, true, 1, false},
		"it waited, late, but it is":       {1, true, 1, true},
	} {
		t.Run(name, func(t *testing.T) {
			d := newDesk(testOptions(time.Now))
			verdict := func(n enforcer.Limit) *enforcer.Verdict {
				return &enforcer.Verdict{State: enforcer.StateValid, Code: enforcer.Valid,
					Pools: map[string]enforcer.PoolGrant{"streams": {Name: "streams", Limit: 9, Most: 9, Budget: n}}}
			}
			d.signals.FencePassed = func() { d.SetVerdict(verdict(c.left), 0) }
			r := &enforcer.Acquire{Pool: "streams", N: 1, Lifetime: enforcer.LifetimeHeld}
			r.ID[0] = 1
			fence := clock.Boot() + time.Hour
			var out outcome
			if c.waits {
				d.SetVerdict(verdict(0), 0)
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
				d.SetVerdict(verdict(1), fence)
				out = <-answer
			} else {
				d.SetVerdict(verdict(1), fence)
				out = d.decide(r)
			}
			if out.Lease == nil || out.fence != fence {
				t.Fatalf("granted: %+v until %v; want a lease until %v", out.Denial, out.fence, fence)
			}
			out = d.settle(out)
			var late *enforcer.Denial
			for look := 1; look <= 2; look++ {
				if c.late == look { // as if it were an hour later
					out.fence = clock.Boot()
					d.SetFence(out.fence)
				}
				if denial := d.lookAt(&out); denial != nil {
					late = denial
				}
			}
			switch n := len(d.core.Leases(nil)); {
			case c.lease && (late != nil || n != 1):
				t.Errorf("denied: %v; %d leases stand", late, n)
			case !c.lease && (late == nil || late.Code != enforcer.NotShared || n != 0):
				t.Errorf("answered as %v; %d leases stand", late, n)
			}
			if _, denial := d.grant(out); denial != nil {
				t.Errorf("the outcome is denied: %v", denial)
			}
		})
	}
}
