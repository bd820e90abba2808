package keygen

import (
	"cmp"
	"net/http"
	"slices"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/usher-agent/usher/enforcer"
	"github.com/usher-agent/usher/plugin"
)

func (x *request) machine(id string) *kept { return x.get(recordMachine, id) }

func noMachineOf(id string) *response {
	return notFound("The requested machine '" + plugin.Short(id) + "' was not found")
}

// machines returns the caller's machines in the form that a validation takes.
func (x *request) machines() (out []Machine) {
	running := map[string]int64{}
	for _, p := range x.all(recordProcess) {
		running[p.Machine]++
	}
	for _, k := range x.all(recordMachine) {
		life, _ := x.life(k)
		m := Machine{ID: k.ID, Fingerprint: k.Fingerprint, Life: life,
			Required: k.lease.Lifetime == enforcer.LifetimeTTL, Processes: running[k.ID],
			Cores: number(k.Cores), Memory: number(k.Memory), Disk: number(k.Disk)}
		for _, c := range k.Components {
			m.Components = append(m.Components, c.Fingerprint)
		}
		out = append(out, m)
	}
	return out
}

// machineObject returns a machine in the API's form. life overrides the state of its heartbeat unless it is empty.
func (x *request) machineObject(k *kept, life Life) object {
	now, last := x.life(k)
	var next any
	if !last.IsZero() {
		next = stamp(last.Add(time.Duration(k.Interval) * time.Second))
	}
	self := func(parts ...string) string { return x.at(append([]string{"machines", k.ID}, parts...)...) }
	return object{"type": "machines", "id": k.ID,
		"attributes": object{"fingerprint": k.Fingerprint, "name": k.Name, "ip": k.IP, "hostname": k.Hostname,
			"platform": k.Platform, "cores": k.Cores, "memory": k.Memory, "disk": k.Disk,
			"maxProcesses":     x.about.terms.Attributes.MaxProcesses,
			"requireHeartbeat": k.lease.Lifetime == enforcer.LifetimeTTL, "heartbeatStatus": string(cmp.Or(life, now)),
			"heartbeatDuration": k.Interval, "lastHeartbeat": stamp(last), "nextHeartbeat": next,
			"lastCheckOut": nil, "metadata": metadata(k.Metadata), "created": stamp(k.Made), "updated": stamp(k.Made)},
		"relationships": object{"account": relate("accounts", x.accountID()),
			"product": relate("products", x.about.productID()), "license": relate("licenses", x.about.id),
			"group": relate("", ""), "owner": relate("", ""),
			"components": object{"links": object{"related": self("components")}},
			"processes":  object{"links": object{"related": self("processes")}}},
		"links": object{"self": self()}}
}

func (x *request) listMachines() *response {
	out := []object{}
	for _, k := range x.all(recordMachine) {
		out = append(out, x.machineObject(k, ""))
	}
	return x.page(out)
}

func (x *request) showMachine() *response {
	k := x.machine(x.args[0])
	if k == nil {
		return noMachineOf(x.args[0])
	}
	return show(x.machineObject(k, ""))
}

// wanted has the attributes of a machine or process that a request makes.
type wanted struct {
	Fingerprint string         `json:"fingerprint"`
	Name        *string        `json:"name"`
	IP          *string        `json:"ip"`
	Hostname    *string        `json:"hostname"`
	Platform    *string        `json:"platform"`
	Cores       *int64         `json:"cores"`
	Memory      *int64         `json:"memory"`
	Disk        *int64         `json:"disk"`
	Metadata    jsontext.Value `json:"metadata"`
	Pid         string         `json:"pid"`
}

// reserved are words that the server accepts as no fingerprint, because its paths contain them.
var reserved = []string{"actions", "action", "self", "me", "new", "edit", "ping", "reset", "check-out"}

const (
	maxFingerprint = 4096 // bytes
)

// wanted reads the resource that a request makes.
func (x *request) wanted(kind string) (*resource, *wanted, *response) {
	in, a := x.document()
	switch {
	case a != nil:
		return nil, nil, a
	case in.Data == nil:
		return nil, nil, problem(http.StatusBadRequest, "", "is missing", "pointer", "/data")
	case in.Data.Type != kind:
		return nil, nil, problem(http.StatusBadRequest, "", "type mismatch (expected "+kind+")", "pointer",
			"/data/type")
	}
	if _, uuid := parseUUID(in.Data.ID); in.Data.ID != "" && !uuid {
		return nil, nil, problem(http.StatusBadRequest, "", "must be a UUID in lower case", "pointer", "/data/id")
	}
	w := &wanted{}
	if err := in.Data.attributes(w); err != nil {
		return nil, nil, problem(http.StatusBadRequest, "", err.Error(), "pointer", "/data/attributes")
	}
	return in.Data, w, nil
}

// machineLimits are the codes for full pools.
var machineLimits = map[string]string{"": "MACHINE_LIMIT_EXCEEDED", PoolCores: "MACHINE_CORE_LIMIT_EXCEEDED",
	PoolMemory: "MACHINE_MEMORY_LIMIT_EXCEEDED",
	PoolDisk:   "MACHINE_DISK_LIMIT_EXCEEDED"}

// createMachine takes a slot of the pool machines, and the machine's amounts of the pools of cores, memory and disk.
func (x *request) createMachine() *response {
	in, w, a := x.wanted("machines")
	if a != nil {
		return a
	}
	const at = "/data/attributes/fingerprint"
	_, isID := parseUUID(w.Fingerprint)
	switch {
	case w.Fingerprint == "":
		return problem(http.StatusBadRequest, "", "is missing", "pointer", at)
	case len(w.Fingerprint) > maxFingerprint:
		return invalid("FINGERPRINT_TOO_LONG", "is too long (maximum is 4096 characters)", at)
	case slices.Contains(reserved, w.Fingerprint):
		return invalid("FINGERPRINT_NOT_ALLOWED", "is not allowed", at)
	case in.related("license") == "":
		return problem(http.StatusBadRequest, "", "is missing", "pointer", "/data/relationships/license")
	case in.related("license") != x.about.id:
		return invalid("LICENSE_NOT_FOUND", "must exist", "/data/relationships/license")
	case in.related("owner") != "" && in.related("owner") != x.about.related("owner"):
		return invalid("OWNER_INVALID", "must be a valid license user", "/data/relationships/owner")
	case number(w.Cores) < 0 || w.Cores != nil && *w.Cores == 0:
		return invalid("CORES_INVALID", "must be greater than or equal to 1", "/data/attributes/cores")
	case number(w.Memory) < 0:
		return invalid("MEMORY_INVALID", "must be greater than or equal to 0", "/data/attributes/memory")
	case number(w.Disk) < 0:
		return invalid("DISK_INVALID", "must be greater than or equal to 0", "/data/attributes/disk")
	case !x.about.judged.InForce:
		return forbidden("", "the license is not in force: "+x.about.judged.Reason)
	}
	components, a := parts(in)
	if a != nil {
		return a
	}
	rec := &record{Kind: recordMachine, ID: in.ID, Metadata: w.Metadata, Interval: x.heartbeatSeconds(),
		Fingerprint: w.Fingerprint, Name: w.Name,
		IP: w.IP, Hostname: w.Hostname, Platform: w.Platform, Cores: w.Cores, Memory: w.Memory, Disk: w.Disk,
		Components: components}
	r := &enforcer.Acquire{Caller: x.caller, Lifetime: enforcer.LifetimeHeld,
		Items: []enforcer.Item{{Pool: PoolMachines, N: 1}}}
	for _, p := range []struct {
		name string
		n    int64
	}{{PoolCores, number(w.Cores)}, {PoolMemory, number(w.Memory)}, {PoolDisk, number(w.Disk)}} {
		if _, counted := x.about.verdict.Pools[p.name]; counted && p.n > 0 {
			r.Items = append(r.Items, enforcer.Item{Pool: p.name, N: p.n})
		}
	}
	if x.about.terms.Attributes.RequireHeartbeat {
		r.Lifetime, r.TTL = enforcer.LifetimeTTL, x.ttl()
	}

	x.making.Lock()
	defer x.making.Unlock()
	for _, k := range x.all(recordMachine) {
		switch {
		case k.Fingerprint == w.Fingerprint:
			return invalid("FINGERPRINT_TAKEN", "has already been taken", at)
		case isID && k.ID == w.Fingerprint:
			return invalid("FINGERPRINT_CONFLICT", "must not conflict with another machine's identifier (UUID)", at)
		case in.ID != "" && k.ID == in.ID:
			return invalid("ID_CONFLICT", "must not conflict with another machine", "/data/id")
		}
	}
	k, a := x.take(r, rec, machineLimits)
	if a != nil {
		return a
	}
	return &response{status: http.StatusCreated, doc: object{"data": x.machineObject(k, "")},
		location: x.at("machines", k.ID)}
}

func (x *request) deleteMachine() *response {
	k := x.machine(x.args[0])
	if k == nil {
		return noMachineOf(x.args[0])
	}
	for _, p := range x.processes(k.ID) {
		x.release(p) // a refusal means that it has lapsed
	}
	if d := x.release(k); d != nil {
		return denied(d, nil)
	}
	return &response{status: http.StatusNoContent}
}

// ping renews a lease. keygen-go ends its whole process when a ping fails. So as long as the lease stands, the answer
// is good, even if the journal could not record the renewal.
func (x *request) ping(k *kept) (revived Life) {
	if life, _ := x.life(k); life == Dead {
		revived = Resurrected
	}
	if k.lease.Lifetime != enforcer.LifetimeTTL {
		x.become(k, enforcer.LifetimeTTL) // a machine that begins to ping must go on
		return Alive
	}
	if l, d := x.Renew(&enforcer.Renew{ID: k.lease.ID, Caller: x.caller}); d == nil {
		k.lease = l
	} else {
		x.Log().Warn("a ping was answered without a renewal of its lease", "lease", k.lease.ID.String(), "error",
			d.Detail)
	}
	return revived
}

func (x *request) pingMachine() *response {
	k := x.machine(x.args[0])
	if k == nil {
		return noMachineOf(x.args[0])
	}
	revived := x.ping(k)
	return show(x.machineObject(k, revived))
}

// resetMachine ends the heartbeat of a machine that began to ping without being obliged to.
func (x *request) resetMachine() *response {
	k := x.machine(x.args[0])
	switch {
	case k == nil:
		return noMachineOf(x.args[0])
	case x.about.terms.Attributes.RequireHeartbeat:
		return forbidden("", "You do not have permission to complete the request: the machine must keep a heartbeat")
	case k.lease.Lifetime == enforcer.LifetimeTTL:
		x.become(k, enforcer.LifetimeHeld)
	}
	return show(x.machineObject(k, ""))
}

// become replaces a machine's lease by one of another lifetime. If no slot is free for both, the machine has none for a
// moment. The dialect makes no other machine then, but another holder of the pool may take the slot. A machine that
// cannot get the new lease keeps the old one.
func (x *request) become(k *kept, lifetime enforcer.Lifetime) {
	x.making.Lock()
	defer x.making.Unlock()
	if now := x.get(k.Kind, k.ID); now == nil || now.lease.Lifetime == lifetime {
		if now != nil {
			*k = *now
		}
		return
	}
	b, err := json.Marshal(k.record)
	if err != nil || len(b) > plugin.MaxLeaseData {
		return // with its id and date the record has become too large
	}
	acquire := func(lifetime enforcer.Lifetime) (*enforcer.Lease, *enforcer.Denial) {
		// The client token keeps the lease if the ping's answer cannot be delivered.
		r := &enforcer.Acquire{Caller: x.caller, Items: k.lease.Items, Lifetime: lifetime, Token: newID()}
		if lifetime == enforcer.LifetimeTTL {
			r.TTL = x.ttl()
		}
		l, _, d := x.Acquire(x.r.Context(), r, b)
		return l, d
	}
	old := k.lease
	l, d := acquire(lifetime)
	switch {
	case d == nil:
		x.release(k)
	case d.Code == enforcer.NoSlots:
		x.release(k)
		if l, d = acquire(lifetime); d != nil {
			if l, d = acquire(old.Lifetime); d != nil {
				x.Log().Error("a machine has lost its slot to another holder of the pool", "machine", k.ID, "error",
					d.Detail)
				return
			}
		}
	default:
		x.Log().Warn("a machine's lease stays as it is", "machine", k.ID, "lifetime", string(old.Lifetime), "error",
			d.Detail)
		return
	}
	k.lease = l
}
