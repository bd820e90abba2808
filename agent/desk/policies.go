package desk

import (
	"github.com/usher-agent/usher/enforcer"
)

// SetPolicies puts the site's rules in force; nil: there are none. What is held stays held, and counts by them.
func (d *Desk) SetPolicies(ps *enforcer.Policies) {
	d.enter()
	defer d.mu.Unlock()
	now := d.licenceTime()
	_, pod := ps.LooksAt()
	d.rulesByPod.Store(pod)
	if d.store != nil {
		// What the rules look at outlives the agent from now on, of leases that are held already, too.
		if rules := ps != nil && len(ps.Rules) > 0; d.store.profiles.Swap(rules) != rules {
			d.store.anew = true
			d.store.wake()
		}
	}
	d.carry(d.core.Decide(&enforcer.SetPolicies{Policies: ps}, now))
	d.serve(now, true)
	d.Look()
}

// RuleUses returns the rules in force, nil for none, and what each has in use.
func (d *Desk) RuleUses() (*enforcer.Policies, []enforcer.RuleUse) {
	d.lockSettled()
	defer d.mu.Unlock()
	return d.core.Policies(), d.core.RuleUses()
}

// Explain says what the rules say of a caller in a pool or a meter, and what an acquire of it would get.
func (d *Desk) Explain(h *enforcer.Holder, pool string) enforcer.Explanation {
	d.lockSettled()
	defer d.mu.Unlock()
	out := d.core.Explain(h, pool, d.licenceTime())
	if d.drained.Load() {
		out.Room, out.Denial = 0, drainingDenial()
	}
	return out
}

// Queues returns the names of the pools and meters that acquires wait for.
func (d *Desk) Queues() []string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.core.Queues()
}
