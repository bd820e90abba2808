//go:build linux

package api

import (
	"context"
	"fmt"
	"io"
	"net"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/usher-agent/usher/client/wire"
	"github.com/usher-agent/usher/enforcer"
)

// ahead is how far the licence time of an aheadDesk is ahead of the wall clock, which was set back.
const ahead = 30 * 24 * time.Hour

// anHour matches a problem that may be tried again in an hour; a slow machine may take a minute of it.
var anHour = regexp.MustCompile(`"retry_after_seconds":(3600|35[4-9][0-9])\b`)

// aheadDesk denies every acquire for an hour of licence time.
type aheadDesk struct{ echo }

func (aheadDesk) Clock() wire.Clock {
	wall := time.Now()
	return wire.Clock{Wall: wall, Time: wall.Add(ahead)}
}

func (aheadDesk) Session(*net.UnixConn, io.Closer, enforcer.Caller) Session { return aheadDesk{} }

func (d aheadDesk) Acquire(context.Context, *enforcer.Acquire) (Grant, *enforcer.Denial) {
	return Grant{}, &enforcer.Denial{Code: enforcer.NoSlots, Detail: "all are in use",
		Next: d.Clock().Time.Add(time.Hour)}
}

func (d aheadDesk) Begin(r *enforcer.Acquire, _ func()) (Finish, bool) {
	return func(ctx context.Context) (Grant, *enforcer.Denial) { return d.Acquire(ctx, r) }, false
}

// A denial says by licence time in how many seconds to try again, however wrong the wall clock is: over HTTP, in a
// session, and where a caller waits for its pause.
func TestProblemsCountByLicenceTime(t *testing.T) {
	s := New(configOf(aheadDesk{}))
	next := &enforcer.Denial{Code: enforcer.NoSlots, Next: time.Now().Add(ahead + time.Hour)}
	if p := s.problem(next); p.RetryAfterSeconds == nil ||
		!anHour.MatchString(fmt.Sprint(`"retry_after_seconds":`, *p.RetryAfterSeconds)) {
		t.Errorf("a problem says %v", p.RetryAfterSeconds)
	}
	out := string(converse(t, s,
		[]byte(`{"jsonrpc":"2.0","id":1,"method":"lease.acquire","params":{"pool":"streams"}}`+"\n")))
	if !anHour.MatchString(out) {
		t.Errorf("a session answers %s", out)
	}
	c := connect(t, serveEcho(t, s))
	fmt.Fprint(c, "GET /v1/events HTTP/1.1\r\nHost: usher\r\n\r\n")
	var b strings.Builder
	buf := make([]byte, 4096)
	for !strings.Contains(b.String(), "}\n\n") {
		n, err := c.Read(buf)
		if err != nil {
			t.Fatalf("after %q: %v", b.String(), err)
		}
		b.Write(buf[:n])
	}
	if want := `"at":"` + time.Now().Add(ahead).UTC().Format("2006-01-"); !strings.Contains(b.String(), want) {
		t.Errorf("the first event is not dated by licence time (%s): %s", want, b.String())
	}
}
