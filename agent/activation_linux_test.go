package agent_test

import (
	"net"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// activate plays systemd with a socket unit: it listens on a path, and hands the socket to each agent. It returns the
// unit's listener.
func activate(c *crashing, path string) *net.UnixListener {
	c.t.Helper()
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		c.t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	c.t.Cleanup(func() { l.Close() })
	if err := os.Chmod(path, 0o606); err != nil { // no mode that the agent gives
		c.t.Fatal(err)
	}
	c.prepare = func(cmd *exec.Cmd) {
		f, err := l.File()
		if err != nil {
			c.t.Fatal(err)
		}
		cmd.ExtraFiles = append(cmd.ExtraFiles, f)
		cmd.Env = append(cmd.Env, "LISTEN_FDS=1", "LISTEN_FDNAMES=usher@acme.socket")
	}
	return l
}

// The service manager listens on the agent's socket: a caller that comes before the agent is answered, the file keeps
// its mode, and it outlives every agent.
func TestSocketUnit(t *testing.T) {
	t.Parallel()
	c := openCrashing(t, 3, nil)
	c.terminate()
	activate(c, c.Socket())
	was, err := os.Lstat(c.Socket())
	if err != nil {
		t.Fatal(err)
	}
	for round, stop := range []func(){c.terminate, c.kill, c.terminate} {
		early := c.dial()
		early.say(`{"jsonrpc":"2.0","id":1,"method":"pools.list"}`)
		c.run()
		if got := early.hear(); !strings.Contains(got, `"streams"`) {
			t.Errorf("round %d: the early caller is answered %s", round, got)
		}
		c.listens()
		is, err := os.Lstat(c.Socket())
		if err != nil || !os.SameFile(was, is) || is.Mode().Perm() != 0o606 {
			t.Errorf("round %d: the socket's file is %v, %v, and was %v", round, is, err, was)
		}
		stop()
	}
	if is, err := os.Lstat(c.Socket()); err != nil || !os.SameFile(was, is) {
		t.Errorf("the agent has removed a socket that is not its own: %v", err)
	}
}

// The file of the service manager's socket is removed: while the agent runs it binds one of its own, and so does the
// next agent. Nobody is left with a socket that nobody reaches.
func TestSocketUnitWithoutItsFile(t *testing.T) {
	t.Parallel()
	c := openCrashing(t, 3, nil)
	c.terminate()
	activate(c, c.Socket())
	c.run()
	if err := os.Remove(c.Socket()); err != nil {
		t.Fatal(err)
	}
	again := func(when string) {
		t.Helper()
		deadline := time.Now().Add(60 * time.Second)
		for {
			if conn, err := net.Dial("unix", c.Socket()); err == nil {
				conn.Close()
				break
			}
			if time.Now().After(deadline) {
				t.Fatalf("%s: nobody reaches the agent", when)
			}
			<-time.After(time.Millisecond)
		}
		if _, err := c.Pools(t.Context()); err != nil {
			t.Errorf("%s: %v", when, err)
		}
	}
	again("the file was removed under a running agent")
	for _, stop := range []func(){c.kill, c.terminate} {
		stop()
		c.run()
		again("the agent came again")
	}
}

// A socket unit that listens elsewhere is told of, and the agent has its own socket.
func TestSocketUnitElsewhere(t *testing.T) {
	t.Parallel()
	c := openCrashing(t, 3, nil)
	c.terminate()
	activate(c, c.path("elsewhere"))
	log, err := os.Create(c.path("log"))
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	c.log = log
	c.run()
	b, err := os.ReadFile(c.path("log"))
	if err != nil || !strings.Contains(string(b), "usher@acme.socket") || !strings.Contains(string(b), "elsewhere") {
		t.Errorf("the log does not name the unit and its path: %s, %v", b, err)
	}
}

// listens looks that callers see the agent at the other end of its socket, whoever has opened it.
func (c *crashing) listens() {
	c.t.Helper()
	conn := c.connect()
	defer conn.Close()
	raw, err := conn.SyscallConn()
	if err != nil {
		c.t.Fatal(err)
	}
	if err := raw.Control(func(fd uintptr) {
		peer, err := unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
		if err != nil || int(peer.Pid) != c.cmd.Process.Pid {
			c.t.Errorf("callers see %+v, %v at the other end, and the agent is %d", peer, err, c.cmd.Process.Pid)
		}
	}); err != nil {
		c.t.Error(err)
	}
}
