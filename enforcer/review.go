package enforcer

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// Remark is what may not be meant so about a rule. It changes nothing.
type Remark struct {
	Rule   string
	Detail string // one sentence for people, without the rule's name
}

// Review tells of rules that can never do anything, and of those that leave others nothing. v says which pools there
// are, and their budgets; where it grants nothing (nil, or a verdict that is not good), only what holds whatever the
// licence is told.
func (ps *Policies) Review(v *Verdict) (out []Remark) {
	if ps == nil {
		return nil
	}
	for i := range ps.Rules {
		p := &ps.Rules[i]
		say := func(format string, args ...any) { out = append(out, Remark{p.Name, fmt.Sprintf(format, args...)}) }
		if p.Elsewhere {
			continue
		}
		if by := p.contradicts(); by != "" {
			say("it can never match: not.%s rules out all that match.%[1]s names", by)
			continue
		}
		// A rule that names pools closes them, which is a wish.
		if p.Deny && p.Match.empty() && p.Not.empty() && len(p.Pools) == 0 && len(p.Except) == 0 {
			say("it denies everybody every pool; name under match or not whom it is to concern")
		}
		for j := range ps.Rules[:i] {
			before := &ps.Rules[j]
			if before.Elsewhere || !before.covers(p) {
				continue
			}
			switch same := slices.Equal(before.Match.sorted(), p.Match.sorted()) &&
				slices.Equal(before.Not.sorted(), p.Not.sorted()); {
			case before.Deny && (same || before.Match.empty() && before.Not.empty()):
				say("it can never do anything: rule %s gives those whom it concerns nothing", before.Name)
			case same && p.Reserve > 0 && before.Reserve > 0:
				say("its reserve can never be used: rule %s reserves for the same holders, and the first counts",
					before.Name)
			case same && p.Linger > 0 && before.Linger > 0:
				say("its linger has no effect: rule %s is of the same holders, and the first counts", before.Name)
			case same && p.Priority > 0 && before.Priority > 0:
				say("its priority has no effect: rule %s is of the same holders, and the first counts", before.Name)
			case same && p.Max > 0 && before.Max > 0 && before.Max <= p.Max && before.Per == p.Per:
				say("its max has no effect: rule %s sets %d to the same holders", before.Name, before.Max)
			default:
				continue
			}
			break
		}
		if v.Good() {
			p.reviewPools(v, say)
		}
	}
	if v.Good() {
		out = append(out, ps.starved(v)...)
	}
	return out
}

// contradicts returns the key of which not rules out all that match names; empty: there is none.
func (p *Policy) contradicts() string {
	m, n := &p.Match, &p.Not
	for _, x := range []struct {
		key      string
		all, out []Glob
	}{{"user", m.User, n.User}, {"group", m.Group, n.Group}, {"exe", m.Exe, n.Exe}, {"cgroup", m.Cgroup, n.Cgroup},
		{"pod", m.Pod, n.Pod}, {"host", m.Host, n.Host}} {
		if ruledOut(x.all, func(g Glob) bool {
			_, plain := literal([]Glob{g})
			return slices.ContainsFunc(x.out, func(out Glob) bool { return out == g || plain && out.Matches(g.Text) })
		}) {
			return x.key
		}
	}
	if ruledOut(m.UID, func(u UIDs) bool {
		return slices.ContainsFunc(n.UID, func(out UIDs) bool { return out.First <= u.First && u.Last <= out.Last })
	}) {
		return "uid"
	}
	for name, g := range m.Labels {
		if out, ok := n.Labels[name]; ok && len(n.Labels) == 1 && out == g {
			return "label"
		}
	}
	return ""
}

func ruledOut[T any](all []T, is func(T) bool) bool {
	return len(all) > 0 && !slices.ContainsFunc(all, func(x T) bool { return !is(x) })
}

// covers reports whether a rule is of all pools that another is of, as far as their words tell.
func (p *Policy) covers(o *Policy) bool {
	names, literal := literal(o.Pools)
	if slices.ContainsFunc(p.Except, func(g Glob) bool {
		return !slices.Contains(o.Except, g) && (!literal || slices.ContainsFunc(names, g.Matches))
	}) {
		return false
	}
	if len(p.Pools) == 0 {
		return true
	}
	return len(o.Pools) > 0 && !slices.ContainsFunc(o.Pools, func(g Glob) bool { return !slices.Contains(p.Pools, g) })
}

func (m *Match) empty() bool { return len(m.sorted()) == 0 }

func (p *Policy) reviewPools(v *Verdict, say func(string, ...any)) {
	names := append(slices.Collect(maps.Keys(v.Pools)), slices.Collect(maps.Keys(v.Meters))...)
	slices.Sort(names)
	for _, g := range p.Pools {
		if !slices.ContainsFunc(names, g.Matches) {
			say("pools has %q, which no pool of the licence matches; it has %s", g.Text, strings.Join(names, ", "))
		}
	}
	for _, g := range p.Except {
		if !slices.ContainsFunc(names, g.Matches) {
			say("except has %q, which no pool of the licence matches; it has %s", g.Text, strings.Join(names, ", "))
		}
	}
	if len(p.Except) > 0 && !slices.ContainsFunc(names, p.Of) {
		say("it is of no pool of the licence: pools and except leave none of %s", strings.Join(names, ", "))
	}
	for _, name := range names {
		g, isPool := v.Pools[name]
		if !isPool || !p.Of(name) || g.Budget == Unlimited {
			continue
		}
		if p.Max > 0 && Limit(p.Max) >= g.Budget.Plus(g.Overage) && p.Per == "" && len(p.Pools) > 0 {
			say("its max %d has no effect on pool %s, which has %s slots", p.Max, name, g.Budget.Plus(g.Overage))
		}
		if p.LowWater > 0 && Limit(p.LowWater) >= g.Budget {
			say("nothing of pool %s can be borrowed: it has %s slots, and borrow_low_water is %d", name, g.Budget,
				p.LowWater)
		}
	}
}

// starved tells of pools of which reserves leave others nothing.
func (ps *Policies) starved(v *Verdict) (out []Remark) {
	for _, name := range slices.Sorted(maps.Keys(v.Pools)) {
		g := v.Pools[name]
		left := g.Budget
		for i := range ps.Rules {
			p := &ps.Rules[i]
			if g.Budget == Unlimited || p.Reserve == 0 || p.Elsewhere || !p.Of(name) {
				continue
			}
			if Limit(p.Reserve) > left {
				out = append(out,
					Remark{p.Name, fmt.Sprintf("it reserves %d of pool %s, and the rules before it leave %s of "+
						"its %s slots", p.Reserve, name, left, g.Budget)})
			}
			if left -= min(left, Limit(p.Reserve)); left == 0 {
				out = append(out, Remark{p.Name, fmt.Sprintf("with it the reserves take all %s slots of pool %s: "+
					"others get none", g.Budget, name)})
				break
			}
		}
	}
	return out
}
