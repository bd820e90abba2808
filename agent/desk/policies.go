package desk

import (
	"time"

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

// Explain says what the rules say of a caller in a pool.
func (d *Desk) Explain(h *enforcer.Holder, pool string) enforcer.Explanation {
	d.lockSettled()
	defer d.mu.Unlock()
	return d.core.Explain(h, pool)
}

// Queues returns the names of the pools and meters that acquires wait for.
func (d *Desk) Queues() []string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.core.Queues()
}

// placesStep is how many places are looked at while the desk's lock is held.
const placesStep = 256

// Places calls each with the places of those that wait for some pools and meters, some at a time and without the lock;
// those of one queue follow on each other, in their order. Others are served in between. It may keep nothing of some.
func (d *Desk) Places(names []string, each func(now time.Time, some []enforcer.Place)) {
	var out []enforcer.Place
	var line *enforcer.Line
	var p pace
	for len(names) > 0 {
		d.mu.Lock()
		now := d.licenceTime()
		out = out[:0]
		for looked := 0; looked < placesStep && len(names) > 0; {
			if line == nil {
				line = d.core.Line(names[0])
			}
			n := len(out)
			var more bool
			if out, more = line.AppendNext(out, placesStep-looked); !more {
				line, names = nil, names[1:]
			}
			looked += len(out) - n + 1 // a queue costs something, too
		}
		d.mu.Unlock()
		if len(out) > 0 {
			each(now, out)
		}
		p.giveWay()
	}
}

// Queue returns the acquires that wait, in their order.
func (d *Desk) Queue() []enforcer.InQueue {
	d.lockSettled()
	defer d.mu.Unlock()
	return d.core.Queue()
}
