//go:build linux

package api

import (
	"bufio"
	"context"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"
)

// drip sends a byte every 20 ms until the other end takes no more, or quit is closed.
func drip(c net.Conn, quit <-chan struct{}) {
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

// slowHeads begin requests that never come to their end.
var slowHeads = map[string]string{
	"nothing":  "",
	"a header": "GET /v1/health HTTP/1.1\r\nHost: x\r\nX-Slow: ",
	"a body": "POST /v1/leases HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: " +
		"60000\r\n\r\n{",
	"chunks": "POST /v1/leases HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nTransfer-Encoding: " +
		"chunked\r\n\r\nEA60\r\n{",
}

// Callers that send a byte now and then: the server cuts one off that has not sent its header or its body in time, and
// serves a session when its line ends. No other caller waits for any of them.
func TestSlowCallers(t *testing.T) {
	s := New(configOf(echo{}))
	s.headerWithin, s.readWithin = 300*time.Millisecond, 600*time.Millisecond
	path := serveEcho(t, s)
	var slow sync.WaitGroup
	for name, head := range slowHeads {
		c := connect(t, path)
		if _, err := io.WriteString(c, head); err != nil {
			t.Fatal(err)
		}
		slow.Go(func() {
			quit := make(chan struct{})
			defer close(quit)
			if head != "" {
				go drip(c, quit)
			}
			// Cut off, it sees the end, with or without an answer. The test's own deadline would be an error of another
			// kind.
			if out, err := io.ReadAll(c); err != nil && strings.Contains(err.Error(), "timeout") ||
				strings.Contains(string(out), "201 Created") {
				t.Errorf("%s, a byte at a time: %q, %v", name, out, err)
			}
		})
	}
	// A session may be silent for as long as it likes: its process lives.
	session := connect(t, path)
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
