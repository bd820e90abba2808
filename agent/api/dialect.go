package api

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/usher-agent/usher/enforcer"
	"github.com/usher-agent/usher/plugin"
)

// Dialect is a listener that answers another API than the local one, by a handler of its own. A refusal before the
// handler is a problem, as everywhere.
type Dialect struct {
	Name    string
	Socket  *Socket      // where the kernel identifies the caller
	TCP     net.Listener // instead of Socket: a loopback address
	Handler http.Handler
	MaxBody int64 // bytes of a request's body
	// Vouch identifies the caller of a request over TCP, or says that nothing vouches for it, or why it is refused.
	Vouch func(*http.Request) (c enforcer.Caller, vouched bool, d *enforcer.Denial)
	// Credentials reads what the dialect checks its own system's credentials against; nil: there is nothing.
	Credentials func() ([]byte, error)
	// MayInstall reports whether a caller over TCP, who is no admin, may install documents; nil: none may.
	MayInstall func(enforcer.Caller) bool
	// Refuse answers a request that is refused before the handler sees it, in the words of the dialect's system. status
	// is what the local API would answer. nil: a refusal is a problem, as everywhere.
	Refuse func(w http.ResponseWriter, r *http.Request, status int, d *enforcer.Denial)
}

// refuse answers a request with a refusal of the agent's own.
func (s *Server) refuse(d *Dialect, w http.ResponseWriter, r *http.Request, denial *enforcer.Denial) {
	if d.Refuse == nil {
		s.answerDenial(w, denial)
		return
	}
	d.Refuse(w, r, s.problem(denial).Status, denial)
}

// DialectCall is one request to a dialect. [DialectCallOf] finds it.
type DialectCall struct {
	Caller  enforcer.Caller
	Vouched bool // false: the dialect has yet to identify the caller
	Kernel  bool // the kernel vouches
	// Credentials is the listener's: see [Dialect].
	Credentials func() ([]byte, error)
	// MayInstall reports whether a caller may install documents though it is no admin; nil: none may.
	MayInstall func(enforcer.Caller) bool

	controller *http.ResponseController
	peer       *peer // nil: over TCP, as rights
	rights     *rights
	conn       *conn       // nil: over TCP, where nothing tells whether an answer was read
	known      atomic.Bool // the dialect has found a credential of its own good

	mu   sync.Mutex // guards all below
	lost []func()
	late []func(sent bool) *enforcer.Denial
}

// DialectCallOf returns the call that a request to a dialect is, by its context; nil for any other context.
func DialectCallOf(ctx context.Context) *DialectCall {
	c, _ := ctx.Value(dialectKey{}).(*DialectCall)
	return c
}

type dialectKey struct{}

// Known says that the dialect has found the request's credential good.
func (c *DialectCall) Known() { c.known.Store(true) }

// IfLost makes the server call f when the call's answer could not be delivered, as far as the kernel can tell.
func (c *DialectCall) IfLost(f func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.lost = append(c.lost, f)
}

// Granted says that the call's answer gives slots that may be over when it is written: see [Grant].
func (c *DialectCall) Granted(late func(sent bool) *enforcer.Denial) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.late = append(c.late, late)
}

// Late looks at what the call's answer gives, right before it is written. Where something of it is over, the dialect
// answers the returned denial instead. nil: nothing is over.
func (c *DialectCall) Late() (d *enforcer.Denial) {
	c.mu.Lock()
	late := c.late
	c.mu.Unlock()
	if len(late) > 0 && c.conn != nil && c.conn.prove() != nil {
		return nil // nothing can be written
	}
	for _, look := range late {
		if over := look(false); over != nil {
			d = over
		}
	}
	return d
}

// Wait lets the call's connection be silent for as long as d. The caller sends nothing meanwhile; the context ends when
// it hangs up.
func (c *DialectCall) Wait(d time.Duration) error {
	if err := c.controller.SetReadDeadline(time.Time{}); err != nil {
		return err
	}
	return c.controller.SetWriteDeadline(time.Now().Add(d + writeWithin))
}

// deliver sends the answer. It undoes the grant when that fails, or when failed says that there is no answer. It
// withdraws what was over when the answer was sent.
func (c *DialectCall) deliver(failed bool) {
	c.mu.Lock()
	lost, late := c.lost, c.late
	c.lost = nil
	c.mu.Unlock()
	var err error
	if !failed && len(lost)+len(late) > 0 {
		err = c.controller.Flush()
	}
	for _, look := range late {
		look(true)
	}
	if len(lost) == 0 {
		return
	}
	undo := func(enforcer.LeaseID) {
		for _, f := range lost {
			f()
		}
	}
	switch {
	case failed, err != nil:
		undo(enforcer.LeaseID{})
	case c.conn != nil:
		c.conn.expect(unread{undo: undo, sure: true})
	}
}

// RunDialect answers on a dialect's listener until ctx ends. Its connections count among those of the local API.
func (s *Server) RunDialect(ctx context.Context, d Dialect) error {
	h := s.newHTTP(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { s.guardDialect(&d, w, r) }))
	h.DisableGeneralOptionsHandler = true // OPTIONS * is the dialect's too
	if d.Socket != nil {
		if d.Socket.current() == nil {
			return net.ErrClosed
		}
		h.ConnContext = func(ctx context.Context, c net.Conn) context.Context {
			return withConn(ctx, c.(*conn))
		}
		return s.serve(ctx, listening{d.Socket}, h, func() {}, func(c net.Conn, to *connQueue, tasks *sync.WaitGroup) {
			if k := s.admit(c.(*net.UnixConn)); k != nil {
				k.ending = ctx.Done()
				tasks.Go(func() { to.put(k) })
			}
		})
	}
	h.ConnContext = func(ctx context.Context, c net.Conn) context.Context {
		return context.WithValue(ctx, tcpKey{}, c)
	}
	return s.serve(ctx, d.TCP, h, func() {}, func(c net.Conn, to *connQueue, tasks *sync.WaitGroup) {
		if why := s.enter(overTCP); why != "" {
			tasks.Go(func() { s.turnAway(&d, c, why) })
			return
		}
		tasks.Go(func() { to.put(s.newTCP(c)) })
	})
}

// turnAway answers a connection too many, whatever it asks, and closes it.
func (s *Server) turnAway(d *Dialect, c net.Conn, why string) {
	if d.Refuse == nil {
		refuse(c, why)
		return
	}
	a := &held{header: http.Header{}}
	s.refuse(d, a, &http.Request{URL: &url.URL{}}, &enforcer.Denial{Code: enforcer.RateLimited, Detail: why})
	a.header.Set("Connection", "close")
	answer := http.Response{StatusCode: a.status, ProtoMajor: 1, ProtoMinor: 1, Header: a.header,
		ContentLength: int64(a.body.Len()), Body: io.NopCloser(&a.body)}
	var text bytes.Buffer
	_ = answer.Write(&text) // to memory
	refuseAs(c, text.String())
	c.Close()
}

// held is an answer that is not sent yet.
type held struct {
	header http.Header
	status int
	body   bytes.Buffer
}

func (h *held) Header() http.Header { return h.header }

func (h *held) WriteHeader(status int) { h.status = status }

func (h *held) Write(b []byte) (int, error) {
	if h.status == 0 {
		h.status = http.StatusOK
	}
	return h.body.Write(b)
}

// guardDialect lets a request through to a dialect, or says why not.
func (s *Server) guardDialect(d *Dialect, w http.ResponseWriter, r *http.Request) {
	call := &DialectCall{Credentials: d.Credentials, MayInstall: d.MayInstall,
		controller: http.NewResponseController(w)}
	call.conn, _ = r.Context().Value(connKey{}).(*conn)
	if denial := s.meet(d, call, r); denial != nil {
		if r.ContentLength != 0 {
			w.Header().Set("Connection", "close") // nothing more of the request is read
		}
		s.refuse(d, w, r, denial)
		return
	}
	k := overTCP
	if p, ok := r.Context().Value(peerKey{}).(*peer); ok {
		k = p.key()
	}
	give, denial := s.keepBody(k, r, d.MaxBody)
	if denial != nil {
		w.Header().Set("Connection", "close")
		s.refuse(d, w, r, denial)
		return
	}
	defer give()
	defer func() {
		e := recover()
		call.deliver(e != nil)
		if s.fell(d.Name+" dialect: "+plugin.Short(r.Method+" "+r.URL.Path), e) {
			s.refuse(d, w, r, fallen)
		}
	}()
	r.Body = http.MaxBytesReader(w, r.Body, d.MaxBody)
	if d.TCP != nil && !call.Vouched {
		answer := &judged{ResponseWriter: w}
		w = answer
		defer func() { s.judge(d, call, r, answer.status) }()
	}
	ctx := r.Context()
	if call.peer != nil { // a caller waits no longer than the rules let it
		var stop context.CancelFunc
		ctx, stop = s.while(ctx, call.peer, call.rights, mayCall)
		defer stop()
	}
	d.Handler.ServeHTTP(w, r.WithContext(context.WithValue(ctx, dialectKey{}, call)))
}

// meet identifies the caller, or says why it is refused.
func (s *Server) meet(d *Dialect, call *DialectCall, r *http.Request) *enforcer.Denial {
	// No browser has business here; a lured one would say where it comes from.
	if site := r.Header.Get("Sec-Fetch-Site"); len(r.Header.Values("Origin")) > 0 ||
		site != "" && site != "none" && site != "same-origin" {
		return &enforcer.Denial{Code: enforcer.Forbidden, Detail: "calls from web pages are refused"}
	}
	if d.TCP != nil {
		if !local(r.Host, d.TCP.Addr()) {
			return &enforcer.Denial{Code: enforcer.Forbidden, Field: "Host",
				Detail: fmt.Sprintf("the host %q is not this listener's", plugin.Short(r.Host)),
				Hint:   "call it by its address, or localhost"}
		}
		c, onTCP := r.Context().Value(tcpKey{}).(*tcpConn)
		if onTCP {
			if denial := s.guesses.denies(c, s.now); denial != nil {
				return denial
			}
		}
		var denial *enforcer.Denial
		if call.Caller, call.Vouched, denial = d.Vouch(r); denial != nil {
			if onTCP && denial.Code == Unauthenticated {
				s.guesses.wrong(r.Context(), c, d.Name)
			}
			return denial
		}
	} else {
		p, ok := r.Context().Value(peerKey{}).(*peer)
		if !ok {
			return &enforcer.Denial{Code: enforcer.Forbidden, Detail: "nothing vouches for the caller"}
		}
		call.peer, call.rights = p, s.rules.Load().rights(p)
		if !call.rights.allowed {
			return notAllowed(p)
		}
		call.Caller, call.Vouched, call.Kernel = p.caller(call.rights.admin), true, true
	}
	if r.ContentLength > d.MaxBody {
		return &enforcer.Denial{Code: enforcer.TooLarge,
			Detail: fmt.Sprintf("the body has %d bytes, at most %d may be", r.ContentLength, d.MaxBody)}
	}
	return nil
}

// local reports whether a Host is the listener's own, by number or as localhost. A name that somebody has pointed at
// this address is not.
func local(host string, own net.Addr) bool {
	name, _, err := net.SplitHostPort(host)
	if err != nil {
		name = strings.TrimSuffix(strings.TrimPrefix(host, "["), "]")
	}
	if strings.EqualFold(name, "localhost") {
		return true
	}
	a, err := netip.ParseAddr(name)
	if err != nil {
		return false
	}
	allowed := []netip.Addr{netip.IPv6Loopback(), netip.AddrFrom4([4]byte{127, 0, 0, 1})}
	if t, ok := own.(*net.TCPAddr); ok {
		allowed = append(allowed, t.AddrPort().Addr().Unmap())
	}
	return slices.Contains(allowed, a.Unmap())
}
