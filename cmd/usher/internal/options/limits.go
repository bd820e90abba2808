package options

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/usher-agent/usher/agent/config"
)

// maxima carries the limits of users, groups and hosts.
func (c *carrier) maxima() {
	exempt, exemptAll := map[string]config.PolicyMatch{}, config.PolicyMatch{}
	for _, o := range c.each("EXEMPT_MAX", "EXEMPTALL_MAX") {
		if _, ok := c.pool(o); !ok {
			continue
		}
		s, ok := c.named(o)
		if !ok {
			continue
		}
		to := exemptAll
		if o.keyword == "EXEMPT_MAX" {
			to = exempt[c.key(o)]
		}
		if !union(&to, s.match) {
			c.no(o, "a rule has one value of one label at most, and the exemptions have another",
				"exempt the users or hosts instead")
			continue
		}
		if o.keyword == "EXEMPT_MAX" {
			exempt[c.key(o)] = to
		} else {
			exemptAll = to
		}
		c.by[o.line].part = "part of the rules of the MAX lines (not)"
		if len(c.each("MAX")) == 0 {
			c.by[o.line].part = ""
			c.no(o, "it exempts from MAX, and the file has no such line", "take the line away")
		}
	}
	said := map[string]map[who]*option{} // of a feature
	for _, o := range c.each("MAX") {
		key := c.key(o)
		if said[key] == nil {
			said[key] = map[who]*option{}
		}
		not := copied(exempt[key])
		if !union(&not, exemptAll) {
			c.partly(o, "the exemptions name two labels, and a rule has one", "exempt the users or hosts instead")
		}
		c.maximum(o, said[key], not)
	}
}

// maximum carries a MAX. said has the earlier ones for the same feature.
func (c *carrier) maximum(o *option, said map[who]*option, not config.PolicyMatch) {
	pools, ok := c.pool(o)
	if !ok {
		return
	}
	w := o.who
	everyone := w.kind == user && (w.name == allUsers && c.file.System == FlexNet || w.name == "*" &&
		c.file.System == RLM)
	groups := w.kind == group && w.name == allGroups && c.file.System == FlexNet
	if all := said[who{w.kind, ""}]; all != nil && c.file.System == FlexNet && !everyone && !groups {
		c.no(o, fmt.Sprintf("line %d, which stands before it, is for all, and a later line for one does not count",
			all.first), "put the line before that one")
		return
	}
	if all := said[who{w.kind, ""}]; all != nil && (everyone || groups) {
		c.no(o, fmt.Sprintf("line %d, which stands before it, is for all already", all.first),
			"keep the line that is meant")
		return
	}
	limit := func(p config.Policy) {
		p.Pools, p.Max = pools, o.n
		if o.n == 0 { // nothing at all
			p.Max, p.Per, p.Deny = 0, "", true
		}
		c.add(o, p)
	}
	switch {
	case everyone:
		said[who{user, ""}] = o
		if c.file.System == FlexNet {
			for _, earlier := range slices.SortedFunc(maps.Keys(said), byName) {
				if earlier.kind == user && earlier.name != "" {
					union(&not, c.selection(said[earlier], earlier).match)
				}
			}
		} else {
			c.partly(o, "where another line limits one of the users, the smaller number holds here",
				"exempt the user from this line with EXEMPT_MAX if that is not meant")
		}
		limit(config.Policy{Not: not, Per: "user"})
	case groups:
		said[who{group, ""}] = o
		before := len(c.by[o.line].rules)
		for _, g := range c.each("GROUP") {
			w := who{group, g.group}
			if said[w] == nil && len(c.refs[w]) > 0 && len(c.by[o.line].rules) <= maxItems {
				said[w] = o
				limit(config.Policy{Match: config.PolicyMatch{User: c.refs[w]}, Not: not})
			}
		}
		if len(c.by[o.line].rules) == before {
			c.no(o, "no group is left that no other MAX names", "take the line away")
		}
	default:
		s, ok := c.named(o)
		if !ok {
			return
		}
		w.name = c.file.System.fold(w.name)
		if was := said[w]; was != nil {
			c.partly(o, fmt.Sprintf("line %d limits the same callers; the smaller number holds here", was.first),
				"keep the line that is meant")
		} else {
			said[w] = o
		}
		limit(config.Policy{Match: s.match, Not: not})
	}
}

func byName(a, b who) int { return strings.Compare(string(a.kind)+a.name, string(b.kind)+b.name) }

// timeouts carries how long a holder may be idle. The last line for a feature counts, and one for all replaces those
// before it.
func (c *carrier) timeouts() {
	var all *option
	own := map[string]*option{}
	replaced := func(o, by *option) {
		if o != nil {
			c.no(o, fmt.Sprintf("line %d replaces it: %s takes the last one", by.first, c.file.System.Title()),
				"take the line away")
		}
	}
	for _, o := range c.each("TIMEOUT", "TIMEOUTALL") {
		if o.feature.name != "" {
			replaced(own[c.key(o)], o)
			own[c.key(o)] = o
			continue
		}
		replaced(all, o)
		for _, key := range slices.Sorted(maps.Keys(own)) {
			replaced(own[key], o)
		}
		all = o
		clear(own)
	}
	var named []string
	for _, o := range c.each("TIMEOUT") {
		if own[c.key(o)] != o {
			continue
		}
		pools, ok := c.pool(o)
		if !ok {
			continue
		}
		named = append(named, pools...)
		c.timeout(o, config.Policy{Pools: pools})
	}
	if all == nil {
		return
	}
	pools, except, some := c.rest(named)
	if !some {
		c.no(all, "other lines are for all pools that there are", "take the line away")
		return
	}
	c.timeout(all, config.Policy{Pools: pools, Except: except})
}

// maxIdle is the longest idle time of a policy, in seconds.
const maxIdle = 10 * 365 * 24 * 3600

// rlmFloor is the shortest time that RLM takes unless the licence says otherwise, in seconds.
const rlmFloor = 3600

// timeout adds the rule of a time; p has the pools that it is of.
func (c *carrier) timeout(o *option, p config.Policy) {
	if o.n == 0 {
		c.no(o, "0 is no time", "take the line away, or give the seconds")
		return
	}
	if o.n > maxIdle {
		c.no(o, "it is longer than ten years", "take the line away")
		return
	}
	p.IdleTimeout = config.Duration(time.Duration(o.n) * time.Second)
	c.add(o, p)
	mend := "see to it that the product does; usher.yaml's idle_timeout says how"
	reason := "a holder is idle when it does not renew its lease"
	if c.file.System == RLM && o.n < rlmFloor {
		reason += fmt.Sprintf(
			"; RLM takes the licence's min_timeout (%d s where it names none) for shorter times, and "+
				"here %d s are meant as they stand", rlmFloor, o.n)
	}
	c.partly(o, reason, mend)
}

// priorities carries RLM's order of the queue. Of the lines that match a caller the first counts, as
// it does of policies. A lower number goes first.
func (c *carrier) priorities() {
	numbers := map[string][]int64{}
	for _, o := range c.each("PRIORITY") {
		if key := c.key(o); !slices.Contains(numbers[key], o.n) {
			numbers[key] = append(numbers[key], o.n)
		}
	}
	told := false
	for _, o := range c.each("PRIORITY") {
		key := c.key(o)
		pools, ok := c.pool(o)
		if !ok {
			continue
		}
		s, ok := c.named(o)
		if !ok {
			continue
		}
		slices.Sort(numbers[key])
		// Spread over what there is, so that none catches up soon.
		rank, ranks := slices.Index(numbers[key], o.n), len(numbers[key])
		c.add(o, config.Policy{Pools: pools, Match: s.match, Priority: max(1, maxPriority-rank*maxPriority/ranks)})
		if !told {
			c.partly(o,
				"here a priority is a number of minutes by which a waiter is ahead, so that nobody waits for ever",
				"see whether these are enough; a larger number goes first")
		}
		told = true
	}
}

// maxPriority is the highest priority of a policy.
const maxPriority = 100
