package client

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/usher-agent/usher/client/wire"
)

// Bounds of a connection.
const (
	firstBuffer = 4096    // bytes
	maxLine     = 8 << 20 // bytes of one answer
	writeWithin = 30 * time.Second
)

// link is one connection of a session.
type link struct {
	session *Session
	conn    net.Conn // the socket, or TLS on it
	raw     *net.UnixConn
	agent   wire.HelloAnswer
	proven  Proven
	done    chan struct{} // closed when the link is broken
	over    chan struct{} // closed when reading has ended
	turn    chan struct{} // holds one while nobody reads
	taken   atomic.Uint64 // how often a call took the turn

	in     input     // the turn guards it
	readBy time.Time // the present read deadline; the turn guards it

	writing sync.Mutex // guards buf and until, and writing
	buf     []byte
	until   time.Time // the present write deadline

	mu      sync.Mutex // guards all below
	next    uint64
	pending map[uint64]*call
	broken  error
}

// first is a connection whose first write carries a pidfd.
type first struct {
	*net.UnixConn
	of   *Process // the pidfd's; nil: this process
	sent bool
}

func (c *first) Write(b []byte) (int, error) {
	if c.sent || len(b) == 0 {
		return c.UnixConn.Write(b)
	}
	c.sent = true
	var n int
	var err error
	if c.of != nil {
		n, err = sendBeside(c.UnixConn, c.of.pidfd, b)
	} else {
		n, err = sendFirst(c.UnixConn, b)
	}
	if err == nil && n < len(b) {
		var more int
		more, err = c.UnixConn.Write(b[n:])
		n += more
	}
	return n, err
}

// dial connects. It tries again if the agent's backlog is full (EAGAIN).
func dial(ctx context.Context, socket string) (*net.UnixConn, error) {
	for wait := time.Millisecond; ; wait = min(2*wait, 100*time.Millisecond) {
		conn, err := (&net.Dialer{}).DialContext(ctx, "unix", socket)
		if err == nil {
			return conn.(*net.UnixConn), nil
		}
		if !errors.Is(err, syscall.EAGAIN) {
			return nil, err
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(wait/2 + rand.N(wait)):
		}
	}
}

// connect connects, makes the agent prove itself if a vendor is set, and says hello.
func (s *Session) connect(ctx context.Context) (*link, error) {
	raw, err := dial(ctx, s.socket)
	if err != nil {
		return nil, s.gone(ctx, err)
	}
	l := &link{session: s, conn: &first{UnixConn: raw}, raw: raw, proven: ProvenNone, done: make(chan struct{}),
		over: make(chan struct{}), turn: make(chan struct{}, 1), pending: map[uint64]*call{}}
	l.turn <- struct{}{}
	if s.vendor != nil {
		// prove checks the key
		t := tls.Client(l.conn, &tls.Config{MinVersion: tls.VersionTLS13, InsecureSkipVerify: true})
		if err := t.HandshakeContext(ctx); err != nil {
			raw.Close()
			return nil, handshakeError(s.gone(ctx, err), err)
		}
		l.conn = t
	}
	if !s.task(l.attend) {
		raw.Close()
		return nil, ErrClosed
	}
	if s.vendor != nil { // before the client sends anything else
		err = s.prove(ctx, l)
	}
	if err == nil {
		err = l.ask(ctx, "session.hello", wire.Hello{Versions: []int{1}, Client: "go", Labels: s.labels}, &l.agent)
	}
	if err == nil {
		err = l.write(noAnswer, "events.subscribe", params{before: `{"mine":true}`})
	}
	if err != nil {
		l.fail(err)
		return nil, err
	}
	return l, nil
}

// line handles one message. called is true for the answer to a call.
func (l *link) line(line []byte) (called bool, err error) {
	if id, result, ok := plainAnswer(line); ok {
		text := nothing
		if string(result) != nothing {
			text = string(result)
		}
		l.answered(id, answer{result: text})
		return true, nil
	}
	var m struct {
		ID     *uint64         `json:"id"`
		Method string          `json:"method"`
		Params json.RawMessage `json:"params"`
		Result json.RawMessage `json:"result"`
		Error  *struct {
			Message string        `json:"message"`
			Data    *wire.Problem `json:"data"`
		} `json:"error"`
	}
	if err := json.Unmarshal(line, &m); err != nil {
		if bytes.HasPrefix(line, []byte("HTTP/")) {
			return false, refusedConnection()
		}
		return false, fmt.Errorf("its answer cannot be read: %w", err)
	}
	a := answer{result: string(m.Result)}
	if m.Error != nil {
		p := wire.Problem{Code: string(ErrInternal), Detail: m.Error.Message}
		if m.Error.Data != nil && m.Error.Data.Code != "" {
			p = *m.Error.Data
		}
		if p.Detail == "" {
			p.Detail = "the agent gives no reason"
		}
		a.err = &Error{Problem: p}
	} else if m.ID != nil && len(m.Result) == 0 {
		a.err = away(l.session.socket, errors.New("its answer has neither a result nor an error"))
	}
	switch {
	case m.ID != nil:
		l.answered(*m.ID, a)
		return true, nil
	case m.Method == "" && a.err != nil:
		return false, a.err // the agent refuses the connection
	case m.Method == "lease.waiting":
		l.placed(m.Params)
	case m.Method != "":
		var ev wire.Event
		if json.Unmarshal(m.Params, &ev) == nil {
			l.session.event(ev)
		}
	}
	return false, nil
}

// nothing is the empty result.
const nothing = `{}`

// refusedConnection returns the error for an agent that has too many connections already.
func refusedConnection() error {
	return &Error{Problem: wire.Problem{Status: 429, Code: string(ErrRateLimited), Title: "Too much at once",
		Detail: "the agent takes no more connections from this user",
		Hint:   "one session a process is enough; limits.connections_per_uid is the agent's limit"}}
}

// plainAnswer reads an answer in the form that the agent writes, {"jsonrpc":"2.0","id":1,"result":…}.
func plainAnswer(line []byte) (id uint64, result []byte, ok bool) {
	rest, ok := bytes.CutPrefix(line, []byte(`{"jsonrpc":"2.0","id":`))
	if !ok {
		return 0, nil, false
	}
	n := 0
	for n < len(rest) && n < 19 && rest[n] >= '0' && rest[n] <= '9' {
		id = id*10 + uint64(rest[n]-'0')
		n++
	}
	if rest, ok = bytes.CutPrefix(rest[n:], []byte(`,"result":`)); !ok || n == 0 {
		return 0, nil, false
	}
	rest, ok = bytes.CutSuffix(rest, []byte("}\n"))
	return id, rest, ok
}

// answered hands an answer to its call.
func (l *link) answered(id uint64, a answer) {
	l.mu.Lock()
	c := l.pending[id]
	delete(l.pending, id)
	given := c != nil && c.given
	l.mu.Unlock()
	if c == nil {
		return
	}
	if c.lease != nil && a.err == nil {
		a.err = l.session.granted(l, c.lease, a.result, given)
	}
	c.got <- a
}

// fail breaks the connection, so that all calls end.
func (l *link) fail(err error) {
	l.raw.Close() // without TLS's goodbye, which could block
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.broken == nil {
		l.broken = err
		close(l.done)
	}
}

// isBroken reports whether the connection is broken, for whatever reason: an answer that makes no sense is one.
func (l *link) isBroken() bool {
	select {
	case <-l.done:
		return true
	default:
		return false
	}
}

// why returns the reason that the connection is broken.
func (l *link) why() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	var e *Error
	if errors.As(l.broken, &e) {
		return l.broken
	}
	return away(l.session.socket, l.broken)
}

// params is the JSON of a call's parameters in three parts, so that the commonest calls need not join them.
type params struct{ before, text, after string }

// write writes a request; with the id noAnswer, a notification.
func (l *link) write(id uint64, method string, p params) error {
	l.writing.Lock()
	defer l.writing.Unlock()
	b := append(l.buf[:0], `{"jsonrpc":"2.0",`...)
	if id != noAnswer {
		b = append(strconv.AppendUint(append(b, `"id":`...), id, 10), ',')
	}
	b = append(append(append(b, `"method":"`...), method...), `","params":`...)
	b = append(append(append(append(b, p.before...), p.text...), p.after...), '}', '\n')
	l.buf = b[:0]
	if now := time.Now(); l.until.Sub(now) < writeWithin/2 {
		l.until = now.Add(writeWithin)
		l.conn.SetWriteDeadline(l.until)
	}
	if _, err := l.conn.Write(b); err != nil {
		l.fail(err)
		return l.why()
	}
	return nil
}

// noAnswer is the id of no call.
const noAnswer = math.MaxUint64

// do makes one call and returns the JSON of its result. lease is the lease that it asks for; nil: none.
func (l *link) do(ctx context.Context, method string, p params, lease *Lease) (string, error) {
	return l.doBy(ctx, time.Time{}, method, p, lease)
}

// doBy is do that returns [context.DeadlineExceeded] soon after a time, unless that is zero. It costs less than a
// context with a deadline.
func (l *link) doBy(ctx context.Context, by time.Time, method string, p params, lease *Lease) (string, error) {
	if err := ctx.Err(); err != nil {
		return "", err
	}
	c := newCall(lease)
	l.mu.Lock()
	if l.broken != nil {
		l.mu.Unlock()
		return "", l.why()
	}
	id := l.next
	l.next++
	l.pending[id] = c
	l.mu.Unlock()
	if err := l.write(id, method, p); err != nil && !l.answering(id, c) {
		return "", err
	}
	if a, ok := l.await(ctx, c, by); ok {
		return c.take(a)
	}
	select {
	case <-l.done:
		if l.answering(id, c) {
			return c.take(<-c.got)
		}
		return "", l.why()
	default:
	}
	return l.leave(ctx, id, c)
}

// leave ends a call whose context or time is over. A lease that comes later is given back.
func (l *link) leave(ctx context.Context, id uint64, c *call) (string, error) {
	l.mu.Lock()
	waits := l.pending[id] == c
	if waits && c.lease != nil {
		c.given = true
	} else if waits {
		delete(l.pending, id)
	}
	l.mu.Unlock()
	if !waits { // the answer came at the last moment
		return c.take(<-c.got)
	}
	if c.lease != nil {
		l.session.task(func() {
			l.write(noAnswer, "lease.cancel", params{`{"request":`, strconv.FormatUint(id, 10), `}`})
		})
	}
	if ctx.Err() == nil {
		return "", context.DeadlineExceeded
	}
	return "", ctx.Err()
}

// answering reports whether the answer to a call is on its way to c.got; if not, none will come.
func (l *link) answering(id uint64, c *call) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.pending[id] == c {
		delete(l.pending, id)
		return false
	}
	return true
}

// ask makes one call and reads its answer.
func (l *link) ask(ctx context.Context, method string, in, out any) error {
	b, err := json.Marshal(in)
	if err != nil {
		return fmt.Errorf("write the request: %w", err)
	}
	result, err := l.do(ctx, method, params{before: string(b)}, nil)
	if err != nil || out == nil {
		return err
	}
	if !strings.HasPrefix(result, "{") {
		return away(l.session.socket, fmt.Errorf("its answer to %s is no JSON object", method))
	}
	if err := json.Unmarshal([]byte(result), out); err != nil {
		return away(l.session.socket, fmt.Errorf("its answer to %s cannot be read: %w", method, err))
	}
	return nil
}

// plainText reports whether JSON has the text unchanged.
func plainText(s string) bool {
	return !slices.ContainsFunc([]byte(s), func(c byte) bool { return c < ' ' || c == '"' || c == '\\' || c >= 0x7f })
}
