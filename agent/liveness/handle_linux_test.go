package liveness

import (
	"errors"
	"net"
	"os"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// fromConn is FromConn by the kernel's way, skipped where it has none.
func fromConn(t testing.TB, c *net.UnixConn) *Handle {
	t.Helper()
	h, err := FromConn(c, nil)
	if err != nil {
		skipUnsupported(t, err)
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = h.Close() })
	return h
}

func TestFromConn(t *testing.T) {
	w := running(t)
	l, path := listen(t)
	c := spawn(t, "connect", path)
	h := fromConn(t, accept(t, l))
	want := PathPIDFD
	if Supported().PeerPIDFD {
		want = PathPeerPIDFD
	}
	if h.Path() != want {
		t.Errorf("path %s, want %s", h.Path(), want)
	}
	p := h.Process()
	if p.PID != c.pid() || p.Start == 0 || p.BootID == "" || p.PIDNS == 0 {
		t.Errorf("%+v of process %d", p, c.pid())
	}
	if s := Supported(); s.PIDFS != (p.Inode != 0) || s.Handles != (p.Handle != nil) {
		t.Errorf("%+v with %+v", p, s)
	}
	_, told := watch(t, w, h)
	c.end()
	within(t, told)
}

// The way of kernels before 6.5, which newer ones have too.
func TestFromPeerPID(t *testing.T) {
	l, path := listen(t)
	c := spawn(t, "connect", path)
	conn := accept(t, l)
	raw, err := conn.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	ask := func() (h *Handle, err error) {
		if e := raw.Control(func(s uintptr) { h, err = fromPeerPID(int(s), c.pid()) }); e != nil {
			t.Fatal(e)
		}
		return h, err
	}
	h, err := ask()
	if err != nil {
		skipUnsupported(t, err)
		t.Fatal(err)
	}
	if h.Path() != PathPIDFD || h.Process().PID != c.pid() {
		t.Errorf("%s of %+v, want %d", h.Path(), h.Process(), c.pid())
	}
	_ = h.Close()
	c.end()
	if h, err := ask(); !errors.Is(err, ErrDead) {
		t.Errorf("of a dead peer: %v, %v", h, err)
	}
}

// A peer that hung up and lives is not taken for the process that has its number.
func TestFromPeerPIDHungUp(t *testing.T) {
	l, path := listen(t)
	c, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	conn := accept(t, l)
	_ = c.Close()
	raw, err := conn.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	if e := raw.Control(func(s uintptr) {
		if h, err := fromPeerPID(int(s), int32(os.Getpid())); !errors.Is(err, ErrUnsupported) {
			t.Errorf("%v, %v", h, err)
		}
	}); e != nil {
		t.Fatal(e)
	}
}

func TestDeadAtAccept(t *testing.T) {
	for _, reaped := range []bool{false, true} {
		t.Run("reaped "+strconv.FormatBool(reaped), func(t *testing.T) {
			l, path := listen(t)
			c := spawn(t, "connect", path)
			if c.killed(t); reaped {
				c.end()
			}
			before := descriptors()
			conn := accept(t, l)
			if h, err := FromConn(conn, nil); !errors.Is(err, ErrDead) {
				skipUnsupported(t, err)
				t.Errorf("%v, %v", h, err)
			}
			_ = conn.Close()
			if after := descriptors(); after > before {
				t.Errorf("%d descriptors, %d before", after, before)
			}
		})
	}
}

// The heir has the socket; the process that connected is dead.
func TestHeirOfTheSocketIsNotTheHolder(t *testing.T) {
	w := running(t)
	l, path := listen(t)
	c := spawn(t, "bequeath", path)
	conn := accept(t, l)
	h := fromConn(t, conn)
	if h.Process().PID != c.pid() {
		t.Errorf("the holder is %d, want %d, who connected", h.Process().PID, c.pid())
	}
	_, told := watch(t, w, h)
	if err := c.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	within(t, told)
	c.say(t, "exit") // to the heir, which lives and has the socket
	if _, err := conn.Read(make([]byte, 1)); err == nil {
		t.Error("the heir wrote something")
	}
}

func TestThreadExitIsNoDeath(t *testing.T) {
	w := running(t)
	c := spawn(t, "wait")
	_, told := watch(t, w, c.handle(t))
	c.say(t, "thread")
	c.hear(t, "done")
	silent(t, w, told)
	c.end()
	within(t, told)
}

// The kernel calls a process whose first thread has ended a zombie, but it lives: its pidfd says so, its state does
// not.
func TestLeaderExitIsNoDeath(t *testing.T) {
	w := running(t)
	c := spawn(t, "leader")
	h := c.handle(t)
	_, told := watch(t, w, h)
	eventually(t, "the first thread has ended", func() bool { return state(t, c.pid()) == "Z" })
	silent(t, w, told)
	if again, s := Find(h.Process()); s != Alive {
		t.Errorf("Find: %v, want alive", s)
	} else {
		_ = again.Close()
	}
	c.say(t, "exit") // by another thread
	within(t, told)
}

func TestExecKeepsTheProcess(t *testing.T) {
	w := running(t)
	c := spawn(t, "wait")
	h := c.handle(t)
	_, told := watch(t, w, h)
	c.say(t, "exec")
	c.hear(t, "ready")
	silent(t, w, told)
	again := c.handle(t)
	if a, b := h.Process(), again.Process(); a.PID != b.PID || a.Start != b.Start || a.Inode != b.Inode {
		t.Errorf("%+v before exec, %+v after", a, b)
	}
	c.end()
	within(t, told)
}

func TestFromPIDRefuses(t *testing.T) {
	c := spawn(t, "wait")
	p := c.handle(t).Process()
	if h, err := FromPID(p.PID, p.Start+1); !errors.Is(err, ErrDead) {
		t.Errorf("another start time: %v, %v", h, err)
	}
	c.end()
	if h, err := FromPID(p.PID, p.Start); !errors.Is(err, ErrDead) {
		t.Errorf("a dead process: %v, %v", h, err)
	}
	for _, pid := range []int32{0, -1} {
		if h, err := FromPID(pid, 0); !errors.Is(err, ErrUnsupported) {
			t.Errorf("process %d: %v, %v", pid, h, err)
		}
	}
}

// receive reads once and takes the control message.
func receive(t *testing.T, c *net.UnixConn) (int, bool) {
	t.Helper()
	b, oob := make([]byte, 64), make([]byte, 256)
	_, n, _, _, err := c.ReadMsgUnix(b, oob)
	if err != nil {
		t.Fatal(err)
	}
	return ReceivePIDFD(oob[:n])
}

func TestSentPIDFD(t *testing.T) {
	if !Supported().PIDFDOpen {
		t.Skip("no pidfd_open on this kernel")
	}
	w := running(t)
	l, path := listen(t)
	c := spawn(t, "send", path)
	fd, ok := receive(t, accept(t, l))
	if !ok {
		t.Fatal("no pidfd came")
	}
	h, err := FromPIDFD(fd)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = h.Close() })
	if h.Path() != PathSentPIDFD || h.Process().PID != c.pid() {
		t.Errorf("%s of %+v, want %d", h.Path(), h.Process(), c.pid())
	}
	_, told := watch(t, w, h)
	c.end()
	within(t, told)
}

// A client keeps the open file that it sent. A stopped watch of it must not wake the loop for another.
func TestStoppedWatchOfASharedPIDFD(t *testing.T) {
	w := running(t)
	c := spawn(t, "wait")
	fd, err := unix.PidfdOpen(c.Process.Pid, 0)
	if err != nil {
		skipUnsupported(t, err)
		t.Fatal(err)
	}
	kept, err := unix.Dup(fd)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(kept)
	h, err := FromPIDFD(fd)
	if err != nil {
		t.Fatal(err)
	}
	x, told := watch(t, w, h)
	_ = h.Close()
	x.Stop()
	entries, err := os.ReadFile("/proc/self/fdinfo/" + strconv.Itoa(w.epoll))
	if err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(string(entries), "tfd:"); n != 1 { // the call that ends Run
		t.Errorf("epoll has %d entries, want 1:\n%s", n, entries)
	}
	c.end()
	silent(t, w, told)
}

// pair is a connection to ourselves.
func pair(t *testing.T) (a, b *net.UnixConn) {
	t.Helper()
	l, path := listen(t)
	c, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c.(*net.UnixConn), accept(t, l)
}

func TestOtherThanOnePIDFDIsRefused(t *testing.T) {
	self, err := unix.PidfdOpen(os.Getpid(), 0)
	if err != nil {
		skipUnsupported(t, err)
		t.Fatal(err)
	}
	defer unix.Close(self)
	null, err := os.Open("/dev/null")
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	event, err := unix.Eventfd(0, unix.EFD_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(event)
	here, there := pair(t)
	cases := map[string][]int{
		"a file": {int(null.Fd())}, "an eventfd": {event}, "two pidfds": {self, self},
		"a pidfd and a file": {self, int(null.Fd())}, "none": nil,
	}
	if thread, err := unix.PidfdOpen(os.Getpid(), pidfdThread); err == nil {
		defer unix.Close(thread)
		cases["a thread's pidfd"] = []int{thread}
	}
	for name, fds := range cases {
		t.Run(name, func(t *testing.T) {
			var oob []byte
			if fds != nil {
				oob = unix.UnixRights(fds...)
			}
			before := descriptors()
			if _, _, err := here.WriteMsgUnix([]byte("x"), oob, nil); err != nil {
				t.Fatal(err)
			}
			if fd, ok := receive(t, there); ok {
				t.Errorf("taken as %d", fd)
			}
			if after := descriptors(); after != before {
				t.Errorf("%d descriptors, %d before", after, before)
			}
		})
	}
	t.Run("by FromPIDFD", func(t *testing.T) {
		fd, err := unix.Dup(int(null.Fd()))
		if err != nil {
			t.Fatal(err)
		}
		before := descriptors()
		if h, err := FromPIDFD(fd); !errors.Is(err, ErrUnsupported) {
			t.Errorf("%v, %v", h, err)
		}
		if after := descriptors(); after != before-1 {
			t.Errorf("%d descriptors, %d before: it was not closed", after, before)
		}
		if h, err := FromPIDFD(-1); !errors.Is(err, ErrUnsupported) {
			t.Errorf("no descriptor: %v, %v", h, err)
		}
	})
}

func TestReceiveOfNonsense(t *testing.T) {
	for _, oob := range [][]byte{nil, {1}, make([]byte, 16), make([]byte, 64), []byte(strings.Repeat("\xff", 64))} {
		if fd, ok := ReceivePIDFD(oob); ok {
			t.Errorf("%x gave %d", oob, fd)
		}
	}
}

// A number passes to another process between the reading of its start time and the opening of its pidfd. FromPID does
// not take that process for the first.
func TestFromPIDRecycledMeanwhile(t *testing.T) {
	me := int32(os.Getpid())
	born := startTime(me)
	if born == 0 {
		t.Skip("the start time cannot be read here")
	}
	for name, times := range map[string][]uint64{"another's by then": {born - 1, born},
		"another's after that": {born, born + 1}} {
		t.Run(name, func(t *testing.T) {
			read := 0
			h, err := fromPID(me, 0, func(int32) uint64 { read++; return times[read-1] })
			if !errors.Is(err, ErrDead) {
				t.Errorf("got %v, %v, want that it is dead", h, err)
			}
			if h != nil {
				h.Close()
			}
			if read != 2 {
				t.Errorf("the start time was read %d times", read)
			}
		})
	}
}
