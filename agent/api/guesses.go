package api

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/usher-agent/usher/enforcer"
)

// What wrong credentials cost over TCP.
const (
	guessesFree   = 8                // wrong credentials of one user within guessesPast that cost nothing
	guessesPast   = time.Minute      // after so long without a wrong one all are forgotten
	guessesPause  = 30 * time.Second // the longest pause, in which the agent looks at no credential of a user
	guessesStrike = time.Second      // for how long the answer is held where the user is not known
	guessersKept  = 1024
)

// guesses slows down callers that try credentials over TCP. The kernel knows which user of this host a connection is
// of, so that only that user waits. Where it does not know, each wrong answer is held for a while. A right credential
// of another user never waits.
type guesses struct {
	log *slog.Logger

	mu     sync.Mutex // guards all below
	by     map[uint32]*guesser
	logged time.Time // when a wrong credential of an unknown user was last logged
}

type guesser struct {
	wrong int
	last  time.Time
	until time.Time // before this, the agent looks at none
}

func newGuesses(log *slog.Logger) *guesses { return &guesses{log: log, by: map[uint32]*guesser{}} }

// denies refuses a caller that has guessed too much, without a look at its credential. The denial is in licence time,
// which now returns. The pause itself counts by the clock of this process, which no change of the wall clock moves.
func (g *guesses) denies(c *tcpConn, now func() time.Time) *enforcer.Denial {
	g.mu.Lock()
	some := len(g.by) > 0
	g.mu.Unlock()
	if !some {
		return nil
	}
	uid, ok := c.user()
	if !ok {
		return nil
	}
	wrong, pause := g.paused(uid)
	if pause <= 0 {
		return nil
	}
	next := now().Add(pause)
	return &enforcer.Denial{Code: enforcer.RateLimited, Next: next,
		Detail: fmt.Sprintf("%s has shown %d wrong credentials in a row; the agent looks at none before %s",
			caller(uid), wrong, next.UTC().Format(time.RFC3339)), Hint: "wait, then give the right one"}
}

// caller names the user at the other end of a loopback connection.
func caller(uid uint32) string {
	if uid == Nobody {
		return "a caller without an identity"
	}
	return fmt.Sprint("uid ", uid)
}

// paused returns how many wrong credentials a user has shown, and for how long the agent looks at none.
func (g *guesses) paused(uid uint32) (wrong int, pause time.Duration) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if x := g.by[uid]; x != nil {
		return x.wrong, time.Until(x.until)
	}
	return 0, 0
}

// wrong takes note of a wrong credential, and holds its answer where nothing else slows its caller down.
func (g *guesses) wrong(ctx context.Context, c *tcpConn, dialect string) {
	uid, ok := c.user()
	if !ok {
		g.mu.Lock()
		tell := time.Since(g.logged) > guessesPast
		if tell {
			g.logged = time.Now()
		}
		g.mu.Unlock()
		if tell {
			g.log.Warn("a wrong credential was shown over TCP", "dialect", dialect, "peer", c.RemoteAddr().String())
		}
		select {
		case <-time.After(guessesStrike):
		case <-ctx.Done():
		}
		return
	}
	g.mu.Lock()
	x, now := g.by[uid], time.Now()
	if x == nil || now.Sub(x.last) > guessesPast {
		g.forget(now)
		x = &guesser{}
		g.by[uid] = x
	}
	x.wrong++
	x.last = now
	var pause time.Duration
	if over := x.wrong - guessesFree; over > 0 {
		pause = min(guessesPause, time.Second<<min(over-1, 10))
		x.until = now.Add(pause)
	}
	wrong := x.wrong
	g.mu.Unlock()
	if pause > 0 {
		g.log.Warn("wrong credentials were shown over TCP; the agent looks at none of this user's for a while",
			"dialect",
			dialect, "uid", uid, "wrong", wrong, "pause", pause)
	}
}

// forget makes room: it forgets users that have shown no wrong credential for a while. g.mu is held.
func (g *guesses) forget(now time.Time) {
	if len(g.by) < guessersKept {
		return
	}
	for uid, x := range g.by {
		if now.Sub(x.last) > guessesPast {
			delete(g.by, uid)
		}
	}
}

// tcpConn is a connection over TCP, which is counted out when it is closed.
type tcpConn struct {
	net.Conn
	leave func()
	user  func() (uid uint32, ok bool) // the user whose connection it is; false: the kernel does not say
}

func (s *Server) newTCP(c net.Conn) *tcpConn {
	return &tcpConn{c, sync.OnceFunc(func() { s.connections.give(overTCP, 1) }),
		sync.OnceValues(func() (uint32, bool) { return tcpUser(c.RemoteAddr(), c.LocalAddr()) })}
}

// Close counts the connection out, and closes it.
func (c *tcpConn) Close() error {
	c.leave()
	return c.Conn.Close()
}

type tcpKey struct{}

// judged watches an answer for what it says of its request's credential.
type judged struct {
	http.ResponseWriter
	status int
}

// WriteHeader takes note of the status.
func (j *judged) WriteHeader(status int) {
	if j.status == 0 && status >= 200 {
		j.status = status
	}
	j.ResponseWriter.WriteHeader(status)
}

// Unwrap is for [http.ResponseController].
func (j *judged) Unwrap() http.ResponseWriter { return j.ResponseWriter }

// judge takes note of the dialect's verdict on a credential that it has checked itself.
func (s *Server) judge(d *Dialect, call *DialectCall, r *http.Request, status int) {
	c, ok := r.Context().Value(tcpKey{}).(*tcpConn)
	if !ok || call.Vouched {
		return
	}
	// A right one forgets nothing: a caller that has one could otherwise guess others on and on.
	if status == http.StatusUnauthorized ||
		!call.known.Load() && r.Method != http.MethodGet && r.Method != http.MethodHead {
		s.guesses.wrong(r.Context(), c, d.Name)
	}
}
