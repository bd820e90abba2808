package agent

import (
	"context"
	"errors"
	"io"
	"maps"
	"net"
	"sync"

	"github.com/usher-agent/usher/agent/api"
	"github.com/usher-agent/usher/agent/liveness"
	"github.com/usher-agent/usher/agent/systemd"
	"github.com/usher-agent/usher/enforcer"
)

// holders knows by which process each process lease lives, and ends the leases of one that dies. One watch serves all the
// leases of a process.
type holders struct {
	desk     *desk
	watcher  *liveness.Watcher
	handover *systemd.Store

	mu     sync.Mutex // guards all below; taken under desk.mu, never the other way round
	alive  map[process]*holderProcess
	leases map[enforcer.LeaseID][]process
	paths  map[enforcer.LeaseID]string // what tells that the holder is gone
	counts map[string]int              // of leases by path
}

// process tells a process from another that bears its number later.
type process struct {
	pid    int32
	start  uint64
	inode  uint64
	handle *liveness.Handle // only where nothing else tells it from others: one that is not visible, before Linux 6.9
}

type holderProcess struct {
	caller enforcer.Caller
	watch  *liveness.Watch
	leases map[enforcer.LeaseID]struct{}
	pins   int    // sessions that are open: their process is watched between leases, too
	kept   string // what the service manager keeps its pidfd by; empty: it does not
	gone   bool
}

func newHolders(d *desk, o *systemd.Store) (*holders, error) {
	w, err := liveness.NewWatcher()
	if err != nil {
		return nil, err
	}
	return &holders{desk: d, watcher: w, handover: o, alive: map[process]*holderProcess{}, leases: map[enforcer.LeaseID][]process{}, paths: map[enforcer.LeaseID]string{}, counts: map[string]int{}}, nil
}

// keyOf returns what a process is known by here.
func keyOf(handle *liveness.Handle) process {
	p := handle.Process()
	if p.Inode == 0 && (p.PID == 0 || p.Start == 0) {
		return process{handle: handle}
	}
	return process{pid: p.PID, start: p.Start, inode: p.Inode}
}

// hold says that a lease lives by a process. When the process is dead already the lease ends at once.
func (h *holders) hold(id enforcer.LeaseID, caller enforcer.Caller, handle *liveness.Handle) error {
	key := keyOf(handle)
	h.mu.Lock()
	x := h.process(key, caller)
	x.leases[id] = struct{}{}
	h.leases[id] = append(h.leases[id], key)
	if _, ok := h.paths[id]; !ok {
		h.paths[id] = string(handle.Path())
		h.counts[h.paths[id]]++
	}
	h.mu.Unlock()
	if err := h.watch(key, x, handle); err != nil || h.handover.Idle() {
		return err
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.keep(key, x, handle)
	return nil
}

// keep has the service manager keep the pidfd of a process that holds something, until the process is forgotten here. h.mu is
// held.
func (h *holders) keep(key process, x *holderProcess, handle *liveness.Handle) {
	if x.kept != "" || h.alive[key] != x {
		return
	}
	// As the journal knows it, which is what is looked for after a restart.
	name := systemd.PIDFDName(handle.Path(), systemd.Process{PID: x.caller.PID, Start: x.caller.Start, Inode: x.caller.Inode})
	share, err := handle.Share()
	if name == "" || err != nil {
		return
	}
	if h.handover.Keep(name, systemd.Kept{Lend: share.Lend, Close: func() { share.Close() }}) { //nolint:errcheck // of a pidfd
		x.kept = name
	} else {
		share.Close() //nolint:errcheck // of a pidfd
	}
}

// forget ends what is kept of a process. h.mu is held.
func (h *holders) forget(x *holderProcess) {
	if x.kept != "" {
		h.handover.Drop(x.kept)
		x.kept = ""
	}
}

// process returns what is known of a process, made if need be. h.mu is held.
func (h *holders) process(key process, caller enforcer.Caller) *holderProcess {
	x := h.alive[key]
	if x == nil {
		x = &holderProcess{caller: caller, leases: map[enforcer.LeaseID]struct{}{}}
		h.alive[key] = x
	}
	return x
}

// pin has a process watched for as long as a session of its is open, so that a lease that comes and goes costs no watch.
func (h *holders) pin(caller enforcer.Caller, handle *liveness.Handle) error {
	key := keyOf(handle)
	h.mu.Lock()
	x := h.process(key, caller)
	x.pins++
	h.mu.Unlock()
	return h.watch(key, x, handle)
}

func (h *holders) unpin(handle *liveness.Handle) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if x := h.alive[keyOf(handle)]; x != nil {
		x.pins--
		h.dropIdle(keyOf(handle), x)
	}
}

// dropIdle forgets a process that holds nothing and has no session. h.mu is held.
func (h *holders) dropIdle(key process, x *holderProcess) {
	if len(x.leases) > 0 || x.pins > 0 {
		return
	}
	delete(h.alive, key)
	h.forget(x)
	if x.watch != nil {
		x.watch.Stop()
	}
}

// watch has a process watched, if it is not yet.
func (h *holders) watch(key process, x *holderProcess, handle *liveness.Handle) error {
	h.mu.Lock()
	watched := x.watch != nil
	h.mu.Unlock()
	if watched {
		return nil
	}
	watch, err := h.watcher.Watch(handle, func() { h.died(key) })
	h.mu.Lock()
	defer h.mu.Unlock()
	x.watch = watch
	if err != nil {
		delete(h.alive, key)
	} else if x.gone || h.alive[key] != x {
		watch.Stop()
	}
	return err
}

// died ends the leases of a process.
func (h *holders) died(key process) {
	h.mu.Lock()
	x := h.alive[key]
	if x == nil {
		h.mu.Unlock()
		return
	}
	delete(h.alive, key)
	h.forget(x)
	x.gone = true
	var ids []enforcer.LeaseID
	for id := range x.leases {
		ids = append(ids, id)
	}
	h.mu.Unlock()
	for _, id := range ids {
		h.desk.do(&enforcer.Leave{ID: id, Holder: x.caller})
	}
}

// ended forgets a lease that is over. The desk's lock is held.
func (h *holders) ended(id enforcer.LeaseID) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if p, ok := h.paths[id]; ok {
		h.counts[p]--
		delete(h.paths, id)
	}
	for _, key := range h.leases[id] {
		x := h.alive[key]
		if x == nil {
			continue
		}
		delete(x.leases, id)
		h.dropIdle(key, x)
	}
	delete(h.leases, id)
}

// byPath counts the process leases by what tells that their holder is gone.
func (h *holders) byPath() map[string]int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return maps.Clone(h.counts)
}

// path says what tells that a lease's holder is gone.
func (h *holders) path(l *enforcer.Lease) string {
	switch l.Lifetime {
	case enforcer.LifetimeTTL:
		return "ttl"
	case enforcer.LifetimeConnection:
		return "connection"
	case enforcer.LifetimeProcess:
		h.mu.Lock()
		defer h.mu.Unlock()
		if p := h.paths[l.ID]; p != "" {
			return p
		}
		return "connection"
	default:
		return "none"
	}
}

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
	// A pidfd that was sent becomes the one that all sessions of its process share. Of a process that is not visible nothing
	// else tells it from others.
	if s.sent != nil || caller.PID == 0 {
		s.process() //nolint:errcheck // who holds something asks again
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

func (f front) Liveness(l *enforcer.Lease) string { return f.holders.path(l) }

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
			s.agent.holders.pin(s.caller, s.handle) //nolint:errcheck // each lease asks again
		}
	}
	if s.dead {
		return nil, &enforcer.Denial{Code: enforcer.BadRequest, Field: "lifetime", Detail: "the process that opened this session is dead, and can hold nothing"}
	}
	return s.handle, nil
}

// who is the session's process, with all that is known of it by now.
func (s *session) who() enforcer.Caller {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.agent.desk.place(&s.caller)
	return s.caller
}

// Inode is of the pidfd of the session's process, where it has been asked for; 0: not known.
func (s *session) Inode() uint64 { return s.who().Inode }

// Acquire is the desk's, for a lease that lives by the session's process unless the request says otherwise.
func (s *session) Acquire(ctx context.Context, r *enforcer.Acquire) (*enforcer.Lease, bool, *enforcer.Denial) {
	handle, d := s.complete(r)
	if d != nil {
		return nil, false, d
	}
	a := s.agent.desk.begin(r, nil)
	return s.finish(ctx, &a, handle)
}

// Begin is the first half of Acquire, of a request that may wait.
func (s *session) Begin(r *enforcer.Acquire, ready func()) (finish api.Finish, waits bool) {
	handle, d := s.complete(r)
	if d != nil {
		return func(context.Context) (*enforcer.Lease, bool, *enforcer.Denial) { return nil, false, d }, false
	}
	a := s.agent.desk.begin(r, ready)
	return func(ctx context.Context) (*enforcer.Lease, bool, *enforcer.Denial) { return s.finish(ctx, &a, handle) }, a.waits()
}

// complete fills in what a session's acquire need not say. handle is of the process that the lease is to live by; nil: of none.
func (s *session) complete(r *enforcer.Acquire) (handle *liveness.Handle, d *enforcer.Denial) {
	if r.Lifetime == "" {
		r.Lifetime, r.Implied = enforcer.LifetimeProcess, true
		if r.TTL != 0 {
			r.Lifetime = enforcer.LifetimeTTL
		} else if s.agent.desk.isMeter(r) {
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
	if s.agent.desk.byPod.Load() {
		r.Caller.Pod = s.who().Pod
	}
	return handle, nil
}

func (s *session) finish(ctx context.Context, a *asked, handle *liveness.Handle) (*enforcer.Lease, bool, *enforcer.Denial) {
	l, replayed, d := s.agent.desk.finish(ctx, a)
	if d != nil {
		return nil, false, d
	}
	s.bind(l, handle)
	return l, replayed, nil
}

// bind ties a lease to the session's process, or to its connection.
func (s *session) bind(l *enforcer.Lease, handle *liveness.Handle) {
	if l.Lifetime != enforcer.LifetimeProcess && l.Lifetime != enforcer.LifetimeConnection {
		return
	}
	if handle != nil && l.Lifetime == enforcer.LifetimeProcess && s.agent.holders.hold(l.ID, s.who(), handle) == nil {
		if _, held := s.agent.desk.Lease(l.ID); !held { // over before it was known here
			s.agent.holders.ended(l.ID)
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
	s.agent.desk.do(&enforcer.Leave{ID: id, Holder: s.who()})
}

// Join makes the session's process a co-holder.
func (s *session) Join(id enforcer.LeaseID) (*enforcer.Lease, *enforcer.Denial) {
	handle, d := s.process()
	if d != nil {
		return nil, d
	}
	dec := s.agent.desk.do(&enforcer.Join{ID: id, Caller: s.who()})
	if dec.Denial != nil {
		return nil, dec.Denial
	}
	s.bind(dec.Lease, handle)
	return dec.Lease, nil
}

// Attach gives the session's process an unconfirmed lease back.
func (s *session) Attach(id enforcer.LeaseID) (*enforcer.Lease, *enforcer.Denial) {
	handle, d := s.process()
	if d != nil {
		return nil, d
	}
	dec := s.agent.desk.do(&enforcer.Attach{ID: id, Caller: s.who()})
	if dec.Denial != nil {
		return nil, dec.Denial
	}
	s.bind(dec.Lease, handle)
	return dec.Lease, nil
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
		s.agent.holders.unpin(handle)
		handle.Close() //nolint:errcheck // the watches have their own
	}
}
