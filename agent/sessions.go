package agent

import (
	"context"
	"errors"
	"io"
	"net"
	"sync"

	"github.com/usher-agent/usher/agent/api"
	"github.com/usher-agent/usher/agent/desk"
	"github.com/usher-agent/usher/agent/liveness"
	"github.com/usher-agent/usher/enforcer"
)

// session is one kept-open connection and its process.
type session struct {
	agent  *Agent
	conn   *net.UnixConn
	caller enforcer.Caller

	mu     sync.Mutex // guards all below, and caller.Inode
	sent   *liveness.Sent
	handle *liveness.Handle
	asked  bool // whether the kernel gives a handle is known
	dead   bool // it said that the process is dead
	closed bool
	leases map[enforcer.LeaseID]struct{} // that live by the connection
}

// Session opens a session for the caller at the other end of a connection.
func (f front) Session(c *net.UnixConn, sent io.Closer, caller enforcer.Caller) api.Session {
	s := &session{agent: f.Agent, conn: c, caller: caller, leases: map[enforcer.LeaseID]struct{}{}}
	s.sent, _ = sent.(*liveness.Sent)
	// A pidfd that was sent becomes the one that all sessions of its process share. Of a process that is not visible
	// nothing else tells it from others.
	if s.sent != nil || caller.PID == 0 {
		s.process() // a holder asks again
	}
	return s
}

// takeSent makes a pidfd of what came beside a connection's first byte.
func takeSent(oob []byte) io.Closer {
	if s := liveness.ReceiveSent(oob); s != nil {
		return s
	}
	return nil
}

func (f front) Liveness(l *enforcer.Lease) string { return f.holders.Path(l) }

// process returns a handle of the session's process; nil where only the connection can tell that it is gone.
func (s *session) process() (*liveness.Handle, *enforcer.Denial) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.asked {
		var err error
		s.asked = true
		s.handle, err = liveness.FromConn(s.conn, s.sent)
		s.dead = errors.Is(err, liveness.ErrDead)
		if s.handle != nil {
			s.caller.Inode = s.handle.Process().Inode
			s.agent.holders.Pin(s.caller, s.handle) // each lease asks again
		}
	}
	if s.dead {
		return nil, &enforcer.Denial{Code: enforcer.BadRequest, Field: "lifetime",
			Detail: "the process that opened this session is dead, and can hold nothing"}
	}
	return s.handle, nil
}

// who is the session's process, with all that is known of it by now.
func (s *session) who() enforcer.Caller {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.agent.desk.Place(&s.caller)
	return s.caller
}

// Inode is of the pidfd of the session's process, where it has been asked for; 0: not known.
func (s *session) Inode() uint64 { return s.who().Inode }

// Acquire is the desk's, for a lease that lives by the session's process unless the request says otherwise.
func (s *session) Acquire(ctx context.Context, r *enforcer.Acquire) (api.Grant, *enforcer.Denial) {
	handle, d := s.complete(r)
	if d != nil {
		return api.Grant{}, d
	}
	a := s.agent.desk.Begin(r, nil)
	return s.finish(ctx, &a, handle)
}

// Begin is the first half of Acquire, of a request that may wait.
func (s *session) Begin(r *enforcer.Acquire, ready func()) (finish api.Finish, waits bool) {
	handle, d := s.complete(r)
	if d != nil {
		return func(context.Context) (api.Grant, *enforcer.Denial) { return api.Grant{}, d }, false
	}
	a := s.agent.desk.Begin(r, ready)
	return func(ctx context.Context) (api.Grant, *enforcer.Denial) { return s.finish(ctx, &a, handle) }, a.Waits()
}

// complete fills in what a session's acquire need not say. handle is of the process that the lease is to live by; nil:
// of none.
func (s *session) complete(r *enforcer.Acquire) (handle *liveness.Handle, d *enforcer.Denial) {
	if r.Lifetime == "" {
		r.Lifetime, r.Implied = enforcer.LifetimeProcess, true
		if r.TTL != 0 {
			r.Lifetime = enforcer.LifetimeTTL
		} else if s.agent.desk.IsMeter(r) {
			r.Lifetime = enforcer.LifetimeDraw
		}
	}
	if r.Lifetime == enforcer.LifetimeProcess {
		if handle, d = s.process(); d != nil {
			return nil, d
		}
	}
	if handle != nil {
		r.Caller.Inode = handle.Process().Inode
	}
	if s.agent.desk.CountsByPod() {
		r.Caller.Pod = s.who().Pod
	}
	return handle, nil
}

func (s *session) finish(ctx context.Context, a *desk.Pending, handle *liveness.Handle) (api.Grant, *enforcer.Denial) {
	g, d := granted(s.agent.desk.Finish(ctx, a))
	return s.given(g, d, handle)
}

// given ties a lease that was given to its holder.
func (s *session) given(g api.Grant, d *enforcer.Denial, handle *liveness.Handle) (api.Grant, *enforcer.Denial) {
	if d == nil {
		s.bind(g.Lease, handle)
	}
	return g, d
}

// bind ties a lease to the session's process, or to its connection.
func (s *session) bind(l *enforcer.Lease, handle *liveness.Handle) {
	if l.Lifetime != enforcer.LifetimeProcess && l.Lifetime != enforcer.LifetimeConnection {
		return
	}
	if handle != nil && l.Lifetime == enforcer.LifetimeProcess && s.agent.holders.Hold(l.ID, s.who(), handle) == nil {
		if _, held := s.agent.desk.Lease(l.ID); !held { // over before it was known here
			s.agent.holders.Ended(l.ID)
		}
		return
	}
	s.mu.Lock()
	closed := s.closed
	if !closed {
		s.leases[l.ID] = struct{}{}
	}
	s.mu.Unlock()
	if closed {
		s.end(l.ID)
	}
}

func (s *session) end(id enforcer.LeaseID) {
	s.agent.desk.Do(&enforcer.Leave{ID: id, Holder: s.who()})
}

// Join makes the session's process a co-holder.
func (s *session) Join(id enforcer.LeaseID) (api.Grant, *enforcer.Denial) {
	handle, d := s.process()
	if d != nil {
		return api.Grant{}, d
	}
	g, d := granted(s.agent.desk.Give(&enforcer.Join{ID: id, Caller: s.who()}))
	return s.given(g, d, handle)
}

// Attach gives the session's process an unconfirmed lease back.
func (s *session) Attach(id enforcer.LeaseID) (api.Grant, *enforcer.Denial) {
	handle, d := s.process()
	if d != nil {
		return api.Grant{}, d
	}
	g, d := granted(s.agent.desk.Give(&enforcer.Attach{ID: id, Caller: s.who()}))
	return s.given(g, d, handle)
}

// Close ends the leases that live by the connection.
func (s *session) Close() {
	s.mu.Lock()
	s.closed = true
	ids := s.leases
	s.leases = nil
	handle := s.handle
	s.mu.Unlock()
	select {
	case <-s.agent.stopping: // it is the agent that goes, not the holder, who shows itself to the next agent
	default:
		for id := range ids {
			s.end(id)
		}
	}
	if handle != nil {
		s.agent.holders.Unpin(handle)
		handle.Close()
	}
}
