package desk

import (
	"time"

	"github.com/usher-agent/usher/enforcer"
)

// recoverWithin is how long a holder whose life is not known has to show itself after a restart, and after further
// restarts in all: only the time counts in which there was an agent. A lease of a time to live gets that long at least.
const recoverWithin = 15 * time.Second

// GrantedAt returns where the leases were granted that the runtime folder's journal told of.
func (d *Desk) GrantedAt() Place { return d.store.was }

// Recovered counts the leases that the journals told of, and calls found with each of a lifetime for which doubtful is
// true. found must not call the desk. Call Recovered once, before anything else is decided.
func (d *Desk) Recovered(doubtful func(enforcer.Lifetime) bool, found func(*enforcer.Lease)) (all int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if s := d.store; s != nil && !s.mixed && len(s.held) == 0 && !doubtful(enforcer.LifetimeTTL) {
		d.held.add(enforcer.LifetimeTTL, d.core.Len()) // there is nothing to know of any, however many they are
		return d.core.Len()
	}
	d.core.Leases(func(l *enforcer.Lease) bool {
		all++
		d.countIn(l)
		if doubtful(l.Lifetime) {
			found(l)
		}
		return false
	})
	return all
}

// Doubt makes a lease unconfirmed: its holder has a while to show itself, and it ends else.
func (d *Desk) Doubt(l *enforcer.Lease) {
	d.Do(&enforcer.Doubt{ID: l.ID, Until: d.Now().Add(d.store.showWithin(l))})
}
