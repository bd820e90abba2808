package api

import (
	"bytes"
	"context"
	"strings"
	"time"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/usher-agent/usher/client/wire"
	"github.com/usher-agent/usher/enforcer"
)

func (x *session) acquire(r *rpcRequest) (any, *enforcer.Denial, *rpcError) {
	q, nonce, d := x.asked(r)
	if d != nil {
		return nil, d, nil
	}
	if q.Wait == 0 {
		g, d := x.agent.Acquire(x.ctx, q)
		if d != nil {
			return nil, d, nil
		}
		x.answerGrant(r, g, nonce)
		return later, nil, nil
	}
	if x.waiting.Add(1) > maxInFlight {
		x.waiting.Add(-1)
		return nil, &enforcer.Denial{Code: enforcer.RateLimited,
			Detail: "64 requests of this session wait already, which is the most"}, nil
	}
	// A waiting request keeps what it needs, and not the message, which may be 64 KiB of nothing.
	x.wait(&rpcRequest{ID: bytes.Clone(r.ID)}, q, strings.Clone(nonce))
	return later, nil, nil
}

// asked is an acquire as a request of the core. The commonest one is in the room of this message, which others take
// later: it does not wait, and whoever it is passed to keeps nothing of it.
func (x *session) asked(r *rpcRequest) (q *enforcer.Acquire, nonce string, d *enforcer.Denial) {
	if a := r.acquire; a.pool != nil {
		m := x.read
		if string(a.pool) != m.pool {
			m.pool = string(a.pool)
		}
		m.ask = enforcer.Acquire{Labels: x.labels, Room: &m.room}
		x.conn.peer.call(&m.ask.Caller, x.isAdmin())
		a.request(&m.ask, m.pool)
		return &m.ask, "", nil
	}
	var in wire.AcquireRequest
	if d := params(r, &in); d != nil {
		return nil, "", d
	}
	if in.PID != 0 {
		return nil, "", badRequest("pid", "acquire over HTTP: POST /v1/leases",
			"a session acquires for its own process, and not for process %d", in.PID)
	}
	if in.Labels == nil {
		in.Labels = x.labels
	}
	q, d = acquireRequest(&in, x.conn.peer.caller(x.isAdmin()))
	return q, in.Nonce, d
}

// wait answers an acquire that may wait. The acquires of a session take their places in the order of its messages, and
// get their answers in the order in which they are granted.
func (x *session) wait(r *rpcRequest, q *enforcer.Acquire, nonce string) {
	start := time.Now()
	var before, done chan struct{}
	x.waits.Lock() // whoever is told of its place finds the request
	finish, waits := x.agent.Begin(q, func() {
		x.turns.Lock()
		defer x.turns.Unlock()
		before, done = x.turn, make(chan struct{})
		x.turn = done
	})
	if waits && len(r.ID) > 0 {
		if x.waits.of == nil {
			x.waits.of = map[string]string{}
		}
		x.waits.of[q.ID.String()] = string(r.ID)
	}
	x.waits.Unlock()
	answer := func(ctx context.Context) {
		g, d := finish(ctx)
		if before != nil {
			<-before
		}
		if d != nil && !x.judged().allowed {
			d = notAllowed(&x.conn.peer)
		}
		if d != nil {
			x.answer(r, nil, d, nil)
		} else {
			x.waitOn(ctx, r, q, nonce, start, &g)
			x.answerGrant(r, g, nonce)
		}
		if done != nil {
			close(done)
		}
	}
	if !waits {
		x.waiting.Add(-1)
		answer(x.ctx)
		return
	}
	ctx, cancel := context.WithCancel(x.ctx)
	var key any = r
	if len(r.ID) > 0 {
		key = string(r.ID)
	}
	x.cancels.Store(key, cancel)
	if !x.judged().allowed { // the rules have changed meanwhile
		cancel()
	}
	x.tasks.Go(func() {
		defer x.waiting.Add(-1)
		defer x.waitsNoMore(q.ID)
		defer x.flush()
		defer x.cancels.Delete(key)
		defer cancel()
		answer(ctx)
	})
}

// waitsOn is what a look at a grant returns where the grant was over, and its acquire has begun to wait again.
var waitsOn = &enforcer.Denial{}

// waitOn has the acquire of a grant that is over right before it is answered wait for what is left of its time. It
// began to wait at start.
func (x *session) waitOn(ctx context.Context, r *rpcRequest, q *enforcer.Acquire, nonce string, start time.Time,
	g *Grant) {
	late := g.Late
	if late == nil {
		return
	}
	stopped := ctx.Err() != nil
	g.Late = func(sent bool) *enforcer.Denial {
		d := late(sent)
		if sent || stopped || x.ctx.Err() != nil {
			return d
		}
		again := q.Again(d, time.Since(start))
		if again == nil {
			return d
		}
		x.waiting.Add(1)
		x.tasks.Go(func() { // whoever looks has the session's lock
			x.wait(r, again, nonce)
			x.flush()
		})
		return waitsOn
	}
}

// waitsNoMore forgets which request waits for a lease.
func (x *session) waitsNoMore(id enforcer.LeaseID) {
	x.waits.Lock()
	defer x.waits.Unlock()
	delete(x.waits.of, id.String())
}

// answerGrant answers an acquire that was granted. A notification gets no answer, so nobody would know of a lease that
// outlives its caller.
func (x *session) answerGrant(r *rpcRequest, g Grant, nonce string) {
	switch l := g.Lease; {
	case len(r.ID) > 0:
		x.writeLease(r.ID, g, x.server.token(l, nonce), true)
	case undoable(l) && outlivesCaller(l):
		x.undo(l.ID)
	case g.Late != nil:
		g.Late(true)
	}
}

// cancelWait ends the waiting of an acquire. The acquire is answered with a denial, or with its grant, where that came
// first.
func (x *session) cancelWait(r *rpcRequest) (any, *enforcer.Denial, *rpcError) {
	var in struct {
		Request jsontext.Value `json:"request" wire:"required"`
	}
	if d := params(r, &in); d != nil {
		return nil, d, nil
	}
	if k := in.Request.Kind(); k != '0' && k != '"' {
		return nil, badRequest("request", "give the id of the acquire that waits",
			"request is not an id of a request"), nil
	}
	if cancel, waits := x.cancels.Load(string(in.Request)); waits {
		cancel.(context.CancelFunc)()
	}
	return struct{}{}, nil, nil
}
