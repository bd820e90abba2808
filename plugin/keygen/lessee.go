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

// processesBeyondUser is beyondUser of one more process on a machine.
func (x *request) processesBeyondUser(m *kept) *response {
	t := &x.about.terms
	if t.Policy.ProcessLeasing != perUser || t.Attributes.MaxProcesses == nil {
		return nil
	}
	v := &validation{Situation: x.situation()}
	owner, n := v.userID(m.Owner), int64(1)
	for _, other := range v.Machines {
		if v.userID(other.Owner) == owner {
			n += other.Processes
		}
	}
	most := enforcer.Limit(*t.Attributes.MaxProcesses)
	if !most.Plus(Overage(t.Policy.OverageStrategy, most)).Covers(n) {
		return invalid("MACHINE_PROCESS_LIMIT_EXCEEDED",
			fmt.Sprintf("process count has exceeded maximum allowed for user (%d)", most), "/data")
	}
	return nil
}
