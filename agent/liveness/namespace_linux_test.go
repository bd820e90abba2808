package liveness

import (
	"errors"
	"net"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
)

// As the agent sees a container: the number is ours, the holder has another.
func TestChildPIDNamespace(t *testing.T) {
	w := running(t)
	l, path := listen(t)
	c := spawnWith(t, &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWPID}, "connect", path)
	h := fromConn(t, accept(t, l))
	if h.Process().PID != c.pid() {
		t.Errorf("process %d, want %d", h.Process().PID, c.pid())
	}
	_, told := watch(t, w, h)
	c.end()
	within(t, told)
}

// siblingEnv makes a run of these tests the agent within a PID namespace of its own; its value is a socket path.
const siblingEnv = "LIVENESS_TEST_SIBLING"

// The holder is in a PID namespace that the agent does not see: here, our own, while the agent is in one below.
func TestSiblingPIDNamespace(t *testing.T) {
	if path := os.Getenv(siblingEnv); path != "" {
		sibling(t, path)
		return
	}
	if os.Getuid() != 0 {
		t.Skip("a PID namespace of its own needs root")
	}
	if !Supported().PIDFDOpen {
		t.Skip("no pidfd_open on this kernel")
	}
	dir, err := os.MkdirTemp("", "u")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	// The agent needs a /proc of its namespace. A mount namespace of its own keeps it from everybody else.
	agent := exec.Command("/bin/sh", "-c", `mount --make-rprivate / && mount -t proc proc /proc || exit 77
exec "$0" -test.run='^TestSiblingPIDNamespace$' -test.v`, exe)
	agent.Env = append(os.Environ(), siblingEnv+"="+dir+"/s")
	agent.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWPID | syscall.CLONE_NEWNS}
	var out strings.Builder
	agent.Stdout, agent.Stderr = &out, &out
	if err := agent.Start(); err != nil {
		t.Skipf("this sandbox does not give a PID namespace: %v", err)
	}
	gone := make(chan error, 1)
	go func() { gone <- agent.Wait() }()
	over := false
	eventually(t, "the agent listens", func() bool {
		if _, err := os.Stat(dir + "/s"); err == nil {
			return true
		}
		select {
		case err = <-gone:
			over = true
			return true
		default:
			return false
		}
	})
	if over {
		if agent.ProcessState.ExitCode() == 77 {
			t.Skipf("this sandbox does not let us mount /proc: %s", out.String())
		}
		t.Fatalf("%v\n%s", agent.ProcessState, out.String())
	}
	c := spawn(t, "send", dir+"/s")
	eventually(t, "the agent has the holder", func() bool {
		_, err := os.Stat(dir + "/held")
		return err == nil || len(gone) > 0
	})
	c.end()
	if err := <-gone; err != nil {
		t.Fatalf("%v\n%s", err, out.String())
	}
	t.Log(out.String())
}

// sibling is the agent of TestSiblingPIDNamespace.
func sibling(t *testing.T, path string) {
	w := running(t)
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	conn := accept(t, l)
	fd, ok := receive(t, conn)
	if !ok {
		t.Fatal("no pidfd came")
	}
	sent, err := FromPIDFD(fd)
	if err != nil {
		t.Fatal(err)
	}
	defer sent.Close()
	_, toldSent := watch(t, w, sent)
	toldPeer := toldSent
	if Supported().PeerPIDFD {
		peer := fromConn(t, conn)
		_, toldPeer = watch(t, w, peer)
		if Supported().PIDFS && w.Len() != 1 {
			t.Errorf("%d processes, want one, known by its inode", w.Len())
		}
	} else if h, err := FromConn(conn, nil); !errors.Is(err, ErrUnsupported) {
		t.Errorf("by its number, which is not ours: %v, %v", h, err)
	}
	p := sent.Process()
	t.Logf("%+v", p)
	if p.PID != 0 {
		t.Errorf("it is visible, as %d", p.PID)
	}
	if h, s := Find(p); s == Dead {
		t.Errorf("Find: dead, of one that lives")
	} else if s == Alive {
		_ = h.Close()
	}
	if err := os.WriteFile(path[:len(path)-1]+"held", nil, 0o600); err != nil {
		t.Fatal(err)
	}
	within(t, toldSent)
	within(t, toldPeer)
}
