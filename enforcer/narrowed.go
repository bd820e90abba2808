package enforcer

import (
	"fmt"
	"time"
)

// byRule denies something by a rule.
func byRule(p *Policy, pool, format string, args ...any) *Denial {
	d := &Denial{Code: DeniedByPolicy, Pool: pool, Rule: p.Name,
		Detail: fmt.Sprintf("pool %s: %s (rule %s)", pool, fmt.Sprintf(format, args...), p.Name)}
	if p.Text != "" {
		d.Detail += ": " + p.Text
	}
	return d
}

// denyByRule denies what a rule gives its holder nothing of; nil: none does. There may be no rules, and a nil then.
func (a *asking) denyByRule() *Denial {
	if a == nil {
		return nil
	}
	for i, s := range a.says {
		if s != nil && s.deny != nil {
			return s.deny.denial(a.items[i].Pool)
		}
	}
	return nil
}

func (p *Policy) denial(pool string) *Denial {
	d := byRule(p, pool, "the site gives this caller nothing of it")
	d.Hint = "`usher policies explain` tells which rules concern a caller; an operator may change them"
	return d
}

// denyBorrowByRule denies a borrow that the rules do not permit; nil: they do.
func (e *Enforcer) denyBorrowByRule(a *asking, now time.Time) *Denial {
	if a == nil || a.r.Lifetime != LifetimeBorrow {
		return nil
	}
	r := a.r
	for i, it := range a.items {
		s := a.stance(i)
		if s == nil {
			continue
		}
		if b := s.borrow; b != nil && r.Until.Sub(now) > *b.MaxBorrow {
			if *b.MaxBorrow == 0 {
				return byRule(b, it.Pool, "the site lets this caller borrow nothing")
			}
			d := byRule(b, it.Pool, "until is %s, and the site lets this caller borrow for %s at most", stamp(r.Until),
				Span(*b.MaxBorrow))
			d.Field, d.Hint = "until", fmt.Sprintf("borrow until %s at most", stamp(now.Add(*b.MaxBorrow)))
			return d
		}
		p := e.pool(it.Pool)
		if p == nil {
			continue
		}
		if left := p.mayBorrow(s); !left.Covers(p.borrowed + p.grant.parts(it.least(r))) {
			d := byRule(s.water, it.Pool, "%d slots are borrowed, and %d of %s are never borrowed",
				p.grant.slots(p.borrowed), s.water.LowWater, p.grant.Budget)
			d.Limit, d.InUse, d.HasUsage = p.grant.Budget, p.grant.slots(p.borrowed), true
			d.waits = left.Covers(p.grant.parts(it.least(r)))
			return d
		}
	}
	return nil
}

// mayBorrow returns how many parts of a pool may be borrowed in all.
func (p *pool) mayBorrow(s *stance) Limit {
	if s == nil || s.water == nil || p.grant.Budget == Unlimited {
		return Unlimited
	}
	return p.grant.limit(max(0, p.grant.Budget-Limit(s.water.LowWater)))
}

// room of a limiter: how much more its holder may use, given what it has of it at no cost.
func (x *limiter) room(p *pool, unit string) int64 {
	most := int64(p.grant.limit(Limit(x.max)))
	c := x.share()
	if c == nil {
		return most
	}
	return c.reach(unit, max(0, most-c.inUse))
}

// ownRoom returns how many parts the limits of a holder leave to it, and the limit that leaves the least.
// unit is the holder's by the pool's count_by; empty: what it has at no cost does not matter.
func (p *pool) ownRoom(s *stance, unit string) (room Limit, by *limiter) {
	room = Unlimited
	if s == nil {
		return room, by
	}
	for i := range s.limits {
		x := &s.limits[i]
		if left := Limit(x.room(p, unit)); room == Unlimited || left < room {
			room, by = left, x
		}
	}
	return room, by
}

// keptFrom returns how many parts of a pool are kept for others than a holder.
func (p *pool) keptFrom(s *stance, u User) int64 {
	var kept int64
	if p.rules != nil {
		kept = p.rules.unused
		if s != nil {
			kept -= s.own.unused()
		}
	}
	if n := p.lingers.all(); n > 0 {
		kept += n - p.lingers.of[u]
	}
	return kept
}

// fitUnder is fit under rules: s is what they say of the holder in this pool, and room and free are what the pool
// itself has.
func (e *Enforcer) fitUnder(a *asking, i int, p *pool, room Limit, free int64) (Item, *Denial) {
	it, s := a.items[i], a.stance(i)
	parts, least := p.grant.parts(it), p.grant.parts(it.least(a.r))
	unit := unitOf(p.grant.CountBy, a.holder)
	own, by := p.ownRoom(s, unit)
	if !own.Covers(least) {
		return Item{}, p.deniedByMax(it, by, a.holder)
	}
	if a.w == nil && parts > free && e.blocked(a, p, i) {
		return Item{}, p.behind(it)
	}
	over, kept := Unlimited, Unlimited
	if capacity := p.grant.limit(p.capacity()); capacity != Unlimited {
		if s != nil && s.overage != nil {
			most := p.grant.Budget.Plus(p.grant.Overage.Min(Limit(*s.overage.OverageMax)))
			over = Limit(p.reach(unit, max(0, int64(p.grant.limit(most))-p.inUse)))
		}
		kept = Limit(p.reach(unit, max(0, int64(capacity)-p.inUse-p.keptFrom(s, a.r.Caller.Who()))))
	}
	all := room.Min(own).Min(over).Min(kept)
	if all.Covers(parts) {
		return it, nil
	}
	if got := p.grant.whole(int64(all), it); a.r.MinN > 0 && got.N >= a.r.MinN {
		return got, nil
	}
	switch {
	case !room.Covers(least):
		return Item{}, p.denial(it)
	case !over.Covers(least):
		return Item{}, p.deniedByOverage(it, s.overage)
	case !kept.Covers(least):
		return Item{}, p.deniedByKept(it, s, a.r.Caller.Who())
	}
	return Item{}, p.deniedByMax(it, by, a.holder)
}

// waitFor completes a denial that waiting may help.
func (p *pool) waitFor(d *Denial) *Denial {
	d.waits = true
	d.Hint = "release a lease, wait (wait_seconds), or try again later"
	if first := p.first(); first != nil {
		d.Next, d.NextHolder = first.ExpiresAt, first.Holder
		d.Hint = fmt.Sprintf(
			"wait (wait_seconds), or try again later; the next lease of the pool ends at %s unless it "+
				"is renewed", stamp(d.Next))
	}
	return d
}

func (p *pool) deniedByMax(it Item, by *limiter, h *Holder) *Denial {
	whose := "those whom the rule concerns"
	if by.rule.Per != "" {
		whose = "this " + string(by.rule.Per)
	}
	use := p.grant.slots(by.use())
	d := byRule(by.rule, it.Pool, "%s may have %d slots at most and have %d in use, and the request is for %s more",
		whose, by.rule.Max, use, it.Amount())
	if by.rule.Per != "" {
		d.Detail = byRule(by.rule, it.Pool,
			"%s may have %d slots at most and has %d in use, and the request is for %s "+
				"more", whose, by.rule.Max, use, it.Amount()).Detail
	}
	d.Limit, d.InUse, d.HasUsage = Limit(by.rule.Max), use, true
	return p.waitFor(d)
}

func (p *pool) deniedByOverage(it Item, by *Policy) *Denial {
	d := byRule(by, it.Pool, "%d of %s slots are in use, and the site lets this caller use %d above them at most",
		p.grant.slots(p.inUse), p.grant.Budget, *by.OverageMax)
	d.Limit, d.InUse, d.HasUsage = p.grant.Budget.Plus(Limit(*by.OverageMax)), p.grant.slots(p.inUse), true
	return p.waitFor(d)
}

// deniedByKept denies slots that are free and kept for others.
func (p *pool) deniedByKept(it Item, s *stance, u User) *Denial {
	if p.rules != nil {
		for _, r := range p.rules.reserves {
			if n := p.grant.slots(r.unused()); n > 0 && (s == nil || s.own != r) {
				d := byRule(r.rule, it.Pool,
					"%d of %s slots are in use, and of the free ones %d are reserved for others",
					p.grant.slots(p.inUse), p.capacity(), n)
				d.Limit, d.InUse, d.HasUsage = p.capacity(), p.grant.slots(p.inUse), true
				return p.waitFor(d)
			}
		}
	}
	rule, until := p.lingers.first(u)
	d := &Denial{Code: DeniedByPolicy, Pool: it.Pool, Rule: rule, Limit: p.capacity(), InUse: p.grant.slots(p.inUse),
		HasUsage: true, waits: true, Next: until,
		Detail: fmt.Sprintf(
			"pool %s: %d of %s slots are in use, and free ones are kept a while for the users that had "+
				"them last (rule %s)", it.Pool, p.grant.slots(p.inUse), p.capacity(), rule),
		Hint: fmt.Sprintf("wait (wait_seconds), or try again at %s", stamp(until))}
	return d
}

// deniedForEver says why a request can never be granted under the rules.
func (p *pool) deniedForEver(a *asking, i int) *Denial {
	it, s := a.items[i], a.stance(i)
	least := p.grant.parts(it.least(a.r))
	if s != nil {
		for i := range s.limits {
			if x := &s.limits[i]; !p.grant.limit(Limit(x.rule.Max)).Covers(least) {
				return p.deniedByMax(it, x, a.holder)
			}
		}
	}
	if s != nil && s.overage != nil && len(p.rules.reserves) == 0 {
		return p.deniedByOverage(it, s.overage)
	}
	return p.deniedByKept(it, s, a.r.Caller.Who())
}

// denyGrown denies a lease that counts for more of a pool by a holder, where the rules do not permit that.
func (e *Enforcer) denyGrown(p *pool, by *Holder, it Item) *Denial {
	if e.policies == nil {
		return nil
	}
	s, more := p.rules.stance(by), p.grant.parts(it)
	if s != nil && s.deny != nil {
		return s.deny.denial(p.name)
	}
	if room, limit := p.ownRoom(s, ""); !room.Covers(more) {
		return p.deniedByMax(it, limit, by)
	}
	capacity := p.grant.limit(p.capacity())
	if capacity == Unlimited {
		return nil
	}
	if s != nil && s.overage != nil {
		most := p.grant.Budget.Plus(p.grant.Overage.Min(Limit(*s.overage.OverageMax)))
		if !p.grant.limit(most).Covers(p.inUse + more) {
			return p.deniedByOverage(it, s.overage)
		}
	}
	if !capacity.Covers(p.inUse + more + p.keptFrom(s, by.Who())) {
		return p.deniedByKept(it, s, by.Who())
	}
	return nil
}

// neverUnder reports whether the rules leave a request less of a pool than it asks for, whatever is released.
func (p *pool) neverUnder(s *stance, it Item) bool {
	least := p.grant.parts(it)
	if s != nil {
		for _, x := range s.limits {
			if !p.grant.limit(Limit(x.rule.Max)).Covers(least) {
				return true
			}
		}
		if s.overage != nil {
			if most := p.grant.Budget.Plus(p.grant.Overage.Min(Limit(*s.overage.OverageMax))); p.most() ==
				p.capacity() &&
				!p.grant.limit(most).Covers(least) {
				return true
			}
		}
	}
	if p.rules == nil || len(p.rules.reserves) == 0 || p.most() == Unlimited {
		return false
	}
	most := int64(p.grant.limit(p.most()))
	if p.most() != p.capacity() { // the budget may grow, and the reserves with it
		return false
	}
	for _, r := range p.rules.reserves {
		if s == nil || s.own != r {
			most -= r.kept
		}
	}
	return least > most
}
