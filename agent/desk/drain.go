package desk

import (
	"context"

	"github.com/usher-agent/usher/enforcer"
)

// Drain refuses new leases from now on, and turns waiters away.
func (d *Desk) Drain() {
	d.drained.Store(true)
	d.mu.Lock()
	defer d.mu.Unlock()
	for id, w := range d.waiting {
		delete(d.waiting, id)
		w.tell(outcome{Decision: enforcer.Decision{Denial: drainingDenial()}})
		d.apply(d.core.Decide(&enforcer.Cancel{ID: id}, d.licenceTime()).Events, nil)
	}
}

func drainingDenial() *enforcer.Denial {
	return &enforcer.Denial{Code: enforcer.Draining,
		Detail: "the agent is shutting down, or an admin drains it, and it grants no new leases",
		Hint:   "try again when it is back"}
}

// Draining reports whether no new leases are granted.
func (d *Desk) Draining() bool { return d.drained.Load() }

// Undrain has leases granted again, and reports whether none were.
func (d *Desk) Undrain() bool { return d.drained.CompareAndSwap(true, false) }

// RefuseDrained is how a desk that drains denies.
func RefuseDrained() *enforcer.Denial { return drainingDenial() }

// Holding counts the leases that are held, and apart from them those that are borrowed.
func (d *Desk) Holding() (held, borrowed int) {
	d.lockSettled()
	defer d.mu.Unlock()
	return d.holding()
}

// holding is Holding without a tick. d.mu is held.
func (d *Desk) holding() (held, borrowed int) {
	for of, n := range d.held.all {
		if of == enforcer.LifetimeBorrow {
			borrowed += n
		} else {
			held += n
		}
	}
	return held, borrowed
}

// Idle waits until no lease but borrows is held, or ctx ends, or stop is closed.
func (d *Desk) Idle(ctx context.Context, stop <-chan struct{}) {
	for {
		d.lockSettled()
		if held, _ := d.holding(); held == 0 {
			d.mu.Unlock()
			return
		}
		if d.idle == nil {
			d.idle = make(chan struct{})
		}
		idle := d.idle
		d.mu.Unlock()
		select {
		case <-ctx.Done():
			return
		case <-stop:
			return
		case <-idle: // for a moment, at least
		}
	}
}

// tellIdle ends the waits of Idle once no lease but borrows is held. d.mu is held.
func (d *Desk) tellIdle() {
	if d.idle == nil {
		return
	}
	if held, _ := d.holding(); held == 0 {
		close(d.idle)
		d.idle = nil
	}
}
