package keygen

import (
	"fmt"

	"github.com/usher-agent/usher/enforcer"
)

// lessees returns how many lessees a licence has whose policy leases by user, as far as its file says: each user, the
// owner among them, and nobody.
func lessees(set *dataset, about *resource) int64 {
	listed := map[string]bool{}
	for _, name := range []string{"owner", "user"} { // user is its name until version 1.5
		if id := about.related(name); id != "" {
			listed[id] = true
		}
	}
	for _, u := range set.included("users") {
		listed[u.ID] = true
	}
	return int64(len(listed)) + 1
}

// multiplied multiplies a limit, up to the largest that a licence may state.
func multiplied(n enforcer.Limit, by int64) enforcer.Limit {
	switch {
	case n == enforcer.Unlimited:
		return n
	case n > enforcer.MaxCount/enforcer.Limit(by):
		return enforcer.MaxCount
	}
	return n * enforcer.Limit(by)
}

// ofMachines returns the limit and the overage of what each machine of a floating licence may have n of, and over more,
// for all its machines and lessees. The server always accepts the first machine.
func ofMachines(n, over enforcer.Limit, a *Attributes, p *Policy, lessees int64) (all, allOver enforcer.Limit) {
	most := enforcer.Limit(max(1, min(*a.MaxMachines, int64(enforcer.MaxCount))))
	beyond := most.Plus(Overage(p.OverageStrategy, most))
	if p.MachineLeasing == perUser {
		most, beyond = multiplied(most, lessees), multiplied(beyond, lessees)
	}
	if over == enforcer.Unlimited || beyond == enforcer.Unlimited {
		return multiplied(n, int64(most)), enforcer.Unlimited
	}
	all = multiplied(n, int64(most))
	return all, multiplied(n.Plus(over), int64(beyond)) - all
}

// beyondUser returns the refusal of a machine by which its owner would have more than one user may have; nil: there is
// none, or the policy does not lease by user. The first machine of a user is always within the number of machines, and
// no owner is a user of its own, as on the server. making is held.
func (x *request) beyondUser(owner string, w *wanted) *response {
	t := &x.about.terms
	if t.Policy.MachineLeasing != perUser {
		return nil
	}
	v := &validation{Situation: x.situation()}
	owner = v.userID(owner)
	var had int64
	cores, memory, disk := number(w.Cores), number(w.Memory), number(w.Disk)
	for _, m := range v.Machines {
		if v.userID(m.Owner) == owner {
			had++
			cores, memory, disk = sum(cores, m.Cores), sum(memory, m.Memory), sum(disk, m.Disk)
		}
	}
	for _, c := range []struct {
		max        *int64
		n          int64
		pool, what string
	}{{t.Attributes.MaxMachines, had + 1, "", "machine count"}, {t.Attributes.MaxCores, cores, PoolCores,
		"machine core count"}, {t.Attributes.MaxMemory, memory, PoolMemory, "machine memory"},
		{t.Attributes.MaxDisk, disk, PoolDisk, "machine disk"}} {
		if c.max == nil || c.pool == "" && had == 0 {
			continue
		}
		most := enforcer.Limit(*c.max)
		if !most.Plus(Overage(t.Policy.OverageStrategy, most)).Covers(c.n) {
			return invalid(machineLimits[c.pool],
				fmt.Sprintf("%s has exceeded maximum allowed for user (%d)", c.what, *c.max), "/data")
		}
	}
	return nil
}

// processesBeyond returns the refusal of one more process on a machine, by which its owner (under PER_USER) or the
// machine itself (under PER_MACHINE) would have more than its own; nil: there is none. making is held.
func (x *request) processesBeyond(m *kept) *response {
	t := &x.about.terms
	if t.Attributes.MaxProcesses == nil || x.about.raw == nil {
		return nil // the pool of another system's licence is the limit
	}
	n, of := int64(1), "machine"
	switch t.Policy.ProcessLeasing {
	case perMachine:
		n += int64(len(x.processes(m.ID)))
	case perUser:
		of = "user"
		v := &validation{Situation: x.situation()}
		owner := v.userID(m.Owner)
		for _, other := range v.Machines {
			if v.userID(other.Owner) == owner {
				n += other.Processes
			}
		}
	default:
		return nil
	}
	most := enforcer.Limit(*t.Attributes.MaxProcesses)
	if !most.Plus(Overage(t.Policy.OverageStrategy, most)).Covers(n) {
		return invalid("MACHINE_PROCESS_LIMIT_EXCEEDED",
			fmt.Sprintf("process count has exceeded maximum allowed for %s (%d)", of, most), "/data")
	}
	return nil
}
