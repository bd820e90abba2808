package api

import (
	"context"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/usher-agent/usher/enforcer"
)

// connected returns a connection of the agent, and its other end.
func connected(t *testing.T) (*conn, int) {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	f := os.NewFile(uintptr(fds[0]), "ours")
	defer f.Close()
	ours, err := net.FileConn(f)
	if err != nil {
		t.Fatal(err)
	}
	c := &conn{UnixConn: ours.(*net.UnixConn), ending: make(chan struct{})}
	c.goDirect()
	return c, fds[1]
}

// A grant whose answer is to be written next is taken back when that write fails, and when it never comes.
func TestGrantIsTakenBackUnlessItsAnswerIsWritten(t *testing.T) {
	id := enforcer.LeaseID{7}
	for _, test := range []struct {
		name    string
		do      func(c *conn, other int)
		undoing int
	}{
		{"the write fails", func(c *conn, other int) { unix.Shutdown(other, unix.SHUT_RD); c.Write([]byte("{}")) }, 1},
		{"nothing is written", func(*conn, int) {}, 1},
		{"it is read", func(c *conn, other int) {
			c.Write([]byte("{}"))
			unix.Read(other, make([]byte, 8))
		}, 0},
		{"it is not read", func(c *conn, _ int) { c.Write([]byte("{}")) }, 1},
		{"it is not read, but the lease has ended", func(c *conn, _ int) { c.Write([]byte("{}")); c.ended(id) }, 0},
		{"it is not read, and another lease has ended", func(c *conn, _ int) {
			c.Write([]byte("{}"))
			c.ended(enforcer.LeaseID{8})
		}, 1},
	} {
		t.Run(test.name, func(t *testing.T) {
			c, other := connected(t)
			var undone []enforcer.LeaseID
			c.answers(unread{id, func(id enforcer.LeaseID) { undone = append(undone, id) }, true})
			test.do(c, other)
			unix.Close(other)
			c.Close()
			if len(undone) != test.undoing || test.undoing > 0 && undone[0] != id {
				t.Errorf("undone are %v, want %d", undone, test.undoing)
			}
		})
	}
}

// What a connection may do is remembered, and judged by new rules from the next call on. Rules that name a hash are
// looked at with each call.
func TestRightsOfAKeptConnection(t *testing.T) {
	s := New(configOf(echo{}))
	k := &conn{peer: peer{uid: 7}}
	post := func() int {
		r := httptest.NewRequest("POST", leasesPath, strings.NewReader(`{"pool":"a"}`))
		r.Header.Set("Content-Type", "application/json")
		w := httptest.NewRecorder()
		s.handler.ServeHTTP(w, r.WithContext(withConn(context.Background(), k)))
		return w.Code
	}
	seven, eight := uint32(7), uint32(8)
	for _, step := range []struct {
		rules Rules
		want  int
	}{
		{Rules{}, http.StatusCreated},
		{Rules{Allow: []Rule{{UID: &eight}}}, http.StatusForbidden},
		{Rules{Allow: []Rule{{UID: &seven}}}, http.StatusCreated},
		{Rules{Allow: []Rule{{UID: &seven, ExeSHA256: strings.Repeat("0", 64)}}}, http.StatusForbidden},
		{Rules{Allow: []Rule{{UID: &seven}, {ExeSHA256: strings.Repeat("0", 64)}}}, http.StatusCreated},
	} {
		s.SetRules(step.rules)
		for range 2 {
			if got := post(); got != step.want {
				t.Errorf("under %+v a call is answered %d, want %d", step.rules, got, step.want)
			}
		}
		if kept := k.rights.Load(); (kept != nil && kept.rules == s.rules.Load()) == s.rules.Load().hashed() {
			t.Errorf("under %+v the rights that are remembered are %+v", step.rules, kept)
		}
	}
}

// The commonest calls make no garbage of their own but what goes into the header of the answer.
func TestAllocationsOfTheCommonestCalls(t *testing.T) {
	s := New(configOf(still{lease: &enforcer.Lease{ID: enforcer.LeaseID{1}, Lifetime: enforcer.LifetimeTTL,
		Items: []enforcer.Item{{Pool: "a", N: 1}}, Holder: &enforcer.Holder{}}}))
	ctx := withConn(context.Background(), &conn{peer: peer{uid: 7}})
	body := strings.NewReader("")
	r := httptest.NewRequest("POST", leasesPath, body).WithContext(ctx)
	r.Header.Set("Content-Type", "application/json")
	r.ContentLength = int64(len(`{"pool":"a","ttl_seconds":60}`))
	end := httptest.NewRequest("DELETE", leasesPath+"/01"+strings.Repeat("0", 30), nil).WithContext(ctx)
	w := &discarded{header: http.Header{}}
	got := testing.AllocsPerRun(100, func() {
		body.Reset(`{"pool":"a","ttl_seconds":60}`)
		if s.handler.ServeHTTP(w, r); w.status != http.StatusCreated {
			t.Fatal(w.status)
		}
		if s.handler.ServeHTTP(w, end); w.status != http.StatusNoContent {
			t.Fatal(w.status)
		}
	})
	if got > 4 { // the location, and what net/http's own types would not need
		t.Errorf("an acquire and its release make %v allocations", got)
	}
}

// still is a desk that grants the same lease always.
type still struct {
	echo

	lease *enforcer.Lease
}

func (s still) Acquire(context.Context, *enforcer.Acquire) (Grant, *enforcer.Denial) {
	return Grant{Lease: s.lease}, nil
}

type discarded struct {
	header http.Header
	status int
}

func (d *discarded) Header() http.Header         { return d.header }
func (d *discarded) WriteHeader(status int)      { d.status = status }
func (d *discarded) Write(b []byte) (int, error) { return len(b), nil }
