package keygen

import (
	"cmp"
	"net/http"
	"time"

	"github.com/usher-agent/usher/enforcer"
	"github.com/usher-agent/usher/plugin"
)

// process returns a process by its id; nil: there is none. A process ends with its machine.
func (x *request) process(id string) *kept {
	p := x.get(recordProcess, id)
	if p == nil || x.machine(p.Machine) != nil {
		return p
	}
	x.release(p)
	return nil
}

// processes returns the processes of a machine; an empty machine means all.
func (x *request) processes(machine string) (out []*kept) {
	for _, p := range x.all(recordProcess) {
		if machine == "" || p.Machine == machine {
			out = append(out, p)
		}
	}
	return out
}

func (x *request) processObject(k *kept, life Life) object {
	now, last := x.life(k)
	return object{"type": "processes", "id": k.ID, "attributes": object{"pid": k.Pid,
		"status": string(cmp.Or(life, now)), "interval": k.Interval, "lastHeartbeat": stamp(last),
		"nextHeartbeat": stamp(last.Add(time.Duration(k.Interval) * time.Second)), "metadata": metadata(k.Metadata),
		"created": stamp(k.Made), "updated": stamp(k.updated())},
		"relationships": object{"account": x.ofAccount(),
			"product": x.relate("products", x.about.productID(), "processes", k.ID, "product"),
			"license": x.relate("licenses", x.about.id, "processes", k.ID, "license"),
			"machine": x.relate("machines", k.Machine, "processes", k.ID, "machine")},
		"links": object{"self": x.at("processes", k.ID)}}
}

func noProcessOf(id string) *response {
	return notFound("The requested process '" + plugin.Short(id) + "' was not found")
}

func (x *request) listProcesses() *response {
	machine := ""
	if len(x.args) > 0 {
		k := x.machine(x.args[0])
		if k == nil {
			return noMachineOf(x.args[0])
		}
		machine = k.ID
	}
	out := []object{}
	for _, p := range x.processes(machine) {
		out = append(out, x.processObject(p, ""))
	}
	return x.page(out)
}

func (x *request) showProcess() *response {
	p := x.process(x.args[0])
	if p == nil {
		return noProcessOf(x.args[0])
	}
	return show(x.processObject(p, ""))
}

// createProcess takes a slot of the pool processes until a ping is missed.
func (x *request) createProcess() *response {
	in, w, a := x.wanted("processes")
	if a != nil {
		return a
	}
	switch {
	case w.Pid == "":
		return problem(http.StatusBadRequest, "", "is missing", "pointer", "/data/attributes/pid")
	case in.related("machine") == "":
		return problem(http.StatusBadRequest, "", "is missing", "pointer", "/data/relationships/machine")
	case !x.about.judged.InForce:
		return x.notInForce()
	}
	x.making.Lock()
	defer x.making.Unlock()
	m := x.machine(in.related("machine"))
	if m == nil {
		return invalid("MACHINE_NOT_FOUND", "must exist", "/data/relationships/machine")
	}
	if a := x.noSlot(m); a != nil {
		return a
	}
	for _, p := range x.all(recordProcess) {
		switch {
		case p.Machine == m.ID && p.Pid == w.Pid:
			return invalid("PID_TAKEN", "has already been taken", "/data/attributes/pid")
		case in.ID != "" && p.ID == in.ID:
			return invalid("ID_CONFLICT", "must not conflict with another process", "/data/id")
		}
	}
	if a := x.processesBeyond(m); a != nil {
		return a
	}
	rec := &record{Kind: recordProcess, ID: in.ID, Metadata: w.Metadata, Interval: x.heartbeatSeconds(), Pid: w.Pid,
		Machine: m.ID}
	r := &enforcer.Acquire{Caller: x.caller, Pool: PoolProcesses, N: 1}
	x.lasting(r, rec)
	k, a := x.take(r, rec, map[string]string{"": "MACHINE_PROCESS_LIMIT_EXCEEDED"})
	if a != nil {
		return a
	}
	return &response{status: http.StatusCreated, doc: object{"data": x.processObject(k, "")},
		location: x.at("processes", k.ID)}
}

func (x *request) deleteProcess() *response {
	p := x.process(x.args[0])
	if p == nil {
		return noProcessOf(x.args[0])
	}
	if d := x.release(p); d != nil {
		return denied(d, nil)
	}
	return &response{status: http.StatusNoContent}
}

func (x *request) pingProcess() *response {
	p := x.process(x.args[0])
	if p == nil {
		return noProcessOf(x.args[0])
	}
	revived, a := x.ping(p)
	if a != nil {
		return a
	}
	return show(x.processObject(p, revived))
}
