package config

import (
	"fmt"
	"strings"
	"time"

	"github.com/usher-agent/usher/enforcer"
)

// Rules returns the policies as the enforcer takes them, on the host of a name. A rule that is of other hosts alone is
// among them, and concerns nobody.
func (c *Config) Rules(host string) *enforcer.Policies {
	groups := map[string][]enforcer.Glob{}
	for _, g := range c.Groups {
		for _, m := range g.Members {
			groups[g.Name] = append(groups[g.Name], enforcer.Glob{Text: m, Fold: g.IgnoreCase})
		}
	}
	globs := func(list []string) (out []enforcer.Glob) {
		for _, entry := range list {
			if name, isGroup := strings.CutPrefix(entry, "@"); isGroup {
				out = append(out, groups[name]...)
			} else {
				out = append(out, enforcer.Glob{Text: entry})
			}
		}
		return out
	}
	match := func(m PolicyMatch) enforcer.Match {
		out := enforcer.Match{User: globs(m.User), Group: globs(m.Group), Exe: globs(m.Exe), Cgroup: globs(m.Cgroup),
			Pod: globs(m.Pod), Host: globs(m.Host)}
		for _, entry := range m.UID {
			if first, last, err := ParseUIDs(entry); err == nil { // checked at load
				out.UID = append(out.UID, enforcer.UIDs{First: first, Last: last})
			}
		}
		for key, glob := range m.Label {
			if out.Labels == nil {
				out.Labels = map[string]enforcer.Glob{}
			}
			out.Labels[key] = enforcer.Glob{Text: glob}
		}
		return out
	}
	rules := make([]enforcer.Policy, 0, len(c.Policies))
	for _, p := range c.Policies {
		r := enforcer.Policy{Name: p.Name, Text: p.Text, Match: match(p.Match), Not: match(p.Not),
			Pools: globs(p.Pools), Except: globs(p.Except),
			Deny: p.Deny, Reserve: p.Reserve, Max: p.Max, Per: enforcer.CountBy(p.Per), Priority: p.Priority,
			Linger: p.Linger.Duration(), MaxHold: p.MaxHold.Duration(), IdleTimeout: p.IdleTimeout.Duration(),
			OverageMax: p.OverageMax, MaxBorrow: p.MaxBorrow.pointer(), LowWater: p.BorrowLowWater}
		if p.NoBorrow {
			r.MaxBorrow = new(time.Duration(0))
		}
		rules = append(rules, r.On(host))
	}
	return enforcer.NewPolicies(rules)
}

// RuleRemark writes a remark about a rule, with the place where the rule stands.
func (c *Config) RuleRemark(r enforcer.Remark) string {
	for i, p := range c.Policies {
		if p.Name == r.Rule {
			key := fmt.Sprintf("policies[%d]", i)
			text := key + " (" + p.Name + "): " + r.Detail
			if place := c.place(key); place != "" {
				text = place + ": " + text
			}
			return text
		}
	}
	return r.Rule + ": " + r.Detail
}
