package enforcer

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"time"
)

// meter is the draws of one meter in a period.
type meter struct {
	drawn  int64
	period time.Time // its beginning; zero: the meter never resets
}

// Start returns the beginning of the period at the instant now: UTC, weeks from Monday; zero where there are no
// periods.
func (r Resets) Start(now time.Time) time.Time {
	now = now.UTC()
	day := time.Date(now.Year(), now.Month(), now.Day(), 0, 0, 0, 0, time.UTC)
	switch r {
	case ResetsWeekly:
		return day.AddDate(0, 0, -(int(day.Weekday())+6)%7)
	case ResetsMonthly:
		return day.AddDate(0, 0, 1-day.Day())
	default:
		return zeroTime
	}
}

// end returns the beginning of the period after the one at the instant now; zero: there is none.
func (r Resets) end(now time.Time) time.Time {
	switch r {
	case ResetsWeekly:
		return r.Start(now).AddDate(0, 0, 7)
	case ResetsMonthly:
		return r.Start(now).AddDate(0, 1, 0)
	default:
		return zeroTime
	}
}

// draw decides an acquire whose items are meters.
func (r *Acquire) draw(e *Enforcer, v *Verdict, items []Item, token *ClientToken, now time.Time) Decision {
	if !e.options.Durable {
		return Decision{Denial: notDurable(items[0].Pool)}
	}
	if r.Lifetime != "" && r.Lifetime != LifetimeDraw {
		return Decision{Denial: bad("lifetime",
			"meter %s: a draw never comes back, so its lifetime is draw, not %s; leave lifetime out", items[0].Pool,
			r.Lifetime)}
	}
	granted, draws, d := e.fitDraws(r, v, items, nil, now)
	if d != nil {
		return r.wait(e, items, token, d, now)
	}
	return e.grantDraws(r, granted, draws, token, now)
}

// fitDraws returns what the request gets of each meter under the verdict and the totals after that, or why it gets
// nothing: what waiting cannot help comes before what it may. w is its place in the queue; nil: it has just come.
func (e *Enforcer) fitDraws(r *Acquire, v *Verdict, items []Item, w *waiting, now time.Time) (granted []Item,
	draws []Draw, why *Denial) {
	for _, it := range items {
		g, ok := v.Meters[it.Pool]
		switch {
		case !ok && w == nil:
			return nil, nil, bad("items",
				"one lease cannot hold pool %s and meter %s: slots come back, draws do not; acquire them one "+
					"after the other", it.Pool, items[0].Pool)
		case !ok:
			return nil, nil, &Denial{Code: PoolUnknown, Field: "pool", Pool: it.Pool, Hint: v.knownPools(),
				Detail: fmt.Sprintf("meter %q is no longer in the licence", it.Pool)}
		}
		if it.Of > 1 {
			return nil, nil, bad("of", "meter %s: draws have no parts; leave of out", it.Pool)
		}
		if v.Paused != "" {
			return nil, nil, paused("meter", it.Pool, v.Paused)
		}
		n, after, d := e.fitDraw(r, g, it, w, now)
		switch {
		case d != nil && !d.MayGrow:
			return nil, nil, d
		case d != nil && why == nil:
			why = d
		}
		granted, draws = append(granted, Item{Pool: it.Pool, N: n}), append(draws, after...)
	}
	if why != nil {
		return nil, nil, why
	}
	return granted, draws, nil
}

// fitDraw is fitDraws of one meter.
func (e *Enforcer) fitDraw(r *Acquire, g MeterGrant, it Item, w *waiting, now time.Time) (n int64, draws []Draw,
	why *Denial) {
	if why := e.verdict.Withheld.Draws; why != "" {
		return 0, nil, withheld("meter", it.Pool, why)
	}
	if g.NotShared != "" && g.Budget == 0 {
		return 0, nil, notShared("meter", it.Pool, g.NotShared, g.Cut)
	}
	s, least := e.stand(g, now), cmp.Or(r.MinN, it.N)
	left := s.left()
	if left < least {
		return 0, nil, e.meterEmpty(it, least, g, s, now)
	}
	if q := e.forDraws[it.Pool]; q.ahead(w) {
		return 0, nil, q.denial(it.Pool, s)
	}
	n = min(it.N, left)
	return n, s.draw(n), nil
}

// grantDraws is the decision that draws what a request gets.
func (e *Enforcer) grantDraws(r *Acquire, items []Item, draws []Draw, token *ClientToken, now time.Time) Decision {
	holder := r.holder(e.sharedBy(r))
	l := &Lease{ID: r.ID, Items: items, Lifetime: LifetimeDraw, AcquiredAt: now, Holder: holder, Token: token,
		Data: r.Data}
	return Decision{Lease: l, Events: []Event{{Kind: EventDrawn, At: now, Lease: l, Draws: draws}}}
}

// denial denies draws of a meter because others wait for them.
func (q *queue) denial(name string, s stand) *Denial {
	left := Limit(s.left())
	if s.room() == Unlimited {
		left = Unlimited
	}
	return &Denial{Code: MeterEmpty, Pool: name, Limit: s.room(), InUse: s.drawn(), HasUsage: true, MayGrow: true,
		Detail: fmt.Sprintf("meter %s: %s draws are left, and %d acquires wait for draws of it", name, left,
			q.Len()),
		Hint: "wait too (wait_seconds), or try again later"}
}

// next returns when a meter starts again at the latest. early says that the next period would have begun already, were
// the time proved.
func (e *Enforcer) next(r Resets, now time.Time) (at time.Time, early bool) {
	counted := e.counted(now)
	at = r.end(counted)
	if !at.IsZero() && !e.sureAt.IsZero() {
		return e.sureAt, true
	}
	if at.IsZero() || at.After(now) {
		return at, false
	}
	return now.Add(min(Leap, at.Sub(counted))), true
}

// meterEmpty denies draws of a meter of which too few are left for the least that the request takes.
func (e *Enforcer) meterEmpty(it Item, least int64, g MeterGrant, s stand, now time.Time) *Denial {
	limit, left := s.room(), s.left()
	out := &Denial{Code: MeterEmpty, Pool: it.Pool, Limit: limit, InUse: s.drawn(), HasUsage: true,
		Detail: fmt.Sprintf("meter %s: %d of %s draws are left, and the request is for %d", it.Pool, left, limit, it.N),
		Hint:   "draw less, or have the licence extended"}
	var early bool
	switch out.Next, early = e.next(g.Resets, now); {
	case out.Next.IsZero() || !g.Taken && !limit.Covers(it.N) || g.Taken && !g.Most.Covers(it.N):
	case early && !e.sureAt.IsZero():
		out.Hint = fmt.Sprintf(
			"the meter may start again once the first clock of this agent is proved, at %s at the latest; signed "+
				"evidence proves it sooner: see `usher doctor`", stamp(out.Next))
	case early:
		out.Hint = fmt.Sprintf(
			"the clock is %s ahead of the latest time that is proved, and the meter starts again once this is proved "+
				"too, at %s at the latest; "+
				"signed evidence proves it sooner: see `usher doctor`", Span(e.unproved.Round(time.Minute)),
			stamp(out.Next))
	default:
		out.Hint = fmt.Sprintf("the meter starts again at %s", stamp(out.Next))
	}
	if !g.Taken || limit == g.Most {
		return out
	}
	out.Detail = fmt.Sprintf(
		"meter %s: %d of the %s draws that this agent has taken of the site's %s are left, and the request is for %d",
		it.Pool, left, limit, g.Most, it.N)
	if limit == 0 {
		out.Detail = fmt.Sprintf("meter %s: this agent has taken none of the site's %s draws yet, and the request is "+
			"for %d", it.Pool, g.Most, it.N)
	}
	if out.MayGrow = g.Most == Unlimited || least <= int64(g.Most)-s.drawn(); out.MayGrow {
		out.Site, out.spent = g.Most, out.Hint
		out.Hint = "wait (wait_seconds): the agent takes more; or try again in a moment"
	}
	return out
}

func (e *Enforcer) meterStatus(name string, g MeterGrant, now time.Time) PoolStatus {
	s := PoolStatus{Name: name, Meter: true, Limit: g.Limit, Overage: g.Overage, Budget: g.Budget, Scope: g.Scope,
		Unit: g.Unit, NotShared: g.NotShared}
	stand := e.stand(g, now)
	if stand.room() == 0 { // draws taken upstream for another period are no good in this one
		s.Budget, s.Overage = 0, 0
	}
	s.InUse = stand.drawn()
	s.Peak = s.InUse
	if q := e.forDraws[name]; q != nil {
		s.Waiting = q.waiting
	}
	return s
}

func (r *Adjust) decide(e *Enforcer, now time.Time) Decision {
	switch {
	case !r.Caller.Admin:
		return deny(Forbidden, "adjusting a meter is for admins")
	case r.Drawn < 0 || r.Drawn > MaxN:
		return Decision{Denial: bad("drawn", "drawn is %d: give from 0 to %d", r.Drawn, int64(MaxN))}
	}
	g, denial := e.at(now).meter(r.Pool)
	if denial != nil {
		return Decision{Denial: denial}
	}
	return Decision{Events: []Event{{Kind: EventSet, At: now, Draws: e.stand(g, now).set(r.Drawn)}}}
}

// meter returns a meter of the licence.
func (v *Verdict) meter(name string) (MeterGrant, *Denial) {
	if v == nil {
		return MeterGrant{}, v.deny("")
	}
	g, ok := v.Meters[name]
	if !ok {
		return g, &Denial{Code: PoolUnknown, Field: "pool", Pool: name,
			Detail: fmt.Sprintf("there is no meter %q in the licence", name), Hint: v.knownPools()}
	}
	return g, nil
}

func (r *Shift) decide(e *Enforcer, now time.Time) Decision {
	if r.By < -MaxN || r.By > MaxN {
		return Decision{Denial: bad("by", "by is %d: give from -%d to %d", r.By, int64(MaxN), int64(MaxN))}
	}
	if d := e.at(now).deny(""); d != nil {
		return Decision{Denial: d}
	}
	g, denial := e.at(now).meter(r.Pool)
	switch {
	case denial != nil:
		return Decision{Denial: denial}
	case !e.options.Durable:
		return Decision{Denial: notDurable(r.Pool)}
	case e.verdict.Withheld.Draws != "":
		return Decision{Denial: withheld("meter", r.Pool, e.verdict.Withheld.Draws)}
	case !r.Caller.Admin && !g.Adjustable:
		return Decision{Denial: &Denial{Code: Forbidden, Pool: r.Pool,
			Detail: fmt.Sprintf("meter %s: the licence does not let callers adjust it; only admins may", r.Pool),
			Hint:   "ask as an admin, or have the licence say that the meter is adjustable"}}
	case r.By > 0 && e.at(now).Paused != "":
		return Decision{Denial: paused("meter", r.Pool, e.at(now).Paused)}
	case g.NotShared != "" && g.Budget == 0:
		return Decision{Denial: notShared("meter", r.Pool, g.NotShared, g.Cut)}
	}
	s := e.stand(g, now)
	switch {
	case -r.By > s.drawn():
		return Decision{Denial: &Denial{Code: BadRequest, Field: "by", Pool: r.Pool, Limit: s.room(), InUse: s.drawn(),
			HasUsage: true,
			Detail: fmt.Sprintf("meter %s: %d draws have been made, and no more can be taken back", r.Pool,
				s.drawn())}}
	case r.By > s.left():
		return Decision{Denial: e.meterEmpty(Item{Pool: r.Pool, N: r.By}, r.By, g, s, now)}
	case r.By > 0 && e.forDraws[r.Pool].ahead(nil):
		return Decision{Denial: e.forDraws[r.Pool].denial(r.Pool, s)}
	case r.By < 0:
		return Decision{Events: []Event{{Kind: EventSet, At: now, Draws: s.takeBack(-r.By)}}}
	}
	return Decision{Events: []Event{{Kind: EventSet, At: now, Draws: s.draw(r.By)}}}
}

func notDurable(meter string) *Denial {
	return &Denial{Code: Storage, Pool: meter, Hint: "use an agent with a durable journal",
		Detail: fmt.Sprintf(
			"meter %s: a draw must be durable before it is acknowledged, and this agent keeps no durable journal",
			meter)}
}

func (e *Enforcer) applyDraws(ev Event) {
	for _, d := range ev.Draws {
		e.meters[d.Key] = meter{d.Drawn, d.Period}
	}
	if l := ev.Lease; l != nil {
		e.rememberLease(l)
	}
}

// Meters returns the total of every meter, for a snapshot: Apply of one EventSet with them makes the same state.
func (e *Enforcer) Meters() []Draw {
	var out []Draw
	for _, key := range slices.Sorted(maps.Keys(e.meters)) {
		m := e.meters[key]
		out = append(out, Draw{key, m.drawn, m.period})
	}
	return out
}
