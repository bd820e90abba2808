package liveness

import (
	"errors"
	"net"
	"os"
	"os/exec"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/usher-agent/usher/agent/liveness/oldkernel"
)

func init() { oldkernel.Main() }

// releaseEnv names the release that a run of these tests is to find.
const releaseEnv = "LIVENESS_TEST_RELEASE"

// All of these tests hold on older kernels too.
func TestOlderKernels(t *testing.T) {
	if release := os.Getenv(releaseEnv); release != "" {
		want := map[string]Support{
			"4.18": {},
			"6.1":  {PIDFDOpen: true},
			"6.6":  {PIDFDOpen: true, PeerPIDFD: true},
			"6.12": {PIDFDOpen: true, PeerPIDFD: true, PIDFS: true},
		}[release]
		got := Supported()
		if want.Kernel = got.Kernel; got != want {
			t.Errorf("the kernel has %+v, want %+v", got, want)
		}
		return
	}
	if !Supported().Handles {
		t.Skip("this kernel is an older one itself")
	}
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	for _, release := range []string{"4.18", "6.1", "6.6", "6.12"} {
		t.Run(release, func(t *testing.T) {
			run := "^Test"
			if release == "4.18" { // there is next to nothing
				run = "OlderKernels|HungUp|DeadAtAccept|Flood|Nonsense"
			}
			cmd := exec.Command(exe, exe, "-test.run="+run,
				"-test.skip=NoDescriptorsLeft|SiblingPIDNamespace|PeerIsDeadOn|ToldAtOnce")
			cmd.Env = append(os.Environ(), oldkernel.Env+"="+release, releaseEnv+"="+release)
			out, err := cmd.CombinedOutput()
			if cmd.ProcessState.ExitCode() == 77 {
				t.Skipf("this sandbox does not let us pretend: %s", out)
			}
			if err != nil {
				t.Errorf("%v\n%s", err, out)
			}
		})
	}
}

// Linux 6.5 to 6.15 answer EINVAL or ESRCH for a peer that is dead and reaped. Such a kernel has SO_PEERPIDFD: the
// fallback would take the process that has the number now for the holder.
func TestPeerIsDeadOn65(t *testing.T) {
	if !Supported().PeerPIDFD {
		t.Skip("no SO_PEERPIDFD on this kernel")
	}
	l, path := listen(t)
	c := spawn(t, "connect", path)
	conn := accept(t, l)
	raw, err := conn.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	peer := -1
	if err := raw.Control(func(s uintptr) { peer = int(s) }); err != nil {
		t.Fatal(err)
	}
	defer func() { askPeer = peerPIDFD }()
	for _, errno := range []unix.Errno{unix.EINVAL, unix.ESRCH} {
		askPeer = func(s int) (int, error) {
			if s == peer {
				return -1, errno
			}
			return peerPIDFD(s)
		}
		if h, err := FromConn(conn, nil); !errors.Is(err, ErrDead) {
			t.Errorf("%v: %v, %v, want a dead peer", errno, h, err)
		}
		askPeer = func(int) (int, error) { return -1, errno } // of every peer: there is no such option
		h, err := FromConn(conn, nil)
		if err != nil || h.Path() != PathPIDFD || h.Process().PID != c.pid() {
			t.Fatalf("%v on a kernel without: %v, %v", errno, h, err)
		}
		_ = h.Close()
	}
}

// sent is what came beside a read of c.
func sent(t *testing.T, c *net.UnixConn) *Sent {
	t.Helper()
	b, oob := make([]byte, 1), make([]byte, SentSpace)
	_, n, _, _, err := c.ReadMsgUnix(b, oob)
	if err != nil {
		t.Fatal(err)
	}
	return ReceiveSent(oob[:n])
}

// Where the kernel does not identify the peer, the pidfd that the peer sent of itself does, and no other.
func TestFromConnWithASentPIDFD(t *testing.T) {
	if !Supported().PIDFDOpen {
		t.Skip("no pidfd_open on this kernel")
	}
	askPeer = func(int) (int, error) { return -1, unix.ENOPROTOOPT }
	defer func() { askPeer = peerPIDFD }()
	l, path := listen(t)
	c := spawn(t, "send", path)
	conn := accept(t, l)
	other, err := unix.PidfdOpen(os.Getpid(), 0)
	if err != nil {
		t.Fatal(err)
	}
	before := descriptors()
	for _, s := range []struct {
		name string
		sent *Sent
		want Path
	}{{"of itself", sent(t, conn), PathSentPIDFD}, {"of another", &Sent{other}, PathPIDFD}, {"none", nil, PathPIDFD}} {
		h, err := FromConn(conn, s.sent)
		if err != nil {
			t.Fatalf("%s: %v", s.name, err)
		}
		if h.Path() != s.want || h.Process().PID != c.pid() {
			t.Errorf("%s: %s of %d, want %s of %d", s.name, h.Path(), h.Process().PID, s.want, c.pid())
		}
		_ = h.Close()
	}
	if after := descriptors(); after != before-1 { // other is closed
		t.Errorf("%d descriptors, %d before", after, before)
	}
}

// However many descriptors come, none stays: there is room for few, and a descriptor that is not a pidfd is closed.
func TestFloodOfDescriptors(t *testing.T) {
	here, there := pair(t)
	null, err := os.Open("/dev/null")
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	many := make([]int, 200)
	for i := range many {
		many[i] = int(null.Fd())
	}
	before := descriptors()
	for range 20 {
		if _, _, err := here.WriteMsgUnix([]byte(strings.Repeat("x", 2)), unix.UnixRights(many...), nil); err != nil {
			t.Fatal(err)
		}
		if s := sent(t, there); s != nil {
			t.Error("one was taken")
		}
		if _, err := there.Read(make([]byte, 1)); err != nil {
			t.Fatal(err)
		}
		if _, _, err := here.WriteMsgUnix([]byte("y"), unix.UnixRights(many...), nil); err != nil {
			t.Fatal(err)
		}
		if _, err := there.Read(make([]byte, 1)); err != nil { // no room at all
			t.Fatal(err)
		}
	}
	if after := descriptors(); after != before {
		t.Errorf("%d descriptors, %d before", after, before)
	}
}
