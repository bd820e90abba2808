package enforcer

import "time"

// timer ends a lease by a rule of the site: so long after its grant, or after its holder has last renewed it.
type timer struct {
	h           *held
	began, used time.Time
	ends        time.Time
	rule        *Policy
	cause       Cause
	at          int // in the timetable
}

func (t *timer) due() time.Time { return t.ends }
func (t *timer) place() *int    { return &t.at }

// timeLease starts, or changes, the timer of a lease as the rules say; used is when the lease was last renewed.
func (e *Enforcer) timeLease(h *held, used time.Time) {
	was := e.timers[h.ID]
	if e.policies == nil || h.Lifetime == LifetimeBorrow {
		e.untime(h)
		return
	}
	t := &timer{h: h, began: h.AcquiredAt, used: used}
	if was != nil {
		t.began = was.began
	}
	for _, it := range h.Items {
		s := e.pools[it.Pool].rules.stance(h.Holder)
		if s == nil {
			continue
		}
		if s.hold != nil {
			t.sooner(t.began.Add(s.hold.MaxHold), s.hold, CauseMaxHold)
		}
		if s.idle != nil {
			t.sooner(t.used.Add(s.idle.IdleTimeout), s.idle, CauseIdle)
		}
	}
	e.untime(h)
	if t.rule == nil {
		return
	}
	if e.timers == nil {
		e.timers = map[LeaseID]*timer{}
	}
	e.timers[h.ID] = t
	e.timing.add(t)
}

func (t *timer) sooner(at time.Time, by *Policy, cause Cause) {
	if t.rule == nil || at.Before(t.ends) {
		t.ends, t.rule, t.cause = at, by, cause
	}
}

func (e *Enforcer) untime(h *held) {
	if t := e.timers[h.ID]; t != nil {
		e.timing.remove(t)
		delete(e.timers, h.ID)
	}
}

// renewed takes note that a lease's holder has renewed it.
func (e *Enforcer) renewed(h *held, at time.Time) {
	if e.timers[h.ID] != nil {
		e.timeLease(h, at)
	}
}

// timeAll sets all timers by new rules. Of a lease that had none its last renewal is not known, and counts as now.
func (e *Enforcer) timeAll(now time.Time) {
	if e.policies == nil && len(e.timers) == 0 {
		return
	}
	for _, h := range e.leases.All {
		used := now
		if t := e.timers[h.ID]; t != nil {
			used = t.used
		}
		e.timeLease(h, used)
	}
}

// idles reports whether a lease ends by itself unless it is renewed, by a rule.
func (e *Enforcer) idles(h *held) bool {
	if e.timers[h.ID] == nil {
		return false
	}
	for _, it := range h.Items {
		if s := e.pools[it.Pool].rules.stance(h.Holder); s != nil && s.idle != nil {
			return true
		}
	}
	return false
}

// stepTimers has every timer run for as long as it was to run when the time is set.
func (e *Enforcer) stepTimers(by time.Duration) {
	for _, t := range e.timing.heap { // all by as much, so that their order stays
		t.began, t.used, t.ends = t.began.Add(by), t.used.Add(by), t.ends.Add(by)
	}
}
