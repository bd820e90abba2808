package client

import (
	"context"
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"iter"
	"os"
	"sync"
	"time"

	"github.com/usher-agent/usher/client/wire"
)

// AwayDefault is how long leases stand while no agent answers, where the licence does not say (agent_away_seconds).
const AwayDefault = 10 * time.Minute

// Request asks for slots; [Slots] makes the commonest.
type Request = wire.AcquireRequest

// Slots asks for n slots of a pool, or for n draws of a meter.
func Slots(pool string, n int64) Request {
	if n == 1 {
		return Request{Pool: pool}
	}
	return Request{Pool: pool, N: &n}
}

// Option says how a session is to be other than usual.
type Option func(*Session)

// WithSocket names the agent's socket; without it, it is USHER_SOCKET's, else [DefaultSocket].
func WithSocket(path string) Option { return func(s *Session) { s.socket = socketOr(path) } }

// WithLabels are shown with every lease that names none of its own.
func WithLabels(labels map[string]string) Option { return func(s *Session) { s.labels = labels } }

// WithVendor has the agent prove, on open and on every reconnect, that it is the one that the vendor's licence names,
// and that nobody stands between; all that is said is inside TLS with its key. An agent that cannot is refused with
// [ErrNotProven], one whose licence names no agent too: anybody could be such a one.
func WithVendor(v Vendor) Option { return func(s *Session) { s.vendor = &v } }

// AllowUnproven takes an agent whose licence names no agent's key, or that does not see who is at the other end; see
// [Session.Proven]. It takes none whose licence names another's key, or that sees another process than this one.
func AllowUnproven() Option { return func(s *Session) { s.unproven = true } }

// FailOpen lets the product go on while no agent answers: [Open] succeeds, and [Session.Acquire] returns leases that
// nothing backs, see [Lease.Backed]. They are counted in [Stats], and asked for when the agent is back; one that is
// refused then is lost. Without it no agent means no slots.
func FailOpen() Option { return func(s *Session) { s.failOpen = true } }

// Session is a kept-open connection to an agent. Leases that are acquired on it live by this process: the kernel tells
// the agent when it dies, and their slots come back in milliseconds. It is safe for concurrent use.
//
// When the agent goes away the session connects again, with back-off, and shows its leases. A lease is lost only when
// the agent says so, or when none has answered for as long as the licence allows.
//
// A child that was forked without exec has no session: every call is [ErrForked], and nothing of the parent's is given
// back.
type Session struct {
	socket   string
	labels   map[string]string
	vendor   *Vendor
	unproven bool
	failOpen bool
	pid      int

	ctx   context.Context
	stop  context.CancelFunc
	over  sync.WaitGroup
	stale chan struct{} // holds one when the licence has changed

	mu       sync.Mutex // guards all below; a lease's is taken before it
	closed   bool
	link     *link // nil while the agent is away
	down     error // why
	downFrom time.Time
	leases   map[string]*Lease
	unbacked map[*Lease]struct{}
	orphans  []string // leases that are to be given back when the agent is there
	agent    wire.HelloAnswer
	proven   Proven
	agentKey ed25519.PublicKey // that has been proved
	license  *wire.License     // as it was last seen
	terms    []byte            // its JSON
	news     chan struct{}     // closed when license changes
	stats    Stats
}

// Stats counts what has become of a session.
type Stats struct {
	Reconnects int // how often the agent was found again
	FailedOpen int // leases that nothing backed when they were given: see [FailOpen]
	Unbacked   int // of these, how many there are now
}

var getpid = os.Getpid // but for tests

// Open opens a session with the agent. Nothing needs to be said; options say what is to be other than usual. ctx is for
// the opening alone. [ErrAgentAway], [ErrForbidden], [ErrNotProven].
func Open(ctx context.Context, options ...Option) (*Session, error) {
	s := &Session{socket: socketOr(""), pid: getpid(), proven: ProvenNone, stale: make(chan struct{}, 1),
		news:   make(chan struct{}),
		leases: map[string]*Lease{}, unbacked: map[*Lease]struct{}{}}
	for _, o := range options {
		o(s)
	}
	s.ctx, s.stop = context.WithCancel(context.Background())
	l, err := s.connect(ctx)
	if err != nil && !(s.failOpen && errors.Is(err, ErrAgentAway)) {
		s.stop()
		s.over.Wait()
		return nil, err
	}
	if err != nil {
		s.down, s.downFrom = err, time.Now()
	} else {
		s.link, s.agent, s.proven = l, l.agent, l.proven
	}
	s.task(func() { s.keep(l) })
	return s, nil
}

// task runs f until Close waits for it; false when the session is closed.
func (s *Session) task(f func()) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.closed {
		s.over.Go(f)
	}
	return !s.closed
}

// gone says that the agent does not answer, unless it was not waited for.
func (s *Session) gone(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return away(s.socket, err)
}

// live returns the present connection.
func (s *Session) live() (*link, error) {
	if getpid() != s.pid {
		return nil, forked(s.pid)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.closed:
		return nil, ErrClosed
	case s.link == nil:
		return nil, s.down
	}
	return s.link, nil
}

// call makes one call on the present connection.
func (s *Session) call(ctx context.Context, method string, params, out any) error {
	l, err := s.live()
	if err != nil {
		return err
	}
	return l.ask(ctx, method, params, out)
}

// Agent returns what the agent said of itself, and whom it sees at this end.
func (s *Session) Agent() wire.HelloAnswer {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.agent
}

// Proven says how much the agent could prove: [ProvenNone] or [ProvenLicense].
func (s *Session) Proven() Proven {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.proven
}

// Stats returns what has become of the session.
func (s *Session) Stats() Stats {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := s.stats
	out.Unbacked = len(s.unbacked)
	return out
}

// License returns the verdict and the documents it rests on. While the agent is away, the last that was seen stands for
// as long as leases do.
func (s *Session) License(ctx context.Context) (*wire.License, error) {
	out := new(wire.License)
	if err := s.call(ctx, "license.get", struct{}{}, out); err != nil {
		return s.lastSeen(err)
	}
	return out, nil
}

// lastSeen returns the licence that was last seen, if that still stands, else err.
func (s *Session) lastSeen(err error) (*wire.License, error) {
	grace := s.agentAway()
	s.mu.Lock()
	defer s.mu.Unlock()
	if !errors.Is(err, ErrAgentAway) || s.license == nil || s.link == nil && time.Since(s.downFrom) > grace {
		return nil, err
	}
	return s.license, nil
}

// Feature returns one feature; one that the licence does not name is not enabled. While the agent is away, what was
// last seen stands for as long as leases do.
func (s *Session) Feature(ctx context.Context, name string) (wire.Feature, error) {
	var out wire.NamedFeature
	err := s.call(ctx, "features.get", struct {
		Name string `json:"name"`
	}{name}, &out)
	if err == nil {
		return out.Feature, nil
	}
	l, err := s.lastSeen(err)
	if err != nil {
		return wire.Feature{}, err
	}
	return l.Features[name], nil
}

// Pools returns every pool and meter.
func (s *Session) Pools(ctx context.Context) ([]wire.Pool, error) {
	var out wire.Pools
	err := s.call(ctx, "pools.list", struct{}{}, &out)
	return out.Pools, err
}

// Watch returns the licence as it is, and again whenever it has changed, until ctx ends or the session is closed. It
// goes on when the agent comes back. A reader that is slow sees the latest, not every one.
func (s *Session) Watch(ctx context.Context) iter.Seq[*wire.License] {
	return func(yield func(*wire.License) bool) {
		var seen *wire.License
		for {
			s.mu.Lock()
			now, news := s.license, s.news
			s.mu.Unlock()
			if now != seen && ctx.Err() == nil {
				if seen = now; !yield(now) {
					return
				}
				continue
			}
			select {
			case <-news:
			case <-ctx.Done():
				return
			case <-s.ctx.Done():
				return
			}
		}
	}
}

// refresh looks at the licence again.
func (s *Session) refresh(l *link) {
	b, err := l.do(s.ctx, "license.get", []byte(`{}`), nil)
	now := new(wire.License)
	if err != nil || json.Unmarshal(b, now) != nil {
		return // the link is broken, and what is found with the next is looked at
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if string(b) == string(s.terms) {
		return
	}
	s.license, s.terms = now, b
	close(s.news)
	s.news = make(chan struct{})
}

// agentAway is how long leases stand without the agent.
func (s *Session) agentAway() time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.license == nil || s.license.AgentAway <= 0 {
		return AwayDefault
	}
	return time.Duration(s.license.AgentAway * float64(time.Second))
}

// Close gives every lease back but those with the lifetime held, and ends the session. What cannot be given back, the
// agent being away, ends with this process.
func (s *Session) Close() {
	if getpid() != s.pid {
		return // the connection and what it holds are the parent's
	}
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return
	}
	s.closed = true
	link := s.link
	s.mu.Unlock()
	ctx, cancel := context.WithTimeout(context.Background(), closeWithin)
	defer cancel()
	for _, l := range s.held() {
		if info := l.Info(); link != nil && info.Lifetime != "held" {
			link.do(ctx, "lease.release", idParams(info.ID), nil)
		}
	}
	s.stop()
	s.over.Wait()
}

// File returns the session's connection as a file for a program that this process is about to become, so that a lease
// that lives by the connection outlives exec.
func (s *Session) File() (*os.File, error) {
	l, err := s.live()
	if err != nil {
		return nil, err
	}
	return l.raw.File()
}
