package desk

import (
	"encoding/json"
	"time"

	"github.com/usher-agent/usher/enforcer"
)

// replay applies the journals' records, the durable one's first, to a core: that of a start, or of a repair.
type replay struct {
	core  *enforcer.Enforcer
	same  *sameParts
	was   Place         // where the runtime's leases were granted
	mark  enforcer.Mark // as it was kept last
	ready time.Time     // when the agent will be ready, about; zero: what ends by itself keeps its end
	// each is told of what was applied; nil: nobody is
	each func(enforcer.EventKind, *enforcer.Lease)

	mixed   bool                               // not all leases are of a time to live, without labels and data
	present time.Duration                      // how long there was an agent, by its own records
	doubts  map[enforcer.LeaseID]time.Duration // of unconfirmed leases: until when by present they stand
}

func newReplay(core *enforcer.Enforcer) *replay {
	return &replay{core: core, same: newSameParts(), doubts: map[enforcer.LeaseID]time.Duration{}}
}

// left returns how long the holders of unconfirmed leases have still to show themselves. Each start takes a second at
// least, so that an agent which always dies sooner does not keep the leases of dead holders for ever.
func (r *replay) left() map[enforcer.LeaseID]time.Duration {
	for id, until := range r.doubts {
		r.doubts[id] = min(recoverWithin, max(0, until-r.present-presentEvery))
	}
	return r.doubts
}

// doubted takes note of until when, by the time that there was an agent, the holder of an unconfirmed lease may show
// itself.
func (r *replay) doubted(l *enforcer.Lease, at time.Time) {
	if l.Unconfirmed {
		r.doubts[l.ID] = l.ExpiresAt.Sub(at) + r.present
	} else if len(r.doubts) > 0 {
		delete(r.doubts, l.ID)
	}
}

func (r *replay) held(id enforcer.LeaseID) *enforcer.Lease {
	l, _ := r.core.Lease(id)
	return l
}

// apply applies one record.
func (r *replay) apply(b []byte) error {
	if own(b) {
		return r.applyOwn(b)
	}
	var t readRecord
	if err := decodeRecord(b, r.same, &t); err != nil {
		return err
	}
	return r.applyEvent(&t)
}

// own reports whether a record is the desk's own, and no event.
func own(b []byte) bool { return len(b) > 0 && (b[0] == metaVersion || b[0] == markVersion) }

func (r *replay) applyOwn(b []byte) (err error) {
	if b[0] == metaVersion {
		r.was = Place{}
		err := json.Unmarshal(b[1:], &r.was)
		r.present += max(0, r.was.Present)
		r.was.Present = 0
		return err
	}
	r.mark, err = decodeMark(b)
	return err
}

// applyEvent applies what decodeRecord has read.
func (r *replay) applyEvent(t *readRecord) error {
	if err := t.follows(r.held); err != nil {
		return err
	}
	switch t.kind {
	case enforcer.EventGranted, enforcer.EventRenewed, enforcer.EventChanged:
		r.doubted(t.lease, t.at)
		if !r.ready.IsZero() { // what outlives the host is read first, and ends at no time or at a date
			t.lease.ExpiresAt = t.lease.Resumed(r.ready, recoverWithin)
		}
	default:
	}
	ev := t.event()
	if !r.core.Restore(&ev) {
		return nil
	}
	if l := t.lease; l != nil && (l.Lifetime != enforcer.LifetimeTTL || l.Holder.Labels != nil || l.Data != nil) {
		r.mixed = true
	}
	if r.each != nil {
		r.each(t.kind, t.lease)
	}
	return nil
}
