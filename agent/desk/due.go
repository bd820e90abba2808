package desk

import (
	"slices"
	"time"

	"github.com/usher-agent/usher/enforcer"
)

// What is due may be much at once: a million leases expire together after a restart. So it ends in steps, each of at
// most [enforcer.Batch] leases, and between two steps the lock is free for others. Until the last step slots still
// count that are over. So nothing is granted too much; and what is denied meanwhile is decided again: see decideNow.

// tick takes one step: it ends leases that are due, and passes their slots on. more says that some are left: Run takes
// the next step, unless somebody else does. d.mu is held.
func (d *Desk) tick(now time.Time) (more bool) {
	if !d.due(now) {
		return false
	}
	dec := d.core.Decide(&enforcer.Tick{}, now)
	if len(dec.Events) == 0 {
		return false
	}
	d.carry(dec)
	d.serve(now, false)
	if more = d.due(now); more {
		d.Look()
	}
	return more
}

// due reports whether something is to end by now. d.mu is held.
func (d *Desk) due(now time.Time) bool {
	next := d.core.NextTick()
	return !next.IsZero() && !next.After(now)
}

// lockSettled takes d.mu when nothing is due, and returns the licence time.
func (d *Desk) lockSettled() time.Time {
	var p pace
	for {
		d.mu.Lock()
		now := d.licenceTime()
		if !d.tick(now) {
			return now
		}
		d.mu.Unlock()
		p.giveWay()
	}
}

// decideNow decides a request, and again after each step while it is denied and something is due. d.mu is held, and
// free in between; refused, which may be nil, is asked first each time.
func (d *Desk) decideNow(r enforcer.Request, refused func() *enforcer.Denial) (enforcer.Decision, time.Time) {
	var p pace
	for {
		if refused != nil {
			if denial := refused(); denial != nil {
				return enforcer.Decision{Denial: denial}, d.last
			}
		}
		now := d.licenceTime()
		more := d.tick(now)
		dec := d.core.Decide(r, now)
		if dec.Denial == nil || !more {
			return dec, now
		}
		d.mu.Unlock()
		p.giveWay()
		d.enter()
	}
}

// tell tells the watcher of some of the leases that are to be revoked, beginning where it has stopped.
func (d *Desk) tell() {
	d.mu.Lock()
	if !d.telling {
		d.mu.Unlock()
		return
	}
	var leases []*enforcer.Lease
	now := d.last
	leases, d.told, d.telling = d.core.Page(enforcer.Filter{}, d.told, portion)
	if d.telling {
		d.Look()
	}
	d.mu.Unlock()
	leases = slices.DeleteFunc(leases, func(l *enforcer.Lease) bool { return l.RevokeAt.IsZero() })
	if len(leases) > 0 {
		d.watcher.Revoking(now, leases)
	}
}
