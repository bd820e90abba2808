package api

import (
	"github.com/go-json-experiment/json"

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
	see := visible(&x.conn.peer, x.admin)
	if in.Mine {
		p := &x.conn.peer
		see = func(h *enforcer.Holder, ev *wire.Event) bool {
			own := h.PID == p.pid && h.Start == p.start && h.SameUser(p.caller(false)) && (p.pid != 0 || h.Inode == p.inode)
			return (own || h.SameProcess(p.caller(false))) && (ev.Type == "lease.revoking" || ev.Type == "lease.ended" && ev.Cause != string(enforcer.CauseReleased))
		}
	}
	events, cancel := x.server.desk.Subscribe(see)
	x.events = cancel
	x.tasks.Go(func() {
		for ev := range events {
			b, err := json.Marshal(rpcNotification{"2.0", ev.Type, ev})
			if err != nil {
				continue
			}
			x.send(append(b, '\n'))
			x.flush()
			if x.ctx.Err() != nil {
				return
			}
		}
		x.cancel() // too slow, or the agent ends
	})
	return struct{}{}, nil, nil
}
