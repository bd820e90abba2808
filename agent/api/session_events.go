package api

import (
	"github.com/usher-agent/usher/client/wire"
	"github.com/usher-agent/usher/enforcer"
)

// subscribe begins notifications; the event's type is the method.
func (x *session) subscribe(r *rpcRequest) (any, *enforcer.Denial, *rpcError) {
	var in wire.Subscribe
	if d := params(r, &in); d != nil {
		return nil, d, nil
	}
	if x.events != nil {
		return struct{}{}, nil, nil
	}
	p := &x.conn.peer
	if d := x.server.subscribe(p); d != nil {
		return nil, d, nil
	}
	u, see := visible(p, x.admin)
	if in.Mine {
		own := p.caller(false).Who()
		u = &own
		see = func(h *enforcer.Holder, ev *wire.Event) bool {
			own := h.PID == p.pid && h.Start == p.start && h.SameUser(p.caller(false)) && (p.pid != 0 || h.Inode == p.inode)
			return (own || h.SameProcess(p.caller(false))) && (ev.Type == "lease.revoking" || ev.Type == "lease.ended" && ev.Cause != string(enforcer.CauseReleased))
		}
	}
	events, cancel := x.server.desk.Subscribe(u, see)
	x.events = func() {
		cancel()
		x.server.subscribers.give(p.key(), 1)
	}
	x.tasks.Go(func() {
		for ev := range events {
			x.notify(ev)
			x.flush()
			if x.ctx.Err() != nil {
				return
			}
		}
		x.cancel() // too slow, or the agent ends
	})
	return struct{}{}, nil, nil
}
