package api

import (
	"time"

	"github.com/usher-agent/usher/client/wire"
	"github.com/usher-agent/usher/enforcer"
	"github.com/usher-agent/usher/plugin"
)

// methods is everything a session can ask for. docs/wire.md lists the same.
var methods map[string]func(*session, *rpcRequest) (any, *enforcer.Denial, *rpcError)

// methodNames are their names.
var methodNames = map[string]string{}

// methodName returns a method's name as a text, which is made only where there is no such method.
func methodName(name []byte) string {
	if known, ok := methodNames[string(name)]; ok {
		return known
	}
	return string(name)
}

func init() { // a literal would be a cycle: the table names functions that use it
	methods = map[string]func(*session, *rpcRequest) (any, *enforcer.Denial, *rpcError){
		"session.hello":    (*session).hello,
		"session.prove":    (*session).prove,
		"license.get":      (*session).getLicense,
		"features.get":     (*session).getFeatures,
		"pools.list":       (*session).listPools,
		"lease.acquire":    (*session).acquire,
		"lease.cancel":     (*session).cancelWait,
		"lease.renew":      (*session).renew,
		"lease.release":    (*session).release,
		"lease.join":       (*session).join,
		"lease.attach":     (*session).attach,
		"events.subscribe": (*session).subscribe,
	}
	for name := range methods {
		methodNames[name] = name
	}
}

// Methods returns the name of every method of a session.
func Methods() []string {
	var out []string
	for name := range methods {
		out = append(out, name)
	}
	return out
}

func (x *session) hello(r *rpcRequest) (any, *enforcer.Denial, *rpcError) {
	var in wire.Hello
	if d := params(r, &in); d != nil {
		return nil, d, nil
	}
	x.labels = in.Labels
	p := &x.conn.peer
	return wire.HelloAnswer{Versions: []int{1}, Agent: x.server.operations.Health(),
		Capabilities: []string{"wait", "join", "attach", "events", "prove", "tls"},
		You:          wire.Holder{UID: p.uid, GID: p.gid, PID: p.pid, Exe: p.exe}}, nil, nil
}

func (x *session) prove(r *rpcRequest) (any, *enforcer.Denial, *rpcError) {
	var in wire.Prove
	d := params(r, &in)
	if d == nil {
		d = checkNonce(in.Nonce, true)
	}
	if d != nil {
		return nil, d, nil
	}
	token, err := x.agent.Prove(in.Nonce)
	if err != nil {
		return nil, &enforcer.Denial{Code: Internal, Detail: "the proof cannot be signed"}, nil
	}
	return wire.Proof{Token: token}, nil, nil
}

func (x *session) getLicense(r *rpcRequest) (any, *enforcer.Denial, *rpcError) {
	return x.server.documents.License(), params(r, &struct{}{}), nil
}

func (x *session) getFeatures(r *rpcRequest) (any, *enforcer.Denial, *rpcError) {
	var in struct {
		Name string `json:"name"`
	}
	if d := params(r, &in); d != nil {
		return nil, d, nil
	}
	all := x.server.documents.License().Features
	if in.Name != "" {
		return wire.NamedFeature{Name: in.Name, Feature: all[in.Name]}, nil, nil
	}
	return wire.Features{Features: all}, nil, nil
}

func (x *session) listPools(r *rpcRequest) (any, *enforcer.Denial, *rpcError) {
	out := wire.Pools{Pools: []wire.Pool{}}
	for _, p := range x.server.slots.Pools() {
		out.Pools = append(out.Pools, poolShape(p, &x.conn.peer, len(p.HoldOffs) > 0 && x.isAdmin()))
	}
	return out, params(r, &struct{}{}), nil
}

// one reads parameters that name one lease.
func one(r *rpcRequest) (enforcer.LeaseID, wire.LeaseRequest, *enforcer.Denial) {
	if text, plain := plainMember(r.Params, "id"); plain {
		if id, ok := enforcer.ReadLeaseID(text); ok {
			return id, wire.LeaseRequest{}, nil
		}
	}
	return oneOf(r)
}

// oneOf is one for parameters in any form.
func oneOf(r *rpcRequest) (enforcer.LeaseID, wire.LeaseRequest, *enforcer.Denial) {
	var in wire.LeaseRequest
	if d := params(r, &in); d != nil {
		return enforcer.LeaseID{}, in, d
	}
	id, ok := enforcer.ParseLeaseID(in.ID)
	if !ok {
		return id, in, badRequest("id", "give it as the acquire answered it",
			"%q is not a lease id, which is 32 hexadecimal digits", plugin.Short(in.ID))
	}
	return id, in, nil
}

func (x *session) renew(r *rpcRequest) (any, *enforcer.Denial, *rpcError) {
	id, in, d := one(r)
	if d != nil {
		return nil, d, nil
	}
	ttl, d := seconds("ttl_seconds", in.TTLSeconds)
	if d != nil {
		return nil, d, nil
	}
	g, d := x.server.slots.Renew(&enforcer.Renew{ID: id, Caller: x.conn.peer.caller(x.isAdmin()), TTL: ttl})
	return x.answerLease(r, g, d)
}

// answerLease answers a request for a lease which that request did not acquire.
func (x *session) answerLease(r *rpcRequest, g Grant, d *enforcer.Denial) (any, *enforcer.Denial, *rpcError) {
	if d != nil {
		return nil, d, nil
	}
	if len(r.ID) > 0 {
		x.writeLease(r.ID, g, "", false)
	} else if g.Late != nil {
		g.Late(true)
	}
	return later, nil, nil
}

func (x *session) release(r *rpcRequest) (any, *enforcer.Denial, *rpcError) {
	id, in, d := one(r)
	var held *time.Duration
	if d == nil && in.HoldOffSeconds != nil {
		held, d = holdOff(*in.HoldOffSeconds)
	}
	if d == nil {
		m := x.read
		m.giveUp = enforcer.Release{ID: id, Force: in.Force, HoldOff: held, Room: &m.room}
		x.conn.peer.call(&m.giveUp.Caller, x.isAdmin())
		d = x.server.slots.Release(&m.giveUp)
	}
	return struct{}{}, d, nil
}

func (x *session) join(r *rpcRequest) (any, *enforcer.Denial, *rpcError) {
	id, _, d := one(r)
	if d != nil {
		return nil, d, nil
	}
	g, d := x.agent.Join(id)
	return x.answerLease(r, g, d)
}

func (x *session) attach(r *rpcRequest) (any, *enforcer.Denial, *rpcError) {
	id, _, d := one(r)
	if d != nil {
		return nil, d, nil
	}
	g, d := x.agent.Attach(id)
	return x.answerLease(r, g, d)
}
