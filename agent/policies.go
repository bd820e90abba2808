package agent

import (
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/usher-agent/usher/agent/api"
	"github.com/usher-agent/usher/agent/config"
	"github.com/usher-agent/usher/enforcer"
)

// Remarks returns what may not be meant so about the rules of a configuration, each with the place of its rule: see
// [enforcer.Policies.Review]; and rules that name only users, or only groups, that this host does not know. It returns
// [FleetRemarks], too.
func Remarks(c *config.Config, v *enforcer.Verdict) (out []string) {
	out = FleetRemarks(c, v)
	ps := c.Rules(hostName())
	for _, r := range ps.Review(v) {
		out = append(out, c.RuleRemark(r))
	}
	if ps == nil {
		return out
	}
	users, groups := api.HostAccounts()
	for i := range ps.Rules {
		p := &ps.Rules[i]
		if p.Elsewhere {
			continue
		}
		// Callers over TCP have the names of their credentials.
		if n := unknown(p.Match.User, users, false); n > 0 && len(c.Listeners) == 0 {
			out = append(out,
				c.RuleRemark(enforcer.Remark{Rule: p.Name, Detail: stranger("user", "passwd", "the uid", n)}))
		}
		if n := unknown(p.Match.Group, groups, true); n > 0 {
			out = append(out, c.RuleRemark(enforcer.Remark{Rule: p.Name,
				Detail: stranger("group", "group", "the group's number", n)}))
		}
	}
	return out
}

// unknown returns how many names there are, if each is of nobody here; otherwise 0.
func unknown(names []enforcer.Glob, known []string, numbers bool) int {
	for _, g := range names {
		if _, err := strconv.ParseUint(g.Text, 10, 32); err == nil && numbers || slices.ContainsFunc(known, g.Matches) {
			return 0
		}
	}
	return len(names)
}

func stranger(key, file, instead string, n int) string {
	whom := "the name"
	if n > 1 {
		whom = fmt.Sprintf("any of the %d names", n)
	}
	return fmt.Sprintf("it can never match: /etc/%s of this host does not have %s under match.%s, and a directory "+
		"service is not asked; add the account, or state %s", file, whom, key, instead)
}

// Policies is the API's.
func (f front) Policies() (*enforcer.Policies, []enforcer.RuleUse) { return f.desk.RuleUses() }

// Explain is the API's.
func (f front) Explain(h *enforcer.Holder, pool string) enforcer.Explanation {
	return f.desk.Explain(h, pool)
}

// Queue is the API's.
func (f front) Queue(own func(*enforcer.Waiter) bool, most int) ([]*enforcer.InQueue, bool) {
	return f.desk.Queue(own, most)
}

// Estimate is the API's: the longest of an acquire's queues.
func (f front) Estimate(q *enforcer.InQueue) (longest time.Duration) {
	now := f.desk.Now()
	for i, it := range q.Items {
		e := f.places.Estimate(it.Pool, q.Positions[i], now)
		if e == 0 {
			return 0
		}
		longest = max(longest, e)
	}
	return longest
}
