package api

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/usher-agent/usher/client/wire"
	"github.com/usher-agent/usher/enforcer"
	"github.com/usher-agent/usher/plugin"
)

// Session is one open connection as the agent sees it, with the process at its other end. Close ends the leases of the
// connection. Those of its process live as long as the process.
type Session interface {
	// Acquire is Desk's, with the lifetimes process (the default) and connection besides.
	Acquire(context.Context, *enforcer.Acquire) (Grant, *enforcer.Denial)
	// Begin is the first half of Acquire. When it returns, the request is decided or, if it waits, has its place in the
	// queue. The agent calls ready in the order in which it answers waiting requests. ready must not wait.
	Begin(r *enforcer.Acquire, ready func()) (finish Finish, waits bool)
	// Join makes the caller's process a co-holder; Attach gives it back an unconfirmed lease.
	Join(enforcer.LeaseID) (Grant, *enforcer.Denial)
	Attach(enforcer.LeaseID) (Grant, *enforcer.Denial)
	// Inode is the kernel's number for the caller's process, where the agent does not see its pid; 0: it is not known.
	Inode() uint64
	// Prove signs a description of the caller's process, for a nonce.
	Prove(nonce string) (string, error)
	Close()
}

// Finish is the second half of an acquire. Call it once.
type Finish func(context.Context) (Grant, *enforcer.Denial)

// Bounds of a session.
const (
	MaxLine     = 64 << 10 // bytes of one message
	maxInFlight = 64       // requests of one session that wait at one time
	sendAt      = 4 << 10  // bytes of answers that are gathered before they are sent
)

// rpcRequest is a JSON-RPC 2.0 request or notification.
type rpcRequest struct {
	Version string         `json:"jsonrpc"`
	ID      jsontext.Value `json:"id"`
	Method  string         `json:"method"`
	Params  jsontext.Value `json:"params"`

	acquire simpleAcquire // what plainRequest has found Params to be; its pool is nil: they are another thing
}

// Codes of JSON-RPC 2.0 §5.1. A problem of the agent's own has codeProblem, with the problem object as data.
const (
	codeParse    = -32700
	codeInvalid  = -32600
	codeMethod   = -32601
	codeParams   = -32602
	codeInternal = -32603
	codeProblem  = -32000
)

type rpcError struct {
	Code    int           `json:"code"`
	Message string        `json:"message"`
	Data    *wire.Problem `json:"data,omitempty"`
}

type rpcResponse struct {
	Version string         `json:"jsonrpc"`
	ID      jsontext.Value `json:"id"`
	Result  any            `json:"result,omitzero"`
	Error   *rpcError      `json:"error,omitempty"`
}

// session is one connection that speaks JSON-RPC 2.0, one message a line.
type session struct {
	server *Server
	conn   *conn
	rights atomic.Pointer[rights] // by the rules that judged saw last
	agent  Session
	ctx    context.Context
	labels map[string]string // of every lease that names none

	waiting atomic.Int32 // acquires that wait
	// of waiting acquires: the context.CancelFunc by the request's id, as it was written, or without an id by itself
	cancels sync.Map
	tasks   sync.WaitGroup
	cancel  context.CancelFunc // of ctx: see stop
	sub     subscription

	takeBack func(enforcer.LeaseID) // undo, made once

	// What the reader of the connection needs; nobody else has it.
	in   lines
	long []byte   // the beginning of a message that is longer than the buffer; nil: there is none
	read *reading // of the message that is being answered; nil: none is

	waits struct { // which request waits for which lease
		sync.Mutex
		of map[string]string // the request's id, as JSON
	}
	turns sync.Mutex // guards turn; taken under the desk's lock
	// closed when the last granted of the waiting acquires was answered; nil: there is none
	turn chan struct{}

	mu     sync.Mutex // guards all below
	pen    *writing   // nil: nothing is to be sent
	fenced []fenced   // answers in it that the session looks at before and after it sends them, in their order
	broken bool       // the other end takes nothing any more
	until  time.Time
	fresh  []enforcer.LeaseID // granted by what is to be sent, without a client token
	last   bool               // it ends with the answer of the last of them,
	sure   bool               // and the session must know that it was read before it writes more
	lost   []enforcer.LeaseID // granted by answers that could not be written
}

// serveSession speaks with a connection until either end closes it. It does nothing else itself: its frame and those of
// its callers are on the stack of every session that is idle, and a small stack is given back to half its size.
func (s *Server) serveSession(c *conn) {
	x := s.openSession(c)
	if x == nil {
		return
	}
	for x.readLine() {
	}
	x.close()
}

// openSession opens a session; nil: its caller may not call.
func (s *Server) openSession(c *conn) *session {
	first := s.rules.Load().rights(&c.peer)
	if !first.allowed {
		b, _ := json.Marshal(rpcResponse{Version: "2.0", Error: s.rpcProblem(&enforcer.Denial{Code: enforcer.Forbidden,
			Detail: "this caller is not allowed to call", Hint: "add a rule under socket.allow"})})
		refuseAs(c.UnixConn, string(b)+"\n")
		c.Close()
		return nil
	}
	ctx, cancel := context.WithCancel(context.Background())
	x := &session{server: s, conn: c, ctx: ctx, cancel: cancel}
	x.in.from = c
	x.takeBack = x.undo
	x.rights.Store(first)
	s.watching.Store(x, nil)
	sent := c.takeSent()
	x.agent = s.slots.Session(c.UnixConn, sent, c.peer.caller(first.admin))
	if c.peer.pid == 0 {
		c.peer.inode = x.agent.Inode()
	}
	if s.ends.Err() != nil { // whoever ended the sessions may have missed this one
		x.stop()
	}
	return x
}

// stop has a session end: what it waits for, and its reading.
func (x *session) stop() {
	x.cancel()
	x.conn.SetReadDeadline(time.Unix(1, 0))
}

// close ends a session whose lines have been read.
func (x *session) close() {
	x.keepLine(false, x.long != nil)
	x.in.idle()
	x.cancel()
	x.hush()
	x.tasks.Wait()
	x.flush()
	for _, id := range x.lost {
		x.undo(id)
	}
	x.agent.Close()
	x.conn.Close()
	x.server.watching.Delete(x)
}

// undo ends a lease whose grant was not delivered.
func (x *session) undo(id enforcer.LeaseID) { x.server.undoLease(id, x.conn.peer.caller(false)) }

// readLine waits for a line, and answers it. It reports whether there may be more.
func (x *session) readLine() bool {
	// Answers go out once no further request is at hand.
	for !x.in.more() {
		x.flush()
		if !x.in.read() {
			break
		}
	}
	return x.take(x.in.line())
}

// take answers what was read: a line, the beginning of one that is longer than the buffer, or the end.
func (x *session) take(line []byte, err error) bool {
	switch {
	case errors.Is(err, bufio.ErrBufferFull):
		if x.long == nil && !x.keepLine(true, false) {
			x.reply(nil, nil, x.server.rpcProblem(tooMuchAtOnce(x.conn.peer.key())))
			return false
		}
		if x.long = append(x.long, line...); len(x.long) > MaxLine {
			x.reply(nil, nil, &rpcError{Code: codeInvalid, Message: "the message is longer than 65536 bytes"})
			return false
		}
		return true
	case err != nil:
		if len(bytes.TrimSpace(append(x.long, line...))) > 0 && errors.Is(err, io.EOF) {
			x.line(append(x.long, line...))
		}
		return false
	case x.long == nil:
		return x.line(line)
	}
	if line = append(x.long, line...); len(line) > MaxLine {
		x.reply(nil, nil, &rpcError{Code: codeInvalid, Message: "the message is longer than 65536 bytes"})
		return false
	}
	x.long = nil
	goesOn := x.line(line)
	x.keepLine(false, true)
	return goesOn
}

// keepLine counts the memory for a message that is longer than the buffer in, or out. It bounds the time that its end
// may take to come.
func (x *session) keepLine(in, out bool) bool {
	s, key := x.server, x.conn.peer.key()
	var until time.Time
	switch {
	case in:
		if !s.kept.take(key, MaxLine) {
			return false
		}
		until = time.Now().Add(s.readWithin)
	case out:
		s.kept.give(key, MaxLine)
	default:
		return true
	}
	x.conn.SetReadDeadline(until)
	if x.ctx.Err() != nil { // the session ends, which a new deadline must not undo
		x.conn.SetReadDeadline(time.Unix(1, 0))
	}
	return true
}

// line answers one message and reports whether the session goes on.
func (x *session) line(line []byte) bool {
	if line = bytes.TrimSpace(line); len(line) == 0 {
		return true
	}
	x.read = readings.Get().(*reading)
	goesOn := x.message(line)
	readings.Put(x.read)
	x.read = nil
	return goesOn
}

// message is line for a message that is not empty.
func (x *session) message(line []byte) bool {
	if line[0] == '[' {
		x.reply(nil, nil, &rpcError{Code: codeInvalid,
			Message: "batches are not taken; send one message a line, without waiting for answers"})
		return true
	}
	r := &x.read.request
	if plainRequest(line, r) {
		// clients write this form; the methods read its parameters strictly
	} else if err := json.Unmarshal(line, r, json.RejectUnknownMembers(true)); err != nil {
		d := badJSON(err, r)
		code := codeParse
		if jsontext.Value(line).Kind() == '{' && errors.Is(err, json.ErrUnknownName) {
			code = codeInvalid
		}
		x.reply(nil, nil, &rpcError{Code: code, Message: d.Detail})
		return true
	}
	if k := r.ID.Kind(); r.Version != "2.0" || r.Method == "" || k == '{' || k == '[' || k == 't' || k == 'f' {
		x.reply(nil, nil, &rpcError{Code: codeInvalid,
			Message: `the message is not JSON-RPC 2.0: it needs "jsonrpc":"2.0", a method, and an id that is a ` +
				`number or a text`})
		return true
	}
	if len(r.ID) > 256 {
		x.reply(nil, nil, &rpcError{Code: codeInvalid, Message: "the id is longer than 256 bytes"})
		return true
	}
	if !x.judged().allowed {
		x.answer(r, nil, notAllowed(&x.conn.peer), nil)
		return true
	}
	m, ok := methods[r.Method]
	if !ok {
		x.answer(r, nil, nil, &rpcError{Code: codeMethod, Message: "there is no method " + plugin.Short(r.Method)})
		return true
	}
	result, d, e := m(x, r)
	if result != later {
		x.answer(r, result, d, e)
	}
	return true
}

// later is the result of a method that answers by itself.
var later = new(int)

// answer replies to a request. A notification gets no answer.
func (x *session) answer(r *rpcRequest, result any, d *enforcer.Denial, e *rpcError) {
	if len(r.ID) == 0 {
		return
	}
	if d != nil {
		e = x.problemError(d)
	}
	switch {
	case e != nil:
		result = nil
	default:
		switch result.(type) {
		case struct{}: // the fast path: nothing to hide
		default:
			result = shown(x.isAdmin(), result)
		}
	}
	x.reply(r.ID, result, e)
}

func (x *session) problemError(d *enforcer.Denial) *rpcError {
	e := x.server.rpcProblem(d)
	e.Data.Holders = x.server.holdersOf(d, &x.conn.peer, x.isAdmin())
	if !x.isAdmin() {
		conceal(e.Data)
		e.Message = e.Data.Detail
	}
	return e
}

func (s *Server) rpcProblem(d *enforcer.Denial) *rpcError {
	p := s.problem(d)
	code := codeProblem
	if d.Code == enforcer.BadRequest {
		code = codeParams
	}
	return &rpcError{Code: code, Message: p.Detail, Data: p}
}

// params reads a request's parameters strictly. Absent ones are an empty object.
func params(r *rpcRequest, into any) *enforcer.Denial {
	if len(r.Params) == 0 {
		return unmarshal([]byte("{}"), into)
	}
	if r.Params.Kind() != '{' {
		return badRequest("params", "send an object", "params is not a JSON object")
	}
	return unmarshal(r.Params, into)
}
