package agent_test

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"os"
	"runtime"
	"strings"
	"syscall"
	"testing"
)

// dialAs connects as another user: the kernel tells the uid that the thread which connects has.
func (h *house) dialAs(uid int) net.Conn {
	h.t.Helper()
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	be := func(uid int) {
		if _, _, e := syscall.RawSyscall(syscall.SYS_SETRESUID, ^uintptr(0), uintptr(uid), ^uintptr(0)); e != 0 {
			h.t.Fatal(e)
		}
	}
	be(uid)
	c, err := net.Dial("unix", h.Socket())
	be(os.Getuid())
	if err != nil {
		h.t.Fatal(err)
	}
	h.t.Cleanup(func() { c.Close() })
	return c
}

func lineOf(t testing.TB, c net.Conn) *line { return &line{t, c, bufio.NewScanner(c)} }

// expect wants parts in an answer.
func expect(t *testing.T, got string, want ...string) {
	t.Helper()
	for _, w := range want {
		if !strings.Contains(got, w) {
			t.Errorf("got  %s\nwant %s", got, w)
		}
	}
}

// streamAs opens a stream of events as another user, and reads its first event.
func (h *house) streamAs(t *testing.T, uid int) *line {
	t.Helper()
	l := lineOf(t, h.dialAs(uid))
	l.say("GET /v1/events HTTP/1.1\r\nHost: u\r\nConnection: close\r\n\r\n")
	for !strings.HasPrefix(l.hear(), "data:") {
	}
	return l
}

// setRules reloads with other rules of who may call.
func (h *house) setRules(t *testing.T, rules string) {
	t.Helper()
	socket := "socket: {path: " + h.path("s")
	before, after, _ := strings.Cut(h.config, socket)
	_, after, _ = strings.Cut(after, "}\nstate:")
	h.config = before + socket + rules + "}\nstate:" + after
	if _, err := h.Reload(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// openFolders lets other users reach the socket.
func (h *house) openFolders(t *testing.T) {
	t.Helper()
	for name, mode := range map[string]os.FileMode{h.dir: 0o755, h.path("s"): 0o777} {
		if err := os.Chmod(name, mode); err != nil {
			t.Fatal(err)
		}
	}
}

// A reload takes rights from sessions that are open, from those who wait, and from streams of events, at once. What is
// held stands.
func TestReloadTakesRights(t *testing.T) {
	if os.Getuid() != 0 {
		lacks(t, "only root can call as another user")
	}
	const friend = somebody + 1
	rules := func(allow, admin string) string { return fmt.Sprintf(", allow: [%s], admin: [%s]", allow, admin) }
	both, one := fmt.Sprintf("{uid: %d}, {uid: %d}", somebody, friend), fmt.Sprintf("{uid: %d}", friend)
	h := open(t, "")
	h.openFolders(t)
	h.drop("a.lic", h.sign("a", 4, nil))
	h.until("dropped", inForce("a"))
	const renew = `{"jsonrpc":"2.0","id":5,"method":"license.get"}`

	// An admin no more: a stream of everything ends, a session's becomes one of its own.
	h.setRules(t, rules(both, fmt.Sprintf("{uid: %d}", somebody)))
	session, other := lineOf(t, h.dialAs(somebody)), lineOf(t, h.dialAs(friend))
	session.in.Buffer(nil, 1<<20)
	hear := func() string { // a reload judges the licence anew, and a long wait is told of, too
		t.Helper()
		for {
			if l := session.hear(); !strings.Contains(l, "license.changed") && !strings.Contains(l, "lease.waiting") {
				return l
			}
		}
	}
	ask := func(text string) string {
		session.say(strings.TrimSuffix(text, "\n"))
		return hear()
	}
	expect(t, ask(`{"jsonrpc":"2.0","id":1,"method":"events.subscribe"}`), `"id":1,"result":{}`)
	events := h.streamAs(t, somebody)
	first := lease(t, other.ask(acquireLine(1, `,"lifetime":"held"`)))
	expect(t, hear(), "lease.granted", first.ID)
	h.setRules(t, rules(both, ""))
	second := lease(t, other.ask(acquireLine(2, `,"lifetime":"held"`)))
	rest, err := io.ReadAll(events.conn)
	if all := string(rest); err != nil || strings.Contains(all, second.ID) ||
		!strings.Contains(all, "the rules of who may call have changed") {
		t.Errorf("the stream of one who is no admin any more: %q, %v", all, err)
	}
	expect(t, ask(`{"jsonrpc":"2.0","id":3,"method":"lease.release","params":{"id":"`+first.ID+`","force":true}}`),
		`"id":3`, `"code":"forbidden"`)
	session.say(acquireLine(4, `,"lifetime":"connection"`))
	own := hear() + hear() // the answer and the event, in either order
	expect(t, own, `"id":4,"result"`, "lease.granted")
	if strings.Contains(own, second.ID) {
		t.Errorf("one who is no admin any more hears of another's lease: %s", own)
	}

	// Not allowed any more: no message is carried out, nothing waits, nothing is heard; what is held stands.
	events = h.streamAs(t, somebody)
	all := h.acquire(1)
	session.say(acquireLine(6, `,"wait_seconds":600,"lifetime":"held"`))
	waits := lineOf(t, h.dialAs(somebody))
	waits.say(acquirePost(`,"wait_seconds":600`))
	h.untilWaiting(2)
	h.setRules(t, rules(one, ""))
	expect(t, hear(), `"id":6`, `"code":"forbidden"`, "is not allowed to call")
	expect(t, waits.hear(), "403")
	if rest, err := io.ReadAll(events.conn); err != nil ||
		!strings.Contains(string(rest), "the rules of who may call have changed") {
		t.Errorf("the stream of one who is not allowed any more: %q, %v", rest, err)
	}
	expect(t, ask(renew), `"id":5`, `"code":"forbidden"`)
	expect(t, ask(acquireLine(7, "")), `"id":7`, `"code":"forbidden"`)
	if err := h.Release(t.Context(), all.ID, false); err != nil {
		t.Fatal(err)
	}
	h.inUse(3) // the session's own, and the friend's two: nobody who waited was granted anything
	expect(t, ask(renew), `"id":5`, `"code":"forbidden"`)

	// Allowed again, it goes on where it was.
	h.setRules(t, rules(both, ""))
	if got := h.as(somebody, "GET", "/v1/leases", ""); !strings.Contains(got, `"lifetime":"connection"`) {
		t.Errorf("what was held meanwhile: %s", got)
	}
	expect(t, ask(acquireLine(8, `,"lifetime":"connection"`))+hear(), "lease.granted", `"id":8,"result"`)
	session.conn.Close()
	h.inUse(2)
}
