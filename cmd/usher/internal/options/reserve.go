package options

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/usher-agent/usher/agent/config"
)

// reserves carries slots that are kept for some. Lines for the same callers add up. Of the reservations that a caller
// fits a policy gives the first alone, so a remark names those that may overlap.
func (c *carrier) reserves() {
	type reservation struct {
		option *option
		rule   int // of its item
	}
	before := map[string][]reservation{} // of a feature
	for _, o := range c.each("RESERVE") {
		pools, ok := c.pool(o)
		if !ok {
			continue
		}
		if o.n == 0 {
			c.no(o, "it reserves nothing", "take the line away")
			continue
		}
		s, ok := c.named(o)
		if !ok {
			continue
		}
		key := c.key(o)
		same := slices.IndexFunc(before[key], func(r reservation) bool { return c.same(r.option.who, o.who) })
		if same >= 0 {
			first := before[key][same]
			rule := &c.by[first.option.line].rules[first.rule]
			rule.Reserve += o.n
			c.by[o.line].part = "part of the rule " + rule.Name + ", which reserves both numbers together"
			continue
		}
		for _, r := range before[key][:min(len(before[key]), maxItems)] { // more are too many rules
			if c.overlap(r.option.who, o.who) {
				c.partly(o, fmt.Sprintf("a caller that line %d names, too, has that reservation alone", r.option.first),
					"reserve for groups that share nobody, or put the larger reservation first")
				break
			}
		}
		c.add(o, config.Policy{Pools: pools, Match: s.match, Reserve: o.n})
		before[key] = append(before[key], reservation{o, len(c.by[o.line].rules) - 1})
	}
}

// same reports whether two lines name the same callers.
func (c *carrier) same(a, b who) bool {
	return a.kind == b.kind && c.file.System.fold(a.name) == c.file.System.fold(b.name)
}

// overlap reports whether there may be a caller that both name.
func (c *carrier) overlap(a, b who) bool {
	for _, pair := range [][2]kind{{user, group}, {host, hostGroup}} {
		one, many := pair[0], pair[1]
		switch {
		case a.kind == one && b.kind == one:
			return false // they differ, or they would be the same
		case a.kind == one && b.kind == many:
			return c.members[b.folded()][strings.ToLower(a.name)]
		case a.kind == many && b.kind == one:
			return c.members[a.folded()][strings.ToLower(b.name)]
		case a.kind == many && b.kind == many:
			return slices.ContainsFunc(slices.Collect(maps.Keys(c.members[a.folded()])), func(name string) bool {
				return c.members[b.folded()][name]
			})
		}
	}
	return a.kind != b.kind
}

// folded returns whom it names, in small letters.
func (w who) folded() who { return who{w.kind, strings.ToLower(w.name)} }
