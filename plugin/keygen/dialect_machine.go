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

// record is what is kept on the lease of a machine or a process.
type record struct {
	Kind     string         `json:"kind"`          // recordMachine, recordProcess
	ID       string         `json:"id,omitzero"`   // empty: the lease's own number
	Made     time.Time      `json:"made,omitzero"` // zero: when the lease was acquired
	Metadata jsontext.Value `json:"metadata,omitzero"`
	Interval int64          `json:"interval"` // seconds between signs of life

	// Of a machine.
	Fingerprint string  `json:"fingerprint,omitzero"`
	Name        *string `json:"name,omitzero"`
	IP          *string `json:"ip,omitzero"`
	Hostname    *string `json:"hostname,omitzero"`
	Platform    *string `json:"platform,omitzero"`
	Cores       *int64  `json:"cores,omitzero"`
	Memory      *int64  `json:"memory,omitzero"`
	Disk        *int64  `json:"disk,omitzero"`
	Components  []part  `json:"components,omitzero"`

	// Of a process.
	Pid     string `json:"pid,omitzero"`
	Machine string `json:"machine,omitzero"` // id
}

const (
	recordMachine = "machine"
	recordProcess = "process"
)

// part is a component of a machine.
type part struct {
	ID          string         `json:"id"`
	Fingerprint string         `json:"fingerprint"`
	Name        string         `json:"name"`
	Metadata    jsontext.Value `json:"metadata,omitzero"`
}

// kept is a record with its lease.
type kept struct {
	record
	lease *enforcer.Lease
}

// open reads what a lease keeps; nil: it is not of this kind.
func (x *exchange) open(l *enforcer.Lease, kind string) *kept {
	k := &kept{lease: l}
	if json.Unmarshal(l.Data.Bytes, &k.record) != nil || k.Kind != kind {
		return nil
	}
	k.ID = cmp.Or(k.ID, uuid(l.ID))
	if k.Made.IsZero() {
		k.Made = l.AcquiredAt
	}
	return k
}

// all returns the caller's machines or processes.
func (x *exchange) all(kind string) (out []*kept) {
	for _, l := range x.Leases(x.caller) {
		if k := x.open(l, kind); k != nil {
			out = append(out, k)
		}
	}
	return out
}

// get returns one of the caller's by its id; nil: there is none.
func (x *exchange) get(kind, id string) *kept {
	if b, ok := parseUUID(id); ok {
		if l, ok := x.Lease(b, x.caller); ok {
			if k := x.open(l, kind); k != nil && k.ID == id {
				return k
			}
		}
	}
	for _, k := range x.all(kind) {
		if k.ID == id || kind == recordMachine && k.Fingerprint == id {
			return k
		}
	}
	return nil
}

func (x *exchange) machine(id string) *kept { return x.get(recordMachine, id) }

func noMachineOf(id string) *response {
	return notFound("The requested machine '" + plugin.Short(id) + "' was not found")
}

func (x *exchange) release(k *kept) *enforcer.Denial {
	return x.Release(&enforcer.Release{ID: k.lease.ID, Caller: x.caller})
}

// leastInterval is what SDKs are told at least: they ping half a minute before the time is up, and at 30 s or less
// never again.
const leastInterval = 60

// heartbeatSeconds is the interval of signs of life that the policy says.
func (x *exchange) heartbeatSeconds() int64 {
	n := int64(defaultHeartbeat / time.Second)
	if d := x.about.terms.Policy.HeartbeatDuration; d != nil {
		n = *d
	}
	return max(leastInterval, min(n, int64(enforcer.MaxTTL/time.Second)))
}

// revive is how long after its last sign of life's time a machine or process keeps its place.
func (x *exchange) revive() time.Duration {
	return heartbeat(true, &x.about.terms.Policy, nil).Grace
}

// ttl is how long a lease with a duty lasts without a ping.
func (x *exchange) ttl() time.Duration {
	return min(time.Duration(x.heartbeatSeconds())*time.Second+x.revive(), enforcer.MaxTTL)
}

// life is the state of a machine's or process's heartbeat.
func (x *exchange) life(k *kept) (l Life, last time.Time) {
	if k.lease.Lifetime != enforcer.LifetimeTTL {
		return NotStarted, time.Time{}
	}
	last = k.lease.ExpiresAt.Add(-k.lease.TTL)
	if last.After(x.now) { // time that a restart gave
		last = x.now
	}
	if last.Add(time.Duration(k.Interval) * time.Second).Before(x.now) {
		return Dead, last
	}
	return Alive, last
}

// machines returns the caller's machines as validations look at them.
func (x *exchange) machines() (out []Machine) {
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

func number(n *int64) int64 {
	if n == nil {
		return 0
	}
	return *n
}

func metadata(v jsontext.Value) any {
	if len(v) == 0 {
		return object{}
	}
	return v
}

// machineObject is a machine as the API shows it. life overrides what its heartbeat says; empty: it does not.
func (x *exchange) machineObject(k *kept, life Life) object {
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

func (x *exchange) componentObject(k *kept, c *part) object {
	return object{"type": "components", "id": c.ID,
		"attributes": object{"fingerprint": c.Fingerprint, "name": c.Name, "metadata": metadata(c.Metadata),
			"created": stamp(k.Made), "updated": stamp(k.Made)},
		"relationships": object{"account": relate("accounts", x.accountID()),
			"product": relate("products", x.about.productID()), "license": relate("licenses", x.about.id),
			"machine": relate("machines", k.ID)}, "links": object{"self": x.at("components", c.ID)}}
}

func (x *exchange) listMachines() *response {
	out := []object{}
	for _, k := range x.all(recordMachine) {
		out = append(out, x.machineObject(k, ""))
	}
	return x.page(out)
}

func (x *exchange) showMachine() *response {
	k := x.machine(x.args[0])
	if k == nil {
		return noMachineOf(x.args[0])
	}
	return show(x.machineObject(k, ""))
}

// wanted is what is said of the machine or process that is to be made.
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

// reserved are the words that the server takes for no fingerprint: they stand in its paths.
var reserved = []string{"actions", "action", "self", "me", "new", "edit", "ping", "reset", "check-out"}

const (
	maxFingerprint = 4096 // bytes
)

// wanted reads the resource that is to be made.
func (x *exchange) wanted(kind string) (*resource, *wanted, *response) {
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

// parts reads the components that stand in a machine's relationships.
func parts(r *resource) ([]part, *response) {
	const at = "/data/relationships/components/data"
	raw := r.Relationships["components"].Data
	if len(raw) == 0 || string(raw) == "null" {
		return nil, nil
	}
	var all []resource
	if err := json.Unmarshal(raw, &all); err != nil {
		return nil, problem(http.StatusBadRequest, "", plugin.JSONFault(err, "member").Error(), "pointer", at)
	}
	if len(all) > maxComponents {
		return nil, problem(http.StatusBadRequest, "", "must have at most 20 components", "pointer", at)
	}
	var out []part
	for _, r := range all {
		c := part{}
		if err := r.attributes(&c); err != nil || c.Fingerprint == "" {
			return nil, problem(http.StatusBadRequest, "", "each component needs a fingerprint and a name", "pointer",
				at)
		}
		if slices.ContainsFunc(out, func(o part) bool { return o.Fingerprint == c.Fingerprint }) {
			return nil, invalid("COMPONENTS_FINGERPRINT_TAKEN", "has already been taken", at)
		}
		c.ID = newID()
		out = append(out, c)
	}
	return out, nil
}

// machineLimits are the codes for pools that are full.
var machineLimits = map[string]string{"": "MACHINE_LIMIT_EXCEEDED", PoolCores: "MACHINE_CORE_LIMIT_EXCEEDED",
	PoolMemory: "MACHINE_MEMORY_LIMIT_EXCEEDED",
	PoolDisk:   "MACHINE_DISK_LIMIT_EXCEEDED"}

// createMachine takes a slot of the pool machines, and as many as the machine has of those of cores, memory and disk.
func (x *exchange) createMachine() *response {
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

// take acquires what a record stands for.
func (x *exchange) take(r *enforcer.Acquire, rec *record, limits map[string]string) (*kept, *response) {
	b, err := json.Marshal(rec)
	if err != nil {
		return nil, problem(http.StatusBadRequest, "", plugin.JSONFault(err, "member").Error(), "pointer", "/data")
	}
	if len(b) > plugin.MaxLeaseData {
		return nil, invalid("", "is too large: fingerprints, names and metadata together have at most 4 KiB here",
			"/data/attributes")
	}
	x.limits = limits
	l, _, d := x.Acquire(x.r.Context(), r, b)
	if d != nil {
		return nil, denied(d, limits)
	}
	return x.open(l, rec.Kind), nil
}

func (x *exchange) deleteMachine() *response {
	k := x.machine(x.args[0])
	if k == nil {
		return noMachineOf(x.args[0])
	}
	for _, p := range x.processes(k.ID) {
		x.release(p) // one that has just lapsed is gone too
	}
	if d := x.release(k); d != nil {
		return denied(d, nil)
	}
	return &response{status: http.StatusNoContent}
}

// ping renews what has a duty. keygen-go ends its whole process when a ping fails: as long as the lease stands, a ping
// is answered as good, also where it could not be written down.
func (x *exchange) ping(k *kept) (revived Life) {
	if life, _ := x.life(k); life == Dead {
		revived = Resurrected
	}
	if k.lease.Lifetime != enforcer.LifetimeTTL {
		x.become(k, enforcer.LifetimeTTL) // whoever begins to ping is watched from then on
		return Alive
	}
	if l, d := x.Renew(&enforcer.Renew{ID: k.lease.ID, Caller: x.caller}); d == nil {
		k.lease = l
	} else {
		x.Log().Warn("a ping was answered, and its lease is not renewed", "lease", k.lease.ID.String(), "error",
			d.Detail)
	}
	return revived
}

func (x *exchange) pingMachine() *response {
	k := x.machine(x.args[0])
	if k == nil {
		return noMachineOf(x.args[0])
	}
	revived := x.ping(k)
	return show(x.machineObject(k, revived))
}

// resetMachine ends the watch over a machine that began to ping without having to.
func (x *exchange) resetMachine() *response {
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

// become gives a machine a lease of another lifetime, in the place of the one that it has. Where there is no slot for
// both it is without one for a moment, in which no other machine can be made here; whoever takes slots of the pool by
// another way may be quicker. A machine that cannot get the new lease keeps the old.
func (x *exchange) become(k *kept, lifetime enforcer.Lifetime) {
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
		return // with its id and date it has just become too large
	}
	acquire := func(lifetime enforcer.Lifetime) (*enforcer.Lease, *enforcer.Denial) {
		// A client token: this must not be undone where the ping's answer cannot be delivered.
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

func (x *exchange) listComponents() *response {
	out := []object{}
	for _, k := range x.all(recordMachine) {
		if len(x.args) > 0 && k.ID != x.args[0] && k.Fingerprint != x.args[0] {
			continue
		}
		for i := range k.Components {
			out = append(out, x.componentObject(k, &k.Components[i]))
		}
	}
	if len(x.args) > 0 && len(out) == 0 && x.machine(x.args[0]) == nil {
		return noMachineOf(x.args[0])
	}
	return x.page(out)
}

func (x *exchange) showComponent() *response {
	for _, k := range x.all(recordMachine) {
		for i := range k.Components {
			if c := &k.Components[i]; c.ID == x.args[0] || c.Fingerprint == x.args[0] {
				return show(x.componentObject(k, c))
			}
		}
	}
	return notFound("The requested component '" + plugin.Short(x.args[0]) + "' was not found")
}
