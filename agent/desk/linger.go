package desk

import (
	"slices"
	"time"

	"github.com/usher-agent/usher/enforcer"
)

// lingers is the event by which slots linger.
func lingers(x *enforcer.Linger) enforcer.Event {
	return enforcer.Event{Kind: enforcer.EventLingers, At: x.Since, Linger: x}
}

// linger writes slots that linger: the lease that was released, how many slots, whose they are, for how long, and by
// which rule.
func (w *recordWriter) linger(x *enforcer.Linger) {
	w.Bytes = append(w.Bytes, x.Lease[:]...)
	w.Text(x.Item.Pool)
	w.amount(x.Item)
	w.Uint(uint64(x.Who.UID))
	w.Text(x.Who.Credential)
	w.Time(x.Since)
	w.Time(x.Until)
	w.Text(x.Rule)
}

func (r *recordReader) linger() *enforcer.Linger {
	x := &enforcer.Linger{}
	r.Into(x.Lease[:])
	if x.Item = r.item(); x.Item.N < 1 {
		r.Fail() // nothing lingers
	}
	x.Who = enforcer.User{UID: uint32(r.Uint()), Credential: r.Text()}
	x.Since, x.Until = r.Time(), r.Time()
	x.Rule = r.Text()
	return x
}

// lingerOver writes the end of what lingers of one lease in one pool.
func (w *recordWriter) lingerOver(x *enforcer.Linger, by enforcer.Cause) {
	w.Bytes = append(w.Bytes, x.Lease[:]...)
	w.Text(x.Item.Pool)
	w.Uint(uint64(max(0, slices.Index(recordCauses, by))))
}

func (r *recordReader) lingerOver() (*enforcer.Linger, enforcer.Cause) {
	x := &enforcer.Linger{}
	r.Into(x.Lease[:])
	x.Item.Pool = r.Text()
	return x, pick(r, recordCauses)
}

// resumeLingers has what a journal says lingers do so no longer than it was to.
func (r *replay) resumeLingers(now time.Time) {
	for _, x := range r.core.Lingers() {
		if is := x.Resumed(now); is != x {
			r.core.Apply(enforcer.Event{Kind: enforcer.EventLingerOver, At: now, Linger: x,
				Cause: enforcer.CauseExpired})
			r.core.Apply(lingers(is))
		}
	}
}
