package enforcer

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"
)

// grant writes what the documents in force permit together into the verdict. The base comes first.
func (j *judge) grant(v *Verdict, inForce []*ruling) {
	base := inForce[0]
	l := base.license
	v.Code, v.Reason, v.State = base.code(), base.findings[0].Reason, base.code().State()
	v.SystemCode, v.GraceEndsAt, v.TerminatesAt = l.SystemCode, base.graceEnds, base.terminates()
	v.OnExpiry, v.AgentAway, v.Match = orDefault(l.OnExpiry, Drain), l.AgentAway, base.match
	v.MaxBorrow, v.EarlyReturn = l.MaxBorrow, l.EarlyReturn
	if base.paused() {
		v.Paused = base.pausedWords()
	}
	if l.IsTest() {
		v.Environment = Test
	}
	for _, r := range inForce {
		l := r.license
		for name, t := range l.Pools {
			g := PoolGrant{Name: name, Limit: t.Max, Scope: l.PoolScope(t.Scope),
				CountBy:   orDefault(t.CountBy, CountLease),
				HoldersBy: holdersBy(r.License.Pools[name].CountBy, orDefault(t.CountBy, CountLease)), Unit: t.Unit,
				Quantum: t.Quantum}
			b := j.budget(l, name, amount{t.Max, t.Overage}, g.Scope)
			g.Budget, g.Overage, g.Most, g.NotShared = b.max, b.overage, b.most, b.notShared
			if b.shared {
				g.Kept, g.Bounded = j.stays(l, name)
			}
			g.Cut = b.cut
			if was, ok := v.Pools[name]; ok {
				g.Kept, g.Bounded = was.Kept.Plus(g.Kept), was.Bounded || g.Bounded
				g.Budget, g.Overage, g.Most = was.Budget.Plus(g.Budget), was.Overage.Plus(g.Overage),
					was.Most.Plus(g.Most)
				g.Limit, g.Scope, g.CountBy, g.HoldersBy = was.Limit.Plus(g.Limit), was.Scope, was.CountBy,
					was.HoldersBy
				g.Unit, g.NotShared = cmp.Or(was.Unit, g.Unit), cmp.Or(was.NotShared, g.NotShared)
				g.Quantum = cmp.Or(was.Quantum, g.Quantum)
				g.Cut = cmp.Or(was.Cut, g.Cut)
			}
			v.Pools[name] = g
		}
		for name, t := range l.Meters {
			g := MeterGrant{Name: name, Key: string(l.Ref()) + "/" + name, Former: base.license.ID + "/" + name,
				Limit: t.Max, Scope: l.PoolScope(t.Scope),
				Resets: t.Resets, Unit: t.Unit, Adjustable: t.Adjustable}
			b := j.budget(l, name, amount{t.Max, t.Overage}, g.Scope)
			g.Budget, g.Overage, g.Most, g.NotShared, g.Cut = b.max, b.overage, b.most, b.notShared, b.cut
			if taken, ok := j.Draws[Share{l.Ref(), name}]; ok && b.shared {
				g.Taken, g.Period = true, taken.Period
			}
			if was, ok := v.Meters[name]; ok {
				g = was.plus(g)
			}
			v.Meters[name] = g
		}
		if l.Versions != "" {
			v.Versions = append(v.Versions, VersionCover{l.ID, l.Versions})
		}
	}
	byIssue := slices.Clone(inForce)
	slices.SortStableFunc(byIssue, func(a, b *ruling) int { return compareBool(b.before(a), a.before(b)) })
	for _, r := range byIssue {
		for name, f := range r.license.Features {
			v.Features[name] = mergeFeature(v.Features[name], f)
		}
	}
}

// mergeFeature joins the values that two documents give one feature; the second is the later issued. Of booleans it
// takes or, of numbers the greater, of texts the later.
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

// amount is a number of slots or draws, and its overage.
type amount struct{ max, overage Limit }

// budget is what this agent may hand out on one licence's word: now, at most, and why it is nothing.
type budget struct {
	amount
	most      Limit
	shared    bool // it is a share
	notShared string
	cut       *Failing // see PoolGrant
}

// equal compares what a failure says, and not where it stands: each verdict has its own.
func (g PoolGrant) equal(o PoolGrant) bool {
	if g.Cut != nil && o.Cut != nil && *g.Cut == *o.Cut {
		g.Cut = o.Cut
	}
	return g == o
}

// cut returns why whoever shares a pool or meter of a licence cannot be asked; nil: it can.
func (j *judge) cut(l *License, name string) *Failing {
	f, ok := j.SharesFailing[Share{l.Ref(), name}]
	if !ok || f.Class == "" {
		return nil
	}
	return &f
}

// isOwn reports whether the agent may hand out all that one licence grants: each host has it, or the one host or agent
// key that the licence names is the whole site, or there is nothing to share.
func isOwn(l *License, a amount, s Scope) bool {
	if s == ScopeShared {
		return a == amount{}
	}
	return s == ScopeHost || a == amount{} ||
		len(l.Hosts) == 1 && len(l.AgentKeys) <= 1 || len(l.Hosts) == 0 && len(l.AgentKeys) == 1
}

// budget returns what this agent may hand out of a pool or meter on one licence's word.
func (j *judge) budget(l *License, name string, a amount, s Scope) budget {
	share, ok := j.Budgets[Share{l.Ref(), name}]
	if taken, has := j.Draws[Share{l.Ref(), name}]; has && !ok {
		share, ok = taken.N, true
	}
	switch {
	case isOwn(l, a, s), !ok && a.max == Unlimited: // no limit that sharing could keep
		return budget{amount: a, most: a.max.Plus(a.overage)}
	case !ok:
		why := fmt.Sprintf(
			"its %s slots are the total of a whole site, and nothing proves that this agent has a share of them", a.max)
		cut := j.cut(l, name)
		if cut != nil {
			why += ": " + cut.words(shareServer)
		}
		return budget{notShared: why, cut: cut}
	}
	// The share includes the overage: otherwise every agent of the site would have the whole of it.
	here := amount{max: a.max.Min(share), overage: a.overage}
	if share != Unlimited {
		here.overage = here.overage.Min(share - here.max)
	}
	return budget{amount: here, most: a.max.Plus(a.overage), shared: true, cut: j.cut(l, name)}
}

// stays returns what may stay held of a share besides, and whether nothing else may.
func (j *judge) stays(l *License, pool string) (Limit, bool) {
	n, ok := j.Kept[Share{l.Ref(), pool}]
	return n, ok
}

// warnShares warns of pools whose scope grants them several times, or not at all.
func (j *judge) warnShares(r *ruling, warn func(WarningCode, time.Time, string, ...any)) {
	l := r.license
	unbound := len(l.Hosts) == 0 && len(l.AgentKeys) == 0
	var everywhere, nowhere []string
	see := func(name string, a amount, stated Scope) {
		scope := l.PoolScope(stated)
		if unbound && scope == ScopeHost {
			everywhere = append(everywhere, name)
		}
		if j.budget(l, name, a, scope).notShared != "" {
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
		warn(WarnNotBound, zeroTime, "licence %s is bound to no host: every host that has the file has the whole of %s",
			r.label(), strings.Join(everywhere, ", "))
	}
	if len(nowhere) > 0 {
		warn(WarnNotShared, zeroTime,
			"licence %s: %s cannot be handed out here, because they are a whole site's; use a site server, a fleet "+
				"or an upstream checkout, or have the licence bound to this one host or agent key", r.label(),
			strings.Join(nowhere, ", "))
	}
}
