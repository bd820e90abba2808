package enforcer

import (
	"slices"
	"strings"
	"time"
)

// usage is how much of a pool leases use.
type usage struct {
	inUse  int64             // this and what else is counted here in parts of slots: see PoolTerm.Quantum
	groups map[string]*group // nil when each lease counts for itself
}

// add counts a lease of n parts, which counts as u; remove counts it out.
func (c *usage) add(u uses, n int64) {
	c.inUse += u.alone * n
	for _, unit := range u.groups {
		g := c.groups[unit]
		if g == nil {
			if c.groups == nil {
				c.groups = map[string]*group{}
			}
			g = &group{most: u.most}
			c.groups[unit] = g
		}
		c.inUse += g.change(n, 1)
	}
}

func (c *usage) remove(u uses, n int64) {
	c.inUse -= u.alone * n
	for _, unit := range u.groups {
		g := c.groups[unit]
		c.inUse += g.change(n, -1)
		if len(g.sizes) == 0 {
			delete(c.groups, unit)
		}
	}
}

// group returns what a unit of the pool's count_by has in the count already; nil: nothing.
func (c *usage) group(unit string) *group {
	if unit == "" || c == nil {
		return nil
	}
	return c.groups[unit]
}

// reach returns how many parts a unit may take in one more lease where spare are free. What it has already costs
// nothing.
func (c *usage) reach(unit string, spare int64) int64 {
	if g := c.group(unit); g != nil {
		return g.reach(spare)
	}
	return spare
}

// costs returns how many parts more are in use with one more lease of n parts of a unit.
func (c *usage) costs(unit string, n int64) int64 {
	if g := c.group(unit); g != nil {
		return g.with(n, 1) - g.total
	}
	return n
}

// tally is what the holders that rules concern use of one pool: all together under the unit "", or each by itself.
type tally struct{ units map[string]*share }

// share is what one unit uses of a tally.
type share struct {
	usage
	over bool // nothing is in use any more, and the tally has forgotten it
}

// forget empties a tally.
func (t *tally) forget() {
	for unit, c := range t.units {
		c.over = true
		delete(t.units, unit)
	}
}

// reserve is what one rule keeps of one pool, and how much of it is in use.
type reserve struct {
	rule *Policy
	kept int64 // parts; no more than the budget has beside the reserves before it
	usage
}

func (r *reserve) unused() int64 {
	if r == nil {
		return 0
	}
	return max(0, r.kept-r.inUse)
}

// limiter is a limit of slots that a rule sets to a holder.
type limiter struct {
	rule  *Policy
	max   int64 // the rule's
	tally *tally
	unit  string
	last  *share // that was looked at last
}

// share returns what the holder's unit uses; nil: nothing.
func (x *limiter) share() *share {
	if x.last == nil || x.last.over {
		x.last = x.tally.units[x.unit]
	}
	return x.last
}

// use returns how much the holder's unit uses.
func (x *limiter) use() int64 {
	if c := x.share(); c != nil {
		return c.inUse
	}
	return 0
}

func (x *limiter) add(u uses, n int64) {
	c := x.share()
	if c == nil {
		c = &share{}
		x.last, x.tally.units[x.unit] = c, c
	}
	c.add(u, n)
}

func (x *limiter) remove(u uses, n int64) {
	c := x.share()
	if c.remove(u, n); c.inUse == 0 && len(c.groups) == 0 {
		c.over = true
		delete(x.tally.units, x.unit)
	}
}

// stance is what the rules say of one holder in one pool. Nil: nothing.
type stance struct {
	rules []*Policy // that concern the holder, in their order
	deny  *Policy   // the first that denies
	// limits are the strictest rule with Max of each tally that the holder counts in.
	limits                      []limiter
	own                         *reserve // that the holder draws on
	priority                    int
	linger                      *Policy // the first
	hold, idle, overage, borrow *Policy // the strictest
	water                       *Policy
}

// poolRules are the rules of one pool, and how much is in use by each.
type poolRules struct {
	all      *Policies
	rules    []*Policy
	tallies  []*tally // of the rule at the same place; nil: it has no Max
	index    ruleIndex
	reserves []*reserve
	unused   int64 // parts: of all reserves together
	memo     map[stanceKey]*stance
	water    tally // names what low waters bar; it counts nothing
}

// stanceKey is all of a holder that rules look at.
type stanceKey struct {
	uid                        uint32
	credential, user, exe, pod string
	host, labels               string
	profile                    ProfileRef
}

// mostStances bounds how many holders' stances a pool remembers.
const mostStances = 1 << 14

// rulesOf returns the rules of a pool or meter; nil: it has none.
func (ps *Policies) rulesOf(name string) *poolRules {
	if ps == nil {
		return nil
	}
	pr := &poolRules{all: ps, memo: map[stanceKey]*stance{}}
	shared := map[string]*tally{}
	for i := range ps.Rules {
		p := &ps.Rules[i]
		if !p.Of(name) {
			continue
		}
		var t *tally
		if p.Max > 0 {
			if t = shared[ps.keys[i]]; t == nil {
				t = &tally{units: map[string]*share{}}
				shared[ps.keys[i]] = t
			}
		}
		pr.index.add(len(pr.rules), p)
		pr.rules, pr.tallies = append(pr.rules, p), append(pr.tallies, t)
		if p.Reserve > 0 {
			pr.reserves = append(pr.reserves, &reserve{rule: p})
		}
	}
	if len(pr.rules) == 0 {
		return nil
	}
	return pr
}

// labelsOf writes those labels of a holder that rules look at.
func (ps *Policies) labelsOf(labels map[string]string) string {
	if len(labels) == 0 || len(ps.labels) == 0 {
		return ""
	}
	var b strings.Builder
	for _, key := range ps.labels {
		if v, ok := labels[key]; ok {
			b.WriteString(key + "\x00" + v + "\x00")
		}
	}
	return b.String()
}

// stance returns what the rules say of a holder.
func (pr *poolRules) stance(h *Holder) *stance {
	if pr == nil {
		return nil
	}
	key := stanceKey{h.UID, h.Credential, h.User, h.Exe, h.Pod, h.Host, pr.all.labelsOf(h.Labels), h.Profile}
	s, known := pr.memo[key]
	if !known {
		if len(pr.memo) >= mostStances {
			clear(pr.memo)
		}
		s = pr.take(h)
		pr.memo[key] = s
	}
	return s
}

// says is stance of a lease's holder, or of one to be; shared is what it shares, and keeps the answer. It may be nil.
func (pr *poolRules) says(shared *sharedHolder, h *Holder) *stance {
	switch {
	case pr == nil:
		return nil
	case shared == nil:
		return pr.stance(h)
	case shared.rules != pr:
		shared.rules, shared.stance = pr, pr.stance(h)
	}
	return shared.stance
}

// take works a stance out.
func (pr *poolRules) take(h *Holder) *stance {
	s := &stance{}
	for _, i := range pr.index.about(h) {
		p := pr.rules[i]
		if !p.Concerns(h) {
			continue
		}
		s.rules = append(s.rules, p)
		if p.Deny && s.deny == nil {
			s.deny = p
		}
		if t := pr.tallies[i]; t != nil {
			s.limit(limiter{rule: p, max: p.Max, tally: t, unit: unitPer(p.Per, h)})
		}
		if p.Reserve > 0 && s.own == nil {
			s.own = pr.reserves[slices.IndexFunc(pr.reserves, func(r *reserve) bool { return r.rule == p })]
		}
		if s.priority == 0 {
			s.priority = p.Priority
		}
		if p.Linger > 0 && s.linger == nil {
			s.linger = p
		}
		if p.MaxHold > 0 && (s.hold == nil || p.MaxHold < s.hold.MaxHold) {
			s.hold = p
		}
		if p.IdleTimeout > 0 && (s.idle == nil || p.IdleTimeout < s.idle.IdleTimeout) {
			s.idle = p
		}
		if p.OverageMax != nil && (s.overage == nil || *p.OverageMax < *s.overage.OverageMax) {
			s.overage = p
		}
		if p.MaxBorrow != nil && (s.borrow == nil || *p.MaxBorrow < *s.borrow.MaxBorrow) {
			s.borrow = p
		}
		if p.LowWater > 0 && (s.water == nil || p.LowWater > s.water.LowWater) {
			s.water = p
		}
	}
	if len(s.rules) == 0 {
		return nil
	}
	return s
}

func (s *stance) limit(l limiter) {
	i := slices.IndexFunc(s.limits, func(o limiter) bool { return o.tally == l.tally })
	switch {
	case i < 0:
		s.limits = append(s.limits, l)
	case l.rule.Max < s.limits[i].rule.Max:
		s.limits[i] = l
	}
}

// unitPer returns whose use a rule's limit is of. Holders of whom that is not known are one unit.
func unitPer(per CountBy, h *Holder) string {
	if per == "" {
		return ""
	}
	if unit := unitOf(per, h); unit != "" {
		return unit
	}
	return "unknown"
}

// tallied counts a lease in, or out of, what the rules count; s is what they say of its holder.
func (p *pool) tallied(s *stance, u uses, n int64, in bool) {
	if s == nil {
		return
	}
	for i := range s.limits {
		if in {
			s.limits[i].add(u, n)
		} else {
			s.limits[i].remove(u, n)
		}
	}
	if s.own == nil {
		return
	}
	p.rules.unused -= s.own.unused()
	if in {
		s.own.add(u, n)
	} else {
		s.own.remove(u, n)
	}
	p.rules.unused += s.own.unused()
}

// fitReserves works out how much of each reserve the budget has: the first rule comes first. A pool without a limit
// needs none.
func (p *pool) fitReserves() {
	if p.rules == nil {
		return
	}
	budget := p.grant.limit(p.grant.Budget)
	left := int64(budget)
	p.rules.unused = 0
	for _, r := range p.rules.reserves {
		r.kept = 0
		if budget != Unlimited {
			r.kept = min(int64(p.grant.limit(Limit(r.rule.Reserve))), left)
			left -= r.kept
		}
		p.rules.unused += r.unused()
	}
}

// rule puts a pool under the rules in force and counts its leases by them.
func (e *Enforcer) rule(p *pool) {
	p.rules = e.policies.rulesOf(p.name)
	p.recount()
}

// recount counts a pool's leases again in what the rules count.
func (p *pool) recount() {
	if p.rules == nil {
		return
	}
	for _, t := range p.rules.tallies {
		if t != nil {
			t.forget()
		}
	}
	for _, r := range p.rules.reserves {
		r.usage = usage{}
	}
	for h := range p.members.all {
		p.tallied(p.rules.says(h.shared, h.Holder), p.grant.units(h.Lease), p.grant.parts(h.item(p.name)), true)
	}
	p.fitReserves()
}

// newPool makes a pool.
func (e *Enforcer) newPool(name string, g PoolGrant) *pool {
	p := &pool{name: name, grant: g}
	if e.options.CountUsers {
		p.users = &userCounts{of: map[User]*userCount{}, per: g.per()}
	}
	e.pools[name] = p
	e.rule(p)
	return p
}

// applyPolicies puts rules in force.
func (e *Enforcer) applyPolicies(ps *Policies, at time.Time) {
	if ps != nil && len(ps.Rules) == 0 {
		ps = nil
	}
	e.policies = ps
	e.meterRules = map[string]*poolRules{}
	for _, p := range e.pools {
		e.rule(p)
	}
	e.timeAll(at)
	e.reorder()
	e.endLines()
}

// stanceIn returns what the rules say of a holder in a pool or meter; shared is what its leases share, and may be nil.
func (e *Enforcer) stanceIn(name string, shared *sharedHolder, h *Holder) *stance {
	if e.policies == nil {
		return nil
	}
	if p := e.pools[name]; p != nil {
		return p.rules.says(shared, h)
	}
	if e.verdict == nil || e.verdict.Meters[name].Name == "" {
		return nil
	}
	pr, known := e.meterRules[name]
	if !known {
		pr = e.policies.rulesOf(name)
		e.meterRules[name] = pr
	}
	return pr.says(shared, h)
}

// stances returns what the rules say of a request in the pool or meter of each of its items; nil: nothing.
func (e *Enforcer) stances(r *Acquire, items []Item) []*stance {
	if e.policies == nil {
		return nil
	}
	h := &Holder{Caller: r.Caller, Labels: r.Labels}
	out := make([]*stance, len(items))
	for i, it := range items {
		out[i] = e.stanceIn(it.Pool, nil, h)
	}
	return out
}
