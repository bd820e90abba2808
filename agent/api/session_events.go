package api

import (
	"sync"

	"github.com/usher-agent/usher/client/wire"
	"github.com/usher-agent/usher/enforcer"
)

// listen begins notifications of what the session's peer may see by its rights, and ends those before. x.sub.mu is
// held.
func (x *session) listen(as *rights) *enforcer.Denial {
	if x.sub.end != nil {
		x.sub.end()
	}
	x.sub.as, x.sub.end = as, nil
	if !as.allowed {
		return nil
	}
	p := &x.conn.peer
	if d := x.server.subscribe(p); d != nil {
		return d
	}
	var events *Subscription
	if x.sub.mine {
		events = x.server.feeds.SubscribeOwn(p.caller(false), func(h *enforcer.Holder, ev *wire.Event) bool {
			own := h.PID == p.pid && h.Start == p.start && h.SameUser(p.caller(false)) &&
				(p.pid != 0 || h.Inode == p.inode)
			return (own || h.SameProcess(p.caller(false))) &&
				(ev.Type == "lease.revoking" || ev.Type == leaseWaiting ||
					ev.Type == "lease.ended" && ev.Cause != string(enforcer.CauseReleased))
		})
	} else {
		events = x.server.feeds.Subscribe(visible(p, as.admin))
	}
	over, mine := make(chan struct{}), x.sub.mine
	x.sub.end = sync.OnceFunc(func() {
		close(over)
		events.Cancel()
		x.server.subscribers.give(p.key(), 1)
	})
	isOver := func() bool {
		select {
		case <-over:
			return true
		default:
			return false
		}
	}
	x.tasks.Go(func() {
		for open := true; open; {
			_, open = <-events.C
			for _, ev := range events.Take() {
				if isOver() { // the rest of it is no longer for this peer
					return
				}
				if ev.Type == leaseWaiting {
					x.notifyPlace(ev, mine)
					continue
				}
				x.notify(ev)
			}
			x.flush()
			if x.ctx.Err() != nil {
				return
			}
		}
		if !isOver() {
			x.stop() // too slow, or the agent ends
		}
	})
	return nil
}
