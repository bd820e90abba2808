package enforcer

import (
	"bytes"
	"cmp"
	"fmt"
	"slices"
	"time"
)

// Bounds of hold-offs.
const (
	MinHoldOff  = time.Second
	MaxHoldOff  = 7 * 24 * time.Hour
	maxHoldOffs = 256 // in force at one time, where Options state nothing else
)

// HoldOff keeps the holder of a lease that an admin has released by force from taking the slots again: until Until, it
// is granted no slots of the pools that the lease was of. What it holds besides stays, and draws from meters are not
// concerned. A HoldOff never changes once made.
type HoldOff struct {
	Lease LeaseID // the lease that was released, by which the hold-off is named
	Pools []string
	// Of are the holders, as far as they are an identity: the user or, where the kernel tells of no user, each process.
	Of           []Caller
	Since, Until time.Time
}

// Who names the holder for people.
func (h *HoldOff) Who() User { return h.Of[0].Who() }

// Resumed returns the hold-off after a recovery at the instant now. It goes on while the agent is away. It lasts no
// longer than it was to last, whatever clock had set its end.
func (h *HoldOff) Resumed(now time.Time) *HoldOff {
	if left := min(h.Until.Sub(h.Since), MaxHoldOff); h.Until.Sub(now) > left {
		return &HoldOff{Lease: h.Lease, Pools: h.Pools, Of: h.Of, Since: now, Until: now.Add(left)}
	}
	return h
}

// Concerns reports whether a caller is one of the holders.
func (h *HoldOff) Concerns(c Caller) bool {
	return slices.ContainsFunc(h.Of, func(o Caller) bool { return o.SameUser(c) || o.SameProcess(c) })
}

// pool returns the first of the items whose pool the hold-off is of; empty: there is none.
func (h *HoldOff) pool(items []Item) string {
	for _, it := range items {
		if slices.Contains(h.Pools, it.Pool) {
			return it.Pool
		}
	}
	return ""
}

// ousted returns the holders of a lease as far as they are an identity; none: the kernel tells neither the user nor the
// process.
func ousted(l *Lease) (of []Caller) {
	add := func(h *Holder) {
		c := Caller{UID: h.UID, Credential: h.Credential}
		if h.Who().nobody() {
			if h.process() == "" {
				return
			}
			c.PID, c.Start, c.Inode = h.PID, h.Start, h.Inode
		}
		if !slices.Contains(of, c) {
			of = append(of, c)
		}
	}
	add(l.Holder)
	for _, o := range l.Others {
		add(o)
	}
	return of
}

// holdOff is a HoldOff in force.
type holdOff struct {
	*HoldOff
	at int // in the timetable of their ends
}

func (h *holdOff) due() time.Time { return h.Until }
func (h *holdOff) place() *int    { return &h.at }

// holdOffs are the hold-offs in force.
type holdOffs struct {
	of   map[LeaseID]*holdOff
	by   map[User][]*holdOff // each under every user that it is of
	ends timetable[*holdOff]
}

// heldOff denies slots to a holder that is held off; nil: it is not. Of several hold-offs it tells of the one that ends
// last.
func (e *Enforcer) heldOff(c Caller, items []Item, now time.Time) *Denial {
	if len(e.holdOffs.of) == 0 {
		return nil
	}
	var last *holdOff
	for _, h := range e.holdOffs.by[c.Who()] {
		if now.Before(h.Until) && (last == nil || h.Until.After(last.Until)) && h.pool(items) != "" && h.Concerns(c) {
			last = h
		}
	}
	if last == nil {
		return nil
	}
	return last.denial(c, last.pool(items))
}

func (h *HoldOff) denial(c Caller, pool string) *Denial {
	return &Denial{Code: HeldOff, Pool: pool, Next: h.Until,
		Detail: fmt.Sprintf("pool %s: %s is held off until %s: an admin released its lease %s by force", pool, c.Who(),
			stamp(h.Until), h.Lease),
		Hint: fmt.Sprintf("try again then, or have an admin lift it: `usher release %s --force --hold-off 0`", h.Lease)}
}

// holdOff decides a release that states a hold-off. Where the lease was released before, it changes the hold-off, or
// lifts it.
func (r *Release) holdOff(e *Enforcer, now time.Time) Decision {
	span := *r.HoldOff
	switch {
	case !r.Force:
		return Decision{Denial: bad("hold_off_seconds",
			"hold_off_seconds goes with force: a holder that gives its lease back is not held off")}
	case span != 0 && (span < MinHoldOff || span > MaxHoldOff):
		return Decision{Denial: bad("hold_off_seconds",
			"hold_off_seconds is %v: give from %v to %v, or 0 for none", span.Seconds(), MinHoldOff.Seconds(),
			MaxHoldOff.Seconds())}
	}
	was := e.holdOffs.of[r.ID]
	h, d := e.find(r.ID, &r.Caller, r.Owner, true, now)
	if d != nil && was == nil {
		return Decision{Denial: d}
	}
	var dec Decision
	hold := HoldOff{Lease: r.ID, Since: now, Until: now.Add(span)}
	if d == nil {
		hold.Of = ousted(h.Lease)
		for _, it := range h.Items {
			hold.Pools = append(hold.Pools, it.Pool)
		}
	} else {
		hold.Of, hold.Pools = was.Of, was.Pools
	}
	switch {
	case span == 0 && was != nil:
		dec.Events = append(dec.Events, Event{Kind: EventLifted, At: now, HoldOff: was.HoldOff, Cause: CauseReleased})
	case span == 0:
	case len(hold.Of) == 0:
		return Decision{Denial: bad("hold_off_seconds",
			"the kernel tells the agent neither which user nor which process holds lease %s, so that nobody can be "+
				"held off; release it without a hold-off", r.ID)}
	case was == nil && len(e.holdOffs.of) >= e.options.MaxHoldOffs:
		return Decision{Denial: &Denial{Code: RateLimited,
			Detail: fmt.Sprintf("%d hold-offs are in force, the most there may be", len(e.holdOffs.of)),
			Hint:   "lift one that `usher pools` lists, or release the lease without a hold-off"}}
	default:
		dec.Events = append(dec.Events, Event{Kind: EventHeldOff, At: now, HoldOff: &hold})
	}
	if d == nil {
		dec.Lease = h.Lease
		dec.Events = append(dec.Events, Event{Kind: EventEnded, At: now, Lease: h.Lease,
			Cause: cmp.Or(r.Cause, CauseForced)})
	}
	if span != 0 {
		dec.Events = append(dec.Events, e.oust(&hold, now)...)
	}
	return dec
}

// oust turns away the waiters that a hold-off concerns.
func (e *Enforcer) oust(hold *HoldOff, now time.Time) (out []Event) {
	var away []*waiting
	for _, w := range e.waiters {
		if !w.Draws && hold.pool(w.Items) != "" && hold.Concerns(w.Request.Caller) {
			away = append(away, w)
		}
	}
	slices.SortFunc(away, func(a, b *waiting) int { return cmp.Compare(a.turn, b.turn) })
	for _, w := range away {
		out = append(out, e.turnedAway(w, now, CauseDenied, hold.denial(w.Request.Caller, hold.pool(w.Items)))...)
	}
	return out
}

// applyHeldOff puts a hold-off in force, in the place of the one of the same lease.
func (e *Enforcer) applyHeldOff(hold *HoldOff) {
	e.applyLifted(hold)
	if e.holdOffs.of == nil {
		e.holdOffs.of, e.holdOffs.by = map[LeaseID]*holdOff{}, map[User][]*holdOff{}
	}
	h := &holdOff{HoldOff: hold}
	e.holdOffs.of[h.Lease] = h
	e.holdOffs.ends.add(h)
	for _, c := range h.Of {
		if u := c.Who(); !slices.Contains(e.holdOffs.by[u], h) {
			e.holdOffs.by[u] = append(e.holdOffs.by[u], h)
		}
	}
}

func (e *Enforcer) applyLifted(hold *HoldOff) {
	h := e.holdOffs.of[hold.Lease]
	if h == nil {
		return
	}
	delete(e.holdOffs.of, h.Lease)
	e.holdOffs.ends.remove(h)
	for _, c := range h.Of {
		u := c.Who()
		left := slices.DeleteFunc(e.holdOffs.by[u], func(o *holdOff) bool { return o == h })
		if e.holdOffs.by[u] = left; len(left) == 0 {
			delete(e.holdOffs.by, u)
		}
	}
}

// stepHoldOffs has every hold-off last for as long as it was to last when the time is set.
func (e *Enforcer) stepHoldOffs(by time.Duration) {
	for _, h := range e.holdOffs.of { // all by as much, so that their order stays
		moved := *h.HoldOff
		moved.Since, moved.Until = moved.Since.Add(by), moved.Until.Add(by)
		h.HoldOff = &moved
	}
}

// liftDue lifts the hold-offs whose time is over by now.
func (e *Enforcer) liftDue(now time.Time, most int) (out []Event) {
	for _, h := range e.holdOffs.ends.until(now, most) {
		out = append(out, Event{Kind: EventLifted, At: now, HoldOff: h.HoldOff, Cause: CauseExpired})
	}
	return out
}

// HoldOffs returns the hold-offs in force, the one that ends first before the others. Apply of an EventHeldOff of each
// makes the same state.
func (e *Enforcer) HoldOffs() []*HoldOff {
	if len(e.holdOffs.of) == 0 {
		return nil
	}
	out := make([]*HoldOff, 0, len(e.holdOffs.of))
	for _, h := range e.holdOffs.of {
		out = append(out, h.HoldOff)
	}
	slices.SortFunc(out, func(a, b *HoldOff) int {
		return cmp.Or(a.Until.Compare(b.Until), bytes.Compare(a.Lease[:], b.Lease[:]))
	})
	return out
}

// holdOffsAmong takes those of the hold-offs in force, in their order, that are of the pool.
func (p *PoolStatus) holdOffsAmong(all []*HoldOff) {
	for _, h := range all {
		if !p.Meter && slices.Contains(h.Pools, p.Name) {
			p.HoldOffs = append(p.HoldOffs, h)
		}
	}
}
