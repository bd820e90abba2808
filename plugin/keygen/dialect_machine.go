package keygen

import (
	"cmp"
	"maps"
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
		m := Machine{ID: k.ID, Fingerprint: k.Fingerprint, Owner: k.Owner, Life: life, Required: x.beats(k),
			Processes: running[k.ID],
			Cores:     number(k.Cores), Memory: number(k.Memory), Disk: number(k.Disk)}
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
			"requireHeartbeat": x.beats(k), "heartbeatStatus": string(cmp.Or(life, now)),
			"heartbeatDuration": k.Interval, "lastHeartbeat": stamp(last), "nextHeartbeat": next,
			"lastCheckOut": stamp(k.CheckedOut), "metadata": metadata(k.Metadata), "created": stamp(k.Made),
			"updated": stamp(k.updated())},
		"relationships": object{"account": x.ofAccount(),
			"product":    x.relate("products", x.about.productID(), "machines", k.ID, "product"),
			"license":    x.relate("licenses", x.about.id, "machines", k.ID, "license"),
			"group":      x.relate("", "", "machines", k.ID, "group"),
			"owner":      x.relate("users", k.Owner, "machines", k.ID, "owner"),
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

// singular has the other names of types that the server accepts.
var singular = map[string]string{"machines": "machine", "processes": "process", "components": "component"}

// wanted reads the resource that a request makes.
func (x *request) wanted(kind string) (*resource, *wanted, *response) {
	in, a := x.document()
	switch {
	case a != nil:
		return nil, nil, a
	case in.Data == nil:
		return nil, nil, problem(http.StatusBadRequest, "", "is missing", "pointer", "/data")
	case in.Data.Type != kind && in.Data.Type != singular[kind]:
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
	if k := w.Metadata.Kind(); len(w.Metadata) > 0 && k != '{' && k != 'n' {
		return nil, nil, problem(http.StatusBadRequest, "", "must be an object", "pointer", "/data/attributes/metadata")
	}
	return in.Data, w, nil
}

// machineLimits are the codes for full pools.
var machineLimits = map[string]string{"": "MACHINE_LIMIT_EXCEEDED", PoolCores: "MACHINE_CORE_LIMIT_EXCEEDED",
	PoolMemory: "MACHINE_MEMORY_LIMIT_EXCEEDED",
	PoolDisk:   "MACHINE_DISK_LIMIT_EXCEEDED"}

const atFingerprint = "/data/attributes/fingerprint"

// maxCores is the greatest number of cores of a machine that the server stores.
const maxCores = 1<<31 - 1

// unfit returns the refusal of a machine that no licence may have; nil: it is fit.
func (x *request) unfit(in *resource, w *wanted) *response {
	owner := in.related("owner")
	switch {
	case w.Fingerprint == "":
		return problem(http.StatusBadRequest, "", "is missing", "pointer", atFingerprint)
	case len(w.Fingerprint) > maxFingerprint:
		return invalid("FINGERPRINT_TOO_LONG", "is too long (maximum is 4096 characters)", atFingerprint)
	case slices.Contains(reserved, w.Fingerprint):
		return invalid("FINGERPRINT_NOT_ALLOWED", "is not allowed", atFingerprint)
	case in.related("license") == "":
		return problem(http.StatusBadRequest, "", "is missing", "pointer", "/data/relationships/license")
	case in.related("license") != x.about.id:
		return invalid("LICENSE_NOT_FOUND", "must exist", "/data/relationships/license")
	case owner != "" && !slices.ContainsFunc(x.about.users(), func(u user) bool {
		return owner == u.id || owner == u.email
	}):
		return invalid("OWNER_INVALID", "must be a valid license user", "/data/relationships/owner")
	case w.Cores != nil && *w.Cores < 1:
		return invalid("CORES_INVALID", "must be greater than or equal to 1", "/data/attributes/cores")
	case number(w.Cores) > maxCores:
		return invalid("CORES_INVALID", "must be less than or equal to 2147483647", "/data/attributes/cores")
	case number(w.Memory) < 0:
		return invalid("MEMORY_INVALID", "must be greater than or equal to 0", "/data/attributes/memory")
	case number(w.Disk) < 0:
		return invalid("DISK_INVALID", "must be greater than or equal to 0", "/data/attributes/disk")
	case !x.about.judged.InForce && !x.activatesExpired():
		return x.notInForce()
	}
	return nil
}

// notInForce refuses what only a licence in force gives.
func (x *request) notInForce() *response {
	code := ""
	if x.about.found(enforcer.Expired) {
		code = "LICENSE_EXPIRED"
	}
	return forbidden(code, "the license is not in force: "+x.about.judged.Reason)
}

// conflict returns the refusal of a machine that there is already, or parts of it; nil: there is none. making is held.
func (x *request) conflict(in *resource, w *wanted, components []part) *response {
	_, isID := parseUUID(w.Fingerprint)
	strategy := x.about.terms.Policy.ComponentUniqueness
	shared := strategy != "" && strategy != "UNIQUE_PER_MACHINE"
	for _, k := range x.all(recordMachine) {
		switch {
		case k.Fingerprint == w.Fingerprint:
			return invalid("FINGERPRINT_TAKEN", "has already been taken", atFingerprint)
		case isID && k.ID == w.Fingerprint:
			return invalid("FINGERPRINT_CONFLICT", "must not conflict with another machine's identifier (UUID)",
				atFingerprint)
		case in.ID != "" && k.ID == in.ID:
			return invalid("ID_CONFLICT", "must not conflict with another machine", "/data/id")
		}
		for i, c := range components {
			for _, there := range k.Components {
				switch {
				case there.ID == c.Fingerprint:
					return invalid("COMPONENTS_FINGERPRINT_CONFLICT",
						"must not conflict with another component's identifier (UUID)", atComponent(i, "fingerprint"))
				case shared && there.Fingerprint == c.Fingerprint:
					return invalid("COMPONENTS_FINGERPRINT_TAKEN", "has already been taken",
						atComponent(i, "fingerprint"))
				}
			}
		}
	}
	return nil
}

// createMachine takes a slot of the pool machines, and the machine's amounts of the pools of cores, memory and disk.
func (x *request) createMachine() *response {
	in, w, a := x.wanted("machines")
	if a != nil {
		return a
	}
	if a := x.unfit(in, w); a != nil {
		return a
	}
	components, a := parts(in)
	if a != nil {
		return a
	}
	rec := &record{Kind: recordMachine, ID: in.ID, Metadata: w.Metadata, Interval: x.heartbeatSeconds(),
		Fingerprint: w.Fingerprint, Name: w.Name, Owner: in.related("owner"),
		IP: w.IP, Hostname: w.Hostname, Platform: w.Platform, Cores: w.Cores, Memory: w.Memory, Disk: w.Disk,
		Components: components}
	r := &enforcer.Acquire{Caller: x.caller, Items: []enforcer.Item{{Pool: PoolMachines, N: 1}}}
	for _, p := range []struct {
		name string
		n    int64
	}{{PoolCores, number(w.Cores)}, {PoolMemory, number(w.Memory)}, {PoolDisk, number(w.Disk)}} {
		if _, counted := x.about.verdict.Pools[p.name]; counted && p.n > 0 {
			r.Items = append(r.Items, enforcer.Item{Pool: p.name, N: p.n})
		}
	}
	x.lasting(r, rec)

	x.making.Lock()
	defer x.making.Unlock()
	if a := x.conflict(in, w, components); a != nil {
		return a
	}
	if a := x.beyondUser(in.related("owner"), w); a != nil {
		return a
	}
	if !x.about.judged.InForce {
		return x.makeSlotless(rec)
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

// updateMachine changes what describes a machine. A protected licence's machines are the vendor's affair, and so is
// what counts: cores, memory, disk and metadata.
func (x *request) updateMachine() *response {
	x.making.Lock()
	defer x.making.Unlock()
	k := x.machine(x.args[0])
	switch {
	case k == nil:
		return noMachineOf(x.args[0])
	case x.about.protected():
		return forbidden("", "You do not have permission to complete the request: the license is protected")
	}
	in, _, a := x.wanted("machines")
	if a != nil {
		return a
	}
	said := map[string]jsontext.Value{}
	if err := in.attributes(&said); err != nil {
		return problem(http.StatusBadRequest, "", err.Error(), "pointer", "/data/attributes")
	}
	mayChange := map[string]**string{"name": &k.Name, "ip": &k.IP, "hostname": &k.Hostname, "platform": &k.Platform}
	for _, name := range slices.Sorted(maps.Keys(said)) {
		to, may := mayChange[name]
		if !may {
			return problem(http.StatusBadRequest, "", "unpermitted parameter: a license does not change it; "+
				"delete the machine and make another", "pointer", "/data/attributes/"+plugin.Short(name))
		}
		*to = nil
		_ = json.Unmarshal(said[name], to) // wanted has read it already
	}
	k.Updated = x.now
	if d := x.keep(k); d != nil {
		return denied(d, nil)
	}
	return show(x.machineObject(k, ""))
}
