package options

import (
	"fmt"
	"strings"

	"github.com/usher-agent/usher/agent/config"
)

// access carries who may and who may not. Those on an exclude list may not, whatever else lists them. As soon as there
// is an include list for a feature, all others may not; the lines for all features belong to each list.
func (c *carrier) access(exclude, excludeAll, include, includeAll string, forbid func(*config.Policy)) {
	for _, o := range c.each(exclude, excludeAll) {
		pools, ok := c.pool(o)
		if !ok {
			continue
		}
		if s, ok := c.named(o); ok {
			p := config.Policy{Pools: pools, Match: s.match}
			if o.who.kind == noProject {
				p.Match, p.Not = config.PolicyMatch{}, s.match
			}
			forbid(&p)
			c.add(o, p)
		}
	}
	all := c.each(includeAll)
	everywhere, _ := c.listed(all)
	var keys []string
	lists := map[string][]*option{}
	for _, o := range c.each(include) {
		key := c.key(o)
		if lists[key] == nil {
			keys = append(keys, key)
		}
		lists[key] = append(lists[key], o)
	}
	var named []string
	for _, key := range keys {
		first := lists[key][0]
		pools, ok := c.pool(first)
		if !ok {
			for _, o := range lists[key][1:] {
				c.pool(o) // says the same
			}
			continue
		}
		named = append(named, pools...)
		c.include(lists[key], config.Policy{Pools: pools}, everywhere, forbid)
	}
	if len(all) == 0 {
		return
	}
	pools, except, some := c.rest(named)
	if !some {
		for _, o := range all {
			c.by[o.line].part = "part of the rules of the " + include + " lines, which name all pools"
		}
		return
	}
	c.include(all, config.Policy{Pools: pools, Except: except}, config.PolicyMatch{}, forbid)
}

// named returns whom an option is for. Where a policy can name nobody of them, ok is false and a remark says so.
func (c *carrier) named(o *option) (s selection, ok bool) {
	s = c.selected(o)
	switch {
	case s.none:
		c.no(o, s.why, s.mend)
		return s, false
	case len(s.lost) > 0:
		c.partly(o, "the addresses of the group are left out", "name the hosts instead of "+names(s.lost))
	}
	return s, true
}

// include forbids something to all but those of a list, and to those of a match who are on every list. p has the pools
// that the rule is of. It stands at the first line of the list.
func (c *carrier) include(own []*option, p config.Policy, all config.PolicyMatch, forbid func(*config.Policy)) {
	var some []*option
	p.Not, some = c.listed(own)
	if !union(&p.Not, all) {
		c.no(own[0], oneLabel, "give these projects names that one pattern matches, such as apollo-*")
	}
	if p.Not.Empty() {
		c.no(own[0], "no rule can name those on the list, and none keeps others out", "name users or hosts")
		return // a rule without them would keep everybody out
	}
	forbid(&p)
	if p.Deny {
		p.Text = c.text(own[0])
	}
	made := c.add(own[0], p)
	for _, o := range some {
		if o != own[0] {
			c.by[o.line].part = "part of the rule " + made
		}
	}
}

// listed returns who is on a list, and those of its lines that say so.
func (c *carrier) listed(list []*option) (m config.PolicyMatch, some []*option) {
	for _, o := range list {
		s := c.selected(o)
		switch {
		case s.none:
			c.no(o, s.why+", and the list has no place for them", s.mend)
		case !union(&m, s.match):
			c.no(o, oneLabel, "give these projects names that one pattern matches, such as apollo-*")
		default:
			some = append(some, o)
			if len(s.lost) > 0 {
				c.partly(o, "the addresses of the group are left out", "name the hosts instead of "+names(s.lost))
			}
		}
	}
	return m, some
}

// oneLabel is why two labels are not in one rule.
const oneLabel = "a rule has one value of one label at most, and the list has another"

// text is told to those whom an include list leaves out.
func (c *carrier) text(o *option) string {
	return fmt.Sprintf("not on the list of those who may (%s)", strings.TrimSuffix(o.keyword, "ALL"))
}
