package agent

import (
	"fmt"
	"slices"
	"time"

	"github.com/usher-agent/usher/enforcer"
)

// fenceOf returns when what a grant was given from is partly over; zero: never, or there is no grant among the events. d.mu is held.
func (d *desk) fenceOf(events []enforcer.Event) time.Duration {
	if d.fence == 0 || !slices.ContainsFunc(events, func(ev enforcer.Event) bool { return ev.Kind == enforcer.EventGranted }) {
		return 0
	}
	return d.fence
}

// inTime returns a decision that is about to be answered. The agent may have been stopped, or its host suspended, since it decided:
// a grant from slots that others may have by now is withdrawn. Where nothing is over in its time this is a comparison with zero.
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
	end := d.carry(d.core.Decide(&enforcer.End{ID: out.Lease.ID, Cause: enforcer.CauseUndelivered}, now))
	d.serve(now, false)
	d.mu.Unlock()
	if end.written != nil {
		if err := end.written(); err != nil && d.store != nil {
			d.store.log.Error("a grant that was withdrawn could not be written, and may be thought to stand after a crash", "error", err)
		}
	}
	return enforcer.Decision{Denial: &enforcer.Denial{Code: enforcer.NotShared, Pool: over,
		Detail: fmt.Sprintf("pool %s: the agent was stopped or its host suspended while it answered, and its share of the site's slots is over by now", over), Hint: "try again"}}
}
