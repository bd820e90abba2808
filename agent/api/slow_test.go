//go:build linux

package api

import (
	"bufio"
	"context"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// Callers that send a byte now and then: one that has not said its header, its TLS hello or its body in time is cut
// off, one in a session is served when its line ends, and nobody else waits for any of them.
func TestSlowCallers(t *testing.T) {
	path := filepath.Join(folder(t), "s")
	socket, err := Listen(SocketConfig{Path: path, GID: -1, Lock: lock})
	if err != nil {
		t.Fatal(err)
	}
	s := New(Config{Desk: echo{}})
	s.headerWithin, s.readWithin = 300*time.Millisecond, 600*time.Millisecond
	ctx, cancel := context.WithCancel(t.Context())
	ran := make(chan error, 1)
	go func() { ran <- s.Run(ctx, socket) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ran; err != nil {
			t.Error(err)
		}
		socket.Close()
	})
	dial := func() net.Conn {
		t.Helper()
		c, err := net.Dial("unix", path)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		if err := c.SetDeadline(time.Now().Add(within)); err != nil {
			t.Fatal(err)
		}
		return c
	}
	// drip sends a byte every 20 ms until the other end takes no more, or quit is closed.
	drip := func(c net.Conn, quit <-chan struct{}) {
		tick := time.NewTicker(20 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-quit:
				return
			case <-tick.C:
				if _, err := c.Write([]byte("x")); err != nil {
					return
				}
			}
		}
	}
	var slow sync.WaitGroup
	for name, head := range map[string]string{
		"nothing":  "",
		"a header": "GET /v1/health HTTP/1.1\r\nHost: x\r\nX-Slow: ",
		"a body": "POST /v1/leases HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: " +
			"60000\r\n\r\n{",
		"chunks": "POST /v1/leases HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nTransfer-Encoding: " +
			"chunked\r\n\r\nEA60\r\n{",
	} {
		c := dial()
		if _, err := io.WriteString(c, head); err != nil {
			t.Fatal(err)
		}
		slow.Go(func() {
			quit := make(chan struct{})
			defer close(quit)
			if head != "" {
				go drip(c, quit)
			}
			// Cut off, it hears the end, after an answer or not; the test's own deadline would be an error of another
			// kind.
			if out, err := io.ReadAll(c); err != nil && strings.Contains(err.Error(), "timeout") ||
				strings.Contains(string(out), "201 Created") {
				t.Errorf("%s, a byte at a time: %q, %v", name, out, err)
			}
		})
	}
	// A session may be silent for as long as it likes: it is a process that lives.
	session := dial()
	const ask = `{"jsonrpc":"2.0","id":1,"method":"lease.acquire","params":{"pool":"a"}}`
	for i, b := range []byte(ask) {
		if _, err := session.Write([]byte{b}); err != nil {
			t.Fatal(err)
		}
		if i%16 == 0 { // beside it others are served
			r := &http.Client{Transport: &http.Transport{DisableKeepAlives: true,
				DialContext: func(context.Context, string, string) (net.Conn, error) {
					return net.Dial("unix", path)
				}}}
			res, err := r.Get("http://usher/v1/health")
			if err != nil {
				t.Fatal(err)
			}
			res.Body.Close()
		}
	}
	slow.Wait() // longer than any deadline of HTTP's
	if _, err := io.WriteString(session, "\n"); err != nil {
		t.Fatal(err)
	}
	if got, err := bufio.NewReader(session).ReadString('\n'); err != nil || !strings.Contains(got, `"result":{"id"`) {
		t.Errorf("of a slow session: %q, %v", got, err)
	}
}
