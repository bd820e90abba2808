package api

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"strconv"
	"time"

	"github.com/usher-agent/usher/client/wire"
	"github.com/usher-agent/usher/enforcer"
	"github.com/usher-agent/usher/plugin"
)

// request turns a body into a request of the core, or says why HTTP does not offer it.
func request(in *wire.AcquireRequest, c *call) (*enforcer.Acquire, *enforcer.Denial) {
	if in.Lifetime == string(enforcer.LifetimeProcess) && in.PID == 0 ||
		in.Lifetime == string(enforcer.LifetimeConnection) {
		return nil, badRequest("lifetime", "use ttl, held or borrow, name a process by pid, or use a session",
			"lifetime %q is for sessions: an HTTP connection does not tell how long its caller lives", in.Lifetime)
	}
	if in.PID < 0 {
		return nil, badRequest("pid", "give the number of a process that runs", "pid is %d", in.PID)
	}
	return acquireRequest(in, c.peer.caller(c.admin))
}

// acquireRequest turns an acquire into a request of the core, or says why this agent does not offer it.
func acquireRequest(in *wire.AcquireRequest, caller enforcer.Caller) (*enforcer.Acquire, *enforcer.Denial) {
	switch {
	case in.Priority != 0:
		return nil, badRequest("priority", "leave it out; the site's policies give priorities",
			"a caller does not choose its own priority")
	case in.Until != nil && in.Until.IsZero():
		return nil, badRequest("until", "give the time at which the slots come back", "until is not a time")
	case in.Of != 0 && in.Pool == "":
		return nil, badRequest("of", "give each item its own of", "of goes with pool, not with items")
	case in.N != nil && in.Pool == "":
		return nil, badRequest("n", "give each item its own n", "n goes with pool, not with items")
	}
	if d := checkNonce(in.Nonce, false); d != nil {
		return nil, d
	}
	ttl, d := seconds("ttl_seconds", in.TTLSeconds)
	if d != nil {
		return nil, d
	}
	wait, d := seconds("wait_seconds", in.WaitSeconds)
	if d != nil {
		return nil, d
	}
	r := &enforcer.Acquire{Wait: wait, Caller: caller, Pool: in.Pool, MinN: in.MinN, Labels: in.Labels,
		Lifetime: enforcer.Lifetime(in.Lifetime),
		TTL:      ttl, Token: in.ClientToken, Version: in.Version}
	if in.Until != nil {
		r.Until = *in.Until
		if r.Lifetime == "" {
			r.Lifetime = enforcer.LifetimeBorrow
		}
	}
	if in.Pool != "" {
		r.N = 1
		if in.N != nil {
			r.N = *in.N
		}
		r.Of = in.Of
	}
	for _, it := range in.Items {
		r.Items = append(r.Items, enforcer.Item{Pool: it.Pool, N: it.N, Of: it.Of})
	}
	return r, nil
}

// request says in an acquire of the core, of which its caller alone is said yet, what it asks for.
func (a *simpleAcquire) request(r *enforcer.Acquire, pool string) {
	r.Pool, r.N, r.TTL = pool, a.n, time.Duration(a.seconds)*time.Second
}

// maxNonce is the longest nonce, in bytes.
const maxNonce = 256

func checkNonce(nonce string, must bool) *enforcer.Denial {
	switch {
	case must && nonce == "":
		return badRequest("nonce", "send some 16 random bytes as text", "the nonce is missing")
	case len(nonce) > maxNonce:
		return badRequest("nonce", "send less", "the nonce has %d bytes, and the most is %d", len(nonce), maxNonce)
	}
	return nil
}

// token signs a lease where a nonce asks for that; empty: none does.
func (s *Server) token(l *enforcer.Lease, nonce string) string {
	if nonce == "" {
		return ""
	}
	token, err := s.slots.LeaseToken(l, nonce)
	if err != nil {
		s.log.Error("a lease token cannot be signed", "error", err)
	}
	return token
}

// seconds reads a number of seconds; 0: none is given.
func seconds(field string, v float64) (time.Duration, *enforcer.Denial) {
	if v < 0 || v > math.MaxInt32 {
		return 0, badRequest(field, fmt.Sprintf("give a number of seconds from 0 to %d", math.MaxInt32), "%s is %s",
			field, strconv.FormatFloat(v, 'f', -1, 64))
	}
	return time.Duration(v * float64(time.Second)), nil
}

func (s *Server) acquire(c *call) {
	if s.plainAcquire(c) {
		return
	}
	var in wire.AcquireRequest
	d := decode(c, c.req, &in, false)
	var r *enforcer.Acquire
	if d == nil {
		r, d = request(&in, c)
	}
	if d != nil {
		s.answerDenial(c, d)
		return
	}
	if r.Wait > 0 {
		if d := s.wait(c, r.Wait); d != nil {
			s.answerDenial(c, d)
			return
		}
	}
	ctx := c.req.Context()
	if r.Wait > 0 {
		var stop context.CancelFunc
		ctx, stop = s.while(ctx, c.peer, c.rights, mayCall)
		defer stop()
	}
	g, d := s.acquireBy(ctx, c, r, in.PID)
	if d != nil {
		if lostRights(ctx) {
			d = notAllowed(c.peer)
		}
		s.answerDenial(c, d)
		return
	}
	s.answerAcquire(c, g, s.token(g.Lease, in.Nonce), func(id enforcer.LeaseID) { s.undoLease(id, r.Caller) })
}

// answerAcquire answers an acquire with its grant, and takes that back with undo unless the answer is delivered.
func (s *Server) answerAcquire(c *call, g Grant, token string, undo func(enforcer.LeaseID)) {
	status := http.StatusCreated
	if g.Replayed {
		status = http.StatusOK
	}
	shape := s.leaseShape(g.Lease)
	shape.Token = token
	err := c.look(g)
	if err == nil {
		c.Header()["Location"] = []string{"/v1/leases/" + g.ID.String()}
		if err = s.answer(c, status, shape); err == nil {
			err = http.NewResponseController(c.ResponseWriter).Flush()
		}
		c.lookAgain(g)
	}
	if errors.Is(err, errLate) || !undoable(g.Lease) {
		return
	}
	if err != nil {
		undo(g.ID)
	} else if k := c.connection; k != nil {
		k.expect(unread{g.ID, undo, true})
	}
}

// acquireBy acquires for the caller, or for another process that has the number pid.
func (s *Server) acquireBy(ctx context.Context, c *call, r *enforcer.Acquire, pid int32) (Grant, *enforcer.Denial) {
	if pid == 0 {
		return s.slots.Acquire(ctx, r)
	}
	var sent io.Closer
	if k := c.connection; k != nil {
		sent = k.takeSent()
	}
	return s.slots.AcquireFor(ctx, r, pid, sent)
}

// errLate says that a grant was over before it was answered. The caller has its denial.
var errLate = errors.New("the grant is over")

// look looks at a grant right before its answer: see [Grant]. It answers one that is over with the denial, and returns
// errLate.
func (c *call) look(g Grant) error {
	if g.Late == nil {
		return nil
	}
	if k := c.connection; k != nil { // so that nothing is waited for between the look and the write
		if err := k.prove(); err != nil {
			return err
		}
	}
	if d := g.Late(false); d != nil {
		c.server.answerDenial(c, d)
		return errLate
	}
	return nil
}

// lookAgain withdraws a grant that was over when its answer was sent.
func (c *call) lookAgain(g Grant) {
	if g.Late != nil {
		g.Late(true)
	}
}

// leaseID reads the id in the path.
func leaseID(c *call) (enforcer.LeaseID, *enforcer.Denial) {
	if c.lease != (enforcer.LeaseID{}) {
		return c.lease, nil
	}
	id, ok := enforcer.ParseLeaseID(c.req.PathValue("id"))
	if !ok {
		return id, badRequest("id", "give it as the acquire answered it",
			"%q is not a lease id, which is 32 hexadecimal digits", plugin.Short(c.req.PathValue("id")))
	}
	return id, nil
}

func (s *Server) getLease(c *call) {
	id, d := leaseID(c)
	if d == nil {
		l, ok := s.slots.Lease(id)
		switch {
		case !ok:
			d = &enforcer.Denial{Code: enforcer.LeaseUnknown, Detail: "lease " + id.String() + " is not held here",
				Hint: "it may have ended; acquire a new one"}
		case !c.admin && !l.Holder.MayAct(c.peer.caller(false)):
			d = &enforcer.Denial{Code: enforcer.NotHolder, Detail: "lease " + id.String() + " belongs to another user"}
		default:
			s.answer(c, http.StatusOK, s.leaseShape(l))
			return
		}
	}
	s.answerDenial(c, d)
}

func (s *Server) renew(c *call) {
	var in wire.RenewRequest
	var ttl time.Duration
	id, d := leaseID(c)
	if d == nil {
		d = decode(c, c.req, &in, true)
	}
	if d == nil {
		ttl, d = seconds("ttl_seconds", in.TTLSeconds)
	}
	var g Grant
	if d == nil {
		g, d = s.slots.Renew(&enforcer.Renew{ID: id, Caller: c.peer.caller(c.admin), TTL: ttl})
	}
	if d != nil {
		s.answerDenial(c, d)
		return
	}
	shape := s.leaseShape(g.Lease)
	if c.look(g) != nil {
		return
	}
	if err := s.answer(c, http.StatusOK, shape); err == nil && g.Late != nil {
		http.NewResponseController(c.ResponseWriter).
			Flush()
	}
	c.lookAgain(g)
}

func (s *Server) release(c *call) {
	id, d := leaseID(c)
	q := &enforcer.Release{}
	if x := c.commonest(); x != nil {
		q = &x.giveUp
		*q = enforcer.Release{Room: &x.room}
	}
	q.ID, q.Caller = id, c.peer.caller(c.admin)
	if d == nil {
		q.Force, d = flag(c, "force")
	}
	if d == nil {
		q.HoldOff, d = holdOffOf(c)
	}
	if d == nil {
		d = s.slots.Release(q)
	}
	if d != nil {
		s.answerDenial(c, d)
		return
	}
	if c.connection != nil {
		c.connection.ended(id)
	}
	c.WriteHeader(http.StatusNoContent)
}

func (s *Server) leaseShape(l *enforcer.Lease) wire.Lease {
	var room leaseRoom
	room.fill(s, l)
	room.ID = l.ID.String()
	return room.Lease
}

// leaseRoom is room for a lease's shape and all that it points to, to be filled again and again.
type leaseRoom struct {
	wire.Lease
	items            []wire.Item
	holder           wire.Holder
	expires, revoked time.Time
}

// append appends a lease's JSON.
func (x *leaseRoom) append(b []byte, s *Server, l *enforcer.Lease, token string) []byte {
	x.fill(s, l)
	x.Token = token
	b = append(hex.AppendEncode(append(b, `{"id":"`...), l.ID[:]), '"')
	return appendTerms(b, &x.Lease)
}

// fill makes the shape of a lease, but for its id.
func (x *leaseRoom) fill(s *Server, l *enforcer.Lease) {
	x.Lease = wire.Lease{Lifetime: string(l.Lifetime), Liveness: s.slots.Liveness(l), State: "held",
		AcquiredAt: l.AcquiredAt.UTC()}
	if x.expires = l.ExpiresAt.UTC(); !x.expires.IsZero() {
		x.ExpiresAt = &x.expires
	}
	if x.revoked = l.RevokeAt.UTC(); !x.revoked.IsZero() {
		x.RevokeAt = &x.revoked
	}
	x.items = x.items[:0]
	for _, it := range l.Items {
		x.items = append(x.items, itemShape(it))
	}
	x.Items = x.items
	x.Pool, x.N, x.Of = x.Items[0].Pool, x.Items[0].N, x.Items[0].Of
	switch {
	case !l.RevokeAt.IsZero():
		x.State = "revoking"
	case l.Unconfirmed:
		x.State = "unconfirmed"
	}
	if l.Holder != nil {
		x.holder = holderOf(l.Holder)
		x.Holder = &x.holder
	}
	for _, h := range l.Others {
		x.Others = append(x.Others, holderOf(h))
	}
}

func holderOf(h *enforcer.Holder) wire.Holder {
	return wire.Holder{UID: h.UID, GID: h.GID, PID: h.PID, Exe: h.Exe, Credential: h.Credential, Labels: h.Labels}
}
