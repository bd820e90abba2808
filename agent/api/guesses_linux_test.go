package api

import (
	"bufio"
	"bytes"
	"context"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/usher-agent/usher/agent/bubble"
	"github.com/usher-agent/usher/enforcer"
)

// toy is a dialect on TCP that lets in callers that show "Bearer right", by the listener's token or, with own, by a
// credential of its own.
func toy(t *testing.T, s *Server, own bool) (addr string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	right := func(r *http.Request) bool { return r.Header.Get("Authorization") == "Bearer right" }
	d := Dialect{Name: "toy", TCP: l, MaxBody: 10,
		Vouch: func(r *http.Request) (enforcer.Caller, bool, *enforcer.Denial) {
			if own || right(r) {
				return enforcer.Caller{}, !own, nil
			}
			return enforcer.Caller{}, false, &enforcer.Denial{Code: Unauthenticated, Detail: "wrong"}
		}}
	d.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if own && right(r) {
			DialectCallOf(r.Context()).Known()
		}
		io.WriteString(w, "served, or not found")
	})
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.RunDialect(ctx, d) }()
	t.Cleanup(func() {
		stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return l.Addr().String()
}

// Guesses over TCP are slowed down and logged, of the listener's token and of the dialect's own credential alike. A
// right one from another user is let in at once meanwhile, and one from the same user when its pause is over.
func TestGuessesAreSlowed(t *testing.T) {
	for name, own := range map[string]bool{"token": false, "credential of the dialect's own": true} {
		t.Run(name, func(t *testing.T) {
			var log bytes.Buffer
			c := configOf(aheadDesk{})
			c.Log = slog.New(slog.NewTextHandler(&log, nil))
			s := New(c)
			addr := toy(t, s, own)
			ask := func(credential string) (int, string) {
				t.Helper()
				c, err := net.Dial("tcp", addr)
				if err != nil {
					t.Fatal(err)
				}
				defer c.Close()
				c.SetDeadline(time.Now().Add(time.Minute))
				io.WriteString(c, "POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\nAuthorization: Bearer "+
					credential+"\r\n\r\n")
				r, err := http.ReadResponse(bufio.NewReader(c), nil)
				if err != nil {
					t.Fatal(err)
				}
				defer r.Body.Close()
				b, err := io.ReadAll(r.Body)
				if err != nil {
					t.Fatal(err)
				}
				return r.StatusCode, string(b)
			}
			if status, _ := ask("right"); status != 200 {
				t.Fatalf("the right one: %d", status)
			}
			looked := 0
			for range 50 {
				status, body := ask("wrong")
				if status == http.StatusTooManyRequests {
					if !strings.Contains(body, "wrong credentials in a row") ||
						!strings.Contains(body, `"retry_after_seconds":`) {
						t.Errorf("refused with %s", body)
					}
					continue
				}
				looked++
			}
			if looked > guessesFree+5 {
				t.Errorf("%d guesses of 50 were looked at", looked)
			}
			if !strings.Contains(log.String(), "wrong credentials were shown over TCP") ||
				strings.Count(log.String(), "\n") > 10 {
				t.Errorf("the log says:\n%s", log.String())
			}
			me := uint32(os.Getuid())
			s.guesses.mu.Lock()
			s.guesses.by[me].until = time.Now().Add(time.Hour)
			s.guesses.mu.Unlock()
			status, body := ask("right")
			if status != http.StatusTooManyRequests {
				t.Errorf("in the pause: %d", status)
			}
			// An hour by the agent's own clock, whatever licence time is.
			if !anHour.MatchString(body) {
				t.Errorf("in a pause of an hour: %s", body)
			}
			s.guesses.mu.Lock()
			x := s.guesses.by[me]
			delete(s.guesses.by, me)
			s.guesses.by[me+1] = x // as if another user had guessed
			s.guesses.mu.Unlock()
			if status, _ := ask("right"); status != 200 {
				t.Errorf("beside another who guesses: %d", status)
			}
		})
	}
}

// Where the kernel does not say whose a connection is, a wrong answer is held, and nobody is shut out. Pauses grow, and
// end.
func TestGuessesOfUnknownUsers(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		g := newGuesses(slog.New(slog.NewTextHandler(&log, nil)))
		a, b := net.Pipe()
		defer a.Close()
		defer b.Close()
		unknown := &tcpConn{Conn: a, user: func() (uint32, bool) { return 0, false }}
		began := time.Now()
		for range 100 {
			g.wrong(t.Context(), unknown, "toy")
		}
		if took := time.Since(began); took != 100*guessesStrike || g.denies(unknown, time.Now) != nil ||
			strings.Count(log.String(), "\n") != 2 {
			t.Errorf("100 wrong ones took %v; the log says\n%s", took, log.String())
		}
		known := &tcpConn{Conn: a, user: func() (uint32, bool) { return 1000, true }}
		looked, until := 0, time.Now().Add(time.Hour)
		for time.Now().Before(until) {
			if g.denies(known, time.Now) == nil {
				looked++
				g.wrong(t.Context(), known, "toy")
			}
			time.Sleep(100 * time.Millisecond)
		}
		if looked > 150 {
			t.Errorf("%d guesses of an hour are looked at", looked)
		}
		time.Sleep(2 * guessesPast)
		if g.denies(known, time.Now) != nil {
			t.Error("a pause does not end")
		}
	})
}

// The kernel says whose a connection is.
func TestTCPUser(t *testing.T) {
	for _, address := range []string{"127.0.0.1:0", "[::1]:0"} {
		l, err := net.Listen("tcp", address)
		if err != nil {
			t.Logf("%s: %v", address, err)
			continue
		}
		c, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		if uid, ok := tcpUser(c.LocalAddr(), c.RemoteAddr()); !ok || uid != uint32(os.Getuid()) {
			t.Errorf("%s: %d, %v", address, uid, ok)
		}
		c.Close()
		l.Close()
	}
}
