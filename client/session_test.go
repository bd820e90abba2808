package client_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/usher-agent/usher/client"
)

// leaks fails the run when goroutines of the client are left.
func leaks() int {
	for deadline := time.Now().Add(60 * time.Second); ; {
		buf := make([]byte, 1<<20)
		all := string(buf[:runtime.Stack(buf, true)])
		if n := strings.Count(all, "usher/client.(*"); n == 0 {
			return 0
		}
		if time.Now().After(deadline) {
			fmt.Fprintln(os.Stderr, "goroutines are left:\n"+all)
			return 1
		}
		<-time.After(time.Millisecond)
	}
}

func acquire(t testing.TB, s *client.Session) *client.Lease {
	t.Helper()
	l, err := s.Acquire(t.Context(), client.Slots("streams", 1))
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// lost reports whether a lease is lost by now.
func lost(l *client.Lease) bool {
	select {
	case <-l.Done():
		return true
	default:
		return false
	}
}

func TestSession(t *testing.T) {
	f := startFake(t)
	s := f.open(t)
	a, b := acquire(t, s), acquire(t, s)
	if _, err := s.Acquire(t.Context(), client.Slots("streams", 1)); !errors.Is(err, client.ErrNoSlots) ||
		errors.Is(err, client.ErrAgentAway) {
		t.Errorf("one too many: %v", err)
	}
	if _, err := s.Acquire(t.Context(), client.Slots("no \"such\" pool", 3)); !errors.Is(err, client.ErrPoolUnknown) {
		t.Errorf("an unknown pool: %v", err)
	}
	if i := a.Info(); i.ID != a.ID() || i.Pool != "streams" || i.Lifetime != "process" || !a.Backed() {
		t.Errorf("got %+v", i)
	}
	if err := errors.Join(a.Close(), a.Close()); err != nil || lost(a) {
		t.Errorf("given back: %v", err)
	}
	f.holds(t, 1)
	f.tell(`{"jsonrpc":"2.0","method":"lease.ended","params":{"type":"lease.ended","lease_id":%q,"cause":"forced"}}`,
		b.ID())
	<-b.Done()
	if !errors.Is(b.Err(), client.ErrLeaseUnknown) || !strings.Contains(b.Err().Error(), "forced") {
		t.Errorf("lost: %v", b.Err())
	}
	if p, err := s.Pools(t.Context()); err != nil || len(p) != 1 || p[0].Name != "streams" {
		t.Errorf("pools: %+v, %v", p, err)
	}
	if v, err := s.Feature(t.Context(), "plan"); err != nil || v.Value != "basic" {
		t.Errorf("feature: %+v, %v", v, err)
	}
	if s.Agent().Agent.Product != "acme" || s.Proven() != client.ProvenNone {
		t.Errorf("the agent: %+v, %s", s.Agent(), s.Proven())
	}
}

// Close gives back all leases except those with the lifetime held. Later calls return ErrClosed.
func TestSessionClose(t *testing.T) {
	f := startFake(t)
	s := f.open(t)
	acquire(t, s)
	held, err := s.Acquire(t.Context(), client.Request{Pool: "streams", Lifetime: "held"})
	if err != nil {
		t.Fatal(err)
	}
	s.Close()
	s.Close()
	f.holds(t, 1)
	if err := held.Close(); err != nil {
		t.Error(err)
	}
	if _, err := s.Acquire(t.Context(), client.Slots("streams", 1)); !errors.Is(err, client.ErrClosed) {
		t.Errorf("after all: %v", err)
	}
}

// Watch shows the present licence and then its changes, across reconnects.
func TestWatch(t *testing.T) {
	f := startFake(t)
	s := f.open(t)
	plans := make(chan any)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for l := range s.Watch(ctx) {
			plans <- l.Features["plan"].Value
		}
	}()
	want := func(plan string) {
		t.Helper()
		if got := <-plans; got != plan {
			t.Errorf("got %v, want %s", got, plan)
		}
	}
	want("basic")
	f.set(func() { f.plan = "pro" })
	f.tell(`{"jsonrpc":"2.0","method":"license.changed","params":{"type":"license.changed"}}`)
	want("pro")
	f.stop()
	f.set(func() { f.plan = "max" })
	if v, err := s.Feature(t.Context(), "plan"); err != nil || v.Value != "pro" {
		t.Errorf("while the agent is away: %+v, %v", v, err)
	}
	f.start()
	want("max")
	cancel()
	<-ended
}

// A lease with a time to live is renewed until it is closed.
func TestTTL(t *testing.T) {
	f := startFake(t)
	s := f.open(t)
	l, err := s.Acquire(t.Context(), client.Request{Pool: "streams", TTLSeconds: 0.3})
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, func() (bool, string) {
		f.mu.Lock()
		defer f.mu.Unlock()
		return f.attached >= 3, "it is not renewed"
	})
	f.set(func() { clear(f.leases) })
	<-l.Done()
	if !errors.Is(l.Err(), client.ErrLeaseUnknown) {
		t.Errorf("lost: %v", l.Err())
	}
}

// A child neither uses its parent's connection nor gives back its leases.
func TestForked(t *testing.T) {
	f := startFake(t)
	s := f.open(t)
	l := acquire(t, s)
	client.Fork(true)
	defer client.Fork(false)
	if _, err := s.Acquire(t.Context(), client.Slots("streams", 1)); !errors.Is(err, client.ErrForked) {
		t.Errorf("acquire: %v", err)
	}
	if _, err := s.Pools(t.Context()); !errors.Is(err, client.ErrForked) {
		t.Errorf("pools: %v", err)
	}
	if err := l.Close(); !errors.Is(err, client.ErrForked) {
		t.Errorf("close: %v", err)
	}
	s.Close()
	client.Fork(false)
	f.holds(t, 1)
	if err := l.Close(); err != nil {
		t.Error(err)
	}
	f.holds(t, 0)
}

// Many acquire and close, the agent restarts, and at the end nothing is held and nothing is left.
func TestConcurrent(t *testing.T) {
	f := startFake(t)
	f.set(func() { f.limit = 5 })
	s := f.open(t)
	ctx, cancel := context.WithCancel(t.Context())
	var all sync.WaitGroup
	for i := range 8 {
		all.Go(func() {
			for n := 0; ctx.Err() == nil; n++ {
				r := client.Request{Pool: "streams"}
				one, stop := context.WithTimeout(ctx, time.Duration(n%3)*time.Millisecond+time.Microsecond)
				if l, err := s.Acquire(one, r); err == nil {
					if i%2 == 0 {
						l.Info()
					}
					if err := l.Close(); err != nil {
						t.Errorf("close: %v", err)
					}
				} else if !errors.Is(err, client.ErrNoSlots) && !errors.Is(err, client.ErrAgentAway) &&
					!errors.Is(err, context.DeadlineExceeded) && ctx.Err() == nil {
					t.Errorf("acquire: %v", err)
				}
				stop()
			}
		})
	}
	for i := range 3 {
		eventually(t, func() (bool, string) { return s.Stats().Reconnects == i, "it does not connect again" })
		before := 0
		f.set(func() { before = f.next })
		eventually(t, func() (bool, string) {
			f.mu.Lock()
			defer f.mu.Unlock()
			return f.next > before+20, "nothing is granted"
		})
		f.stop()
		f.set(func() { clear(f.leases) }) // what was granted and not heard of would be held until the process ends
		f.start()
	}
	cancel()
	all.Wait()
	f.holds(t, 0)
}

// Answers that no agent would give are errors.
func TestStrangeAnswers(t *testing.T) {
	for text, want := range map[string]client.Code{
		"nonsense\n":                             client.ErrAgentAway,
		"HTTP/1.1 429 Too Many Requests\r\n\r\n": client.ErrRateLimited,
		`{"jsonrpc":"2.0","id":null,"error":{"code":-32000,"message":"no","data":{"code":"forbidden","detail":"this ` +
			`caller is not allowed to call"}}}` + "\n": client.ErrForbidden,
		"": client.ErrAgentAway,
	} {
		path := filepath.Join(t.TempDir(), "s")
		l, err := net.Listen("unix", path)
		if err != nil {
			t.Fatal(err)
		}
		go func() {
			c, err := l.Accept()
			if err != nil {
				return
			}
			c.Read(make([]byte, 4096))
			fmt.Fprint(c, text)
			c.Close()
		}()
		if _, err := client.Open(t.Context(), client.WithSocket(path)); !errors.Is(err, want) {
			t.Errorf("%q: got %v, want %s", text, err, want)
		}
		l.Close()
	}
}

// Open ends with its context.
func TestOpenGivenUp(t *testing.T) {
	f := startFake(t)
	f.set(func() { f.silent = true })
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if _, err := client.Open(ctx, client.WithSocket(f.path)); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v", err)
	}
}

// The process that the agent sees is compared with this one, across namespaces.
func TestSelf(t *testing.T) {
	host := client.Self{UIDs: []int64{1000}, PIDs: []int64{42}, Start: 7, Inode: 9}
	inside := client.Self{UIDs: []int64{0, 1000}, PIDs: []int64{1}, Start: 7, Inode: 9, Hidden: true}
	for name, test := range map[string]struct {
		me          client.Self
		sees        client.Seen
		same, known bool
	}{
		"the inode decides":                  {inside, client.Seen{UID: 65534, Inode: 9}, true, true},
		"another's inode":                    {host, client.Seen{UID: 1000, PID: 42, Start: 7, Inode: 8}, false, true},
		"pid and start":                      {host, client.Seen{UID: 1000, PID: 42, Start: 7}, true, true},
		"another start":                      {host, client.Seen{UID: 1000, PID: 42, Start: 8}, false, true},
		"another pid, of the same tick":      {host, client.Seen{UID: 1000, PID: 43, Start: 7}, false, true},
		"another user":                       {host, client.Seen{UID: 1001, PID: 42, Start: 7}, false, true},
		"pid alone":                          {host, client.Seen{UID: 1000, PID: 42}, true, true},
		"from outside of a PID namespace":    {inside, client.Seen{UID: 1000, PID: 4711, Start: 7}, true, true},
		"another, outside of it":             {inside, client.Seen{UID: 1000, PID: 4711, Start: 6}, false, true},
		"from beside it nothing can be told": {inside, client.Seen{UID: 1000}, true, false},
		"from outside, by its number alone":  {inside, client.Seen{UID: 1000, PID: 4711}, true, false},
	} {
		if same, known := test.me.Is(test.sees); same != test.same || known != test.known {
			t.Errorf("%s: same %t, known %t", name, same, known)
		}
	}
	me := client.Whoami()
	if len(me.PIDs) == 0 || me.PIDs[0] != int64(os.Getpid()) {
		t.Errorf("got %+v", me)
	}
}
