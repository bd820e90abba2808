package agent

import "github.com/usher-agent/usher/enforcer"

// Policies is the API's.
func (f front) Policies() (*enforcer.Policies, []enforcer.RuleUse) { return f.desk.RuleUses() }

// Explain is the API's.
func (f front) Explain(h *enforcer.Holder, pool string) enforcer.Explanation {
	return f.desk.Explain(h, pool)
}

// Queue is the API's.
func (f front) Queue() []enforcer.InQueue { return f.desk.Queue() }
