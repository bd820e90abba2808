package agent_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/usher-agent/usher/client"
	"github.com/usher-agent/usher/client/wire"
)

// A thousand half-open sessions and idle connections hurt nobody, a user who wants more than his share is told so, and
// all of it is given back.
func TestManyConnections(t *testing.T) {
	t.Parallel()
	h := open(t, "limits: {connections_per_uid: 1100}\n")
	h.drop("a.lic", h.sign("a", 3, nil))
	h.until("dropped", inForce("a"))
	var all []net.Conn
	defer func() {
		for _, c := range all {
			c.Close()
		}
	}()
	for i := range 1000 {
		c, err := net.Dial("unix", h.Socket())
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, c)
		if i%2 == 0 { // half a message
			if _, err := c.Write([]byte(`{"jsonrpc":"2.0","id":1,`)); err != nil {
				t.Fatal(err)
			}
		}
	}
	l, err := h.Acquire(t.Context(), wire.AcquireRequest{Pool: "streams"}) // it is answered beside them
	if err != nil {
		t.Fatal(err)
	}
	h.release(l)
	var more []net.Conn
	for range 300 { // all of them before the first is answered: on a busy machine those that idle are reaped meanwhile
		c, err := net.Dial("unix", h.Socket())
		if err != nil {
			t.Fatal(err)
		}
		all, more = append(all, c), append(more, c)
		if _, err := c.Write([]byte("GET /v1/health HTTP/1.1\r\nHost: x\r\n\r\n")); err != nil &&
			!errors.Is(err, syscall.EPIPE) {
			t.Fatal(err)
		}
	}
	refused := ""
	for _, c := range more {
		b := make([]byte, 4096)
		if err := c.SetReadDeadline(time.Now().Add(60 * time.Second)); err != nil {
			t.Fatal(err)
		}
		if n, _ := c.Read(b); strings.Contains(string(b[:n]), "429") {
			refused = string(b[:n])
			break
		}
	}
	if !strings.Contains(refused, "has 1100 connections, the most one user may have") {
		t.Errorf("one too many: %q", refused)
	}
	for _, c := range all {
		c.Close()
	}
	all = nil
	deadline := time.Now().Add(60 * time.Second)
	for {
		c := client.New(h.Socket())
		_, err := c.Pools(t.Context())
		c.Close()
		if err == nil {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal(err)
		}
		<-time.After(10 * time.Millisecond)
	}
}

// Ten thousand connections that say nothing more are held at a few kilobytes each, and beside them others are served.
func TestIdleConnections(t *testing.T) {
	t.Parallel()
	const want = 10_000
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	// an agent and its callers are two processes here, with this limit each
	if need := uint64(want + 500); limit.Max < need {
		t.Skipf("%d descriptors are needed, and the limit is %d", need, limit.Max)
	}
	c := openCrashing(t, 3, nil)
	c.kill()
	c.config += fmt.Sprintf("limits: {connections_per_uid: %d}\n", want+100)
	if err := os.WriteFile(c.path("usher.yaml"), []byte(c.config), 0o600); err != nil {
		t.Fatal(err)
	}
	c.run()
	memory := func() (kb int64) { // resident, with the race detector's share
		for line := range strings.Lines(read(t, fmt.Sprintf("/proc/%d/status", c.cmd.Process.Pid))) {
			if _, err := fmt.Sscanf(line, "VmRSS: %d kB", &kb); err == nil {
				return kb
			}
		}
		t.Fatal("the agent's memory is not known")
		return 0
	}
	// Half are sessions, which have said a request and are answered, and half have called over HTTP and are kept alive.
	const session, call = `{"jsonrpc":"2.0","id":1,"method":"session.hello"}` +
		"\n", "GET /v1/health HTTP/1.1\r\nHost: x\r\n\r\n"
	before := memory()
	all := make([]net.Conn, 0, want)
	defer func() {
		for _, c := range all {
			c.Close()
		}
	}()
	answer := make([]byte, 4096)
	heard := func() { // the answers to the last hundred
		t.Helper()
		for i := len(all) - 100; i < len(all); i++ {
			if n, err := all[i].Read(answer); err != nil ||
				!strings.Contains(string(answer[:n]), []string{`"result"`, "200 OK"}[i%2]) {
				t.Fatalf("connection %d: %q, %v", i, answer[:n], err)
			}
		}
	}
	for i := range want {
		conn, err := net.Dial("unix", c.Socket())
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, conn)
		if err := conn.SetDeadline(time.Now().Add(30 * time.Second)); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(conn, []string{session, call}[i%2]); err != nil {
			t.Fatal(err)
		}
		if len(all)%100 == 0 {
			heard()
		}
	}
	each := (memory() - before) * 1024 / want
	t.Logf("%d bytes of the agent's memory an idle connection", each)
	if each > 256<<10 { // no buffer the size of a message or a body is kept for it
		t.Errorf("an idle connection takes %d bytes", each)
	}
	for range 10 {
		stranger := client.New(c.Socket())
		l, err := stranger.Acquire(t.Context(), wire.AcquireRequest{Pool: "streams"})
		if err != nil {
			t.Fatal(err)
		}
		c.release(l)
		stranger.Close()
	}
}

// A holder that is stopped holds on; an agent that is stopped answers when it goes on, and nothing is lost.
func TestStopped(t *testing.T) {
	t.Parallel()
	c := openCrashing(t, 2, nil)
	cmd, l, _ := c.holder(`{"pool":"streams"}`)
	if err := cmd.Process.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	untilStopped(t, cmd.Process.Pid)
	if got, err := c.Lease(t.Context(), l.ID); err != nil || got.State != "held" {
		t.Errorf("of a stopped holder: %+v, %v", got, err)
	}
	goOn := c.pause()
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	if _, err := c.Lease(ctx, l.ID); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("of a stopped agent: %v", err)
	}
	if err := cmd.Process.Kill(); err != nil { // it dies while the agent cannot look
		t.Fatal(err)
	}
	goOn()
	c.inUse(0)
}

// A program that a holder becomes is the same process: it holds on, and the slot comes back when it dies.
func TestProcessLeaseEndsWithExec(t *testing.T) {
	t.Parallel()
	h := open(t, "")
	h.drop("a.lic", h.sign("a", 2, nil))
	h.until("dropped", inForce("a"))
	in := h.python(`import json, os, socket, sys
s = socket.socket(socket.AF_UNIX); s.connect(sys.argv[1])
s.sendall(b'{"jsonrpc":"2.0","id":1,"method":"lease.acquire","params":{"pool":"streams"}}\n')
print(s.makefile().readline(), end="", flush=True)
os.execvp("sleep", ["sleep", "1000"])
`, h.Socket())
	if !in.Scan() {
		t.Fatal("the holder says nothing")
	}
	l := lease(t, in.Text())
	if l.Liveness == "connection" {
		t.Skip("this kernel does not tell when a process dies")
	}
	// The program that it has become is the same process, and holds on without the connection.
	deadline := time.Now().Add(60 * time.Second)
	for {
		exe, err := os.Readlink("/proc/" + strconv.Itoa(int(l.Holder.PID)) + "/exe")
		if err == nil && strings.Contains(exe, "sleep") || strings.Contains(exe, "coreutils") ||
			strings.Contains(exe, "busybox") {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("it never became the program: %s, %v", exe, err)
		}
		<-time.After(time.Millisecond)
	}
	h.inUse(1)
	if err := unix.Kill(int(l.Holder.PID), unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	h.inUse(0)
}
