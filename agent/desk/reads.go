package desk

import (
	"maps"
	"math"

	"github.com/usher-agent/usher/enforcer"
)

// Verdict returns the verdict in force; nil before the first.
func (d *Desk) Verdict() *enforcer.Verdict {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.core.Verdict()
}

// Pools returns every pool and meter.
func (d *Desk) Pools() []enforcer.PoolStatus {
	d.mu.Lock()
	defer d.mu.Unlock()
	now := d.licenceTime()
	d.tick(now)
	return d.core.Pools(now)
}

// Pool returns one pool or meter.
func (d *Desk) Pool(name string) (enforcer.PoolStatus, bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	now := d.licenceTime()
	d.tick(now)
	return d.core.Pool(name, now)
}

// Lease returns a lease that is held.
func (d *Desk) Lease(id enforcer.LeaseID) (*enforcer.Lease, bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.tick(d.licenceTime())
	return d.core.Lease(id)
}

// IsMeter reports whether a request is for draws from meters.
func (d *Desk) IsMeter(r *enforcer.Acquire) bool {
	name := r.Pool
	if name == "" && len(r.Items) > 0 {
		name = r.Items[0].Pool
	}
	v := d.Verdict()
	if v == nil {
		return false
	}
	_, ok := v.Meters[name]
	return ok
}

// CountsByPod reports whether a pool counts by pod, or is about to.
func (d *Desk) CountsByPod() bool { return d.byPod.Load() }

// portion is how many leases are listed while the lock is held.
const portion = 256

// List calls f with the leases of a user, or of all users for nil, a portion at a time, until f returns false. Between
// two portions others are served. A lease that is held all the while is in one of them, and may be in two.
func (d *Desk) List(u *enforcer.User, f func([]*enforcer.Lease) bool) {
	var users []enforcer.User
	if u != nil {
		users = append(users, *u)
	} else {
		d.mu.Lock()
		users = d.core.Users()
		d.mu.Unlock()
	}
	for _, u := range users {
		for below := math.MaxInt; below > 0; {
			var part []*enforcer.Lease
			d.mu.Lock()
			d.tick(d.licenceTime())
			part, below = d.core.Portion(u, below, portion)
			d.mu.Unlock()
			if len(part) > 0 && !f(part) {
				return
			}
		}
	}
}

// Lifetimes counts the leases held by their lifetime.
func (d *Desk) Lifetimes() map[enforcer.Lifetime]int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return maps.Clone(d.held)
}
