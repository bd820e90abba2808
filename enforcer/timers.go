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

// timing is the timers that run, by when they end.
type timing struct {
	timetable[*timer]
	latest time.Time // none of them ends later
	spare  *timer    // one that is over, for the next
}

// begin runs a timer. One that ends after all others, as most do, has its place at once.
func (x *timing) begin(t timer) *timer {
	is := x.spare
	if is == nil {
		is = &timer{}
	}
	x.spare = nil
	*is = t
	if len(x.heap) > 0 && t.ends.Before(x.latest) {
		x.add(is)
		return is
	}
	x.latest = t.ends
	x.heap.Push(is)
	return is
}

// end stops a timer, which nobody looks at any more.
func (x *timing) end(t *timer) {
	x.remove(t)
	*t = timer{}
	x.spare = t
}

// timeLease starts, or changes, the timer of a lease as the rules say; used is when the lease was last renewed.
func (e *Enforcer) timeLease(h *held, used time.Time) {
	was := h.timer
	if e.policies == nil || h.Lifetime == LifetimeBorrow {
		e.untime(h)
		return
	}
	t := timer{h: h, began: h.AcquiredAt, used: used}
	if was != nil {
		t.began = was.began
	}
	for _, it := range h.Items {
		s := e.pools[it.Pool].rules.says(h.shared, h.Holder)
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
	h.timer = e.timing.begin(t)
}

func (t *timer) sooner(at time.Time, by *Policy, cause Cause) {
	if t.rule == nil || at.Before(t.ends) {
		t.ends, t.rule, t.cause = at, by, cause
	}
}

func (e *Enforcer) untime(h *held) {
	if h.timer != nil {
		e.timing.end(h.timer)
		h.timer = nil
	}
}

// renewed takes note that a lease's holder has renewed it.
func (e *Enforcer) renewed(h *held, at time.Time) {
	if h.timer != nil {
		e.timeLease(h, at)
	}
}

// timeAll sets all timers by new rules. Of a lease that had none its last renewal is not known, and counts as now.
func (e *Enforcer) timeAll(now time.Time) {
	if e.policies == nil && len(e.timing.heap) == 0 {
		return
	}
	for _, h := range e.leases.All {
		used := now
		if h.timer != nil {
			used = h.timer.used
		}
		e.timeLease(h, used)
	}
}

// idles reports whether a lease ends by itself unless it is renewed, by a rule.
func (e *Enforcer) idles(h *held) bool {
	if h.timer == nil {
		return false
	}
	for _, it := range h.Items {
		if s := e.pools[it.Pool].rules.says(h.shared, h.Holder); s != nil && s.idle != nil {
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
	e.timing.latest = e.timing.latest.Add(by)
}
