package agent

import (
	"context"
	"errors"
	"time"

	"github.com/usher-agent/usher/agent/api"
	"github.com/usher-agent/usher/agent/audit"
	"github.com/usher-agent/usher/agent/eventlog"
	"github.com/usher-agent/usher/agent/fleet"
	"github.com/usher-agent/usher/client/wire"
	"github.com/usher-agent/usher/enforcer"
	"github.com/usher-agent/usher/plugin"
)

// noFleet is the answer where the configuration names no fleet.
var noFleet = &enforcer.Denial{Code: api.FleetUnavailable, Detail: "this agent is in no fleet",
	Hint: "fleet.endpoints names the etcd of one: see docs/fleet.md"}

// Fleet says how the agent stands in its fleet, and what etcd says of all agents.
func (f front) Fleet(ctx context.Context) (wire.Fleet, *enforcer.Denial) {
	if f.fleet == nil {
		return wire.Fleet{}, noFleet
	}
	return f.fleet.Report(ctx), nil
}

// orderWithin bounds an order to another agent, its fence aside.
const orderWithin = 10 * time.Second

// DrainHost has an agent of the fleet give its idle slots back and take none, or ends that.
func (f front) DrainHost(ctx context.Context, by enforcer.Caller, host string, undo bool) (wire.FleetDone,
	*enforcer.Denial) {
	kind := audit.FleetDrained
	if undo {
		kind = audit.FleetUndrained
	}
	return f.orders(ctx, by, kind, orderWithin, func(ctx context.Context, o *fleet.Operator) (wire.FleetDone, error) {
		return o.Drain(ctx, host, undo)
	})
}

// EvictHost puts an agent out of the fleet, or lets it join again.
func (f front) EvictHost(ctx context.Context, by enforcer.Caller, host string, wait time.Duration, undo bool) (
	wire.FleetDone, *enforcer.Denial) {
	kind, within := audit.FleetEvicted, wait+orderWithin
	if undo {
		kind = audit.FleetReadmitted
	}
	return f.orders(ctx, by, kind, within, func(ctx context.Context, o *fleet.Operator) (wire.FleetDone, error) {
		if undo {
			return o.Readmit(ctx, host)
		}
		return o.Evict(ctx, host, wait)
	})
}

// orders tells an agent of the fleet what an operator wants, and notes it.
func (f front) orders(ctx context.Context, by enforcer.Caller, kind string, within time.Duration,
	do func(context.Context, *fleet.Operator) (wire.FleetDone, error)) (wire.FleetDone, *enforcer.Denial) {
	if f.fleet == nil {
		return wire.FleetDone{}, noFleet
	}
	ctx, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	out, err := do(ctx, f.fleet.Operator())
	var unknown *fleet.UnknownAgentError
	var told *plugin.Error
	switch {
	case errors.As(err, &unknown):
		return out, &enforcer.Denial{Code: api.AgentUnknown, Field: "host", Detail: err.Error(),
			Hint: "`usher fleet status` lists the agents"}
	case errors.As(err, &told):
		return out, &enforcer.Denial{Code: api.FleetUnavailable, Detail: told.Reason, Hint: told.Hint}
	case err != nil:
		fault, reason := fleet.FaultOf(err)
		hint := fault.Mend()
		if fault == fleet.FaultDenied {
			hint = "this agent's user of etcd may not do that; `usher fleet … --etcd-user`, or --etcd-cert, uses an " +
				"operator's own"
		}
		return out, &enforcer.Denial{Code: api.FleetUnavailable, Detail: reason, Hint: hint}
	}
	f.audit.NoteBy(by, eventlog.Event{Type: kind, Subject: out.Agent, Fields: map[string]string{"host": out.Name}})
	f.log.Warn("an operator has told an agent of the fleet what to do", "order", kind, "host", out.Name, "agent",
		out.Agent, "done", out.Done, "uid", by.UID, "pid", by.PID, "exe", by.Exe)
	return out, nil
}
