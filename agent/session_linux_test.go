package agent_test

import (
	"bufio"
	"cmp"
	"context"
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/usher-agent/usher/agent/identity"
	"github.com/usher-agent/usher/client"
	"github.com/usher-agent/usher/client/wire"
)

// line is one connection that speaks the session's protocol by hand.
type line struct {
	t    testing.TB
	conn net.Conn
	in   *bufio.Scanner
}

func (h *house) dial() *line {
	h.t.Helper()
	c, err := net.Dial("unix", h.Socket())
	if err != nil {
		h.t.Fatal(err)
	}
	h.t.Cleanup(func() { c.Close() })
	l := &line{h.t, c, bufio.NewScanner(c)}
	l.in.Buffer(nil, 1<<20)
	return l
}

func (l *line) say(text string) {
	l.t.Helper()
	if _, err := fmt.Fprintln(l.conn, text); err != nil {
		l.t.Fatal(err)
	}
}

func (l *line) hear() string {
	l.t.Helper()
	if err := l.conn.SetReadDeadline(time.Now().Add(60 * time.Second)); err != nil {
		l.t.Fatal(err)
	}
	if !l.in.Scan() {
		return fmt.Sprintf("closed: %v", l.in.Err())
	}
	return l.in.Text()
}

func (l *line) ask(text string) string {
	l.t.Helper()
	l.say(text)
	return l.hear()
}

func lease(t testing.TB, answer string) wire.Lease {
	t.Helper()
	var r struct {
		Result wire.Lease `json:"result"`
	}
	if err := json.Unmarshal([]byte(answer), &r); err != nil || r.Result.ID == "" {
		t.Fatalf("not a lease: %s, %v", answer, err)
	}
	return r.Result
}

func (h *house) inUse(n int64) {
	h.t.Helper()
	deadline, rest := time.Now().Add(60*time.Second), pause()
	for {
		p, err := h.Pool(context.Background(), "streams")
		if err != nil {
			h.t.Fatal(err)
		}
		if p.InUse == n {
			return
		}
		if time.Now().After(deadline) {
			h.t.Fatalf("%d slots are in use, want %d", p.InUse, n)
		}
		rest()
	}
}

// A whole session, line by line.
func TestSession(t *testing.T) {
	t.Parallel()
	h := open(t, "")
	h.drop("a.lic", h.sign("a", 3, nil))
	h.until("dropped", inForce("a"))
	l := h.dial()
	expect := func(got string, want ...string) {
		t.Helper()
		for _, w := range want {
			if !strings.Contains(got, w) {
				t.Errorf("got  %s\nwant %s", got, w)
			}
		}
	}
	expect(
		l.ask(
			`{"jsonrpc":"2.0","id":1,"method":"session.hello","params":{"versions":[1],"client":"test",`+
				`"labels":{"job":"7"}}}`),
		`"jsonrpc":"2.0","id":1,"result":`, `"versions":[1]`, fmt.Sprintf(`"pid":%d`, os.Getpid()))
	expect(l.ask(`{"jsonrpc":"2.0","id":"x","method":"license.get"}`), `"id":"x"`, `"code":"VALID"`)
	expect(l.ask(`{"jsonrpc":"2.0","id":2,"method":"features.get","params":{"name":"hd"}}`), `"enabled":false`)
	expect(l.ask(`{"jsonrpc":"2.0","id":3,"method":"pools.list"}`), `"name":"streams"`)
	got := l.ask(`{"jsonrpc":"2.0","id":4,"method":"lease.acquire","params":{"pool":"streams"}}`)
	expect(got, `"lifetime":"process"`, `"labels":{"job":"7"}`)
	first := lease(t, got)
	if first.Liveness != "peerpidfd" && first.Liveness != "pidfd" && first.Liveness != "connection" {
		t.Errorf("liveness %q", first.Liveness)
	}
	t.Logf("liveness: %s", first.Liveness)
	second := lease(t, l.ask(
		`{"jsonrpc":"2.0","id":5,"method":"lease.acquire","params":{"pool":"streams","n":2,"lifetime":"connection"}}`))
	expect(l.ask(`{"jsonrpc":"2.0","id":6,"method":"lease.acquire","params":{"pool":"streams"}}`),
		`"error":{"code":-32000`, `"code":"no_slots"`, "3 of 3 slots are in use")
	// Pipelined: the answer to the one that waits comes when it is granted, the others' at once.
	l.say(`{"jsonrpc":"2.0","id":7,"method":"lease.acquire","params":{"pool":"streams","wait_seconds":30}}`)
	h.untilWaiting(1)
	expect(l.ask(`{"jsonrpc":"2.0","id":8,"method":"pools.list"}`), `"id":8`, `"waiting":1`)
	l.say(`{"jsonrpc":"2.0","id":9,"method":"lease.release","params":{"id":"` + first.ID + `"}}`)
	both := l.hear() + l.hear()
	expect(both, `"id":9,"result":{}`, `"id":7,"result":{"id":`)
	// Notifications.
	expect(l.ask(`{"jsonrpc":"2.0","id":10,"method":"events.subscribe"}`), `"id":10,"result":{}`)
	// a notification itself: no answer
	l.say(`{"jsonrpc":"2.0","method":"lease.release","params":{"id":"` + second.ID + `"}}`)
	expect(l.hear(), `"method":"lease.ended"`, `"cause":"released"`, second.ID)
	// What is wrong is said, and the session goes on.
	for _, test := range [][2]string{
		{`{"jsonrpc":"2.0","id":11,"method":"nope"}`,
			`"id":11,"error":{"code":-32601,"message":"there is no method nope"`},
		{`{"jsonrpc":"1.0","id":12,"method":"pools.list"}`, `"id":null,"error":{"code":-32600`},
		{`[{"jsonrpc":"2.0","id":1,"method":"pools.list"}]`, "batches are not taken; send one message a line"},
		{`{"jsonrpc":"2.0","id":13,"method":"lease.acquire","params":{"pool":"streams","ttl":1}}`, `"code":-32602`},
		{`{"jsonrpc":"2.0","id":14,"method":"lease.acquire","params":[1]}`, "params is not a JSON object"},
		{`{"jsonrpc":"2.0","id":15,"method":"lease.renew","params":{"id":"12"}}`, "is not a lease id"},
		{`{"jsonrpc":"2.0","id":16,"id":17,"method":"pools.list"}`, `names \"id\" twice`},
		{`{nonsense`, `"code":-32700`},
	} {
		expect(l.ask(test[0]), test[1])
	}
	h.inUse(1)
	l.conn.Close()
	// The process lives on, and so does its lease where the kernel tells of processes.
	if first.Liveness == "connection" {
		h.inUse(0)
	}
}

// A session may begin with a batch: it is refused in words, and the session goes on.
func TestSessionBeginsWithABatch(t *testing.T) {
	t.Parallel()
	l := open(t, "").dial()
	if got := l.ask(`[{"jsonrpc":"2.0","id":1,"method":"pools.list"}]`); !strings.Contains(got,
		"batches are not taken") {
		t.Errorf("got %s", got)
	}
	if got := l.ask(`{"jsonrpc":"2.0","id":1,"method":"pools.list"}`); !strings.Contains(got, `"id":1,"result":`) {
		t.Errorf("got %s", got)
	}
}

// A message without an end, and one that is too long, take no more than their share.
func TestSessionTooLong(t *testing.T) {
	t.Parallel()
	h := open(t, "")
	l := h.dial()
	l.say(`{"jsonrpc":"2.0","id":1,"method":"` + strings.Repeat("x", 70<<10) + `"}`)
	if got := l.hear(); !strings.Contains(got, "the message is longer than 65536 bytes") {
		t.Errorf("got %s", got)
	}
	if got := l.hear(); !strings.HasPrefix(got, "closed") {
		t.Errorf("got %s", got)
	}
}

// holderScript is a process that takes n slots in a session and waits for its end.
const holderScript = `import json, os, socket, sys
s = socket.socket(socket.AF_UNIX); s.connect(sys.argv[1])
r = {"jsonrpc":"2.0","id":1,"method":"lease.acquire","params":json.loads(sys.argv[2])}
s.sendall((json.dumps(r)+"\n").encode())
print(s.makefile().readline(), end="", flush=True)
if len(sys.argv) > 3 and os.fork() == 0:
    print("forked", os.getpid(), flush=True)
sys.stdin.readline()
`

// holder starts a process that holds slots; more makes it fork a child that has its socket, too.
func (h *house) holder(params string, more ...string) (*exec.Cmd, wire.Lease, *bufio.Scanner) {
	h.t.Helper()
	return h.holderIn(nil, params, more...)
}

// holderIn is holder, in namespaces of its own.
func (h *house) holderIn(attr *syscall.SysProcAttr, params string,
	more ...string) (*exec.Cmd, wire.Lease, *bufio.Scanner) {
	h.t.Helper()
	if _, err := exec.LookPath("python3"); err != nil {
		lacks(h.t, "there is no python3, which plays the product")
	}
	cmd := exec.Command("python3",
		append([]string{"-c", cmp.Or(h.script, holderScript), h.Socket(), params}, more...)...)
	cmd.Stderr = os.Stderr
	cmd.SysProcAttr = attr
	if _, err := cmd.StdinPipe(); err != nil {
		h.t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		h.t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		h.t.Fatal(err)
	}
	h.t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
	in := bufio.NewScanner(out)
	if !in.Scan() {
		h.t.Fatal("the holder says nothing")
	}
	return cmd, lease(h.t, in.Text()), in
}

// A slot comes back when its holder is killed, and the first who waits has it: by the kernel's word, in milliseconds.
func TestKilledHolder(t *testing.T) {
	t.Parallel()
	h := open(t, "")
	h.drop("a.lic", h.sign("a", 1, nil))
	h.until("dropped", inForce("a"))
	cmd, l, _ := h.holder(`{"pool":"streams"}`)
	if l.Lifetime != "process" || l.Holder == nil || int(l.Holder.PID) != cmd.Process.Pid {
		t.Fatalf("the lease: %+v", l)
	}
	w := h.wait(t.Context(), wire.AcquireRequest{Pool: "streams", WaitSeconds: 60})
	killed := time.Now()
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	<-w.done
	if w.err != nil {
		t.Fatal(w.err)
	}
	t.Logf("by %s, %v after the kill", l.Liveness, time.Since(killed))
	m, err := h.Metrics(t.Context())
	if err != nil || !strings.Contains(string(m), `usher_releases_total{cause="holder_gone",pool="streams"} 1`) {
		t.Errorf("the metrics do not say why: %v", err)
	}
}

// A child that has inherited the socket does not keep a dead holder's slot.
func TestForkedChildKeepsNothing(t *testing.T) {
	t.Parallel()
	h := open(t, "")
	h.drop("a.lic", h.sign("a", 1, nil))
	h.until("dropped", inForce("a"))
	cmd, l, in := h.holder(`{"pool":"streams"}`, "fork")
	if l.Liveness == "connection" {
		t.Skip("this kernel does not tell when a process dies")
	}
	if !in.Scan() || !strings.HasPrefix(in.Text(), "forked") {
		t.Fatal("no child")
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	h.inUse(0)
	var child int
	if _, err := fmt.Sscanf(in.Text(), "forked %d", &child); err == nil {
		if p, err := os.FindProcess(child); err == nil {
			p.Kill()
		}
	}
}

// Many leases of one process take one watch, and all end with it; one that joined keeps a lease alive.
func TestManyLeasesOneProcess(t *testing.T) {
	t.Parallel()
	h := open(t, "")
	h.drop("a.lic", h.sign("a", 100, nil))
	h.until("dropped", inForce("a"))
	cmd, first, _ := h.holder(`{"pool":"streams","n":2}`)
	if first.Liveness == "connection" {
		t.Skip("this kernel does not tell when a process dies")
	}
	l := h.dial()
	for range 20 {
		lease(t, l.ask(`{"jsonrpc":"2.0","id":1,"method":"lease.acquire","params":{"pool":"streams"}}`))
	}
	if got := l.ask(`{"jsonrpc":"2.0","id":2,"method":"lease.join","params":{"id":"` + first.ID +
		`"}}`); !strings.Contains(got, `"others":[{`) {
		t.Fatalf("join: %s", got)
	}
	h.inUse(22)
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	// The first holder has gone; the one that joined has it.
	deadline, rest := time.Now().Add(60*time.Second), pause()
	for {
		got, err := h.Lease(t.Context(), first.ID)
		if err != nil {
			t.Fatalf("the lease that was joined is over: %v", err)
		}
		if int(got.Holder.PID) == os.Getpid() && len(got.Others) == 0 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("the holder is still %+v", got.Holder)
		}
		rest()
	}
	h.inUse(22)
}

// The client's session: slots held by this process, given back by Close, lost when they are forced.
func TestClientSession(t *testing.T) {
	t.Parallel()
	h := open(t, "")
	h.drop("a.lic", h.sign("a", 2, nil))
	h.until("dropped", inForce("a"))
	s, err := client.Open(t.Context(), client.WithSocket(h.Socket()), client.WithLabels(map[string]string{"job": "1"}))
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if you := s.Agent().You; int(you.PID) != os.Getpid() {
		t.Errorf("the agent sees %+v", you)
	}
	a, err := s.Acquire(t.Context(), wire.AcquireRequest{Pool: "streams"})
	if err != nil {
		t.Fatal(err)
	}
	b, err := s.Acquire(t.Context(), wire.AcquireRequest{Pool: "streams", Lifetime: "connection"})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Acquire(t.Context(), wire.AcquireRequest{Pool: "streams"}); !errors.Is(err, client.ErrNoSlots) {
		t.Errorf("one too many: %v", err)
	}
	if err := a.Close(); err != nil {
		t.Error(err)
	}
	h.inUse(1)
	if err := h.Release(t.Context(), b.Info().ID, true); err != nil {
		t.Fatal(err)
	}
	<-b.Done()
	if !errors.Is(b.Err(), client.ErrLeaseUnknown) || !strings.Contains(b.Err().Error(), "forced") {
		t.Errorf("lost: %v", b.Err())
	}
	if err := errors.Join(a.Close(), b.Close()); err != nil {
		t.Error(err)
	}
	// A wait that is given up holds nothing, and the session goes on.
	full, err := s.Acquire(t.Context(), wire.AcquireRequest{Pool: "streams", N: new(int64(2)), Lifetime: "held"})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := s.Acquire(ctx, wire.AcquireRequest{Pool: "streams", WaitSeconds: 60}); !errors.Is(err,
		context.DeadlineExceeded) {
		t.Errorf("given up: %v", err)
	}
	h.untilWaiting(0)
	h.release(&wire.Lease{ID: full.Info().ID})
	h.inUse(0)
	if _, err = s.Pools(t.Context()); err != nil || s.Stats().Reconnects != 0 {
		t.Errorf("a wait that is given up breaks the session: %v", err)
	}
}

// tableRow is a method's line in docs/wire.md.
var tableRow = regexp.MustCompile("(?m)^\\| `([a-z]+\\.[a-z]+)` \\|")

func read(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// python runs a script until the test ends and returns what it says.
func (h *house) python(script string, args ...string) *bufio.Scanner {
	h.t.Helper()
	if _, err := exec.LookPath("python3"); err != nil {
		lacks(h.t, "there is no python3")
	}
	cmd := exec.Command("python3", append([]string{"-c", script}, args...)...)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		h.t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		h.t.Fatal(err)
	}
	h.t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
	return bufio.NewScanner(out)
}

func agentThumbprint(key ed25519.PublicKey) string { return identity.Thumbprint(key) }

// A shell speaks a whole session, as docs/wire.md shows.
func TestShellSession(t *testing.T) {
	t.Parallel()
	if _, err := exec.LookPath("socat"); err != nil {
		install := exec.Command("apt-get", "install", "-y", "-q", "socat")
		install.Env = append(os.Environ(), "DEBIAN_FRONTEND=noninteractive")
		if out, err := install.CombinedOutput(); err != nil {
			t.Skipf("there is no socat, and it cannot be installed: %v\n%s", err, out)
		}
	}
	h := open(t, "")
	h.drop("a.lic", h.sign("a", 2, nil))
	h.until("dropped", inForce("a"))
	cmd := exec.Command("sh", "-c", `{
	echo '{"jsonrpc":"2.0","id":1,"method":"session.hello","params":{"client":"sh"}}'
	echo '{"jsonrpc":"2.0","id":2,"method":"lease.acquire","params":{"pool":"streams","n":2}}'
	echo '{"jsonrpc":"2.0","id":3,"method":"lease.acquire","params":{"pool":"streams"}}'
	echo '{"jsonrpc":"2.0","id":4,"method":"pools.list"}'
} | socat -t5 - UNIX-CONNECT:"$USHER_SOCKET"`)
	cmd.Env = append(os.Environ(), "USHER_SOCKET="+h.Socket())
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSpace(string(out)), "\n")
	want := []string{`"id":1,"result":{"versions":[1]`, `"id":2,"result":{"id":`, `"id":3,"error":{"code":-32000`,
		`"in_use":2`}
	if len(lines) != len(want) {
		t.Fatalf("got %d lines:\n%s", len(lines), out)
	}
	for i, w := range want {
		if !strings.Contains(lines[i], w) {
			t.Errorf("got  %s\nwant %s", lines[i], w)
		}
	}
	h.inUse(0) // the shell's process is over
}
