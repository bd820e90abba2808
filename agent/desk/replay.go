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
	was   Place                // where the runtime's leases were granted
	mark  enforcer.Mark        // as it was kept last
	each  func(enforcer.Event) // told of what was applied; nil: nobody is
	ready time.Time            // when the agent will be ready, about; zero: what ends by itself keeps its end

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
func (r *replay) doubted(ev enforcer.Event) {
	if l := ev.Lease; l.Unconfirmed {
		r.doubts[l.ID] = l.ExpiresAt.Sub(ev.At) + r.present
	} else {
		delete(r.doubts, l.ID)
	}
}

func (r *replay) held(id enforcer.LeaseID) *enforcer.Lease {
	l, _ := r.core.Lease(id)
	return l
}

// apply applies one record.
func (r *replay) apply(b []byte) error {
	if len(b) > 0 && b[0] == metaVersion {
		r.was = Place{}
		err := json.Unmarshal(b[1:], &r.was)
		r.present += max(0, r.was.Present)
		r.was.Present = 0
		return err
	}
	if len(b) > 0 && b[0] == markVersion {
		var err error
		r.mark, err = decodeMark(b)
		return err
	}
	ev, err := decodeEvent(b, r.held, r.same)
	if err != nil {
		return err
	}
	switch ev.Kind {
	case enforcer.EventGranted, enforcer.EventRenewed, enforcer.EventChanged:
		r.doubted(ev)
		if !r.ready.IsZero() { // what outlives the host is read first, and ends at no time or at a date
			ev.Lease.ExpiresAt = ev.Lease.Resumed(r.ready, recoverWithin)
		}
	default:
	}
	if ev.Kind == enforcer.EventGranted {
		if _, held := r.core.Lease(ev.Lease.ID); held {
			return nil // a snapshot's and a record's
		}
	}
	r.core.Apply(ev)
	if r.each != nil {
		r.each(ev)
	}
	return nil
}
