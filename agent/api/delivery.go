package api

import (
	"context"
	"errors"
	"syscall"
	"time"

	"github.com/usher-agent/usher/enforcer"
)

// unread is a grant whose answer ends with the last byte that was written on a connection. Nobody knows of a lease
// whose answer was not read, so it is undone when the other end closes without having read that byte: then the kernel
// reports ECONNRESET on this end (Linux; unix(7) has no word of it, unix_release_sock in net/unix/af_unix.c does it).
// One that shuts down its writing half alone reads on, and is waited for.
type unread struct {
	lease enforcer.LeaseID
	undo  func(enforcer.LeaseID) // nil: there is no such grant
	// sure says that whether the answer was read must be known before anything else is written: with more bytes behind
	// it the kernel's word would be of those.
	sure bool
}

// expect says that what was written last ends with the answer of a grant, which u says how to take back.
func (c *conn) expect(u unread) { c.swapUnread(u) }

// swapUnread sets what is unread, and returns what was.
func (c *conn) swapUnread(to unread) unread {
	c.mu.Lock()
	defer c.mu.Unlock()
	was := c.unread
	c.unread = to
	return was
}

// mustProve reports whether prove has something to wait for.
func (c *conn) mustProve() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.unread.sure
}

// prove waits until the other end has read all that was written, or has closed, where that must be known before
// anything else is written. No longer than the deadline of writes: an end that does not read is cut off, and what it
// was granted stands, for it may read on yet.
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

// proved takes note of a write. That something could be written shows that the other end had not closed: when prove
// found nothing unread before, it was read.
func (c *conn) proved(n int, err error) {
	if n > 0 || err == nil {
		c.swapUnread(unread{})
	}
}

// heard takes note of how a read ended.
func (c *conn) heard(err error) {
	if err != nil && errors.Is(err, syscall.ECONNRESET) {
		c.reset.Store(true)
	}
}

// settle undoes the grant whose answer was not read, before the connection is closed here. An end that is there still
// is waited for until it has read or closed, or the agent ends.
func (c *conn) settle() {
	was := c.swapUnread(unread{})
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
	s.desk.Release(&enforcer.Release{ID: id, Caller: c, Cause: enforcer.CauseUndelivered})
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

// undoable reports whether a grant is undone when nobody knows of it: not one with a client token, which can be asked
// for again, and not a draw, which never comes back.
func undoable(l *enforcer.Lease) bool { return l.Token == nil && l.Lifetime != enforcer.LifetimeDraw }
