package enforcer

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"
)

// grant writes into the verdict what the documents in force, the base first, permit together.
func (j *judge) grant(v *Verdict, inForce []*ruling) {
	base := inForce[0]
	l := base.license
	v.Code, v.Reason, v.State = base.code(), base.findings[0].Reason, base.code().State()
	v.SystemCode, v.GraceEndsAt, v.TerminatesAt = l.SystemCode, base.graceEnds, base.terminates()
	v.OnExpiry, v.AgentAway, v.Match = orDefault(l.OnExpiry, Drain), l.AgentAway, base.match
	v.MaxBorrow, v.EarlyReturn = l.MaxBorrow, l.EarlyReturn
	if l.IsTest() {
		v.Environment = Test
	}
	pools, meters := map[string]budget{}, map[string]budget{}
	for _, r := range inForce {
		l := r.license
		for name, t := range l.Pools {
			g := PoolGrant{Name: name, Limit: t.Max, Scope: l.PoolScope(t.Scope), CountBy: orDefault(t.CountBy, CountLease), Unit: t.Unit}
			g.NotShared = j.notShared(l, name, amount{t.Max, t.Overage}, g.Scope)
			pools[name] = pools[name].plus(l, amount{t.Max, t.Overage}, g.Scope)
			if was, ok := v.Pools[name]; ok {
				g.Limit, g.Scope, g.CountBy = was.Limit.Plus(g.Limit), was.Scope, was.CountBy
				g.Unit, g.NotShared = cmp.Or(was.Unit, g.Unit), cmp.Or(was.NotShared, g.NotShared)
			}
			v.Pools[name] = g
		}
		for name, t := range l.Meters {
			g := MeterGrant{Name: name, Key: base.license.ID + "/" + name, Limit: t.Max, Scope: l.PoolScope(t.Scope), Resets: t.Resets, Unit: t.Unit, Adjustable: t.Adjustable}
			g.NotShared = j.notShared(l, name, amount{t.Max, t.Overage}, g.Scope)
			meters[name] = meters[name].plus(l, amount{t.Max, t.Overage}, g.Scope)
			if was, ok := v.Meters[name]; ok {
				g.Limit, g.Scope, g.Resets, g.Adjustable = was.Limit.Plus(g.Limit), was.Scope, was.Resets, was.Adjustable
				g.Unit, g.NotShared = cmp.Or(was.Unit, g.Unit), cmp.Or(was.NotShared, g.NotShared)
			}
			v.Meters[name] = g
		}
		if l.Versions != "" {
			v.Versions = append(v.Versions, VersionCover{l.ID, l.Versions})
		}
	}
	for name, g := range v.Pools {
		a := j.amount(name, pools[name])
		g.Budget, g.Overage = a.max, a.overage
		v.Pools[name] = g
	}
	for name, g := range v.Meters {
		a := j.amount(name, meters[name])
		g.Budget, g.Overage = a.max, a.overage
		v.Meters[name] = g
	}
	byIssue := slices.Clone(inForce)
	slices.SortStableFunc(byIssue, func(a, b *ruling) int { return compareBool(b.before(a), a.before(b)) })
	for _, r := range byIssue {
		for name, f := range r.license.Features {
			v.Features[name] = mergeFeature(v.Features[name], f)
		}
	}
}

// mergeFeature joins the values that two documents give one feature, the later issued second: booleans or, numbers the
// greater, texts the latest.
func mergeFeature(was, f Value) Value {
	switch {
	case was.Kind == "" || was.Kind != f.Kind:
		return f
	case f.Kind == KindBool:
		f.Bool = f.Bool || was.Bool
	case f.Kind == KindNumber && was.Number > f.Number:
		return was
	}
	return f
}

// amount is a number of slots or draws, and what may be granted beyond it.
type amount struct{ max, overage Limit }

func (a amount) plus(b amount) amount { return amount{a.max.Plus(b.max), a.overage.Plus(b.overage)} }

// budget is what the documents in force say of one pool together: what is this agent's own to hand out, and what is the
// total of a whole site, of which it has the share that Facts.Budgets names.
type budget struct{ own, site amount }

func (b budget) plus(l *License, a amount, s Scope) budget {
	if isOwn(l, a, s) {
		b.own = b.own.plus(a)
	} else {
		b.site = b.site.plus(a)
	}
	return b
}

// isOwn reports whether an agent may hand out all that one licence says: where each host has it, where the one host or the
// one agent key that the licence names is the whole site, and where there is nothing.
func isOwn(l *License, a amount, s Scope) bool {
	return s == ScopeHost || a == amount{} ||
		len(l.Hosts) == 1 && len(l.AgentKeys) <= 1 || len(l.Hosts) == 0 && len(l.AgentKeys) == 1
}

// amount returns what may be handed out here. One share holds for all documents together, and for their overage too:
// else every agent of the site would have the whole of that.
func (j *judge) amount(pool string, b budget) amount {
	share, ok := j.Budgets[pool]
	switch {
	case !ok && b.site.max == Unlimited: // no limit that sharing could keep
		return b.own.plus(b.site)
	case !ok:
		return b.own
	}
	here := amount{max: b.site.max.Min(share), overage: b.site.overage}
	if share != Unlimited {
		here.overage = here.overage.Min(share - here.max)
	}
	return b.own.plus(here)
}

// notShared returns why nothing of a pool may be handed out on one licence's word; empty where something may.
func (j *judge) notShared(l *License, pool string, a amount, s Scope) string {
	if _, ok := j.Budgets[pool]; ok || a.max == Unlimited || isOwn(l, a, s) {
		return ""
	}
	return fmt.Sprintf("its %s slots are the total of a whole site, and nothing proves that this agent has a share of them", a.max)
}

// warnShares warns of pools whose scope lets them be had more than once, or not at all.
func (j *judge) warnShares(r *ruling, warn func(WarningCode, time.Time, string, ...any)) {
	l := r.license
	unbound := len(l.Hosts) == 0 && len(l.AgentKeys) == 0
	var everywhere, nowhere []string
	see := func(name string, a amount, stated Scope) {
		scope := l.PoolScope(stated)
		if unbound && scope == ScopeHost {
			everywhere = append(everywhere, name)
		}
		if j.notShared(l, name, a, scope) != "" {
			nowhere = append(nowhere, name)
		}
	}
	for name, t := range l.Pools {
		see(name, amount{t.Max, t.Overage}, t.Scope)
	}
	for name, t := range l.Meters {
		see(name, amount{t.Max, t.Overage}, t.Scope)
	}
	slices.Sort(everywhere)
	slices.Sort(nowhere)
	if len(everywhere) > 0 {
		warn(WarnNotBound, zeroTime, "licence %s is bound to no host: every host that has the file has the whole of %s", r.label(), strings.Join(everywhere, ", "))
	}
	if len(nowhere) > 0 {
		warn(WarnNotShared, zeroTime, "licence %s: %s cannot be handed out here, because they are a whole site's; use a site server, a fleet or an upstream checkout, or have the licence bound to this one host or agent key", r.label(), strings.Join(nowhere, ", "))
	}
}
