package api

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/usher-agent/usher/enforcer"
)

// A Host is the listener's own only by number or as localhost. A name that somebody has pointed at this address is not.
func TestLocal(t *testing.T) {
	t.Parallel()
	own := &net.TCPAddr{IP: net.IPv4(127, 0, 0, 2), Port: 80}
	for host, want := range map[string]bool{"127.0.0.2": true, "127.0.0.2:80": true, "127.0.0.1:9": true, "[::1]": true,
		"[::1]:80": true, "::1": true, "localhost": true,
		"LOCALHOST:1": true, "[::ffff:127.0.0.1]:80": true,
		"": false, "127.0.0.3": false, "localhost.": false, "localhost.example.com": false, "a.localhost": false,
		"192.0.2.1:80": false, "0.0.0.0": false, "[::]:80": false,
		"127.0.0.1.example.com": false, "127.1": false, "2130706433": false, "[::1": true, "localhost:80:80": false,
		"[fe80::1%25lo]": false} {
		if got := local(host, own); got != want {
			t.Errorf("%q: %t", host, got)
		}
	}
}

// The rules of who may call hold on a dialect's socket, and a new rule holds from the next call on.
func TestDialectRules(t *testing.T) {
	t.Parallel()
	one, two := uint32(4711), uint32(4712)
	s := New(Config{Rules: Rules{Allow: []Rule{{UID: &one}}}})
	var seen *DialectCall
	d := &Dialect{Name: "toy", MaxBody: 10, Handler: http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		seen = DialectCallOf(r.Context())
	})}
	call := func(p *peer) int {
		seen = nil
		r := httptest.NewRequest("GET", "/", nil)
		if p != nil {
			r = r.WithContext(context.WithValue(r.Context(), peerKey{}, p))
		}
		w := httptest.NewRecorder()
		s.guardDialect(d, w, r)
		return w.Code
	}
	if got := call(&peer{uid: 4711, pid: 5}); got != 200 || seen == nil || !seen.Vouched || !seen.Kernel ||
		seen.Caller.UID != 4711 || seen.Caller.Admin {
		t.Errorf("who is allowed: %d, %+v", got, seen)
	}
	if got := call(&peer{uid: 4712, pid: 5}); got != 403 || seen != nil {
		t.Errorf("who is not: %d, %+v", got, seen)
	}
	if got := call(nil); got != 403 || seen != nil {
		t.Errorf("nobody: %d, %+v", got, seen)
	}
	s.SetRules(Rules{Allow: []Rule{{UID: &two}}, Admin: []Rule{{UID: &two}}})
	if got := call(&peer{uid: 4712, pid: 5}); got != 200 || !seen.Caller.Admin {
		t.Errorf("after a reload: %d, %+v", got, seen)
	}
	if DialectCallOf(context.Background()) != nil {
		t.Error("a call out of nothing")
	}
}

// Connections over TCP are those of one user, and count among all.
func TestDialectConnections(t *testing.T) {
	t.Parallel()
	s := New(Config{MaxConns: 8, MaxConnsPerUID: 2})
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		done <- s.RunDialect(ctx, Dialect{Name: "toy", TCP: l, MaxBody: 10,
			Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				io.WriteString(w, "served")
			}),
			Vouch: func(*http.Request) (enforcer.Caller, bool, *enforcer.Denial) {
				return enforcer.Caller{}, true, nil
			}})
	}()
	ask := func(c net.Conn) string {
		t.Helper()
		c.SetDeadline(time.Now().Add(20 * time.Second))
		io.WriteString(c,
			"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
		b := make([]byte, 12)
		if _, err := io.ReadFull(c, b); err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	dial := func() net.Conn {
		t.Helper()
		c, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		return c
	}
	one, two := dial(), dial()
	if a, b := ask(one), ask(two); a != "HTTP/1.1 200" || b != "HTTP/1.1 200" {
		t.Errorf("%q, %q", a, b)
	}
	three := dial()
	three.SetDeadline(time.Now().Add(20 * time.Second))
	if b, err := io.ReadAll(three); len(b) < 12 || string(b[:12]) != "HTTP/1.1 429" {
		t.Errorf("the third: %q, %v", b, err)
	}
	one.Close()
	for deadline := time.Now().Add(20 * time.Second); ; <-time.After(time.Millisecond) {
		n := s.connections.of(overTCP)
		if n == 1 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("%d connections are counted", n)
		}
	}
	if got := ask(dial()); got != "HTTP/1.1 200" {
		t.Errorf("when there is room again: %q", got)
	}
	stop()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// A dialect whose clients understand its own errors alone makes all refusals: also of what its handler never sees, of a
// handler that falls, and of a connection too many.
func TestDialectRefusesInItsWords(t *testing.T) {
	t.Parallel()
	s := New(Config{MaxConns: 8, MaxConnsPerUID: 1})
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	d := Dialect{Name: "toy", TCP: l, MaxBody: 10,
		Handler: http.HandlerFunc(func(http.ResponseWriter, *http.Request) { panic("it falls") }),
		Vouch: func(*http.Request) (enforcer.Caller, bool, *enforcer.Denial) {
			return enforcer.Caller{}, true, nil
		},
		Refuse: func(w http.ResponseWriter, _ *http.Request, status int, d *enforcer.Denial) {
			w.WriteHeader(status)
			fmt.Fprintf(w, "no: %s", d.Detail)
		}}
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.RunDialect(ctx, d) }()
	ask := func(c net.Conn, request string) (status int, body string) {
		t.Helper()
		c.SetDeadline(time.Now().Add(20 * time.Second))
		io.WriteString(c, request)
		res, err := http.ReadResponse(bufio.NewReader(c), nil)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		b, err := io.ReadAll(res.Body)
		if err != nil {
			t.Fatal(err)
		}
		return res.StatusCode, string(b)
	}
	dial := func() net.Conn {
		t.Helper()
		c, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		return c
	}
	one := dial()
	for want, request := range map[int]string{
		403: "GET / HTTP/1.1\r\nHost: localhost\r\nOrigin: http://example.com\r\n\r\n",
		500: "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
	} {
		if status, body := ask(one, request); status != want || !strings.HasPrefix(body, "no: ") {
			t.Errorf("%d %s", status, body)
		}
	}
	if status, body := ask(dial(), ""); status != 429 || !strings.HasPrefix(body, "no: ") {
		t.Errorf("a connection too many: %d %s", status, body)
	}
	if status, body := ask(one, "PUT / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 11\r\n\r\n"); status != 413 ||
		!strings.HasPrefix(body, "no: ") {
		t.Errorf("%d %s", status, body)
	}
	stop()
	if err := <-done; err != nil {
		t.Error(err)
	}
}
