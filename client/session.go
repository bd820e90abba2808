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

// AwayDefault is how long leases stand while no agent answers, unless the licence says otherwise (agent_away_seconds).
const AwayDefault = 10 * time.Minute

// Request asks for slots; [Slots] makes the usual one.
type Request = wire.AcquireRequest

// Slots asks for n slots of a pool, or for n draws of a meter.
func Slots(pool string, n int64) Request {
	if n == 1 {
		return Request{Pool: pool}
	}
	return Request{Pool: pool, N: &n}
}

// Option changes a session's defaults.
type Option func(*Session)

// WithSocket names the agent's socket; see [SocketOf]. The default is USHER_SOCKET, else [DefaultSocket].
func WithSocket(path string) Option { return func(s *Session) { s.socket = socketOr(path) } }

// WithLabels sets the labels of leases whose requests have none.
func WithLabels(labels map[string]string) Option { return func(s *Session) { s.labels = labels } }

// WithVendor makes the agent prove, on open and on every reconnect, that the vendor's licence names it and that nobody
// is between. All messages are inside TLS with the agent's key. An agent that cannot prove this is refused with
// [ErrNotProven]. So is one whose licence names no agent, because anybody could pretend to be that agent.
func WithVendor(v Vendor) Option { return func(s *Session) { s.vendor = &v } }

// AllowUnproven accepts an agent whose licence names no agent's key, or that cannot see the process at this end; see
// [Session.Proven]. It does not accept an agent whose licence names another key, or that sees another process.
func AllowUnproven() Option { return func(s *Session) { s.unproven = true } }

// FailOpen lets the product go on while no agent answers: [Open] succeeds, and [Session.Acquire] returns leases that no
// agent has granted; see [Lease.Backed]. [Stats] counts them. The session acquires them when the agent is back, and a
// refused one is lost then. Without FailOpen there are no slots without an agent.
func FailOpen() Option { return func(s *Session) { s.failOpen = true } }

// Session is a lasting connection to an agent. Its leases live as long as this process: the kernel tells the agent when
// the process dies, and the slots come back in milliseconds. A Session is safe for concurrent use. When the agent goes
// away, the session reconnects with back-off and attaches its leases. A lease is lost only if the agent says so, or if
// no agent has answered for longer than the licence allows. A child process after a fork without exec has no session:
// every call returns [ErrForked], and the parent keeps its leases.
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
	down     error // the reason
	downFrom time.Time
	leases   map[string]*Lease
	unbacked map[*Lease]struct{}
	orphans  []string // leases to give back once the agent is there
	agent    wire.HelloAnswer
	proven   Proven
	agentKey ed25519.PublicKey // once proved
	license  *wire.License     // as last seen
	terms    string            // its JSON
	news     chan struct{}     // closed when license changes
	stats    Stats
}

// Stats has the counts of a session.
type Stats struct {
	Reconnects int // how often the agent was found again
	FailedOpen int // leases returned without an agent: see [FailOpen]
	Unbacked   int // how many of these no agent has granted yet
}

var getpid = os.Getpid // but for tests

// Open opens a session with the agent. It needs no options. ctx bounds the opening alone. Errors: [ErrAgentAway],
// [ErrForbidden], [ErrNotProven].
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

// task starts f, and Close waits for it; false when the session is closed.
func (s *Session) task(f func()) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.closed {
		s.over.Go(f)
	}
	return !s.closed
}

// gone returns ctx's error if ctx has ended, else the error for an agent that does not answer.
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
func (s *Session) call(ctx context.Context, method string, in, out any) error {
	l, err := s.live()
	if err != nil {
		return err
	}
	return l.ask(ctx, method, in, out)
}

// Agent returns the agent's hello: its own state, and the process that it sees at this end.
func (s *Session) Agent() wire.HelloAnswer {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.agent
}

// Proven returns how much the agent has proved: [ProvenNone] or [ProvenLicense].
func (s *Session) Proven() Proven {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.proven
}

// Stats returns the session's counts.
func (s *Session) Stats() Stats {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := s.stats
	out.Unbacked = len(s.unbacked)
	return out
}

// License returns the verdict and the documents it rests on. While the agent is away, it returns the last one seen, for
// as long as leases stand.
func (s *Session) License(ctx context.Context) (*wire.License, error) {
	out := new(wire.License)
	if err := s.call(ctx, "license.get", struct{}{}, out); err != nil {
		return s.lastSeen(err)
	}
	return out, nil
}

// lastSeen returns the last licence seen if it still stands, else err.
func (s *Session) lastSeen(err error) (*wire.License, error) {
	grace := s.agentAway()
	s.mu.Lock()
	defer s.mu.Unlock()
	if !errors.Is(err, ErrAgentAway) || s.license == nil || s.link == nil && time.Since(s.downFrom) > grace {
		return nil, err
	}
	return s.license, nil
}

// Feature returns one feature; one that the licence does not name is not enabled. While the agent is away, it returns
// the last state seen, for as long as leases stand.
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

// Watch returns the present licence, and each change of it, until ctx ends or the session is closed. It goes on when
// the agent comes back. A slow reader gets the latest licence, not every one.
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

// refresh reads the licence again.
func (s *Session) refresh(l *link) {
	b, err := l.do(s.ctx, "license.get", params{before: `{}`}, nil)
	now := new(wire.License)
	if err != nil || json.Unmarshal([]byte(b), now) != nil {
		return // the link is broken; the next one reads the licence
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if b == s.terms {
		return
	}
	s.license, s.terms = now, b
	close(s.news)
	s.news = make(chan struct{})
}

// agentAway returns how long leases stand without the agent.
func (s *Session) agentAway() time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.license == nil || s.license.AgentAway <= 0 {
		return AwayDefault
	}
	return time.Duration(s.license.AgentAway * float64(time.Second))
}

// Close gives back every lease except those with the lifetime held, and ends the session. Leases that it cannot give
// back while the agent is away end with this process.
func (s *Session) Close() {
	if getpid() != s.pid {
		return // the connection and its leases are the parent's
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

// File returns the session's connection as a file. A program that this process becomes by exec can inherit it, and with
// it the leases that live by the connection.
func (s *Session) File() (*os.File, error) {
	l, err := s.live()
	if err != nil {
		return nil, err
	}
	return l.raw.File()
}
