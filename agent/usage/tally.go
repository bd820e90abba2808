package usage

import (
	"sync"
	"sync/atomic"
	"time"

	"github.com/usher-agent/usher/client/wire"
	"github.com/usher-agent/usher/enforcer"
)

// place is a pool in an hour.
type place struct {
	hour time.Time // its beginning
	pool string
}

// holder tells who was denied, of one pool. It is kept in memory alone, for as long as the window.
type holder struct {
	pool  string
	user  enforcer.User
	pid   int32 // with start, of callers that are no user
	start uint64
}

// denial is acquires of one holder that were denied within the same moment, whose end is not known.
type denial struct {
	of    holder
	at    time.Time
	hour  time.Time
	n     int64
	ended bool
}

// tally is what is counted beside the core. Its lock is held for a sum at a time.
type tally struct {
	open atomic.Int64 // denials whose end is not known

	mu      sync.Mutex // guards all below; a leaf
	sums    map[place]*wire.PoolUsage
	dropped int64
	pending []*denial // the oldest first
	of      map[holder][]*denial
	users   map[userPlace]*userSums // where use is counted by user
}

// moment is how far apart denials of a holder may be that are looked at as one.
const moment = 30 * time.Second

func (t *tally) sum(at time.Time, pool string) *wire.PoolUsage {
	k := place{at.UTC().Truncate(time.Hour), pool}
	s := t.sums[k]
	switch {
	case s != nil:
		return s
	case t.sums == nil:
		t.sums = map[place]*wire.PoolUsage{}
	case len(t.sums) >= 4*mostPools:
		t.dropped++
		return &wire.PoolUsage{}
	}
	s = &wire.PoolUsage{Limit: new(int64), Budget: new(int64)}
	t.sums[k] = s
	return s
}

// take returns the sums since the last call, with the denials whose window is over by now as true ones.
func (t *tally) take(now time.Time) (out map[place]wire.PoolUsage, dropped int64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for len(t.pending) > 0 && (t.pending[0].ended || !now.Before(t.pending[0].at.Add(window)) ||
		now.Before(t.pending[0].at)) { // the clock was put back: it is over, too
		d := t.pending[0]
		t.pending = t.pending[1:]
		if !d.ended {
			t.sum(d.hour, d.of.pool).TrueDenials += d.n
			t.end(d)
		}
	}
	out = make(map[place]wire.PoolUsage, len(t.sums))
	for k, s := range t.sums {
		out[k] = *s
	}
	dropped = t.dropped
	t.sums, t.dropped = nil, 0
	return out, dropped
}

// end forgets a denial whose end is known, and its holder's place for it. t.mu is held.
func (t *tally) end(d *denial) {
	d.ended = true
	left := t.of[d.of][:0]
	for _, o := range t.of[d.of] {
		if !o.ended {
			left = append(left, o)
		}
	}
	if len(left) == 0 {
		delete(t.of, d.of)
	} else {
		t.of[d.of] = left
	}
	t.open.Add(-1)
}

// wanting are the codes of denials for want of slots or draws: they alone are true or false.
func wanting(c enforcer.DenialCode) bool {
	switch c {
	case enforcer.NoSlots, enforcer.NotShared, enforcer.MeterEmpty, enforcer.DeniedByPolicy:
		return true
	default:
		return false
	}
}

func holderOf(c *enforcer.Caller, pool string) holder {
	h := holder{pool: pool, user: c.Who()}
	if c.UID == enforcer.Nobody && c.Credential == "" {
		h.pid, h.start = c.PID, c.Start
	}
	return h
}

// Denied counts an acquire that was denied, at licence time now. It waits for nothing.
func (u *Usage) Denied(r *enforcer.Acquire, d *enforcer.Denial, now time.Time) {
	pool := "" // a name that the caller has chosen is none
	if wanting(d.Code) || d.Code == enforcer.HeldOff {
		pool = d.Pool
	}
	t := &u.tally
	t.mu.Lock()
	defer t.mu.Unlock()
	s := t.sum(now, pool)
	if s.Denials == nil {
		s.Denials = map[string]int64{}
	}
	s.Denials[string(d.Code)]++
	if u.people.counts() {
		t.byUser(now, pool, r.Caller.Who()).denials++
	}
	switch {
	case !wanting(d.Code):
		return
	case d.Idle > 0: // another host of the site lets it lie
		s.FalseDenials++
		return
	}
	h := holderOf(&r.Caller, pool)
	if all := t.of[h]; len(all) > 0 {
		if l := all[len(all)-1]; now.Sub(l.at) < moment && l.hour.Equal(now.UTC().Truncate(time.Hour)) {
			l.n++
			return
		}
	}
	if len(t.pending) >= mostPending { // its end stays unknown
		return
	}
	if t.of == nil {
		t.of = map[holder][]*denial{}
	}
	x := &denial{of: h, at: now, hour: now.UTC().Truncate(time.Hour), n: 1}
	t.pending = append(t.pending, x)
	t.of[h] = append(t.of[h], x)
	t.open.Add(1)
}

// Observe counts waits and draws, and has grants tell false denials. It is called under the desk's lock.
func (u *Usage) Observe(ev *enforcer.Event) {
	t := &u.tally
	switch ev.Kind {
	case enforcer.EventGranted:
		if ev.Waiter == nil && t.open.Load() == 0 {
			return
		}
	case enforcer.EventLeft:
		if ev.Waiter == nil {
			return
		}
	case enforcer.EventDrawn:
	default:
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if ev.Waiter != nil {
		t.waited(ev.Waiter, ev.At)
	}
	if ev.Lease == nil || ev.Kind == enforcer.EventLeft {
		return
	}
	counts := ev.Kind == enforcer.EventDrawn && u.people.counts()
	for _, it := range ev.Lease.Items {
		if ev.Kind == enforcer.EventDrawn {
			s := t.sum(ev.At, it.Pool)
			s.Drawn += it.N
			s.Meter = true
		}
		if counts {
			t.byUser(ev.At, it.Pool, ev.Lease.Holder.Who()).drawn += it.N
		}
		if t.open.Load() > 0 {
			t.granted(holderOf(&ev.Lease.Holder.Caller, it.Pool), ev.At)
		}
	}
}

// waited counts an acquire that waits no more.
func (t *tally) waited(w *enforcer.Waiter, now time.Time) {
	if len(w.Items) == 0 {
		return
	}
	s, d := t.sum(now, w.Items[0].Pool), max(0, now.Sub(w.Since)).Seconds()
	s.Waits++
	s.WaitSeconds += d
	s.LongestWait = max(s.LongestWait, tidy(d))
	s.Meter = s.Meter || w.Draws
}

// granted makes the holder's denials false ones, so far as they are no older than the window.
func (t *tally) granted(h holder, now time.Time) {
	for _, d := range append([]*denial(nil), t.of[h]...) {
		if d.ended {
			continue
		}
		if now.Before(d.at.Add(window)) {
			t.sum(d.hour, h.pool).FalseDenials += d.n
		} else {
			t.sum(d.hour, h.pool).TrueDenials += d.n
		}
		t.end(d)
	}
}
