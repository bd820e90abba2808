package api

import (
	"bytes"
	"encoding/hex"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/usher-agent/usher/enforcer"
)

// Most leases differ from the one before in their id and their time alone. Such an answer is the last one
// with these, and the request's id, written over: see [writing.sameAgain].

// lastLease is an answer that is a lease and stands in the buf of a [writing]. The writing's shape has what else it was
// made of.
type lastLease struct {
	holder *enforcer.Holder // nil: there is no such answer
	idTo   uint16           // where the request's id ends
	nano   uint16           // where the nine digits behind the second begin
}

const (
	leaseHead = `,"result":{"id":"` // stands between the request's id and the lease's
	nanoTime  = len("2026-05-01T12:00:00.123456789Z")
	nanoFrom  = len("2026-05-01T12:00:00.")
)

// plainLease reports whether a lease and its answer have nothing that most do not have.
func plainLease(l *enforcer.Lease, token string) bool {
	return token == "" && len(l.Items) == 1 && l.ExpiresAt.IsZero() && l.RevokeAt.IsZero() && !l.Unconfirmed &&
		len(l.Others) == 0 && l.Holder != nil && len(l.Holder.Labels) == 0 && l.AcquiredAt.Nanosecond()%10 != 0
}

// remember takes note of the answer in buf.
func (x *writing) remember(id jsontext.Value, l *enforcer.Lease, token string) {
	x.same = lastLease{}
	if !plainLease(l, token) {
		return
	}
	member := []byte(`,"acquired_at":"`) // in no text, where its quotes are escaped
	at := bytes.Index(x.buf, member) + len(member)
	if at+nanoTime >= min(len(x.buf), 1<<16) || x.buf[at+nanoTime] != '"' {
		return // a time that is written shorter or longer, or is far behind
	}
	x.same = lastLease{l.Holder, uint16(len(answerHead) + len(id)), uint16(at + nanoFrom)}
}

// sameAgain makes the answer in buf that of a lease which differs from the last one in its id and time alone, and
// reports whether it could. server is that of the session.
func (x *writing) sameAgain(server *Server, id jsontext.Value, l *enforcer.Lease, token string) bool {
	s, was := &x.same, &x.shape
	if s.holder == nil || !plainLease(l, token) || len(answerHead)+len(id) != int(s.idTo) ||
		l.AcquiredAt.Unix() != was.AcquiredAt.Unix() || itemShape(l.Items[0]) != was.items[0] ||
		string(l.Lifetime) != was.Lifetime || server.slots.Liveness(l) != was.Liveness ||
		l.Holder != s.holder && l.Holder.Caller != s.holder.Caller {
		return false
	}
	copy(x.buf[len(answerHead):s.idTo], id)
	hex.Encode(x.buf[int(s.idTo)+len(leaseHead):], l.ID[:])
	for n, i := l.AcquiredAt.Nanosecond(), s.nano+8; i >= s.nano; n, i = n/10, i-1 {
		x.buf[i] = byte('0' + n%10)
	}
	return true
}
