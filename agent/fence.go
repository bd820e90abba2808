package agent

import (
	"fmt"
	"slices"
	"time"

	"github.com/usher-agent/usher/enforcer"
)

// fenceOf returns when what a grant was given from is partly over; zero: never, or there is no grant among the events.
// d.mu is held.
func (d *desk) fenceOf(events []enforcer.Event) time.Duration {
	grants := func(ev enforcer.Event) bool { return ev.Kind == enforcer.EventGranted }
	if d.fence == 0 || !slices.ContainsFunc(events, grants) {
		return 0
	}
	return d.fence
}

// inTime returns a decision that is about to be answered. The agent may have been stopped, or its host suspended, since it
// decided: a grant from slots that others may have by now is withdrawn. Where nothing ends this is a comparison with zero.
func (d *desk) inTime(out outcome) enforcer.Decision {
	if out.fence == 0 || out.Lease == nil || untilFence() < out.fence {
		return out.Decision
	}
	d.enter() // the verdict in force knows what is over
	now := d.licenceTime()
	d.tick(now)
	over := ""
	for _, it := range out.Lease.Items {
		if p, ok := d.core.Pool(it.Pool, now); !ok || p.Over() {
			over = it.Pool
			break
		}
	}
	if over == "" {
		d.mu.Unlock()
		return out.Decision
	}
	undo := &enforcer.End{ID: out.Lease.ID, Cause: enforcer.CauseUndelivered}
	end := d.carry(d.core.Decide(undo, now))
	d.serve(now, false)
	d.mu.Unlock()
	if end.written != nil {
		if err := end.written(); err != nil && d.store != nil {
			d.store.log.Error("the end of a grant could not be written, which may be thought to stand after a crash",
				"error", err)
		}
	}
	why := "pool %s: the agent's share of the site's slots was over before it answered: it was stopped, or its host suspended"
	return enforcer.Decision{Denial: &enforcer.Denial{Code: enforcer.NotShared, Pool: over,
		Detail: fmt.Sprintf(why, over), Hint: "try again"}}
}
