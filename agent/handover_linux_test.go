package agent_test

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/usher-agent/usher/agent/liveness/oldkernel"
	"github.com/usher-agent/usher/client/wire"
)

func init() { oldkernel.Main() }

// own puts the agent into a PID namespace of its own, which outlives it, so that it sees none of its callers.
func (c *crashing) own() {
	c.t.Helper()
	if os.Getuid() != 0 {
		lacks(c.t, "a PID namespace of its own needs root")
	}
	first := exec.Command("sh", "-c", `mount --make-rprivate / && mount -t proc proc /proc && echo ready && exec cat`)
	first.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWPID | syscall.CLONE_NEWNS}
	in, err := first.StdinPipe()
	if err != nil {
		c.t.Fatal(err)
	}
	out, err := first.StdoutPipe()
	if err != nil {
		c.t.Fatal(err)
	}
	if err := first.Start(); err != nil {
		lacks(c.t, "this sandbox does not give a PID namespace: %v", err)
	}
	c.t.Cleanup(func() { in.Close(); first.Process.Kill(); first.Wait() })
	if n, _ := out.Read(make([]byte, 8)); n == 0 {
		lacks(c.t, "this sandbox does not let us mount /proc")
	}
	enter, err := exec.LookPath("nsenter")
	if err != nil {
		lacks(c.t, "there is no nsenter")
	}
	c.through = []string{enter, "-t", strconv.Itoa(first.Process.Pid), "-p", "-m"}
}

// manager plays systemd: it keeps what it is sent, and hands it to the next agent.
type manager struct {
	t    *testing.T
	conn *net.UnixConn
	mu   sync.Mutex
	kept map[string]int // descriptors by their names
}

func manage(c *crashing, t *testing.T) *manager {
	t.Helper()
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: c.path("n"), Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	m := &manager{t: t, conn: conn, kept: map[string]int{}}
	done := make(chan struct{})
	go func() { defer close(done); m.serve() }()
	t.Cleanup(func() {
		conn.Close()
		<-done
		for _, fd := range m.kept {
			syscall.Close(fd)
		}
	})
	c.prepare = func(cmd *exec.Cmd) {
		m.mu.Lock()
		defer m.mu.Unlock()
		var names []string
		for name, fd := range m.kept {
			names = append(names, name)
			dup, err := syscall.Dup(fd)
			if err != nil {
				t.Fatal(err)
			}
			cmd.ExtraFiles = append(cmd.ExtraFiles, os.NewFile(uintptr(dup), name))
		}
		cmd.Env = append(os.Environ(), "NOTIFY_SOCKET="+c.path("n"))
		if len(names) > 0 {
			cmd.Env = append(cmd.Env, "LISTEN_FDS="+strconv.Itoa(len(names)),
				"LISTEN_FDNAMES="+strings.Join(names, ":"))
		}
	}
	return m
}

func (m *manager) serve() {
	b, oob := make([]byte, 4096), make([]byte, 256)
	for {
		n, oobn, _, _, err := m.conn.ReadMsgUnix(b, oob)
		if err != nil {
			return
		}
		vars := map[string]string{}
		for line := range strings.Lines(string(b[:n])) {
			k, v, _ := strings.Cut(strings.TrimSpace(line), "=")
			vars[k] = v
		}
		var fds []int
		if messages, err := syscall.ParseSocketControlMessage(oob[:oobn]); err == nil && len(messages) > 0 {
			fds, _ = syscall.ParseUnixRights(&messages[0])
		}
		m.mu.Lock()
		name := vars["FDNAME"]
		old, had := m.kept[name]
		switch {
		case vars["FDSTORE"] == "1" && len(fds) == 1 && vars["FDPOLL"] == "0":
			m.kept[name] = fds[0]
			fds = nil
			if had {
				m.t.Errorf("%s is stored twice", name)
				syscall.Close(old)
			}
		case vars["FDSTOREREMOVE"] == "1":
			delete(m.kept, name)
			syscall.Close(old)
		}
		m.mu.Unlock()
		for _, fd := range fds {
			m.t.Errorf("a descriptor came with %q", b[:n])
			syscall.Close(fd)
		}
	}
}

// until waits until so many pidfds are kept, and the socket.
func (m *manager) until(pidfds int) {
	m.t.Helper()
	deadline := time.Now().Add(60 * time.Second)
	for {
		m.mu.Lock()
		n, sockets := 0, 0
		for name := range m.kept {
			if strings.HasPrefix(name, "pid.") {
				n++
			} else if strings.HasPrefix(name, "socket.") {
				sockets++
			}
		}
		m.mu.Unlock()
		if n == pidfds && sockets == 1 {
			return
		}
		if time.Now().After(deadline) {
			m.t.Fatalf("%d pidfds and %d sockets are kept, want %d and 1", n, sockets, pidfds)
		}
		<-time.After(time.Millisecond)
	}
}

func (c *crashing) state(id string) string {
	l, err := c.Lease(context.Background(), id)
	if err != nil {
		return "none"
	}
	return l.State
}

// A holder in a PID namespace that the agent does not see: its slot is back when it dies, and nothing is freed because
// nobody can tell whether it lives.
func TestHolderInASiblingNamespace(t *testing.T) {
	t.Parallel()
	c := openCrashing(t, 3, nil)
	c.kill()
	c.own()
	c.run()
	sibling := &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWPID}
	first, a, _ := c.holderIn(sibling, `{"pool":"streams"}`)
	second, b, _ := c.holderIn(sibling, `{"pool":"streams"}`)
	if a.Holder == nil || a.Holder.PID != 0 {
		t.Fatalf("the agent sees its holder: %+v", a.Holder)
	}
	if a.Liveness != "peerpidfd" {
		t.Skipf("the way is %s on this kernel", a.Liveness)
	}
	first.Process.Kill()
	c.untilGone(a.ID)
	if s := c.state(b.ID); s != "held" {
		t.Errorf("the other's lease is %s", s)
	}
	c.kill()
	c.run()
	if s := c.state(b.ID); s != "unconfirmed" {
		t.Errorf("after a restart the lease of one that nobody can see is %s", s)
	}
	second.Process.Kill()
}

// The service manager keeps the socket and the holders' pidfds: after a crash, and after a restart, nothing is in
// doubt, the dead one's slot is free, and who connected meanwhile is answered. The agent sees none of its holders, so
// nothing else tells.
func TestServiceManagerKeepsHolders(t *testing.T) {
	t.Parallel()
	c := openCrashing(t, 8, nil)
	c.kill()
	c.own()
	m := manage(c, t)
	c.run()
	m.until(0)
	sibling := &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWPID}
	long, a, _ := c.holderIn(sibling, `{"pool":"streams"}`)
	if a.Liveness != "peerpidfd" {
		t.Skipf("the way is %s on this kernel", a.Liveness)
	}
	for i, stop := range []func(){c.kill, c.terminate} {
		dying, b, _ := c.holderIn(sibling, `{"pool":"streams"}`)
		_, d, _ := c.holderIn(nil, `{"pool":"streams"}`)
		m.until(3 + i)
		stop()
		dying.Process.Kill()
		dying.Wait()
		l := c.dial() // nobody is there
		l.say(`{"jsonrpc":"2.0","id":1,"method":"pools.list"}`)
		c.run()
		if got := l.hear(); !strings.Contains(got, `"streams"`) {
			t.Errorf("who connected meanwhile was answered %s", got)
		}
		for id, want := range map[string]string{a.ID: "held", b.ID: "none", d.ID: "held"} {
			if got := c.state(id); got != want {
				t.Errorf("restart %d: lease %s is %s, want %s", i, id, got, want)
			}
		}
		text, err := c.Metrics(t.Context())
		if want := fmt.Sprintf("usher_holders{liveness=\"peerpidfd\"} %d\n", 2+i); err != nil ||
			!strings.Contains(string(text), want) || !strings.Contains(string(text), "usher_leases_unconfirmed 0\n") {
			t.Errorf("the metrics lack %q or have leases unconfirmed: %v", want, err)
		}
		m.until(2 + i)
	}
	long.Process.Kill()
	c.untilGone(a.ID) // who was kept is watched
	m.until(2)
}

// sender says a line with a pidfd of itself, or of another, beside it.
const senderScript = `import json, os, socket, sys
s = socket.socket(socket.AF_UNIX); s.connect(sys.argv[1])
of = os.getppid() if "parent" in sys.argv[3:] else os.getpid()
line = (json.dumps({"jsonrpc":"2.0","id":1,"method":"lease.acquire","params":json.loads(sys.argv[2])})+"\n").encode()
socket.send_fds(s, [line], [os.pidfd_open(of)])
print(s.makefile().readline(), end="", flush=True)
sys.stdin.readline()
`

// On an older kernel the pidfd that a client sends of itself tells when it dies, seen or not.
func TestSentPIDFDOnAnOlderKernel(t *testing.T) {
	t.Parallel()
	if err := exec.Command("python3", "-c",
		"import os, socket; os.pidfd_open(os.getpid()); socket.send_fds").Run(); err != nil {
		t.Skip("there is no python3 that can send a pidfd")
	}
	for _, unseen := range []bool{false, true} {
		t.Run(fmt.Sprintf("unseen %v", unseen), func(t *testing.T) {
			c := openCrashing(t, 5, nil)
			c.kill()
			if unseen {
				c.own()
			}
			c.kernel = "6.1"
			c.run()
			c.script = senderScript
			cmd, itself, _ := c.holderIn(nil, `{"pool":"streams"}`)
			_, another, _ := c.holderIn(nil, `{"pool":"streams"}`, "parent")
			c.script = ""
			_, none, _ := c.holderIn(nil, `{"pool":"streams"}`)
			want := []string{"sentpidfd", "pidfd", "pidfd"}
			if unseen { // of a process that is not seen nothing shows whose pidfd it is
				want = []string{"sentpidfd", "sentpidfd", "connection"}
			}
			if got := []string{itself.Liveness, another.Liveness, none.Liveness}; fmt.Sprint(got) != fmt.Sprint(want) {
				t.Errorf("the ways are %v, want %v", got, want)
			}
			cmd.Process.Kill()
			c.untilGone(itself.ID)
			c.inUse(2)
			if !unseen {
				c.floods()
			}
		})
	}
}

// beside writes, and sends a descriptor beside each write.
type beside struct {
	*net.UnixConn
	fds []int
}

func (b beside) Write(p []byte) (int, error) {
	n, _, err := b.WriteMsgUnix(p, unix.UnixRights(b.fds...), nil)
	return n, err
}

// connect returns a connection to the agent.
func (c *crashing) connect() *net.UnixConn {
	t := c.t
	conn, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: c.Socket(), Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	conn.SetDeadline(time.Now().Add(60 * time.Second))
	return conn
}

// speakWith speaks in a session, over HTTP and inside TLS, with descriptors beside what it sends.
func (c *crashing) speakWith(fds []int) {
	t := c.t
	plain := c.connect() // a session
	defer plain.Close()
	for range 5 {
		if _, err := (beside{plain, fds}).Write([]byte(`{"jsonrpc":"2.0","id":1,"method":"pools.list"}` +
			"\n")); err != nil {
			t.Fatal(err)
		}
		if n, err := plain.Read(make([]byte, 4096)); err != nil || n == 0 {
			t.Errorf("a session: %d bytes, %v", n, err)
		}
	}
	hc := http.Client{Transport: &http.Transport{DisableKeepAlives: true,
		DialContext: func(context.Context, string, string) (net.Conn, error) {
			return beside{c.connect(), fds}, nil
		}}}
	resp, err := hc.Get("http://usher/v1/pools")
	if err != nil {
		t.Errorf("HTTP: %v", err)
	} else {
		resp.Body.Close()
	}
	secret := tls.Client(beside{c.connect(), fds}, &tls.Config{InsecureSkipVerify: true, MinVersion: tls.VersionTLS13})
	defer secret.Close()
	if _, err := secret.Write(
		[]byte(
			`{"jsonrpc":"2.0","id":1,"method":"lease.acquire","params":{"pool":"streams","lifetime":"process"}}` +
				"\n")); err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 4096)
	n, err := secret.Read(b)
	var answer struct{ Result wire.Lease }
	if err != nil || json.Unmarshal(b[:n], &answer) != nil || answer.Result.ID == "" {
		t.Fatalf("inside TLS: %s, %v", b[:n], err)
	}
	if want := map[bool]string{true: "sentpidfd", false: "pidfd"}[len(fds) == 1]; answer.Result.Liveness != want {
		t.Errorf("with %d descriptors the way inside TLS is %s, want %s", len(fds), answer.Result.Liveness, want)
	}
	if err := c.Release(context.Background(), answer.Result.ID, false); err != nil {
		t.Error(err)
	}
}

// floods sends descriptors that nobody wants, by every protocol. None stays with the agent, and all are answered.
func (c *crashing) floods() {
	t := c.t
	files := func() int {
		d, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", c.cmd.Process.Pid))
		if err != nil {
			t.Fatal(err)
		}
		return len(d)
	}
	self, err := unix.PidfdOpen(os.Getpid(), 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(self)
	null, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	many := []int{int(null.Fd()), self}
	for len(many) < 200 {
		many = append(many, int(null.Fd()))
	}
	c.Pools(context.Background())
	before := files()
	for range 10 {
		c.speakWith(many)
		c.speakWith([]int{self})
	}
	deadline := time.Now().Add(60 * time.Second)
	for files() > before { // connections that are closed here are closed there soon
		if time.Now().After(deadline) {
			t.Fatalf("the agent has %d descriptors open, %d before", files(), before)
		}
		<-time.After(time.Millisecond)
	}
}
