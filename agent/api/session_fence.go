package api

import (
	"slices"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/usher-agent/usher/client/wire"
	"github.com/usher-agent/usher/enforcer"
)

// fenced is an answer that gives slots which others may have at some time: see [Grant].
type fenced struct {
	from, to int // its place in what is to be sent
	idTo     int // where in it the request's id ends, which stands behind answerHead
	lease    enforcer.LeaseID
	late     func(sent bool) *enforcer.Denial
}

// look replaces the answers that give slots which are over by now with denials, and takes away those whose acquires
// wait on. It returns false where nothing can be sent any more. It first learns what the session must know of former
// answers, so that nothing waits between the look and the write. x.mu is held.
func (x *session) look() bool {
	if x.conn.prove() != nil {
		return false
	}
	var out []byte
	at := 0
	still := x.fenced[:0]
	for _, a := range x.fenced {
		d := a.late(false)
		if d == nil {
			still = append(still, a)
			continue
		}
		out = append(out, x.pen.out[at:a.from]...)
		if d != waitsOn {
			id := jsontext.Value(x.pen.out[a.from+len(answerHead) : a.idTo])
			out = append(out, answerLine(id, nil, x.problemError(d))...)
		}
		at = a.to
		x.fresh = slices.DeleteFunc(x.fresh, func(id enforcer.LeaseID) bool { return id == a.lease })
	}
	if x.fenced = still; at == 0 {
		return true
	}
	if at == len(x.pen.out) {
		x.last, x.sure = false, false
	}
	x.pen.out = append(out, x.pen.out[at:]...)
	return true
}

// lookAgain withdraws slots that were over when their answer was sent. A subscribed session hears of it as of any lease
// that ends. Where others hold on to a lease that the caller joined, nobody else hears of it. x.mu is held.
func (x *session) lookAgain() {
	var left []*enforcer.Lease
	for _, a := range x.fenced {
		if a.late(true) == nil {
			continue
		}
		if l, held := x.server.slots.Lease(a.lease); held && x.listens() {
			left = append(left, l)
		}
	}
	clear(x.fenced)
	x.fenced = x.fenced[:0]
	for _, l := range left {
		shape := x.server.leaseShape(l)
		ev := wire.Event{Type: "lease.ended", At: x.server.now().UTC(), LeaseID: shape.ID, Items: shape.Items,
			Cause: string(enforcer.CauseUndelivered)}
		if b, err := marshal(ev); err == nil {
			x.write(append(append([]byte(`{"jsonrpc":"2.0","method":"lease.ended","params":`), b...), '}', '\n'))
		}
	}
	x.empty()
}

// listens reports whether the session hears of events.
func (x *session) listens() bool {
	x.sub.mu.Lock()
	defer x.sub.mu.Unlock()
	return x.sub.end != nil && !x.sub.ended
}
