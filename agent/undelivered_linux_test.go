package agent_test

import (
	"bufio"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// acquireLine is an acquire of one slot in a session; more is appended to its parameters.
func acquireLine(id int, more string) string {
	return fmt.Sprintf(`{"jsonrpc":"2.0","id":%d,"method":"lease.acquire","params":{"pool":"streams"%s}}`+"\n", id,
		more)
}

// acquirePost is the same over HTTP.
func acquirePost(more string) string {
	body := `{"pool":"streams"` + more + `}`
	return fmt.Sprintf(
		"POST /v1/leases HTTP/1.1\r\nHost: u\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s",
		len(body), body)
}

// caller is a connection of a caller that may be gone before its answer is.
func (h *house) caller(secure bool, say string) net.Conn {
	h.t.Helper()
	c, err := net.Dial("unix", h.Socket())
	if err != nil {
		h.t.Fatal(err)
	}
	h.t.Cleanup(func() { c.Close() })
	if secure {
		c = tls.Client(c, &tls.Config{InsecureSkipVerify: true,
			MinVersion: tls.VersionTLS13})
	}
	if _, err := io.WriteString(c, say); err != nil {
		h.t.Fatal(err)
	}
	return c
}

// raw is the Unix socket of a connection.
func raw(t testing.TB, c net.Conn) *net.UnixConn {
	t.Helper()
	if inner, ok := c.(*tls.Conn); ok {
		c = inner.NetConn()
	}
	return c.(*net.UnixConn)
}

// untilUnread waits until at least n bytes lie unread at this end.
func untilUnread(t testing.TB, c net.Conn, n int) {
	t.Helper()
	sc, err := raw(t, c).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	deadline := time.Now().Add(60 * time.Second)
	for {
		var has int
		if err := sc.Control(func(fd uintptr) { has, err = unix.IoctlGetInt(int(fd), unix.SIOCINQ) }); err != nil {
			t.Fatal(err)
		}
		if has >= n {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%d bytes lie unread, want %d", has, n)
		}
		<-time.After(time.Millisecond)
	}
}

// A grant whose caller closes without having read the answer is undone, by whatever way it was asked, what is asked
// beside it, and whether the answer was written by then or not.
func TestUndeliveredIsUndone(t *testing.T) {
	t.Parallel()
	h := open(t, "")
	h.drop("a.lic", h.sign("a", 50, nil))
	h.until("dropped", inForce("a"))
	held, ttl := `,"lifetime":"held"`, `,"ttl_seconds":3600`
	const list = `{"jsonrpc":"2.0","id":7,"method":"pools.list"}` + "\n"
	const subscribe = `{"jsonrpc":"2.0","id":8,"method":"events.subscribe"}` + "\n"
	for name, say := range map[string]string{
		"session held":          acquireLine(1, held),
		"session ttl":           acquireLine(1, ttl),
		"session process":       acquireLine(1, ""),
		"session held, waiting": acquireLine(1, held+`,"wait_seconds":5`),
		"three at once":         acquireLine(1, held) + acquireLine(2, ttl) + acquireLine(3, held),
		"with more behind it":   acquireLine(1, held) + list + list,
		"with events behind it": subscribe + acquireLine(1, held) + list,
		"without a line feed":   strings.TrimSpace(acquireLine(1, held)),
		"HTTP held":             acquirePost(held),
		"HTTP ttl":              acquirePost(""),
		"HTTP, two at once":     acquirePost(held) + acquirePost(ttl),
		"HTTP, and closes":      strings.Replace(acquirePost(held), "Host: u", "Host: u\r\nConnection: close", 1),
	} {
		for _, secure := range []bool{false, true} {
			for _, how := range []string{"at once", "half", "unread"} {
				t.Run(fmt.Sprintf("%s, TLS %v, closed %s", name, secure, how), func(t *testing.T) {
					c := h.caller(secure, say)
					switch how {
					case "half":
						if err := raw(t, c).CloseWrite(); err != nil {
							t.Fatal(err)
						}
					case "unread":
						if strings.HasPrefix(name, "without") {
							t.Skip("nothing is answered before the line ends")
						}
						untilUnread(t, c, 100)
					}
					raw(t, c).Close()
					h.inUse(0)
				})
			}
		}
	}
}

// readGrant reads the answer to an acquire, over HTTP or in a session.
func readGrant(t *testing.T, in *bufio.Reader) {
	t.Helper()
	if b, err := in.Peek(1); err == nil && b[0] == 'H' {
		res, err := http.ReadResponse(in, nil)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadAll(res.Body); err != nil || res.StatusCode != http.StatusCreated {
			t.Fatalf("got %d, %v", res.StatusCode, err)
		}
		res.Body.Close()
		return
	}
	if l, err := in.ReadString('\n'); err != nil || !strings.Contains(l, `"result"`) {
		t.Fatalf("got %q, %v", l, err)
	}
}

// What a caller has read stands, however soon it closes, whatever it leaves unread besides, and if it shuts down its
// writing half first.
func TestDeliveredStands(t *testing.T) {
	h := open(t, "")
	h.drop("a.lic", h.sign("a", 50, nil))
	h.until("dropped", inForce("a"))
	held := `,"lifetime":"held"`
	// While a session is open that held something, its process is watched, whatever comes and goes.
	own := h.dial()
	l := lease(t, own.ask(acquireLine(1, "")))
	own.ask(`{"jsonrpc":"2.0","id":2,"method":"lease.release","params":{"id":"` + l.ID + `"}}`)
	h.inUse(0)
	before := descriptors(t)
	for name, say := range map[string]string{"session held": acquireLine(1, held),
		"session ttl": acquireLine(1, `,"ttl_seconds":3600`), "session process": acquireLine(1, ""),
		"session waiting": acquireLine(1, held+`,"wait_seconds":5`), "HTTP held": acquirePost(held),
		"HTTP ttl": acquirePost("")} {
		for _, secure := range []bool{false, true} {
			for _, half := range []bool{false, true} {
				if half && strings.HasSuffix(name, "waiting") {
					continue // whoever closes its writing half waits no longer
				}
				t.Run(fmt.Sprintf("%s, TLS %v, half %v", name, secure, half), func(t *testing.T) {
					for range 5 {
						c := h.caller(secure, say)
						if half {
							if err := raw(t, c).CloseWrite(); err != nil {
								t.Fatal(err)
							}
							untilUnread(t, c, 100) // the agent knows of it by the time it is read
						}
						readGrant(t, bufio.NewReader(c))
						raw(t, c).Close()
					}
					h.settledAt(before, 5)
				})
			}
		}
	}
	t.Run("read, and the rest left unread", func(t *testing.T) {
		c := h.caller(false, `{"jsonrpc":"2.0","id":8,"method":"events.subscribe"}`+"\n")
		in := bufio.NewReaderSize(c, 16) // which reads no further than it must
		readGrant(t, in)
		if _, err := io.WriteString(c, acquireLine(1, held)); err != nil {
			t.Fatal(err)
		}
		for range 2 { // the answer, and the event that tells of the grant, in either order
			if l, err := in.ReadString('\n'); err != nil ||
				!strings.Contains(l, "lease.granted") && !strings.Contains(l, `"id":1`) {
				t.Fatalf("got %q, %v", l, err)
			}
		}
		h.acquire(1)
		untilUnread(t, c, 50) // another event
		c.Close()
		h.settledAt(before, 2)
	})
	t.Run("the first read, the second unread", func(t *testing.T) {
		c := h.caller(false, acquireLine(1, held)+acquireLine(2, held))
		answer := make([]byte, 4096)
		n, err := c.Read(answer)
		if err != nil || strings.Count(string(answer[:n]), "\n") != 1 {
			t.Fatalf("got %q, %v", answer[:n], err)
		}
		untilUnread(t, c, 50)
		c.Close()
		h.settledAt(before, 1)
	})
	t.Run("with a client token", func(t *testing.T) {
		c := h.caller(false, acquireLine(1, held+`,"client_token":"t"`))
		untilUnread(t, c, 50)
		c.Close()
		h.settledAt(before, 1)
	})
}

// descriptors counts those of this process, which is the agent's as well.
func descriptors(t testing.TB) int {
	t.Helper()
	all, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(all)
}

// settledAt waits until no more descriptors are open than before, so that the agent has closed its ends of connections,
// and sees that n slots are in use; then it frees them.
func (h *house) settledAt(before int, n int64) {
	h.t.Helper()
	deadline := time.Now().Add(60 * time.Second)
	for descriptors(h.t) > before {
		if time.Now().After(deadline) {
			h.t.Fatalf("%d descriptors are open, %d before", descriptors(h.t), before)
		}
		<-time.After(time.Millisecond)
	}
	h.inUse(n)
	leases, err := h.Leases(h.t.Context(), "")
	if err != nil {
		h.t.Fatal(err)
	}
	for _, l := range leases {
		if err := h.Release(h.t.Context(), l.ID, true); err != nil {
			h.t.Fatal(err)
		}
	}
}

// An acquire that is a notification has no answer, so that nobody would know of a lease that outlives its process.
func TestAcquireAsNotification(t *testing.T) {
	t.Parallel()
	h := open(t, "")
	h.drop("a.lic", h.sign("a", 5, nil))
	h.until("dropped", inForce("a"))
	l := h.dial()
	for _, more := range []string{`,"lifetime":"held"`, `,"ttl_seconds":60`, `,"lifetime":"held","wait_seconds":5`} {
		l.say(strings.Replace(strings.TrimSpace(acquireLine(1, more)), `"id":1,`, "", 1))
	}
	if got := l.ask(`{"jsonrpc":"2.0","id":9,"method":"pools.list"}`); !strings.Contains(got, `"id":9`) {
		t.Fatal(got)
	}
	h.inUse(0)
}
