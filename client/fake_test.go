package client_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/usher-agent/usher/client"
)

// fake is an agent as far as a client can see: sessions, a pool "streams", leases that outlive a restart.
type fake struct {
	path string

	mu       sync.Mutex // guards all below
	listener net.Listener
	conns    map[*fakeConn]bool
	limit    int
	away     float64 // agent_away_seconds
	plan     string  // the feature of that name
	leases   map[string]string
	next     int
	waiting  []func() bool
	attached int
	released []string
	silent   bool          // it takes requests, and answers none
	deny     string        // the code that every acquire is answered with
	garbled  string        // the answer to every call but hello; %d is the call's id
	deaf     chan struct{} // gets one for each release that it does not hear; nil: it hears them
	over     sync.WaitGroup
}

type fakeConn struct {
	net.Conn
	mu sync.Mutex
}

func (c *fakeConn) say(format string, args ...any) {
	c.mu.Lock()
	defer c.mu.Unlock()
	fmt.Fprintf(c.Conn, format+"\n", args...)
}

func newFake() *fake {
	dir, err := os.MkdirTemp("", "u") // a socket's path must be short
	if err != nil {
		panic(err)
	}
	f := &fake{path: filepath.Join(dir, "s"), limit: 2, away: 600, plan: "basic", leases: map[string]string{}}
	f.start()
	return f
}

func startFake(t testing.TB) *fake {
	f := newFake()
	t.Cleanup(f.remove)
	return f
}

func (f *fake) remove() {
	f.stop()
	os.RemoveAll(filepath.Dir(f.path))
}

func (f *fake) start() {
	l, err := net.Listen("unix", f.path)
	if err != nil {
		panic(err)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.listener, f.conns = l, map[*fakeConn]bool{}
	f.over.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			f.mu.Lock()
			fc := &fakeConn{Conn: c}
			f.conns[fc] = true
			f.over.Go(func() { f.serve(fc) })
			f.mu.Unlock()
		}
	})
}

// stop is a crash: connections break, and leases are remembered.
func (f *fake) stop() {
	f.mu.Lock()
	f.listener.Close()
	f.waiting = nil
	for c := range f.conns {
		c.Close()
	}
	f.mu.Unlock()
	f.over.Wait()
}

func (f *fake) set(change func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	change()
}

// tell sends a message to every session.
func (f *fake) tell(format string, args ...any) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for c := range f.conns {
		c.say(format, args...)
	}
}

// holds waits until n leases are held.
func (f *fake) holds(t testing.TB, n int) {
	t.Helper()
	eventually(t, func() (bool, string) {
		f.mu.Lock()
		defer f.mu.Unlock()
		return len(f.leases) == n, fmt.Sprintf("%d leases are held, want %d: %v", len(f.leases), n, f.leases)
	})
}

func eventually(t testing.TB, ok func() (bool, string)) {
	t.Helper()
	for deadline := time.Now().Add(60 * time.Second); ; {
		good, what := ok()
		if good {
			return
		}
		if time.Now().After(deadline) {
			t.Fatal(what)
		}
		<-time.After(time.Millisecond)
	}
}

// wake grants waiting acquires while there are slots. f.mu is held.
func (f *fake) wake() {
	for len(f.waiting) > 0 && f.waiting[0]() {
		f.waiting = f.waiting[1:]
	}
}

// said is a message of a client.
type said struct {
	c *fakeConn

	ID     *int64
	Method string
	Params struct {
		ID, Lifetime, Pool, Name string
		WaitSeconds              float64 `json:"wait_seconds"`
		TTLSeconds               float64 `json:"ttl_seconds"`
		Request                  int64
	}
}

func (r *said) answer(result string) {
	if r.ID != nil {
		r.c.say(`{"jsonrpc":"2.0","id":%d,"result":%s}`, *r.ID, result)
	}
}

func (r *said) problem(code string) {
	id := int64(-1)
	if r.ID != nil {
		id = *r.ID
	}
	r.c.say(`{"jsonrpc":"2.0","id":%d,"error":{"code":-32000,"message":"said","data":{"code":%q,"detail":"pool `+
		`streams: %s"}}}`, id, code, code)
}

func (f *fake) serve(c *fakeConn) {
	defer func() {
		c.Close()
		f.set(func() { delete(f.conns, c) })
	}()
	in := bufio.NewScanner(c)
	for in.Scan() {
		r := &said{c: c}
		if err := json.Unmarshal(in.Bytes(), r); err != nil {
			c.say(`{"jsonrpc":"2.0","id":null,"error":{"code":-32700,"message":%q}}`, err.Error())
			return
		}
		f.set(func() {
			if !f.silent {
				f.handle(r)
			}
		})
	}
}

// handle answers one message. f.mu is held.
func (f *fake) handle(r *said) {
	if f.garbled != "" && r.ID != nil && r.Method != "session.hello" {
		r.c.say("%s", strings.ReplaceAll(f.garbled, "%d", fmt.Sprint(*r.ID)))
		return
	}
	switch r.Method {
	case "session.hello":
		r.answer(
			`{"versions":[1],"capabilities":[],"agent":{"status":"ok","product":"acme"},"you":{"uid":1,"gid":1,` +
				`"pid":2}}`)
	case "license.get":
		r.answer(fmt.Sprintf(
			`{"state":"valid","code":"VALID","agent_away_seconds":%g,"features":{"plan":{"enabled":true,`+
				`"value":%q}}}`, f.away, f.plan))
	case "features.get":
		r.answer(fmt.Sprintf(`{"name":%q,"enabled":%t,"value":%q}`, r.Params.Name, r.Params.Name == "plan", f.plan))
	case "pools.list":
		r.answer(fmt.Sprintf(`{"pools":[{"name":"streams","kind":"pool","limit":%d,"in_use":%d}]}`, f.limit,
			len(f.leases)))
	case "lease.acquire":
		f.acquire(r)
	case "lease.cancel":
		f.waiting = nil // there is one, in these tests
	case "lease.release":
		if f.deaf != nil {
			f.deaf <- struct{}{}
			break
		}
		f.released = append(f.released, r.Params.ID)
		if _, ok := f.leases[r.Params.ID]; !ok && r.ID != nil {
			r.problem("lease_unknown")
			break
		}
		delete(f.leases, r.Params.ID)
		r.answer(`{}`)
		f.wake()
	case "lease.attach", "lease.renew", "lease.join":
		lifetime, ok := f.leases[r.Params.ID]
		if !ok {
			r.problem("lease_unknown")
			break
		}
		f.attached++
		r.answer(fmt.Sprintf(`{"id":%q,"pool":"streams","n":1,"lifetime":%q,"state":"held"}`, r.Params.ID, lifetime))
	}
}

// acquire answers lease.acquire. f.mu is held.
func (f *fake) acquire(r *said) {
	lifetime := r.Params.Lifetime
	if lifetime == "" {
		lifetime = "process"
	}
	expires := "null"
	if r.Params.TTLSeconds > 0 {
		lifetime, expires = "ttl", fmt.Sprintf("%q",
			time.Now().UTC().Add(time.Duration(r.Params.TTLSeconds*float64(time.Second))).Format(
				time.RFC3339Nano))
	}
	grant := func() bool {
		if len(f.leases) >= f.limit {
			return false
		}
		f.next++
		lease := fmt.Sprintf("%032x", f.next)
		f.leases[lease] = lifetime
		r.answer(fmt.Sprintf(
			`{"id":%q,"pool":"streams","n":1,"lifetime":%q,"liveness":"peerpidfd","state":"held",`+
				`"acquired_at":%q,"expires_at":%s}`,
			lease, lifetime, time.Now().UTC().Format(time.RFC3339Nano), expires))
		return true
	}
	switch {
	case f.deny != "":
		r.problem(f.deny)
	case r.Params.Pool != "streams":
		r.problem("pool_unknown")
	case grant():
	case r.Params.WaitSeconds > 0:
		f.waiting = append(f.waiting, grant)
	default:
		r.problem("no_slots")
	}
}

// open opens a session with the fake.
func (f *fake) open(t testing.TB, more ...client.Option) *client.Session {
	t.Helper()
	s, err := client.Open(t.Context(), append(more, client.WithSocket(f.path))...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s
}

// helpers are the jobs of this binary, in place of the tests, by CLIENT_TEST_HELPER.
var helpers = map[string]func() int{}

var testContext = context.Background()

// TestMain starts an agent on USHER_SOCKET for the examples.
func TestMain(m *testing.M) {
	if helper := os.Getenv("CLIENT_TEST_HELPER"); helper != "" {
		os.Exit(helpers[helper]())
	}
	if socket := os.Getenv("CLIENT_TEST_CANNED"); socket != "" {
		fmt.Fprintln(os.Stderr, serveCanned(socket))
		os.Exit(1)
	}
	f := newFake()
	os.Setenv("USHER_SOCKET", f.path)
	code := m.Run()
	f.remove()
	if code == 0 {
		code = leaks()
	}
	os.Exit(code)
}
