package keygen_test

import (
	"fmt"
	"testing"

	"github.com/usher-agent/usher/enforcer"
	"github.com/usher-agent/usher/plugin/keygen/keygentest"
)

// Under PER_USER each user has the licence's limits, and so has nobody. The pools of a floating licence are as large as
// all of them together, and a machine or a process beyond its user's is refused, as on the server.
func TestLeasingByUser(t *testing.T) {
	t.Parallel()
	policy := object{"machineLeasingStrategy": "PER_USER", "processLeasingStrategy": "PER_USER",
		"overageStrategy": "ALLOW_1_5X_OVERAGE"}
	set := licence(object{"maxMachines": 4, "maxCores": 64, "maxProcesses": 8}, policy)
	set["included"] = append(set["included"].([]any), object{"type": "users", "id": "user-1"},
		object{"type": "users", "id": "user-2"})
	l := newAccount(t).read(t, "LICENSE", set)
	for name, want := range map[string]enforcer.Limit{"machines": 12, "cores": 192, "processes": 24} {
		if p := l.Pools[name]; p.Max != want || p.Overage != want/2 {
			t.Errorf("%s: %+v, want %d and half of it", name, p, want)
		}
	}
	if p := l.Pools["users"]; p.Max != enforcer.Unlimited {
		t.Errorf("users: %+v", p)
	}

	d := newDesk()
	v := vendorsLicense(t, d.Now(), members{"machineLeasingStrategy": "PER_USER", "processLeasingStrategy": "PER_USER"},
		func(l *keygentest.License) {
			l.Attributes.Floating, l.Attributes.MaxMachines, l.Attributes.MaxProcesses = true, new(int64(2)),
				new(int64(2))
			l.Attributes.MaxCores, l.Attributes.MaxDisk = new(int64(8)), new(int64(8<<40))
		})
	pool := func(n enforcer.Limit) enforcer.PoolTerm { return enforcer.PoolTerm{Max: n, Scope: enforcer.ScopeHost} }
	v.Pools = map[string]enforcer.PoolTerm{"machines": pool(6), "processes": pool(6), "cores": pool(24),
		"disk": pool(24 << 40)}
	d.Judge(v.License)
	c := newClient(t, d)
	c.auth = "License THE-KEY"
	body := func(i int, owner, more string) string {
		b := machineBody(v.ID, fmt.Sprintf("f%d", i), more)
		if owner != "" {
			b = beside(b, "relationships", ownedBy(owner))
		}
		return b
	}
	first := c.one(201, "POST", "/v1/machines", body(1, "user-1", `,"cores":4,"disk":5497558138880`)) // 5 TiB
	c.refused(422, "MACHINE_DISK_LIMIT_EXCEEDED", "POST", "/v1/machines", body(2, "user-1", `,"disk":4398046511104`))
	c.refused(422, "MACHINE_CORE_LIMIT_EXCEEDED", "POST", "/v1/machines", body(2, "one@example.com", `,"cores":5`))
	second := c.one(201, "POST", "/v1/machines", body(2, "one@example.com", `,"cores":4`))
	c.refused(422, "MACHINE_LIMIT_EXCEEDED", "POST", "/v1/machines", body(3, "user-1", ""))
	other := c.one(201, "POST", "/v1/machines", body(3, "user-2", `,"cores":8`))
	c.one(201, "POST", "/v1/machines", body(4, "", ""))
	c.one(201, "POST", "/v1/machines", body(5, "", ""))
	c.refused(422, "MACHINE_LIMIT_EXCEEDED", "POST", "/v1/machines", body(6, "", ""))
	c.refused(422, "MACHINE_CORE_LIMIT_EXCEEDED", "POST", "/v1/machines", body(6, "user-2", `,"cores":1`))
	c.one(201, "POST", "/v1/processes", processBody(first.ID, "1", ""))
	c.one(201, "POST", "/v1/processes", processBody(second.ID, "2", ""))
	c.refused(422, "MACHINE_PROCESS_LIMIT_EXCEEDED", "POST", "/v1/processes", processBody(first.ID, "3", ""))
	c.one(201, "POST", "/v1/processes", processBody(other.ID, "3", ""))
}

// Under PER_MACHINE, Keygen's default, each machine has the licence's number of processes, with its overage, and takes
// none of another's. A licence of another system has only its pool.
func TestProcessesByMachine(t *testing.T) {
	t.Parallel()
	d := newDesk()
	v := vendorsLicense(t, d.Now(), members{"overageStrategy": "ALLOW_1_5X_OVERAGE"}, func(l *keygentest.License) {
		l.Attributes.Floating, l.Attributes.MaxMachines, l.Attributes.MaxProcesses = true, new(int64(2)), new(int64(2))
	})
	pool := func(n, over enforcer.Limit) enforcer.PoolTerm {
		return enforcer.PoolTerm{Max: n, Overage: over, Scope: enforcer.ScopeHost}
	}
	v.Pools = map[string]enforcer.PoolTerm{"machines": pool(2, 1), "processes": pool(4, 5)}
	d.Judge(v.License)
	c := newClient(t, d)
	c.auth = "License THE-KEY"
	last := ""
	for m := range 3 { // one of them overage
		machine := c.one(201, "POST", "/v1/machines", machineBody(v.ID, fmt.Sprintf("f%d", m), "")).ID
		for p := range 3 { // and one of each machine's
			last = c.one(201, "POST", "/v1/processes", processBody(machine, fmt.Sprint(p), "")).ID
		}
		c.refused(422, "MACHINE_PROCESS_LIMIT_EXCEEDED", "POST", "/v1/processes", processBody(machine, "9", ""))
		c.send("DELETE", "/v1/processes/"+last, "")
		c.one(201, "POST", "/v1/processes", processBody(machine, "10", ""))
	}

	d = newDesk(terms(func(l *enforcer.License) { l.Pools["processes"] = pool(2, 1) }))
	c = newClient(t, d)
	machine := c.one(201, "POST", "/v1/machines", machineBody("lic-1", "f", "")).ID
	for p := range 3 {
		c.one(201, "POST", "/v1/processes", processBody(machine, fmt.Sprint(p), ""))
	}
}
