package agent

import (
	"time"

	"github.com/usher-agent/usher/enforcer"
)

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
