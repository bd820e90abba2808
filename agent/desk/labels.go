package desk

import (
	"bytes"
	"cmp"
	"slices"

	"github.com/usher-agent/usher/enforcer"
)

// labelled is the leases that bear one label.
type labelled struct {
	leases  map[enforcer.LeaseID]struct{}
	changed []func()
}

// Follow keeps the leases that bear a label at hand from now on; see [Desk.Labelled]. No other label costs an acquire
// anything. changed is called under the desk's lock when such a lease is granted or ends, and must not wait; nil:
// nobody is told.
func (d *Desk) Follow(label string, changed func()) {
	d.mu.Lock()
	defer d.mu.Unlock()
	x := d.labels[label]
	if x == nil {
		x = &labelled{leases: map[enforcer.LeaseID]struct{}{}}
		for _, l := range d.core.Leases(func(l *enforcer.Lease) bool { return bears(l, label) }) {
			x.leases[l.ID] = struct{}{}
		}
		if d.labels == nil {
			d.labels = map[string]*labelled{}
		}
		d.labels[label] = x
	}
	if changed != nil {
		x.changed = append(x.changed, changed)
	}
}

func bears(l *enforcer.Lease, label string) bool {
	_, ok := l.Holder.Labels[label]
	return ok
}

// label takes note of a lease that is granted, or has ended. d.mu is held.
func (d *Desk) label(l *enforcer.Lease, held bool) {
	if len(d.labels) == 0 {
		return
	}
	for label, x := range d.labels {
		if !bears(l, label) {
			continue
		}
		if held {
			x.leases[l.ID] = struct{}{}
		} else {
			delete(x.leases, l.ID)
		}
		for _, f := range x.changed {
			f()
		}
	}
}

// Labelled returns the leases that bear a label which is followed, in the order of their acquires. They are looked up a
// portion at a time, and others are served between two portions. So one that is granted or ends meanwhile may be among
// them or not.
func (d *Desk) Labelled(label string) (out []*enforcer.Lease) {
	var ids []enforcer.LeaseID
	d.lockSettled()
	if x := d.labels[label]; x != nil {
		ids = make([]enforcer.LeaseID, 0, len(x.leases))
		for id := range x.leases {
			ids = append(ids, id)
		}
	}
	d.mu.Unlock()
	for part := range slices.Chunk(ids, portion) {
		d.mu.Lock()
		for _, id := range part {
			if l, ok := d.core.Lease(id); ok {
				out = append(out, l)
			}
		}
		d.mu.Unlock()
	}
	slices.SortFunc(out, func(a, b *enforcer.Lease) int {
		return cmp.Or(a.AcquiredAt.Compare(b.AcquiredAt), bytes.Compare(a.ID[:], b.ID[:]))
	})
	return out
}
