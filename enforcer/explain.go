package enforcer

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// RuleUse is what one rule does in one pool at present.
type RuleUse struct {
	Rule   string
	Pool   string // empty: the rule is of no pool of the licence
	InUse  int64  // slots in use by the holders that it concerns; of a rule with neither Max nor Reserve not known, 0
	Limit  int64  // its Max, or else its Reserve; 0: it has neither
	Unused int64  // slots that it keeps and nobody uses
	// Most is the slots of the holder that uses most, where Max is the limit of each.
	Most int64
}

// RuleUses returns what each rule has in use in each pool that it is of, in the order of the rules.
func (e *Enforcer) RuleUses() (out []RuleUse) {
	if e.policies == nil {
		return nil
	}
	names := e.PoolNames()
	slices.Sort(names)
	for i := range e.policies.Rules {
		r := &e.policies.Rules[i]
		found := false
		for _, name := range names {
			if !r.Of(name) {
				continue
			}
			found = true
			use := RuleUse{Rule: r.Name, Pool: name, Limit: r.Max}
			if p := e.pools[name]; p != nil {
				p.ruleUse(r, &use)
			}
			out = append(out, use)
		}
		if !found {
			out = append(out, RuleUse{Rule: r.Name, Limit: r.Max})
		}
	}
	return out
}

func (p *pool) ruleUse(r *Policy, use *RuleUse) {
	i := slices.Index(p.rules.rules, r)
	if t := p.rules.tallies[i]; t != nil {
		var all int64
		for _, u := range t.units {
			all += u.inUse
			use.Most = max(use.Most, p.grant.slots(u.inUse))
		}
		use.InUse = p.grant.slots(all)
	}
	for _, x := range p.rules.reserves {
		if x.rule != r {
			continue
		}
		use.Unused = p.grant.slots(x.unused())
		if r.Max == 0 {
			use.InUse, use.Limit = p.grant.slots(x.inUse), r.Reserve
		}
	}
}

// Explanation is what the rules say of a holder in a pool.
type Explanation struct {
	Known bool // the licence has the pool
	Rules []Concern
	// Room is how many slots, or draws of a meter, the holder could be granted now in one lease, were nobody waiting;
	// Unlimited where there is no limit.
	Room   Limit
	Deny   string  // the rule that gives the holder nothing; empty: none does
	Denial *Denial // why Room is 0; nil: it is not
}

// Concern is a rule and whether it concerns a holder in a pool.
type Concern struct {
	Rule     *Policy
	Concerns bool
	Why      string // for people: why it does not concern the holder, or what it does
}

// Explain says what the rules say of a holder in a pool or a meter, and what an acquire of it would get at the instant
// now. It changes nothing.
func (e *Enforcer) Explain(h *Holder, pool string, now time.Time) Explanation {
	var out Explanation
	if v := e.at(now); v != nil {
		p := e.pools[pool]
		_, meter := v.Meters[pool]
		out.Known = meter || p != nil && p.named
	}
	if e.policies != nil {
		for i := range e.policies.Rules {
			c := e.policies.Rules[i].concern(h, pool)
			if c.Concerns && c.Rule.Deny && out.Deny == "" {
				out.Deny = c.Rule.Name
			}
			out.Rules = append(out.Rules, c)
		}
	}
	out.Room, out.Denial = e.would(h, pool, now)
	return out
}

// concern says whether a rule concerns a holder in a pool, and why.
func (p *Policy) concern(h *Holder, pool string) Concern {
	c := Concern{Rule: p}
	switch {
	case p.Elsewhere:
		c.Why = "it is of other hosts"
	case !p.Of(pool):
		c.Why = "it is of other pools"
	case !p.Match.asserts(h, h.Profile.Profile(), func(so bool) bool { return so }):
		c.Why = "the caller does not match"
	case !p.Concerns(h):
		c.Why = "not excludes the caller"
	default:
		c.Concerns, c.Why = true, p.Does()
	}
	return c
}

// would returns what an acquire by a holder would get of a pool or a meter, were nobody waiting, or why it would get
// nothing. It looks as an acquire does, and in the same order.
func (e *Enforcer) would(h *Holder, pool string, now time.Time) (Limit, *Denial) {
	v := e.at(now)
	if d := v.deny(""); d != nil {
		return 0, d
	}
	most := int64(MaxSlots)
	if p := e.pools[pool]; p != nil && p.grant.per() > 1 {
		most = MaxN / p.grant.per()
	}
	if _, d := e.try(v, h, pool, 1, now); d != nil { // of one slot, so that the denial says so
		return 0, d
	}
	switch got, d := e.try(v, h, pool, most, now); {
	case d != nil:
		return 0, d
	case got == most:
		return Unlimited, nil
	default:
		return Limit(got), nil
	}
}

// try returns how many of n slots or draws an acquire would get under a verdict, were nobody waiting.
func (e *Enforcer) try(v *Verdict, h *Holder, pool string, n int64, now time.Time) (got int64, d *Denial) {
	r := &Acquire{Caller: h.Caller, Labels: h.Labels, Pool: pool, N: n, MinN: 1}
	items := []Item{{Pool: pool, N: r.N}}
	a := &asking{r: r, items: items, holder: h, says: []*stance{e.stanceIn(pool, nil, h)}, w: &waiting{}}
	d = a.denyByRule()
	if g, meter := v.Meters[pool]; d == nil && meter {
		got, d = e.wouldDraw(r, v, g, items[0], now)
	} else {
		for _, next := range []func() *Denial{
			func() *Denial { return r.denyLease(e, nil) },
			func() *Denial { return e.heldOff(r.Caller, items, now) },
			func() (d *Denial) {
				var it Item
				it, d = e.fit(v, items[0], r.MinN, h, nil, a, 0)
				got = it.N
				return d
			},
		} {
			if d == nil {
				d = next()
			}
		}
	}
	return got, d
}

// wouldDraw is would for a meter.
func (e *Enforcer) wouldDraw(r *Acquire, v *Verdict, g MeterGrant, it Item, now time.Time) (int64, *Denial) {
	switch {
	case !e.options.Durable:
		return 0, notDurable(it.Pool)
	case v.Paused != "":
		return 0, paused("meter", it.Pool, v.Paused)
	}
	n, _, d := e.fitDraw(r, g, it, e.forDraws[it.Pool].first(), now)
	return n, d
}

// Barred says which of its own limits keeps an acquire that waits from being served, whatever comes free, with the code
// and the rule as a denial has them; nil: none does. waits is false where it no longer waits.
func (e *Enforcer) Barred(id LeaseID) (d *Denial, waits bool) {
	w := e.waiters[id]
	if w == nil || w.Draws {
		return nil, w != nil
	}
	b, ok := e.barred(w)
	if !ok {
		return nil, true
	}
	for i, it := range w.Items {
		says := w.sayings(i)
		for j := range says.limits {
			if x := &says.limits[j]; x.tally == b.tally && x.unit == b.unit {
				d = e.pools[it.Pool].deniedByMax(it, x, w.holder)
			}
		}
	}
	return d, true
}

func (w *waiting) sayings(i int) *stance {
	if s := w.says[i]; s != nil {
		return s
	}
	return &stance{}
}

// nextEnd returns when the next lease of a pool ends unless it is renewed; zero: it is not known.
func (p *pool) nextEnd() time.Time {
	if first := p.first(); first != nil {
		return first.ExpiresAt
	}
	return zeroTime
}

// Does says for people what a rule does.
func (p *Policy) Does() string {
	var out []string
	say := func(set bool, format string, args ...any) {
		if set {
			out = append(out, fmt.Sprintf(format, args...))
		}
	}
	say(p.Deny, "denies all")
	say(p.Reserve > 0, "reserves %d", p.Reserve)
	say(p.Max > 0 && p.Per == "", "at most %d", p.Max)
	say(p.Max > 0 && p.Per != "", "at most %d for each %s", p.Max, p.Per)
	say(p.Priority > 0, "priority %d", p.Priority)
	say(p.Linger > 0, "lingers for %s", Span(p.Linger))
	say(p.MaxHold > 0, "held for %s at most", Span(p.MaxHold))
	say(p.IdleTimeout > 0, "unused for %s at most", Span(p.IdleTimeout))
	if p.OverageMax != nil {
		say(true, "overage of %d at most", *p.OverageMax)
	}
	if p.MaxBorrow != nil {
		say(*p.MaxBorrow == 0, "borrows nothing")
		say(*p.MaxBorrow > 0, "borrows for %s at most", Span(*p.MaxBorrow))
	}
	say(p.LowWater > 0, "%d never borrowed", p.LowWater)
	return strings.Join(out, ", ")
}

// Policies returns the rules in force; nil: there are none.
func (e *Enforcer) Policies() *Policies { return e.policies }
