package desk

import "github.com/usher-agent/usher/enforcer"

// OwnedBy returns the leases of a caller on which owner keeps data.
func (d *Desk) OwnedBy(owner string, c enforcer.Caller) (out []*enforcer.Lease) {
	d.lockSettled()
	defer d.mu.Unlock()
	for id := range d.owned[owner] {
		if l, ok := d.core.Lease(id); ok && l.Holder.SameUser(c) {
			out = append(out, l)
		}
	}
	return out
}

// Shift adjusts a meter and returns the new number of its draws.
func (d *Desk) Shift(r *enforcer.Shift) (int64, *enforcer.Denial) {
	out := d.decide(r)
	if dec := d.await(out); dec.Denial != nil {
		return 0, dec.Denial
	}
	return out.Events[0].Draws[0].Drawn, nil
}
