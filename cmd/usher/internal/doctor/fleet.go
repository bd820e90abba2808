package doctor

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/usher-agent/usher/agent"
	"github.com/usher-agent/usher/agent/fleet"
	"github.com/usher-agent/usher/client"
	"github.com/usher-agent/usher/client/wire"
)

// codesOfFleet are the codes of the faults of a fleet's store.
var codesOfFleet = map[fleet.Fault]string{
	fleet.FaultDNS: "FLEET_DNS", fleet.FaultRefused: "FLEET_CONNECT", fleet.FaultSilent: "FLEET_SILENT",
	fleet.FaultCA: "FLEET_CA", fleet.FaultExpired: "FLEET_CERT_EXPIRED", fleet.FaultName: "FLEET_CERT_NAME",
	fleet.FaultClientCert: "FLEET_CLIENT_CERT", fleet.FaultTLS: "FLEET_TLS", fleet.FaultAuth: "FLEET_AUTH",
	fleet.FaultDenied: "FLEET_DENIED", fleet.FaultNoLeader: "FLEET_NO_LEADER", fleet.FaultNoSpace: "FLEET_NO_SPACE",
	fleet.FaultSlow: "FLEET_SLOW", fleet.FaultOther: "FLEET_FAILING",
}

// fleet goes the way to each member of the fleet's etcd, as the agent does. What keeps the agent from more than half of
// them is bad.
func (e *exam) fleet() {
	if e.cfg == nil || len(e.cfg.Fleet.Endpoints) == 0 {
		return
	}
	var store *fleet.Etcd
	var err error
	failed := e.agent.do(func() { store, err = agent.DialFleet(e.cfg) })
	if failed != nil {
		e.notLooked("fleet", failed)
		return
	}
	if err != nil {
		return // the configuration's fault, which is said
	}
	defer store.Close()
	ctx, cancel := e.within()
	defer cancel()
	all, n := len(e.cfg.Fleet.Endpoints), len(e.found)
	faults := store.Diagnose(ctx, e.cfg.Fleet.Prefix+"c")
	result := Warning
	if len(faults) > all/2 || len(faults) == 1 && strings.Contains(faults[0].Endpoint, " ") {
		result = Bad
	}
	for _, m := range faults {
		e.add(result, codesOfFleet[m.Fault], "etcd "+m.Endpoint, m.Fault.Mend(), "%s", m.Reason)
	}
	e.from(n, "fleet.endpoints")
	if len(faults) == 0 {
		e.ok("fleet", "etcd answers at %s", addresses(all))
	}
}

func addresses(n int) string {
	if n == 1 {
		return "its one address"
	}
	return fmt.Sprintf("all %d addresses", n)
}

// slowWrite is how long a write of etcd may take, in seconds: its own warnings begin at a tenth of a second.
const slowWrite = 0.25

// fleetOf asks the agent how it stands in its fleet.
func (e *exam) fleetOf() {
	looked := e.cfg != nil && e.File != "" // else the agent's configuration may be another
	if looked && len(e.cfg.Fleet.Endpoints) == 0 {
		return
	}
	ctx, cancel := e.within() // the agent waits for etcd itself
	defer cancel()
	f, err := e.client.Fleet(ctx)
	if !looked && (errors.Is(err, client.ErrFleetUnavailable) || errors.Is(err, client.ErrForbidden)) {
		return // as far as is known, it is in none
	}
	if errors.Is(err, client.ErrForbidden) {
		err = errors.New("only admins may ask about the fleet")
	}
	if err != nil {
		e.notLooked("place in the fleet", err)
		return
	}
	if e.cfg == nil || len(e.cfg.Fleet.Endpoints) == 0 { // the doctor has not gone there itself
		e.store(f)
	}
	e.place(f)
}

// OfServer looks at how a site server stands in its fleet.
func OfServer(f *wire.Fleet) []Finding {
	e := &exam{}
	e.store(f)
	e.place(f)
	return sorted(e.found)
}

// store tells what a member of the fleet has found wrong with the members of etcd.
func (e *exam) store(f *wire.Fleet) {
	for _, m := range f.Store {
		result := Bad
		if f.State == "member" {
			result = Warning // another member of etcd answers
		}
		code, ok := codesOfFleet[fleet.Fault(m.Fault)]
		if !ok {
			code = codesOfFleet[fleet.FaultOther]
		}
		e.add(result, code, "etcd "+m.Endpoint, m.Hint, "%s", m.Reason)
	}
}

// ofHost returns what names an agent's host in a command: its name, or, where another has that too, its key.
func ofHost(f *wire.Fleet) string {
	if f.Name == "" || slices.ContainsFunc(f.Agents, func(a wire.FleetAgent) bool {
		return a.Name == f.Name && a.Agent != f.Agent
	}) {
		return fleet.Argument(f.Agent)
	}
	return f.Name
}

// place looks at a place in a fleet.
func (e *exam) place(f *wire.Fleet) {
	const check = "place in the fleet"
	mend := "mend the way to etcd"
	if f.Hint != "" {
		mend += ": " + f.Hint
	}
	switch f.State {
	case "waiting":
		e.bad("FLEET_CLONE", check, f.Hint, "%s", f.Reason)
	case "evicted":
		e.bad("FLEET_EVICTED", check, f.Hint, "%s", f.Reason)
	case "fenced":
		e.bad("FLEET_FENCED", check, mend+"; the agent joins again by itself",
			"the agent grants no slots of the fleet: %s", dash(f.Reason))
	case "cut_off":
		e.warn("FLEET_FENCED", check, mend+", before that",
			"etcd does not answer the agent, which grants from its blocks for %.0f seconds more: %s", f.FenceSeconds,
			f.Reason)
	case "quarantine":
		e.warn("FLEET_QUARANTINE", check, "it ends by itself once all agents have stated their slots again", "%s",
			f.Reason)
	case "draining":
		e.warn("FLEET_DRAINED", check, "`usher fleet drain --undo "+ofHost(f)+"` ends that",
			"an operator has this host give its idle slots back, and take none")
	case "joining":
		result, first := Bad, mend+"; the agent joins by itself"
		if f.Hint == "" { // it may be about to
			result, first = Warning, "see what the log says of the fleet"
		}
		e.add(result, "FLEET_FENCED", check, first, "it has not joined the fleet yet, and grants nothing of it: %s",
			dash(f.Reason))
	case "member":
		e.inFleet = true
		e.ok(check, "%s is a member of the fleet", dash(f.Name))
	}
	if f.WriteSeconds > slowWrite {
		e.warn("FLEET_SLOW", "etcd", fleet.FaultSlow.Mend(), "its writes take %.1f seconds, of late", f.WriteSeconds)
	}
	for _, p := range f.Pools {
		e.lower(f, p)
	}
}

// lower says that other hosts' licences have a lower limit than this one's.
func (e *exam) lower(f *wire.Fleet, p wire.FleetPool) {
	var own int64
	var by []string
	for _, s := range p.Agents {
		switch {
		case s.Agent == f.Agent:
			own = s.Limit
		case s.Limit == p.Limit && s.Slots > 0:
			by = append(by, dash(s.Name))
		}
	}
	if own > p.Limit && p.Limit > 0 {
		e.warn("FLEET_TERMS", "pool "+p.Pool, "install the same licence document on all hosts",
			"the licence here has %d slots, and that of %s has %d, which holds for all", own,
			dash(strings.Join(by, ", ")), p.Limit)
	}
}
