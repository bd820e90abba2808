package desk

import (
	"slices"
	"time"

	"github.com/usher-agent/usher/enforcer"
)

// HoldOffs returns the hold-offs in force, the one that ends first before the others.
func (d *Desk) HoldOffs() []*enforcer.HoldOff {
	d.lockSettled()
	defer d.mu.Unlock()
	return d.core.HoldOffs()
}

// heldOff is the event that puts a hold-off in force.
func heldOff(h *enforcer.HoldOff) enforcer.Event {
	return enforcer.Event{Kind: enforcer.EventHeldOff, At: h.Since, HoldOff: h}
}

// lostHoldOffs returns the events of those hold-offs, a record each, that a core does not have. It leaves out what
// cannot be read.
func lostHoldOffs(core *enforcer.Enforcer, records [][]byte) (lost []enforcer.Event) {
	known := map[enforcer.LeaseID]bool{}
	for _, h := range core.HoldOffs() {
		known[h.Lease] = true
	}
	for _, b := range records {
		ev, err := decodeEvent(b, func(enforcer.LeaseID) *enforcer.Lease { return nil }, nil)
		if err == nil && ev.Kind == enforcer.EventHeldOff && !known[ev.HoldOff.Lease] {
			lost = append(lost, ev)
		}
	}
	return lost
}

// forgetHoldOffs has the durable journal compacted once it tells of hold-offs none of which is in force, so that an
// earlier version of the agent can read it again. The desk's lock is held, or nobody else knows the store.
func (s *store) forgetHoldOffs(core *enforcer.Enforcer) {
	if s.holdOffsOver = s.holdOffsOver && len(core.HoldOffs()) == 0; s.holdOffsOver {
		s.wake()
	}
}

// holdOff writes a hold-off: its lease, its pools, its holders, and its time.
func (w *recordWriter) holdOff(h *enforcer.HoldOff) {
	w.Bytes = append(w.Bytes, h.Lease[:]...)
	w.Uint(uint64(len(h.Pools)))
	for _, p := range h.Pools {
		w.Text(p)
	}
	w.Uint(uint64(len(h.Of)))
	for _, c := range h.Of {
		w.Uint(uint64(c.UID))
		w.Text(c.Credential)
		w.Int(int64(c.PID))
		w.Uint(c.Start)
		w.Uint(c.Inode)
	}
	w.Time(h.Since)
	w.Time(h.Until)
}

func (r *recordReader) holdOff() *enforcer.HoldOff {
	h := &enforcer.HoldOff{}
	r.Into(h.Lease[:])
	for range r.Count() {
		h.Pools = append(h.Pools, r.Text())
	}
	for range r.Count() {
		h.Of = append(h.Of, enforcer.Caller{UID: uint32(r.Uint()), Credential: r.Text(), PID: int32(r.Int()),
			Start: r.Uint(), Inode: r.Uint()})
	}
	h.Since, h.Until = r.Time(), r.Time()
	if len(h.Of) == 0 || len(h.Pools) == 0 {
		r.Fail() // nobody is held off from anything
	}
	return h
}

// lifted writes the end of a hold-off.
func (w *recordWriter) lifted(h *enforcer.HoldOff, by enforcer.Cause) {
	w.Bytes = append(w.Bytes, h.Lease[:]...)
	w.Uint(uint64(max(0, slices.Index(recordCauses, by))))
}

func (r *recordReader) lifted() (*enforcer.HoldOff, enforcer.Cause) {
	h := &enforcer.HoldOff{}
	r.Into(h.Lease[:])
	return h, pick(r, recordCauses)
}

// resumeHoldOffs has the hold-offs that a journal has told of last no longer than they were to last.
func (r *replay) resumeHoldOffs(now time.Time) {
	for _, h := range r.core.HoldOffs() {
		if is := h.Resumed(now); is != h {
			r.core.Apply(heldOff(is))
		}
	}
}
