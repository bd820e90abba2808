package desk

import (
	"fmt"
	"slices"
	"time"

	"github.com/usher-agent/usher/agent/clock"
	"github.com/usher-agent/usher/enforcer"
)

// Grant is a lease that is given to a caller.
type Grant struct {
	*enforcer.Lease
	Replayed bool // an earlier request with the same client token was granted it
	// Late is nil unless what the lease was granted from is over at some time, when others may have it. Late looks
	// whether it is over by now: then the grant is withdrawn, and the denial is the answer. Call it right before the
	// answer is written, for the agent may have been stopped since it decided, and once more when it is sent: what is
	// withdrawn then was answered late, and is over already. It is not safe for concurrent use.
	Late func(sent bool) *enforcer.Denial
}

// fenceOf returns when what a decision gives is partly over; zero: never, or it gives nothing of a pool. d.mu is held.
func (d *Desk) fenceOf(dec *enforcer.Decision) time.Duration {
	if d.fence == 0 || dec.Lease != nil && dec.Lease.Lifetime == enforcer.LifetimeDraw {
		return 0
	}
	grants := func(ev enforcer.Event) bool { return ev.Kind == enforcer.EventGranted }
	if dec.Grown != nil || dec.Replayed || slices.ContainsFunc(dec.Events, grants) {
		return d.fence
	}
	return 0
}

// grant is an outcome as the API answers it.
func (d *Desk) grant(out outcome) (Grant, *enforcer.Denial) {
	return Grant{Lease: out.Lease, Replayed: out.Replayed, Late: d.late(out)}, out.Denial
}

// late returns the look at a grant that is about to be answered: see [Grant]. Where nothing ends, it is nil.
func (d *Desk) late(out outcome) func(sent bool) *enforcer.Denial {
	if out.fence == 0 || out.Lease == nil {
		return nil
	}
	l := &look{desk: d, lease: out.Lease, grown: out.Grown, replayed: out.Replayed, fence: out.fence}
	return l.late // allocated only here
}

// passed reports whether a fence is over, by the clock itself.
func passed(fence time.Duration) bool { return clock.Fence() >= fence }

// look is what a grant's answer needs to be looked at.
type look struct {
	desk     *Desk
	lease    *enforcer.Lease
	grown    *enforcer.Holder // see enforcer.Decision
	replayed bool
	fence    time.Duration // zero: it was withdrawn
	// Each look before the answer is sent reads the clock itself. The one after it goes on from that reading, and reads
	// again where the wall clock and the monotonic one disagree, or much time has passed.
	glance clock.Glance
}

// late withdraws a grant whose slots others may have by now. The agent may have been stopped, or its host
// suspended, since it decided.
func (l *look) late(sent bool) *enforcer.Denial {
	past := l.glance.Ask
	if sent {
		past = l.glance.Past
	}
	if l.fence == 0 || !past(l.fence) {
		return nil
	}
	d := l.desk
	d.enterBy(passed) // the verdict in force knows what is over
	now := d.licenceTime()
	d.tick(now)
	over := d.overPool(l.lease, now)
	if l.replayed { // the first answer came in time, or has its own look
		if over = ""; !d.holds(l.lease.ID) {
			over = l.lease.Items[0].Pool
		}
	}
	if over == "" {
		l.fence = d.fence
		d.mu.Unlock()
		return nil
	}
	l.fence = 0
	end := d.carry(d.core.Decide(l.undoing(), now))
	d.serve(now, false)
	d.mu.Unlock()
	if end.written != nil {
		if err := end.written(); err != nil && d.store != nil {
			d.store.log.Error("the end of a grant could not be written, which may be thought to stand after a crash",
				"error", err)
		}
	}
	why := "pool %s: the agent's share of the site's slots was over before it answered: it was stopped, or its host " +
		"suspended"
	return &enforcer.Denial{Code: enforcer.NotShared, Pool: over, Detail: fmt.Sprintf(why, over), Hint: "try again",
		Late: true}
}

// overPool returns a pool of a lease of which more is in use than this agent may hand out; empty: there is none. d.mu
// is held.
func (d *Desk) overPool(l *enforcer.Lease, now time.Time) string {
	for _, it := range l.Items {
		if p, ok := d.core.Pool(it.Pool, now); !ok || p.Over() {
			return it.Pool
		}
	}
	return ""
}

// holds reports whether a lease is held. d.mu is held.
func (d *Desk) holds(id enforcer.LeaseID) bool {
	_, ok := d.core.Lease(id)
	return ok
}

// undoing returns the request that takes a grant back. A holder that joined leaves, and the others keep the lease.
func (l *look) undoing() enforcer.Request {
	if l.grown != nil && len(l.lease.Others) > 0 {
		return &enforcer.Leave{ID: l.lease.ID, Holder: l.grown.Caller}
	}
	return &enforcer.End{ID: l.lease.ID, Cause: enforcer.CauseUndelivered}
}

// SetFence sets until when the verdict's grants hold.
func (d *Desk) SetFence(fence time.Duration) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.fence = fence; fence != 0 {
		d.Look()
	}
}
