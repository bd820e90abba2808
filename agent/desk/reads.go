package desk

import (
	"slices"

	"github.com/usher-agent/usher/enforcer"
)

// Verdict returns the verdict in force; nil before the first. It waits for nobody.
func (d *Desk) Verdict() *enforcer.Verdict { return d.judged.Load() }

// Pools returns every pool and meter, by name, a portion at a time: where there are more, they are not all of one
// instant, and others are served in between.
func (d *Desk) Pools() []enforcer.PoolStatus {
	d.mu.Lock()
	names := d.core.PoolNames()
	d.mu.Unlock()
	slices.Sort(names)
	out := make([]enforcer.PoolStatus, 0, len(names))
	var p pace
	for part := range slices.Chunk(names, poolsAtATime) {
		now := d.lockSettled()
		out = d.core.AppendPools(out, part, now)
		d.mu.Unlock()
		p.giveWay()
	}
	return out
}

// TakeUsage returns what was in use since the last call, by pools and hours, and forgets it; lost is how many hours of
// pools nobody took in time. From the first call on usage is counted. As with Pools, others are served in between.
func (d *Desk) TakeUsage() (all []enforcer.Usage, lost int) {
	d.mu.Lock()
	names := d.core.PoolNames()
	if len(names) == 0 {
		all, lost = d.core.TakeUsage(nil, d.last) // of pools that are gone
	}
	d.mu.Unlock()
	var p pace
	for part := range slices.Chunk(names, poolsAtATime) {
		now := d.lockSettled()
		some, n := d.core.TakeUsage(part, now)
		d.mu.Unlock()
		p.giveWay()
		all, lost = append(all, some...), lost+n
	}
	return all, lost
}

// usersAtATime is how many users' usage is taken at once.
const usersAtATime = 512

// TakeUserUsage returns what users had in use since the last call, by pools and days, and forgets it; lost is how many
// days of users nobody took in time. As with Pools, others are served in between.
func (d *Desk) TakeUserUsage() (all []enforcer.UserUsage, lost int) {
	d.mu.Lock()
	names := d.core.PoolNames()
	d.mu.Unlock()
	var p pace
	for _, name := range append(names, "") { // "": of pools that are gone
		for more := true; more; {
			var some []enforcer.UserUsage
			var n int
			now := d.lockSettled()
			some, n, more = d.core.TakeUserUsage(name, usersAtATime, now)
			d.mu.Unlock()
			p.giveWay()
			all, lost = append(all, some...), lost+n
		}
	}
	return all, lost
}

// Pool returns one pool or meter.
func (d *Desk) Pool(name string) (enforcer.PoolStatus, bool) {
	now := d.lockSettled()
	defer d.mu.Unlock()
	return d.core.Pool(name, now)
}

// Oldest returns the oldest of the leases that a filter lets through, and looks at no more than most.
func (d *Desk) Oldest(f enforcer.Filter, most int) []*enforcer.Lease {
	d.mu.Lock()
	defer d.mu.Unlock()
	out, _, _ := d.core.Page(f, enforcer.Cursor{}, most)
	return out
}

// Lease returns a lease that is held.
func (d *Desk) Lease(id enforcer.LeaseID) (*enforcer.Lease, bool) {
	d.lockSettled()
	defer d.mu.Unlock()
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

// Of how much is looked while the lock is held: a small part of a millisecond's work.
const (
	portion      = 256 // leases
	listed       = 128 // leases that are shown: each is somewhere else in memory
	poolsAtATime = 64
)

// List calls yield with the leases that a filter lets through, in the order of their grants from a place on, a portion
// at a time, until yield returns false. Between two portions others are served. A lease that is held all the while is
// in one of them, and in no other. The slice is yield's until it returns.
func (d *Desk) List(f enforcer.Filter, after enforcer.Cursor, yield func([]*enforcer.Lease) bool) {
	part := make([]*enforcer.Lease, 0, listed)
	var p pace
	for more := true; more; {
		d.lockSettled()
		part, after, more = d.core.AppendPage(part[:0], f, after, listed)
		d.mu.Unlock()
		p.giveWay()
		if len(part) > 0 && !yield(part) {
			return
		}
	}
}

// Lifetimes counts the leases held by their lifetime.
func (d *Desk) Lifetimes() map[enforcer.Lifetime]int {
	d.mu.Lock()
	defer d.mu.Unlock()
	out := map[enforcer.Lifetime]int{}
	for l, n := range d.held.all {
		out[l] = n
	}
	return out
}

// lifetimes counts leases by their lifetime, in the order of records: a map would cost each grant and end a search.
type lifetimes [7]int

func (c *lifetimes) add(l enforcer.Lifetime, n int) { c[max(0, slices.Index(recordLifetimes, l))] += n }

// all calls yield for each lifetime of which leases are held.
func (c *lifetimes) all(yield func(enforcer.Lifetime, int) bool) {
	for i, n := range c {
		if n != 0 && !yield(recordLifetimes[i], n) {
			return
		}
	}
}
