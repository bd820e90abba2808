package desk

import (
	"time"

	"github.com/usher-agent/usher/enforcer"
)

// serve grants free slots and draws to waiters. d.mu is held.
func (d *Desk) serve(now time.Time, recheck bool) {
	for d.core.Waiting() > 0 {
		if d.over() {
			d.Look()
			return
		}
		dec := d.core.Decide(&enforcer.Serve{Recheck: recheck, Among: d.among()}, now)
		recheck = false // whoever waits in vain has been turned away
		if len(dec.Events) == 0 {
			d.stirred, d.anywhere = d.stirred[:0], false
			return
		}
		if out := d.carry(dec); out.Denial != nil && dec.Denial == nil {
			d.apply([]enforcer.Event{{Kind: enforcer.EventLeft, At: now, Waiter: dec.Events[0].Waiter,
				Cause: enforcer.CauseDenied, Denial: out.Denial}}, nil)
		}
	}
}

// mostStirred bounds the pools that are noted as stirred: looking at all of them costs no more then.
const mostStirred = 1024

// stir notes where an event may let a waiter be served. d.mu is held.
func (d *Desk) stir(ev *enforcer.Event) {
	if d.core.Waiting() == 0 {
		d.stirred, d.anywhere = d.stirred[:0], false
		return
	}
	var all bool
	d.stirred, all = ev.Stirs(d.stirred)
	if all || len(d.stirred) > mostStirred {
		d.stirred, d.anywhere = d.stirred[:0], true
	}
}

// among returns the pools where waiters are looked for; nil: all. d.mu is held.
func (d *Desk) among() []string {
	if d.anywhere {
		return nil
	}
	if d.stirred == nil {
		d.stirred = []string{}
	}
	return d.stirred
}
