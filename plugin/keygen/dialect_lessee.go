package keygen

import (
	"fmt"

	"github.com/usher-agent/usher/enforcer"
)

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
