package liveness

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

// pidfsMagic is the type of the file system that pidfds lie on since Linux 6.9 (statfs(2)); before, all of them share one
// inode, which says nothing.
const pidfsMagic = 0x50494446

// soPeerPIDFD is SO_PEERPIDFD (Linux 6.5).
const soPeerPIDFD = 77

// Handle is a process and how it was got. It is good until Close.
type Handle struct {
	fd      int
	path    Path
	process Process
}

// Process returns which process it is.
func (h *Handle) Process() Process { return h.process }

// Path returns how it was got.
func (h *Handle) Path() Path { return h.path }

// Close gives the handle back; watches have descriptors of their own.
func (h *Handle) Close() error {
	if h.fd < 0 {
		return nil
	}
	fd := h.fd
	h.fd = -1
	return unix.Close(fd)
}

// supported says whether the kernel knows SO_PEERPIDFD: asked once, of a pair of sockets of our own, because on a dead peer
// the answer of a kernel that knows it can look like that of one that does not.
var supported = sync.OnceValue(func() bool {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return false
	}
	defer unix.Close(pair[0])
	defer unix.Close(pair[1])
	fd, err := unix.GetsockoptInt(pair[0], unix.SOL_SOCKET, soPeerPIDFD)
	if err != nil {
		return false
	}
	unix.Close(fd)
	return true
})

// FromConn returns a handle of whoever called connect: [ErrDead] when it is dead, [ErrUnsupported] when only the connection
// can tell.
func FromConn(c *net.UnixConn) (*Handle, error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return nil, err
	}
	var h *Handle
	var failed error
	if err := raw.Control(func(s uintptr) {
		if supported() {
			var fd int
			if fd, failed = unix.GetsockoptInt(int(s), unix.SOL_SOCKET, soPeerPIDFD); failed == nil {
				unix.CloseOnExec(fd)
				h, failed = newHandle(fd, PathPeerPIDFD)
			} else if errors.Is(failed, unix.EINVAL) || errors.Is(failed, unix.ESRCH) || errors.Is(failed, unix.ENODATA) {
				failed = ErrDead
			}
			return
		}
		var cred *unix.Ucred
		if cred, failed = unix.GetsockoptUcred(int(s), unix.SOL_SOCKET, unix.SO_PEERCRED); failed == nil {
			h, failed = FromPID(cred.Pid, 0)
		}
	}); err != nil {
		return nil, err
	}
	return h, failed
}

// FromPID returns a handle of a process by its number and, unless that is 0, its start time.
func FromPID(pid int32, start uint64) (*Handle, error) {
	if pid <= 0 {
		return nil, ErrUnsupported // of another PID namespace
	}
	before := startTime(pid)
	if before == 0 || start != 0 && before != start {
		return nil, ErrDead
	}
	fd, err := unix.PidfdOpen(int(pid), 0)
	switch {
	case errors.Is(err, unix.ESRCH):
		return nil, ErrDead
	case err != nil:
		return nil, fmt.Errorf("%w: pidfd_open: %v", ErrUnsupported, err)
	}
	if startTime(pid) != before { // it was another's number meanwhile
		unix.Close(fd)
		return nil, ErrDead
	}
	return newHandle(fd, PathPIDFD)
}

// newHandle takes a pidfd.
func newHandle(fd int, path Path) (*Handle, error) {
	h := &Handle{fd: fd, path: path}
	var fs unix.Statfs_t
	if unix.Fstatfs(fd, &fs) == nil && fs.Type == pidfsMagic {
		var st unix.Stat_t
		if unix.Fstat(fd, &st) == nil {
			h.process.Inode = st.Ino
		}
	}
	pid, err := pidOf(fd)
	if err != nil {
		unix.Close(fd)
		return nil, err
	}
	if pid < 0 {
		unix.Close(fd)
		return nil, ErrDead
	}
	h.process.PID = pid
	if pid > 0 {
		h.process.Start = startTime(pid)
	}
	return h, nil
}

// pidOf reads which process a pidfd is of (proc(5), fdinfo): 0 when it is not visible from here, -1 when it is dead.
func pidOf(fd int) (int32, error) {
	b, err := os.ReadFile("/proc/self/fdinfo/" + strconv.Itoa(fd))
	if err != nil {
		return 0, fmt.Errorf("%w: %v", ErrUnsupported, err)
	}
	for line := range strings.Lines(string(b)) {
		if v, ok := strings.CutPrefix(line, "Pid:"); ok {
			n, err := strconv.ParseInt(strings.TrimSpace(v), 10, 32)
			return int32(n), err
		}
	}
	return 0, fmt.Errorf("%w: it is not a pidfd", ErrUnsupported)
}

// startTime returns when a process started, in clock ticks after boot; 0 when it is not there.
func startTime(pid int32) uint64 {
	b, err := os.ReadFile("/proc/" + strconv.Itoa(int(pid)) + "/stat")
	if err != nil {
		return 0
	}
	f := bytes.Fields(b[bytes.LastIndexByte(b, ')')+1:])
	if len(f) < 20 {
		return 0
	}
	n, err := strconv.ParseUint(string(f[19]), 10, 64)
	if err != nil {
		return 0
	}
	return n
}

// Watcher waits for many processes in one epoll loop.
type Watcher struct {
	epoll int
	wake  [2]int // a pipe that ends Run

	mu      sync.Mutex // guards all below
	watches map[int32]*Watch
	next    int32
	closed  bool
}

// Watch is one process that is waited for.
type Watch struct {
	watcher *Watcher
	id      int32
	fd      int
	dead    func()
}

// NewWatcher returns a watcher that tells nothing before Run.
func NewWatcher() (*Watcher, error) {
	w := &Watcher{watches: map[int32]*Watch{}}
	var err error
	if w.epoll, err = unix.EpollCreate1(unix.EPOLL_CLOEXEC); err != nil {
		return nil, fmt.Errorf("epoll: %w", err)
	}
	if err = unix.Pipe2(w.wake[:], unix.O_CLOEXEC|unix.O_NONBLOCK); err == nil {
		err = unix.EpollCtl(w.epoll, unix.EPOLL_CTL_ADD, w.wake[0], &unix.EpollEvent{Events: unix.EPOLLIN, Fd: -1})
	}
	if err != nil {
		unix.Close(w.epoll)
		return nil, fmt.Errorf("epoll: %w", err)
	}
	return w, nil
}

// Watch has dead called once, on Run's goroutine, when the process has died; soon when it is dead already.
func (w *Watcher) Watch(h *Handle, dead func()) (*Watch, error) {
	fd, err := unix.FcntlInt(uintptr(h.fd), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("watch a process: %w", err)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.closed {
		unix.Close(fd)
		return nil, net.ErrClosed
	}
	x := &Watch{watcher: w, id: w.next, fd: fd, dead: dead}
	w.next++
	w.watches[x.id] = x
	if err := unix.EpollCtl(w.epoll, unix.EPOLL_CTL_ADD, fd, &unix.EpollEvent{Events: unix.EPOLLIN | unix.EPOLLONESHOT, Fd: x.id}); err != nil {
		delete(w.watches, x.id)
		unix.Close(fd)
		return nil, fmt.Errorf("watch a process: %w", err)
	}
	return x, nil
}

// Stop ends a watch: dead is not called from now on, unless it is being called.
func (x *Watch) Stop() {
	x.watcher.mu.Lock()
	defer x.watcher.mu.Unlock()
	x.stop()
}

// stop is Stop with the lock held; it reports whether the watch was on.
func (x *Watch) stop() bool {
	if x.watcher.watches[x.id] != x {
		return false
	}
	delete(x.watcher.watches, x.id)
	// Closing alone would leave it on the epoll for as long as the handle, which is of the same open file, lives.
	unix.EpollCtl(x.watcher.epoll, unix.EPOLL_CTL_DEL, x.fd, nil) //nolint:errcheck // it is on
	unix.Close(x.fd)
	return true
}

// Run tells of deaths until ctx ends; then no watch tells anything any more.
func (w *Watcher) Run(ctx context.Context) error {
	stop := context.AfterFunc(ctx, func() { unix.Write(w.wake[1], []byte{0}) })
	defer stop()
	defer w.close()
	events := make([]unix.EpollEvent, 128)
	for ctx.Err() == nil {
		n, err := unix.EpollWait(w.epoll, events, -1)
		if err != nil {
			if errors.Is(err, unix.EINTR) {
				continue
			}
			return fmt.Errorf("epoll: %w", err)
		}
		for _, ev := range events[:n] {
			w.mu.Lock()
			x := w.watches[ev.Fd]
			on := x != nil && x.stop()
			w.mu.Unlock()
			if on {
				x.dead()
			}
		}
	}
	return nil
}

func (w *Watcher) close() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.closed = true
	for _, x := range w.watches {
		x.stop()
	}
	unix.Close(w.epoll)
	unix.Close(w.wake[0])
	unix.Close(w.wake[1])
}

// Len returns how many processes are watched.
func (w *Watcher) Len() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.watches)
}
