package api

import (
	"slices"
	"time"

	"github.com/go-json-experiment/json/jsontext"
)

// answerHead begins an answer that is written by hand; the request's id follows.
const answerHead = `{"jsonrpc":"2.0","id":`

// emptyTail ends an answer that says nothing but that the request was carried out.
const emptyTail = ",\"result\":{}}\n"

// flush sends the gathered answers. It cuts off an end that does not read.
func (x *session) flush() {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.empty()
	if x.pen != nil {
		x.pen.rest()
		x.pen = nil
	}
}

// empty sends the gathered answers. x.mu is held.
func (x *session) empty() {
	if x.broken || x.pen == nil || len(x.pen.out) == 0 {
		return
	}
	x.deadline()
	if len(x.fenced) > 0 && !x.look() {
		x.fail()
		return
	}
	if len(x.pen.out) == 0 {
		return
	}
	if _, err := x.conn.Write(x.pen.out); err != nil {
		x.fail()
		return
	}
	if x.last {
		x.conn.expect(unread{x.fresh[len(x.fresh)-1], x.takeBack, x.sure})
	}
	x.pen.out, x.fresh, x.last, x.sure = x.pen.out[:0], x.fresh[:0], false, false
	if len(x.fenced) > 0 {
		x.lookAgain()
	}
}

// fail ends a session whose other end takes nothing any more. x.mu is held.
func (x *session) fail() {
	x.broken = true
	x.lost = append(x.lost, x.fresh...)
	x.fresh = x.fresh[:0]
	x.stop()
}

// deadline gives a write between half and all of writeWithin. x.mu is held.
func (x *session) deadline() {
	if x.until.IsZero() || time.Until(x.until) < writeWithin/2 { // one clock is read, where Now reads two
		x.until = time.Now().Add(writeWithin)
		x.conn.SetWriteDeadline(x.until)
	}
}

// send gathers a line, which flush sends.
func (x *session) send(b []byte) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.write(b)
}

// write is send with the lock held.
func (x *session) write(b []byte) {
	if p := x.writer(); x.roomFor(len(b)) {
		p.out = append(p.out, b...)
	}
}

// writer returns the session's pen, which it has until the next flush. x.mu is held.
func (x *session) writer() *writing {
	if x.pen == nil {
		x.pen = writings.Get().(*writing)
	}
	return x.pen
}

// roomFor has room for n bytes more in what the pen has written, where the caller puts them, and reports whether there
// is any use in that. x.mu is held.
func (x *session) roomFor(n int) bool {
	if len(x.pen.out) > 0 && len(x.pen.out)+n > sendAt {
		x.empty()
	}
	if x.broken {
		return false
	}
	x.last = false
	return true
}

// writeLease writes the answer that is a lease, with its token; empty: it has none. If the answer to an acquire is not
// delivered, the lease is undone.
func (x *session) writeLease(id jsontext.Value, g Grant, token string, acquired bool) {
	x.mu.Lock()
	defer x.mu.Unlock()
	p := x.writer()
	p.lease(x.server, id, g.Lease, token)
	x.write(p.buf)
	if g.Late != nil && !x.broken {
		from := len(p.out) - len(p.buf)
		x.fenced = append(x.fenced, fenced{from, len(p.out), from + len(answerHead) + len(id), g.ID, g.Late})
	}
	switch {
	case !acquired || !undoable(g.Lease):
	case x.broken:
		x.lost = append(x.lost, g.ID)
	default:
		x.fresh, x.last = append(x.fresh, g.ID), true
		// A lease that outlives its caller must be the last of a write, so that an unread byte means an unread lease.
		// Leases of a process are written together: an undelivered one costs its slots only for as long as the process
		// lives.
		if x.sure = outlivesCaller(g.Lease); x.sure {
			x.empty()
		}
	}
}

// notify gathers an event, which flush sends.
func (x *session) notify(ev *Event) {
	x.mu.Lock()
	defer x.mu.Unlock()
	const head, middle, tail = `{"jsonrpc":"2.0","method":"`, `","params":`, "}\n"
	// Not by way of buf: the lease that stands in it may be of use (see sameAgain).
	if p := x.writer(); x.roomFor(len(head) + len(ev.Type) + len(middle) + len(ev.JSON) + len(tail)) {
		p.out = append(append(append(p.out, head...), ev.Type...), middle...)
		p.out = append(append(p.out, ev.JSON...), tail...)
	}
}

// notifyPlace gathers the event of an acquire that waits. Where the acquire is this session's, the event names its
// request. Of other sessions' a subscription to the own events is not told.
func (x *session) notifyPlace(ev *Event, mine bool) {
	x.waits.Lock()
	request := x.waits.of[ev.LeaseID]
	x.waits.Unlock()
	if request == "" {
		if !mine {
			x.notify(ev)
		}
		return
	}
	x.notify(&Event{Event: ev.Event, JSON: slices.Concat([]byte(`{"request":`+request+`,`), ev.JSON[1:])})
}

// reply gathers an answer.
func (x *session) reply(id jsontext.Value, result any, e *rpcError) {
	if _, nothing := result.(struct{}); nothing {
		x.mu.Lock()
		defer x.mu.Unlock()
		if p := x.writer(); x.roomFor(len(answerHead) + len(id) + len(emptyTail)) {
			p.out = append(append(append(p.out, answerHead...), id...), emptyTail...)
		}
		return
	}
	x.send(answerLine(id, result, e))
}

// answerLine is an answer as it is sent.
func answerLine(id jsontext.Value, result any, e *rpcError) []byte {
	b, err := marshal(rpcResponse{Version: "2.0", ID: id, Result: result, Error: e})
	if err != nil {
		b, _ = marshal(rpcResponse{Version: "2.0", ID: id,
			Error: &rpcError{Code: codeInternal, Message: "the answer cannot be written"}})
	}
	return append(b, '\n')
}
