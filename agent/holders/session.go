package holders

import (
	"context"
	"errors"
	"io"
	"maps"
	"net"
	"slices"
	"sync"

	"github.com/usher-agent/usher/agent/api"
	"github.com/usher-agent/usher/agent/liveness"
	"github.com/usher-agent/usher/enforcer"
)

// Slots is the part of the agent's desk that sessions use. Its methods are safe for concurrent use.
type Slots interface {
	Acquire(ctx context.Context, r *enforcer.Acquire) (api.Grant, *enforcer.Denial)
	// Begin decides an acquire, or gives it its place among those that wait. finish returns the answer; waits says
	// whether it waits for others. ready is called right before a waiter's answer is there, under the desk's lock, and
	// so in the order in which waiters are answered.
	Begin(r *enforcer.Acquire, ready func()) (finish api.Finish, waits bool)
	// Give decides a Join or an Attach.
	Give(enforcer.Request) (api.Grant, *enforcer.Denial)
	Do(enforcer.Request) enforcer.Decision
	// Leave takes a holder off leases.
	Leave(ids []enforcer.LeaseID, holder enforcer.Caller)
	Lease(enforcer.LeaseID) (*enforcer.Lease, bool)
	// IsMeter reports whether a request is for draws.
	IsMeter(*enforcer.Acquire) bool
	// CountsByPod reports whether a pool counts by pod; Place fills in a caller's pod then, where it is known.
	CountsByPod() bool
	Place(*enforcer.Caller)
}

// Sessions opens the sessions of the local API. All fields are required.
type Sessions struct {
	Slots    Slots
	Registry *Registry
	// Prove signs, for a nonce, the process at a session's other end as the agent sees it: its uid, pid, start time
	// and, where that is known, the inode of its pidfd.
	Prove func(nonce string, of enforcer.Caller) (string, error)
	// Stopping is closed when the agent stops. Leases whose connections close from then on do not end: their holders
	// live, and show themselves to the next agent.
	Stopping <-chan struct{}
}

// session is one kept-open connection and its process.
type session struct {
	of     *Sessions
	conn   *net.UnixConn
	caller enforcer.Caller

	mu     sync.Mutex // guards all below, and caller.Inode and caller.Pod
	sent   *liveness.Sent
	handle *liveness.Handle
	asked  bool // whether the kernel gives a handle is known
	dead   bool // it said that the process is dead
	closed bool
	leases map[enforcer.LeaseID]struct{} // that live by the connection; nil: none ever did
}

// Open opens a session for the caller at the other end of a connection. It takes sent, which [TakeSent] made of what
// came beside the first byte; nil: nothing came.
func (o *Sessions) Open(c *net.UnixConn, sent io.Closer, caller enforcer.Caller) api.Session {
	s := &session{of: o, conn: c, caller: caller}
	if s.sent, _ = sent.(*liveness.Sent); !liveness.WantsSent() {
		s.sent.Close() // the kernel itself tells which process connected
		s.sent = nil
	}
	// All sessions of a process share the pidfd that it sent. Nothing else tells a process that is not visible from
	// others.
	if s.sent != nil || caller.PID == 0 {
		s.process() // each request that holds something asks again
	}
	return s
}

// TakeSent makes a pidfd of the control messages beside a connection's first byte; nil: it is none.
func TakeSent(oob []byte) io.Closer {
	if s := liveness.ReceiveSent(oob); s != nil {
		return s
	}
	return nil
}

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
			s.of.Registry.Pin(s.caller, s.handle) // each lease asks again
		}
	}
	if s.dead {
		return nil, &enforcer.Denial{Code: enforcer.BadRequest, Field: "lifetime",
			Detail: "the process that opened this session is dead, and can hold nothing"}
	}
	return s.handle, nil
}

// known returns the session's process, with all that is known of it by now.
func (s *session) known() enforcer.Caller {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.of.Slots.Place(&s.caller)
	return s.caller
}

// Inode returns the inode of the pidfd of the session's process; 0: nobody has asked for the pidfd, or it has none.
func (s *session) Inode() uint64 { return s.known().Inode }

// Acquire asks the desk for a lease, which lives by the session's process unless the request says otherwise.
func (s *session) Acquire(ctx context.Context, r *enforcer.Acquire) (api.Grant, *enforcer.Denial) {
	handle, d := s.complete(r)
	if d != nil {
		return api.Grant{}, d
	}
	strays := s.of.Registry.Strays()
	g, d := s.of.Slots.Acquire(ctx, r)
	return s.given(g, d, handle, strays)
}

// Begin is the first half of Acquire, of a request that may wait.
func (s *session) Begin(r *enforcer.Acquire, ready func()) (finish api.Finish, waits bool) {
	handle, d := s.complete(r)
	if d != nil {
		return func(context.Context) (api.Grant, *enforcer.Denial) { return api.Grant{}, d }, false
	}
	strays := s.of.Registry.Strays()
	rest, waits := s.of.Slots.Begin(r, ready)
	return func(ctx context.Context) (api.Grant, *enforcer.Denial) {
		g, d := rest(ctx)
		return s.given(g, d, handle, strays)
	}, waits
}

// complete fills in the fields that a session's acquire may leave out. handle is that of the process by which the lease
// is to live; nil: it is to live by none.
func (s *session) complete(r *enforcer.Acquire) (handle *liveness.Handle, d *enforcer.Denial) {
	if r.Lifetime == "" {
		r.Lifetime, r.Implied = enforcer.LifetimeProcess, true
		if r.TTL != 0 {
			r.Lifetime = enforcer.LifetimeTTL
		} else if s.of.Slots.IsMeter(r) {
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
	if s.of.Slots.CountsByPod() {
		r.Caller.Pod = s.known().Pod
	}
	return handle, nil
}

// given ties a lease to its holder, unless the answer is a denial. strays is what the registry counted before the lease
// was granted.
func (s *session) given(g api.Grant, d *enforcer.Denial, handle *liveness.Handle,
	strays uint64) (api.Grant, *enforcer.Denial) {
	if d == nil {
		s.bind(g.Lease, handle, strays)
	}
	return g, d
}

// bind ties a lease to the session's process, or to its connection.
func (s *session) bind(l *enforcer.Lease, handle *liveness.Handle, strays uint64) {
	if l.Lifetime != enforcer.LifetimeProcess && l.Lifetime != enforcer.LifetimeConnection {
		return
	}
	if handle != nil && l.Lifetime == enforcer.LifetimeProcess && s.of.Registry.Hold(l.ID, s.known(), handle) == nil {
		if s.of.Registry.Strays() == strays {
			return
		}
		if _, held := s.of.Slots.Lease(l.ID); !held { // it ended before the registry knew of it
			s.of.Registry.Ended(l, enforcer.CauseReleased)
		}
		return
	}
	s.mu.Lock()
	closed := s.closed
	if !closed {
		if s.leases == nil {
			s.leases = map[enforcer.LeaseID]struct{}{}
		}
		s.leases[l.ID] = struct{}{}
	}
	s.mu.Unlock()
	if closed {
		s.end(l.ID)
	}
}

func (s *session) end(id enforcer.LeaseID) {
	s.of.Slots.Do(&enforcer.Leave{ID: id, Holder: s.known()})
}

// Join makes the session's process a co-holder.
func (s *session) Join(id enforcer.LeaseID) (api.Grant, *enforcer.Denial) {
	handle, d := s.process()
	if d != nil {
		return api.Grant{}, d
	}
	strays := s.of.Registry.Strays()
	g, d := s.of.Slots.Give(&enforcer.Join{ID: id, Caller: s.known()})
	return s.given(g, d, handle, strays)
}

// Attach gives the session's process an unconfirmed lease back.
func (s *session) Attach(id enforcer.LeaseID) (api.Grant, *enforcer.Denial) {
	handle, d := s.process()
	if d != nil {
		return api.Grant{}, d
	}
	strays := s.of.Registry.Strays()
	g, d := s.of.Slots.Give(&enforcer.Attach{ID: id, Caller: s.known()})
	return s.given(g, d, handle, strays)
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
	case <-s.of.Stopping:
	default:
		if len(ids) > 0 {
			s.of.Slots.Leave(slices.Collect(maps.Keys(ids)), s.known())
		}
	}
	if handle != nil {
		s.of.Registry.Unpin(handle)
		handle.Close()
	}
}

// Prove signs, for a nonce, the process at the session's other end as the agent sees it.
func (s *session) Prove(nonce string) (string, error) {
	of := enforcer.Caller{UID: s.caller.UID, PID: s.caller.PID, Start: s.caller.Start}
	if h, _ := s.process(); h != nil {
		of.Inode = h.Process().Inode
	}
	return s.of.Prove(nonce, of)
}
