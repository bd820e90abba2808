package api

import (
	"context"
	"errors"
	"syscall"
	"time"

	"github.com/usher-agent/usher/enforcer"
)

// unread is a grant whose answer ends with the last byte written on a connection. Nobody knows of a lease whose answer
// was not read, so the agent undoes it when the other end closes without having read that byte. The kernel reports that
// as ECONNRESET on this end (Linux; unix(7) does not mention it, unix_release_sock in net/unix/af_unix.c does it). An
// end that shuts down only its writing half reads on, and the agent waits for it.
type unread struct {
	lease enforcer.LeaseID
	undo  func(enforcer.LeaseID) // nil: there is no such grant
	// sure says that the agent must know whether the answer was read before it writes anything else: with more bytes
	// behind it, the kernel would speak of those.
	sure bool
}

// expect says that the last write ends with the answer of a grant. u says how to take it back.
func (c *conn) expect(u unread) { c.swapUnread(u) }

// answers says that the next write ends with the answer of a grant, which is taken back unless the write succeeds. u
// says how.
func (c *conn) answers(u unread) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.next = u
	c.changed()
}

// ended says that a lease is over, by a caller that had read its id: its answer is not looked at any more.
func (c *conn) ended(id enforcer.LeaseID) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.unread.undo != nil && c.unread.lease == id {
		c.unread = unread{}
		c.changed()
	}
}

// The bits of conn.proof.
const (
	proofWanted = 1 << iota // unread or next is set: each write has something to take note of
	proofFirst              // unread.sure: each write has something to wait for
)

// changed notes in proof what unread and next now are, so that a write that has nothing to do with a grant takes no
// lock. c.mu is held.
func (c *conn) changed() {
	var p uint32
	if c.unread.undo != nil || c.next.undo != nil {
		p |= proofWanted
	}
	if c.unread.sure {
		p |= proofFirst
	}
	c.proof.Store(p)
}

// swapUnread sets what is unread, and returns what was.
func (c *conn) swapUnread(to unread) unread {
	c.mu.Lock()
	defer c.mu.Unlock()
	was := c.unread
	c.unread = to
	c.changed()
	return was
}

// mustProve reports whether prove has something to wait for.
func (c *conn) mustProve() bool { return c.proof.Load()&proofFirst != 0 }

// prove waits until the other end has read all that was written, or has closed, where the agent must know that before
// it writes anything else. It waits no longer than the deadline of writes: it cuts off an end that does not read. That
// end's grant stands, for it may read on.
func (c *conn) prove() error {
	if !c.mustProve() {
		return nil
	}
	err := c.awaitRead()
	if err != nil {
		c.swapUnread(unread{})
	}
	return err
}

// proved takes note of a write. A write that succeeds shows that the other end had not closed: when prove found nothing
// unread before, it was read.
func (c *conn) proved(n int, err error) {
	if c.proof.Load() == 0 {
		return
	}
	c.mu.Lock()
	if n > 0 || err == nil {
		c.unread = unread{}
	}
	next := c.next
	if c.next = (unread{}); err == nil && next.undo != nil {
		c.unread = next
	}
	c.changed()
	c.mu.Unlock()
	if err != nil && next.undo != nil {
		next.undo(next.lease)
	}
}

// heard takes note of how a read ended.
func (c *conn) heard(err error) {
	if err != nil && errors.Is(err, syscall.ECONNRESET) {
		c.reset.Store(true)
	}
}

// settle undoes a grant whose answer was not read, before the agent closes the connection. It waits for an end that is
// still there until it has read or closed, or the agent ends.
func (c *conn) settle() {
	c.mu.Lock()
	was, never := c.unread, c.next
	c.unread, c.next = unread{}, unread{}
	c.changed()
	c.mu.Unlock()
	if never.undo != nil { // its answer was not written
		never.undo(never.lease)
	}
	if was.undo == nil {
		return
	}
	if !c.reset.Load() {
		c.UnixConn.SetWriteDeadline(time.Time{})
		stop := context.AfterFunc(endingContext{c.ending}, func() { c.UnixConn.SetWriteDeadline(time.Unix(1, 0)) })
		err := c.awaitRead()
		stop()
		if err != nil || !errors.Is(c.pendingError(), syscall.ECONNRESET) {
			return
		}
	}
	was.undo(was.lease)
}

// undoLease ends a lease whose grant was not delivered.
func (s *Server) undoLease(id enforcer.LeaseID, c enforcer.Caller) {
	s.slots.Release(&enforcer.Release{ID: id, Caller: c, Cause: enforcer.CauseUndelivered})
}

// outlivesCaller reports whether a lease goes on when its caller's connection and process are gone.
func outlivesCaller(l *enforcer.Lease) bool {
	switch l.Lifetime {
	case enforcer.LifetimeTTL, enforcer.LifetimeHeld, enforcer.LifetimeBorrow:
		return true
	default:
		return false
	}
}

// undoable reports whether a grant is undone when nobody knows of it. One with a client token is not, for its caller
// can ask for it again; nor is a draw, which never comes back.
func undoable(l *enforcer.Lease) bool { return l.Token == nil && l.Lifetime != enforcer.LifetimeDraw }
