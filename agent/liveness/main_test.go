//go:build linux

package liveness

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"
)

// helperEnv makes this binary one of the processes that the tests watch.
const helperEnv = "LIVENESS_TEST_HELPER"

func TestMain(m *testing.M) {
	if mode := os.Getenv(helperEnv); mode != "" {
		if err := help(mode, os.Args[1:]); err != nil {
			fmt.Fprintln(os.Stderr, "helper "+mode+":", err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	before := descriptors()
	code := m.Run()
	if code == 0 {
		if err := goleak.Find(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			code = 1
		}
		// The runtime's own poller and os/exec's probe of pidfds may have opened a few for good.
		if after := descriptors(); after > before+4 {
			fmt.Fprintf(os.Stderr, "%d descriptors before the tests, %d after\n", before, after)
			code = 1
		}
	}
	os.Exit(code)
}

func descriptors() int {
	d, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return 0
	}
	return len(d)
}

// help is the helper process. It says "ready" when it is ready, and then does what each line on its standard input
// says.
func help(mode string, args []string) error {
	switch mode {
	case "wait": // until told to exit
	case "connect": // and stay
		c, err := net.Dial("unix", args[0])
		if err != nil {
			return err
		}
		defer c.Close()
	case "send": // connect and send a pidfd of itself
		c, err := net.Dial("unix", args[0])
		if err != nil {
			return err
		}
		defer c.Close()
		if err := SendPIDFD(c.(*net.UnixConn), []byte("hello\n")); err != nil {
			return err
		}
	case "bequeath": // connect, and leave the socket to a child that lives on
		c, err := net.Dial("unix", args[0])
		if err != nil {
			return err
		}
		f, err := c.(*net.UnixConn).File()
		if err != nil {
			return err
		}
		heir := exec.Command("/proc/self/exe")
		heir.Env = append(os.Environ(), helperEnv+"=wait")
		heir.Stdin, heir.Stdout, heir.ExtraFiles = os.Stdin, os.Stdout, []*os.File{f}
		if err := heir.Start(); err != nil {
			return err
		}
		return heir.Wait() // it says ready
	}
	if mode == "leader" { // the first thread ends, the others live
		gone := make(chan error, 1)
		go func() { gone <- speak() }()
		if os.Getpid() != unix.Gettid() {
			return fmt.Errorf("not on the first thread")
		}
		_, _, errno := syscall.Syscall(syscall.SYS_EXIT, 0, 0, 0) // exit, not exit_group
		return errno
	}
	return speak()
}

// init keeps a helper's main on the first thread, and all other goroutines off it.
func init() {
	if os.Getenv(helperEnv) != "" {
		runtime.LockOSThread()
	}
}

func speak() error {
	fmt.Println("ready")
	for in := bufio.NewScanner(os.Stdin); in.Scan(); {
		switch word := in.Text(); word {
		case "exit":
			os.Exit(3)
		case "thread": // end a thread that is not the first
			tid := make(chan int)
			go func() {
				runtime.LockOSThread() // for good: the thread ends with the goroutine
				tid <- unix.Gettid()
			}()
			task := "/proc/self/task/" + strconv.Itoa(<-tid)
			for { // until it has ended
				if _, err := os.Stat(task); err != nil {
					break
				}
				runtime.Gosched()
			}
			fmt.Println("done")
		case "exec":
			env := append(os.Environ(), helperEnv+"=wait")
			return syscall.Exec("/proc/self/exe", os.Args[:1], env)
		default:
			return fmt.Errorf("what is %q?", word)
		}
	}
	return nil // the test is over
}

// child is a helper process.
type child struct {
	*exec.Cmd
	in  io.WriteCloser
	out *bufio.Scanner
}

// spawn starts a helper and waits until it is ready. It is killed and reaped when the test ends.
func spawn(t testing.TB, mode string, args ...string) *child {
	return spawnWith(t, nil, mode, args...)
}

func spawnWith(t testing.TB, attr *syscall.SysProcAttr, mode string, args ...string) *child {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	c := &child{Cmd: exec.Command(exe, args...)}
	c.Env = append(os.Environ(), helperEnv+"="+mode)
	c.Stderr = os.Stderr
	c.SysProcAttr = attr
	if c.in, err = c.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	out, err := c.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	c.out = bufio.NewScanner(out)
	if err := c.Start(); err != nil {
		if attr != nil {
			t.Skipf("this sandbox does not let us start it: %v", err)
		}
		t.Fatal(err)
	}
	t.Cleanup(c.end)
	c.hear(t, "ready")
	return c
}

// end kills and reaps.
func (c *child) end() {
	if c.ProcessState == nil {
		c.Process.Kill()
		c.Wait()
	}
}

func (c *child) say(t testing.TB, word string) {
	t.Helper()
	if _, err := io.WriteString(c.in, word+"\n"); err != nil {
		t.Fatal(err)
	}
}

func (c *child) hear(t testing.TB, want string) {
	t.Helper()
	if !c.out.Scan() || c.out.Text() != want {
		t.Fatalf("the helper said %q, want %q (%v)", c.out.Text(), want, c.out.Err())
	}
}

func (c *child) pid() int32 { return int32(c.Process.Pid) }

// handle is a handle of the child by its number.
func (c *child) handle(t testing.TB) *Handle {
	t.Helper()
	h, err := FromPID(c.pid(), 0)
	if err != nil {
		skipUnsupported(t, err)
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = h.Close() })
	return h
}

// killed kills the child and waits until all its threads have ended, but does not reap it.
func (c *child) killed(t testing.TB) {
	t.Helper()
	h := c.handle(t)
	if err := c.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the child is dead", func() bool { return dead(h.d.fd) })
	if s := state(t, c.pid()); s != "Z" {
		t.Fatalf("the child is %s, want a zombie", s)
	}
}

func skipUnsupported(t testing.TB, err error) {
	t.Helper()
	if s := Supported(); !s.PIDFDOpen {
		t.Skipf("no pidfd_open on this kernel (%s): %v", s.Kernel, err)
	}
}

// running is a watcher whose Run goes until the test ends.
func running(t testing.TB) *Watcher {
	t.Helper()
	w, err := NewWatcher()
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- w.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	return w
}

// watch returns a watch and a channel that gets a value at each call of dead.
func watch(t testing.TB, w *Watcher, h *Handle) (*Watch, <-chan time.Time) {
	t.Helper()
	told := make(chan time.Time, 16)
	x, err := w.Watch(h, func() { told <- time.Now() })
	if err != nil {
		t.Fatal(err)
	}
	return x, told
}

// within waits for a death. The bound is far above the usual time, for a machine under load.
func within(t testing.TB, told <-chan time.Time) time.Time {
	t.Helper()
	select {
	case at := <-told:
		return at
	case <-time.After(60 * time.Second):
		t.Fatal("nobody told of the death")
		return time.Time{}
	}
}

// silent proves that no call came: another process dies later, and its call comes through the same loop.
func silent(t testing.TB, w *Watcher, told <-chan time.Time) {
	t.Helper()
	other := spawn(t, "wait")
	_, heard := watch(t, w, other.handle(t))
	other.end()
	within(t, heard)
	select {
	case <-told:
		t.Fatal("a death was told of that was none, or that nobody waited for")
	default:
	}
}

// listen returns a socket, with a path short enough for one.
func listen(t testing.TB) (*net.UnixListener, string) {
	t.Helper()
	dir, err := os.MkdirTemp("", "u")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	path := filepath.Join(dir, "s")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	return l, path
}

func accept(t testing.TB, l *net.UnixListener) *net.UnixConn {
	t.Helper()
	if err := l.SetDeadline(time.Now().Add(60 * time.Second)); err != nil {
		t.Fatal(err)
	}
	c, err := l.AcceptUnix()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// state is the state letter of a process or a thread (proc(5)).
func state(t testing.TB, pid int32) string {
	t.Helper()
	b, err := os.ReadFile("/proc/" + strconv.Itoa(int(pid)) + "/stat")
	if err != nil {
		t.Fatal(err)
	}
	return strings.Fields(string(b[strings.LastIndexByte(string(b), ')')+1:]))[0]
}

// eventually polls a condition.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(60 * time.Second); !ok(); runtime.Gosched() {
		if time.Now().After(end) {
			t.Fatalf("it did not come about: %s", what)
		}
	}
}
