package api

import (
	"sync"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/usher-agent/usher/enforcer"
)

// A session that is idle has no more memory than what it must know. The room for a message and its answer is taken from
// pools: there is as much of it as messages are answered at one time, and it is in the processor's caches.

// reading is room for one message and what is asked with it.
type reading struct {
	request rpcRequest
	pool    string // that the last plain acquire named, of whatever session
	ask     enforcer.Acquire
	giveUp  enforcer.Release
	room    enforcer.Room
}

var readings = sync.Pool{New: func() any { return new(reading) }}

// writing is room for answers until they are sent. What was in it before, of whatever session, is no part of them.
type writing struct {
	out   []byte    // what is to be sent
	buf   []byte    // the last answer that is a lease
	shape leaseRoom // of the lease in it
	same  lastLease // that stands in it
}

var writings = sync.Pool{New: func() any { return new(writing) }}

// lease makes the answer that is a lease, with its token, in buf. server is that of the session.
func (x *writing) lease(server *Server, id jsontext.Value, l *enforcer.Lease, token string) {
	if x.sameAgain(server, id, l, token) {
		return
	}
	x.buf = append(append(x.buf[:0], answerHead...), id...)
	x.buf = append(x.buf, `,"result":`...)
	x.buf = append(x.shape.append(x.buf, server, l, token), '}', '\n')
	x.remember(id, l, token)
}

// rest gives the room back, without what was written. The last lease stays: most are like it.
func (x *writing) rest() {
	if x.out = x.out[:0]; cap(x.out) > 2*sendAt {
		x.out = nil
	}
	if cap(x.buf) > 2*sendAt {
		x.buf, x.same = nil, lastLease{}
	}
	writings.Put(x)
}
