package client

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"sync"
	"syscall"
	"time"

	"github.com/usher-agent/usher/client/wire"
)

// Session is a kept-open connection to an agent. Leases that are acquired on it live by this process: the kernel tells the
// agent when it dies, and their slots come back in milliseconds. It is safe for concurrent use.
//
// When the agent goes away the session connects again, with back-off, and shows its leases. A lease is lost only when the
// agent says so, or when none has answered for [AwayGrace].
type Session struct {
	client *Client
	hello  wire.Hello
	stop   context.CancelFunc
	ctx    context.Context
	over   sync.WaitGroup

	mu     sync.Mutex // guards all below
	link   *link      // nil while the agent is away
	leases map[string]*Lease
	agent  wire.HelloAnswer
}

// AwayGrace is how long leases are thought to stand while no agent answers.
const AwayGrace = awayGrace

// link is one connection of a session.
type link struct {
	conn net.Conn
	done chan struct{} // closed when it is broken

	mu      sync.Mutex // guards all below, and writing
	next    uint64
	pending map[uint64]chan answer
	broken  error
	event   func(wire.Event)
}

type answer struct {
	Result json.RawMessage
	Error  *struct {
		Message string        `json:"message"`
		Data    *wire.Problem `json:"data"`
	}
}

// Open opens a session with the agent; [ErrAgentAway], [ErrForbidden]. labels are shown with every lease that names none of
// its own. ctx is for the opening alone.
func (c *Client) Open(ctx context.Context, labels map[string]string) (*Session, error) {
	s := &Session{client: c, hello: wire.Hello{Versions: []int{1}, Client: "go", Labels: labels}, leases: map[string]*Lease{}}
	s.ctx, s.stop = context.WithCancel(context.Background())
	l, err := s.connect(ctx)
	if err != nil {
		s.stop()
		return nil, err
	}
	s.link = l
	s.over.Go(s.keep)
	return s, nil
}

// connect connects and says hello.
func (s *Session) connect(ctx context.Context) (*link, error) {
	conn, err := dial(ctx, s.client.socket)
	if err != nil {
		return nil, s.client.away(err)
	}
	l := &link{conn: conn, done: make(chan struct{}), pending: map[uint64]chan answer{}}
	go l.read()
	var hello wire.HelloAnswer
	if err := s.client.call(ctx, l, "session.hello", s.hello, &hello); err != nil {
		conn.Close()
		return nil, err
	}
	s.mu.Lock()
	s.agent = hello
	s.mu.Unlock()
	return l, nil
}

// dial connects; a full backlog (EAGAIN) is tried again, for the agent is there.
func dial(ctx context.Context, socket string) (net.Conn, error) {
	for wait := time.Millisecond; ; wait = min(2*wait, 100*time.Millisecond) {
		conn, err := (&net.Dialer{}).DialContext(ctx, "unix", socket)
		if !errors.Is(err, syscall.EAGAIN) {
			return conn, err
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(wait):
		}
	}
}

// read hands out answers until the connection breaks.
func (l *link) read() {
	in := bufio.NewScanner(l.conn)
	in.Buffer(make([]byte, 0, 4096), 8<<20)
	for in.Scan() {
		var m struct {
			ID     *uint64         `json:"id"`
			Method string          `json:"method"`
			Params json.RawMessage `json:"params"`
			answer
		}
		if err := json.Unmarshal(in.Bytes(), &m); err != nil {
			l.fail(fmt.Errorf("its answer cannot be read: %w", err))
			return
		}
		l.mu.Lock()
		var to chan answer
		if m.ID != nil {
			to = l.pending[*m.ID]
			delete(l.pending, *m.ID)
		}
		event := l.event
		l.mu.Unlock()
		switch {
		case to != nil:
			to <- m.answer
		case m.ID == nil && m.Method == "" && m.Error != nil: // it does not want to speak with us
			l.fail(errors.New(m.Error.Message))
			return
		case m.Method != "" && event != nil:
			var ev wire.Event
			if json.Unmarshal(m.Params, &ev) == nil {
				event(ev)
			}
		}
	}
	err := in.Err()
	if err == nil {
		err = errors.New("the agent closed the session")
	}
	l.fail(err)
}

// fail breaks the connection: who waits for an answer is told.
func (l *link) fail(err error) {
	l.conn.Close()
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.broken == nil {
		l.broken = err
		close(l.done)
	}
}

// call makes one call on a link.
func (c *Client) call(ctx context.Context, l *link, method string, params, out any) error {
	p, err := json.Marshal(params)
	if err != nil {
		return fmt.Errorf("write the request: %w", err)
	}
	got := make(chan answer, 1)
	l.mu.Lock()
	if l.broken != nil {
		defer l.mu.Unlock()
		return c.away(l.broken)
	}
	id := l.next
	l.next++
	l.pending[id] = got
	_, err = fmt.Fprintf(l.conn, `{"jsonrpc":"2.0","id":%d,"method":%q,"params":%s}`+"\n", id, method, p)
	l.mu.Unlock()
	if err != nil {
		l.fail(err)
		return c.away(err)
	}
	select {
	case a := <-got:
		switch {
		case a.Error != nil && a.Error.Data != nil:
			return &Error{Problem: *a.Error.Data}
		case a.Error != nil:
			return &Error{Problem: wire.Problem{Code: string(ErrInternal), Detail: a.Error.Message}}
		case out == nil:
			return nil
		}
		if err := json.Unmarshal(a.Result, out); err != nil {
			return c.away(fmt.Errorf("its answer to %s cannot be read: %w", method, err))
		}
		return nil
	case <-l.done:
		return c.away(l.broken)
	case <-ctx.Done():
		l.mu.Lock()
		delete(l.pending, id)
		l.mu.Unlock()
		return ctx.Err()
	}
}

// call makes one call on the session's present connection.
func (s *Session) call(ctx context.Context, method string, params, out any) error {
	s.mu.Lock()
	l := s.link
	s.mu.Unlock()
	if l == nil {
		return s.client.away(errors.New("the session is broken, and is being mended"))
	}
	return s.client.call(ctx, l, method, params, out)
}

// Agent returns what the agent said of itself, and whom it sees at this end.
func (s *Session) Agent() wire.HelloAnswer {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.agent
}

// License returns the verdict and the documents it rests on.
func (s *Session) License(ctx context.Context) (*wire.License, error) {
	out := new(wire.License)
	return out, s.call(ctx, "license.get", struct{}{}, out)
}

// Pools returns every pool and meter.
func (s *Session) Pools(ctx context.Context) ([]wire.Pool, error) {
	var out wire.Pools
	err := s.call(ctx, "pools.list", struct{}{}, &out)
	return out.Pools, err
}

// Lease is a lease that a session holds.
type Lease struct {
	session *Session
	done    chan struct{}

	mu    sync.Mutex // guards all below
	lease wire.Lease
	err   error
	ended bool
}

// Acquire asks for slots that this process holds until it ends, or until Close. The request may name another lifetime.
func (s *Session) Acquire(ctx context.Context, r wire.AcquireRequest) (*Lease, error) {
	l := &Lease{session: s, done: make(chan struct{})}
	if err := s.call(ctx, "lease.acquire", r, &l.lease); err != nil {
		if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
			s.reset() // an answer that nobody waits for would hold slots
		}
		return nil, err
	}
	s.mu.Lock()
	s.leases[l.lease.ID] = l
	s.mu.Unlock()
	return l, nil
}

// reset breaks the connection, so that the agent undoes what it has not answered yet, and lets it be made anew.
func (s *Session) reset() {
	s.mu.Lock()
	l := s.link
	s.mu.Unlock()
	if l != nil {
		l.fail(errors.New("a call was given up"))
	}
}

// Join makes this process a co-holder of a lease, whose id its holder has passed on.
func (s *Session) Join(ctx context.Context, id string) (*Lease, error) {
	l := &Lease{session: s, done: make(chan struct{})}
	if err := s.call(ctx, "lease.join", wire.LeaseRequest{ID: id}, &l.lease); err != nil {
		return nil, err
	}
	s.mu.Lock()
	s.leases[id] = l
	s.mu.Unlock()
	return l, nil
}

// Info returns the lease as it was last seen.
func (l *Lease) Info() wire.Lease {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.lease
}

// Done is closed when the lease is lost: revoked, forced, or no agent has answered for [AwayGrace].
func (l *Lease) Done() <-chan struct{} { return l.done }

// Err says why the lease was lost; nil while it is held.
func (l *Lease) Err() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.err
}

// Close gives the lease back. It may be called more than once.
func (l *Lease) Close() error {
	s := l.session
	id := l.Info().ID
	s.mu.Lock()
	_, held := s.leases[id]
	delete(s.leases, id)
	s.mu.Unlock()
	if !held {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	err := s.call(ctx, "lease.release", wire.LeaseRequest{ID: id}, nil)
	if errors.Is(err, ErrLeaseUnknown) {
		return nil
	}
	return err
}

// lose says that a lease is lost.
func (s *Session) lose(l *Lease, err error) {
	s.mu.Lock()
	delete(s.leases, l.lease.ID)
	s.mu.Unlock()
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.ended {
		l.ended, l.err = true, err
		close(l.done)
	}
}

func (s *Session) held() []*Lease {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := make([]*Lease, 0, len(s.leases))
	for _, l := range s.leases {
		out = append(out, l)
	}
	return out
}

// keep listens for what becomes of the leases, and mends the connection when it breaks, until Close.
func (s *Session) keep() {
	for {
		s.mu.Lock()
		l := s.link
		s.mu.Unlock()
		l.mu.Lock()
		l.event = s.event
		l.mu.Unlock()
		s.client.call(s.ctx, l, "events.subscribe", wire.Subscribe{Mine: true}, nil) //nolint:errcheck // a broken link is mended below
		select {
		case <-s.ctx.Done():
			l.fail(errors.New("the session is closed"))
			return
		case <-l.done:
		}
		s.mu.Lock()
		s.link = nil
		s.mu.Unlock()
		if !s.mend() {
			return
		}
	}
}

// event takes note of a lease that is over.
func (s *Session) event(ev wire.Event) {
	if ev.Type != "lease.ended" || ev.Cause == "released" {
		return
	}
	s.mu.Lock()
	l := s.leases[ev.LeaseID]
	s.mu.Unlock()
	if l != nil {
		s.lose(l, &Error{Problem: wire.Problem{Code: string(ErrLeaseUnknown), Detail: fmt.Sprintf("lease %s is over: %s", ev.LeaseID, ev.Cause)}})
	}
}

// mend connects again, with back-off and full jitter, and shows the leases; false when the session is closed.
func (s *Session) mend() bool {
	broken := time.Now()
	for wait := 10 * time.Millisecond; ; wait = min(2*wait, 2*time.Second) {
		try, cancel := context.WithTimeout(s.ctx, 5*time.Second)
		l, err := s.connect(try)
		if err == nil {
			err = s.attach(try, l)
		}
		cancel()
		if err == nil {
			return true
		}
		if time.Since(broken) > AwayGrace {
			for _, l := range s.held() {
				s.lose(l, err)
			}
		}
		select {
		case <-s.ctx.Done():
			return false
		case <-time.After(rand.N(wait) + time.Millisecond):
		}
	}
}

// attach shows the leases to an agent that may not know that their holder lives, and makes the link the session's.
func (s *Session) attach(ctx context.Context, l *link) error {
	for _, lease := range s.held() {
		info := lease.Info()
		if info.Lifetime != "process" && info.Lifetime != "connection" {
			continue
		}
		var out wire.Lease
		err := s.client.call(ctx, l, "lease.attach", wire.LeaseRequest{ID: info.ID}, &out)
		switch {
		case err == nil:
			lease.mu.Lock()
			lease.lease = out
			lease.mu.Unlock()
		case errors.Is(err, ErrLeaseUnknown), errors.Is(err, ErrNotHolder):
			s.lose(lease, err)
		default:
			l.fail(err)
			return err
		}
	}
	s.mu.Lock()
	s.link = l
	s.mu.Unlock()
	return nil
}

// Close ends the session. Leases that live by this process go on until it ends; close those that should not.
func (s *Session) Close() {
	s.stop()
	s.over.Wait()
}

// File returns the session's connection as a file for a program that this process is about to become, so that a lease that
// lives by the connection outlives exec; nil while the agent is away.
func (s *Session) File() (*os.File, error) {
	s.mu.Lock()
	l := s.link
	s.mu.Unlock()
	if l == nil {
		return nil, s.client.away(errors.New("the session is broken"))
	}
	return l.conn.(*net.UnixConn).File()
}
