package api

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"
)

// Config is what a Server needs.
type Config struct {
	Slots      Slots
	Documents  Documents
	Operations Operations
	Feeds      *Feeds       // what subscribers read
	Metrics    http.Handler // GET /metrics
	Log        *slog.Logger // nil: nothing is logged
	Rules      Rules
	TLS        *tls.Config // of the agent's key; nil: TLS is not spoken
	// How many connections may be open, in all and of one uid. Zero: 4096 in all, and of one uid no more than are left
	// for all others.
	MaxConns, MaxConnsPerUID int
	// TakeSent turns the control messages (unix(7), SCM_RIGHTS) beside the first byte of a connection into something
	// for Session, or for AcquireFor. There are SentSpace bytes for them. TakeSent owns the descriptors in them, and
	// returns nil when they are of no use. nil: none are taken. The kernel closes descriptors that come at any other
	// time, for there is no room for them.
	TakeSent  func(oob []byte) io.Closer
	SentSpace int
}

// What a connection may take.
const (
	writeWithin = 30 * time.Second
	idleWithin  = 2 * time.Minute
	drainWithin = 5 * time.Second
	maxHeader   = 16 << 10
)

// What all callers may take together. No user may have more of it than is left for all others.
const (
	maxSubscribers = 4096
	maxKept        = 64 << 20 // bytes of messages and bodies
)

// Server answers the local API.
type Server struct {
	slots      Slots
	documents  Documents
	operations Operations
	feeds      *Feeds
	log        *slog.Logger
	rules      atomic.Pointer[Rules]
	handler    http.Handler
	// ends when the server drains: streams end; and sessions, see endAll.
	ends context.Context
	end  context.CancelFunc

	tls                      *tls.Config
	takeSent                 func([]byte) io.Closer
	sentSpace                int
	headerWithin, readWithin time.Duration // for the first byte and a header, and for a whole request

	connections *shares // one each
	subscribers *shares // of events, one each
	kept        *shares // bytes of messages and bodies that are being read
	listings    *turns  // to list leases
	measuring   *turns  // to measure this host for other products

	executables *executables
	accounts    *accounts
	guesses     *guesses

	ruling sync.Mutex // held while new rules are told
	// sessions that are open, and *func(*Rules), to call with new rules. A session is there itself, which takes less
	// memory than what it would hang on its server with.
	watching sync.Map
}

// New returns a server that listens nowhere until Run.
func New(c Config) *Server {
	s := &Server{slots: c.Slots, documents: c.Documents, operations: c.Operations, feeds: c.Feeds, log: c.Log,
		tls:      c.TLS,
		takeSent: c.TakeSent, sentSpace: c.SentSpace, headerWithin: 10 * time.Second, readWithin: 30 * time.Second}
	s.ends, s.end = context.WithCancel(context.Background())
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	if c.MaxConns <= 0 {
		c.MaxConns = 4096
	}
	s.connections, s.subscribers, s.kept = newShares(c.MaxConns, c.MaxConnsPerUID), newShares(maxSubscribers, 0),
		newShares(maxKept, 0)
	s.listings, s.measuring = newTurns(4), newTurns(2)
	s.accounts = newAccounts()
	s.executables, s.guesses = newExecutables(s.ends.Done()), newGuesses(s.log)
	s.SetRules(c.Rules)
	s.handler = s.routes(c.Metrics)
	return s
}

// Run answers on the socket until ctx ends. Then it answers the calls under way, within a few seconds.
func (s *Server) Run(ctx context.Context, socket *Socket) error {
	if socket.current() == nil {
		return net.ErrClosed
	}
	h := s.newHTTP(s.handler)
	h.ConnContext = func(ctx context.Context, c net.Conn) context.Context {
		return withConn(ctx, c.(*conn))
	}
	return s.serve(ctx, listening{socket}, h, s.endAll, func(c net.Conn, to *connQueue, tasks *sync.WaitGroup) {
		if k := s.admit(c.(*net.UnixConn)); k != nil {
			k.ending = s.ends.Done()
			tasks.Go(func() { s.tell(k, to) })
		}
	})
}

// newHTTP returns a server of a handler with the limits of every listener.
func (s *Server) newHTTP(h http.Handler) *http.Server {
	return &http.Server{
		Handler: h, ReadHeaderTimeout: s.headerWithin, ReadTimeout: s.readWithin, WriteTimeout: writeWithin,
		IdleTimeout:    idleWithin,
		MaxHeaderBytes: maxHeader, ErrorLog: slog.NewLogLogger(s.log.Handler(), slog.LevelDebug),
	}
}

// serve gives h the connections of l that admit passes on, until ctx ends. Then it calls end, and waits for the calls
// under way.
func (s *Server) serve(ctx context.Context, l net.Listener, h *http.Server, end func(),
	admit func(net.Conn, *connQueue, *sync.WaitGroup)) error {
	conns := &connQueue{addr: l.Addr(), ready: make(chan net.Conn), closed: make(chan struct{})}
	var tasks sync.WaitGroup
	var acceptErr error
	tasks.Go(func() {
		acceptErr = s.accept(l, conns, &tasks, admit)
		conns.Close()
	})
	served := make(chan error, 1)
	go func() { served <- h.Serve(conns) }()
	var err error
	select {
	case <-ctx.Done():
	case err = <-served:
		served <- err
	}
	end()
	l.Close()
	conns.Close()
	bounded, cancel := context.WithTimeout(context.WithoutCancel(ctx), drainWithin)
	defer cancel()
	if h.Shutdown(bounded) != nil {
		h.Close()
	}
	<-served
	tasks.Wait()
	if ctx.Err() != nil {
		return nil
	}
	return errors.Join(acceptErr, err)
}

// accept takes connections and passes each to admit.
func (s *Server) accept(l net.Listener, to *connQueue, tasks *sync.WaitGroup,
	admit func(net.Conn, *connQueue, *sync.WaitGroup)) error {
	pause := time.Millisecond
	for {
		c, err := l.Accept()
		if errors.Is(err, net.ErrClosed) {
			return nil
		}
		if err != nil {
			// Most likely the process is out of descriptors: others will give some back.
			s.log.Warn("a connection could not be accepted", "error", err)
			select {
			case <-to.closed:
				return nil
			case <-time.After(pause):
			}
			pause = min(2*pause, time.Second)
			continue
		}
		pause = time.Millisecond
		admit(c, to, tasks)
	}
}

// admit identifies the other end of a connection and counts the connection in; nil: it is closed already.
func (s *Server) admit(c *net.UnixConn) *conn {
	p, err := credentials(c)
	if err != nil {
		c.Close() // it has gone already
		return nil
	}
	p.executables, p.profile = s.executables, s.accounts.profile(&p)
	if why := s.enter(p.key()); why != "" {
		refuse(c, why)
		return nil
	}
	k := &conn{UnixConn: c, peer: p, server: s}
	k.counts.Store(1)
	k.goDirect()
	return k
}

// tell reads the first byte, which tells the protocol: '{' is a session, and so is '[', a batch, which a session
// refuses in words; 0x16 is TLS, inside of which the first byte tells again, and anything else is HTTP, which it passes
// on.
func (s *Server) tell(c *conn, to *connQueue) {
	if s.speaksSession(c) {
		s.serveSession(c)
	} else if c.held {
		s.countSent(c)
		to.put(c)
	}
}

// speaksSession reads what a connection speaks, and reports whether that is a session. One that speaks nothing it
// closes. It is apart from tell, so that a session's stack stays small.
func (s *Server) speaksSession(c *conn) bool {
	stop := context.AfterFunc(s.ends, func() { c.UnixConn.SetReadDeadline(time.Unix(1, 0)) })
	c.UnixConn.SetReadDeadline(time.Now().Add(s.headerWithin))
	err := s.readFirst(c)
	if err == nil && c.first[0] == 0x16 && s.tls != nil {
		c.held = true
		within := &conn{UnixConn: c.UnixConn, first: c.first, held: true}
		within.goDirect()
		inner := tls.Server(within, s.tls)
		if _, err = io.ReadFull(inner, c.first[:]); err == nil {
			c.inner = inner
		}
	}
	stop()
	switch {
	case err != nil, c.first[0] == 0x16:
		c.held = false
		c.Close()
		return false
	}
	c.held = true
	c.UnixConn.SetReadDeadline(time.Time{})
	return c.first[0] == '{' || c.first[0] == '['
}

// countSent counts what came beside the first byte as one connection more, or gives it back where that is one too many.
func (s *Server) countSent(c *conn) {
	switch {
	case c.sent == nil:
	case !s.connections.take(c.peer.key(), 1):
		c.dropSent()
	default:
		c.counts.Add(1)
	}
}

// readFirst reads the first byte, and the control message beside it.
func (s *Server) readFirst(c *conn) error {
	if s.takeSent == nil {
		_, err := io.ReadFull(c.UnixConn, c.first[:])
		return err
	}
	oob := make([]byte, s.sentSpace)
	n, oobn, _, _, err := c.ReadMsgUnix(c.first[:], oob)
	if oobn > 0 {
		c.sent = s.takeSent(oob[:oobn])
	}
	if err == nil && n == 0 {
		err = io.ErrUnexpectedEOF
	}
	return err
}

// endingContext makes a context of a channel, for context.AfterFunc.
type endingContext struct{ done <-chan struct{} }

func (endingContext) Deadline() (time.Time, bool) { return time.Time{}, false }
func (c endingContext) Done() <-chan struct{}     { return c.done }
func (endingContext) Value(any) any               { return nil }
func (c endingContext) Err() error {
	select {
	case <-c.done:
		return context.Canceled
	default:
		return nil
	}
}

// enter counts a connection in, or says why it is one too many.
func (s *Server) enter(k key) string {
	if s.connections.take(k, 1) {
		return ""
	}
	n := s.connections.of(k)
	if most := s.connections.mostOfOne; most > 0 && n >= most {
		return fmt.Sprintf(
			"%s has %d connections, the most one user may have; close some, or raise limits.connections_per_uid", k, n)
	}
	return fmt.Sprintf(
		"%s has %d connections of the %d that the agent accepts, and one user may have no more than are left "+
			"for all others; close some, or raise the agent's limit on open files",
		k, n, s.connections.most)
}

// refuse answers a connection too many as HTTP, whatever it speaks, and closes it.
func refuse(c net.Conn, why string) {
	body := fmt.Sprintf(
		`{"type":"`+ProblemPage+`rate_limited","title":"Too much at once","status":429,`+
			`"code":"rate_limited","detail":%q}`, why)
	refuseAs(c,
		fmt.Sprintf(
			"HTTP/1.1 429 Too Many Requests\r\nContent-Type: application/problem+json\r\nContent-Length: "+
				"%d\r\nConnection: close\r\n\r\n%s", len(body), body))
	c.Close()
}

func refuseAs(c net.Conn, text string) {
	c.SetWriteDeadline(time.Now().Add(time.Second))
	c.Write([]byte(text)) // it may not be listening
}

// conn is a connection with its peer and the first byte that was read of it.
type conn struct {
	*net.UnixConn
	peer  peer
	first [1]byte
	held  bool      // first has not been passed on yet
	inner *tls.Conn // nil: there is no TLS around it

	direct direct

	server    *Server                // where it is counted; nil: nowhere
	ending    <-chan struct{}        // closed when the listener ends; nil: never
	counts    atomic.Int32           // as so many connections
	reset     atomic.Bool            // the other end closed without having read all
	rights    atomic.Pointer[rights] // by the rules that rightsOf saw last; nil: by none yet
	commonest *commonest             // of HTTP; nil: there was no such call yet
	proof     atomic.Uint32          // whether unread and next are set: see changed

	mu     sync.Mutex // guards all below
	unread unread
	next   unread    // the next write ends with it
	sent   io.Closer // made of the control message beside the first byte; nil: nothing
}

// takeSent returns what came beside the first byte, to the first that asks; nil: there is nothing.
func (c *conn) takeSent() io.Closer {
	c.mu.Lock()
	defer c.mu.Unlock()
	sent := c.sent
	c.sent = nil
	return sent
}

// dropSent gives back what came beside the first byte, where nobody needs it.
func (c *conn) dropSent() {
	if sent := c.takeSent(); sent != nil {
		sent.Close()
	}
}

func (c *conn) Read(p []byte) (int, error) {
	if c.held && len(p) > 0 {
		c.held = false
		p[0] = c.first[0]
		return 1, nil
	}
	var n int
	var err error
	if c.inner != nil {
		n, err = c.inner.Read(p)
	} else {
		n, err = c.receive(p)
	}
	c.heard(err)
	return n, err
}

func (c *conn) Write(p []byte) (n int, err error) {
	if err := c.prove(); err != nil {
		return 0, err
	}
	if c.inner != nil {
		n, err = c.inner.Write(p)
	} else {
		n, err = c.transmit(p)
	}
	c.proved(n, err)
	return n, err
}

func (c *conn) Close() error {
	c.settle()
	if n := c.counts.Swap(0); n > 0 {
		c.server.connections.give(c.peer.key(), int(n))
	}
	c.dropSent()
	if c.inner != nil {
		return c.inner.Close() // it says goodbye, and closes the connection
	}
	return c.UnixConn.Close()
}

type (
	peerKey struct{}
	connKey struct{}
)

// withConn returns the context of a connection's requests.
func withConn(ctx context.Context, c *conn) context.Context {
	return context.WithValue(context.WithValue(ctx, peerKey{}, &c.peer), connKey{}, c)
}

// connQueue is the listener that http.Server accepts from.
type connQueue struct {
	addr   net.Addr
	ready  chan net.Conn
	closed chan struct{}
	once   sync.Once
}

func (q *connQueue) put(c net.Conn) {
	select {
	case q.ready <- c:
	case <-q.closed:
		c.Close()
	}
}

func (q *connQueue) Accept() (net.Conn, error) {
	select {
	case c := <-q.ready:
		return c, nil
	case <-q.closed:
		return nil, net.ErrClosed
	}
}

func (q *connQueue) Close() error {
	q.once.Do(func() { close(q.closed) })
	return nil
}

func (q *connQueue) Addr() net.Addr { return q.addr }
