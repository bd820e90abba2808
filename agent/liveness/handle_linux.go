package liveness

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"github.com/usher-agent/usher/agent/clock"
	"github.com/usher-agent/usher/agent/files"
)

const (
	// pidfsMagic is the type of the file system of pidfds since Linux 6.9 (linux/magic.h, PID_FS_MAGIC). Before, all of
	// them share one inode, which says nothing.
	pidfsMagic = 0x50494446
	// soPeerPIDFD is SO_PEERPIDFD (Linux 6.5, asm-generic/socket.h).
	soPeerPIDFD = 77
	// pidfdThread is PIDFD_THREAD, which is O_EXCL (Linux 6.9): the pidfd of a thread, which ends before its process
	// does.
	pidfdThread = unix.O_EXCL
)

// descriptor is a pidfd that several handles share. The last one closes it.
type descriptor struct {
	fd   int
	refs atomic.Int32
}

func newDescriptor(fd int) *descriptor {
	d := &descriptor{fd: fd}
	d.refs.Store(1)
	return d
}

// share is for a caller that has a share already.
func (d *descriptor) share() *descriptor {
	d.refs.Add(1)
	return d
}

func (d *descriptor) release() error {
	if d.refs.Add(-1) > 0 {
		return nil
	}
	return unix.Close(d.fd)
}

// Handle is a process and the path by which it was found. It is good until Close, and safe for concurrent use.
type Handle struct {
	path    Path
	process Process

	mu sync.Mutex // guards d
	d  *descriptor
}

// Process returns the process's names.
func (h *Handle) Process() Process { return h.process }

// Path returns the path by which the process was found.
func (h *Handle) Path() Path { return h.path }

// Close gives the handle back; a second time it is [ErrClosed]. Watches of the process go on.
func (h *Handle) Close() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.d == nil {
		return ErrClosed
	}
	err := h.d.release()
	h.d = nil
	return err
}

// Share returns another handle of the same process, on the same pidfd.
func (h *Handle) Share() (*Handle, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.d == nil {
		return nil, ErrClosed
	}
	return &Handle{path: h.path, process: h.process, d: h.d.share()}, nil
}

// Lend calls use with the pidfd. use must neither close nor keep it. Lend is [ErrClosed] after Close.
func (h *Handle) Lend(use func(fd int)) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.d == nil {
		return ErrClosed
	}
	use(h.d.fd)
	return nil
}

// FromKept returns a handle of a pidfd that was found by a path before a restart, and that a trusted keeper kept. It
// takes the descriptor. Its errors are those of [FromPIDFD].
func FromKept(fd int, path Path) (*Handle, error) {
	if err := checkPIDFD(fd); err != nil {
		unix.Close(fd)
		return nil, err
	}
	return newHandle(fd, path)
}

// FromConn returns a handle of the process that called connect: by SO_PEERPIDFD, else by the pidfd that it sent of
// itself, else by pidfd_open of the process id that the kernel noted at connect. It takes sent, which may be nil. It is
// [ErrDead] when that process is dead, and [ErrUnsupported] when only the connection can tell. Any other error is for
// want of descriptors or memory.
func FromConn(c *net.UnixConn, sent *Sent) (*Handle, error) {
	defer sent.Close()
	raw, err := c.SyscallConn()
	if err != nil {
		return nil, fmt.Errorf("ask who is connected: %w", err)
	}
	var h *Handle
	var failed error
	if err := raw.Control(func(s uintptr) { h, failed = fromSocket(int(s), sent) }); err != nil {
		return nil, fmt.Errorf("ask who is connected: %w", err)
	}
	return h, failed
}

func fromSocket(s int, sent *Sent) (*Handle, error) {
	fd, err := askPeer(s)
	switch {
	case err == nil:
		return newHandle(fd, PathPeerPIDFD)
	case exhausted(err):
		return nil, fmt.Errorf("ask who is connected: %w", err)
	case errors.Is(err, unix.EINVAL), errors.Is(err, unix.ESRCH):
		// A dead peer, or a kernel without it: a living peer, ourselves, tells which.
		switch ok, err := probePeer(); {
		case err != nil:
			return nil, fmt.Errorf("ask who is connected: %w", err)
		case ok:
			return nil, ErrDead
		}
	}
	cred, err := unix.GetsockoptUcred(s, unix.SOL_SOCKET, unix.SO_PEERCRED)
	if err != nil {
		return nil, fmt.Errorf("%w: SO_PEERCRED: %v", ErrUnsupported, err)
	}
	if h, err := sent.handle(cred.Pid); h != nil || errors.Is(err, ErrDead) {
		return h, err
	}
	return fromPeerPID(s, cred.Pid)
}

// fromPeerPID is the way without a pidfd from the kernel or the peer.
func fromPeerPID(s int, pid int32) (*Handle, error) {
	h, err := FromPID(pid, 0)
	if err != nil {
		return nil, err
	}
	// The number may have gone to another process before we looked. While some process holds the other end that is next
	// to impossible. When none does, nothing shows whose number it was.
	p := []unix.PollFd{{Fd: int32(s), Events: unix.POLLRDHUP}}
	if n, err := unix.Poll(p, 0); err == nil && n > 0 && p[0].Revents&unix.POLLHUP != 0 {
		_ = h.Close()
		return nil, fmt.Errorf("%w: the connection is closed and its process id may be another's by now",
			ErrUnsupported)
	}
	return h, nil
}

// askPeer is peerPIDFD; tests pretend an older kernel.
var askPeer = peerPIDFD

// peerPIDFD asks a socket for its peer's pidfd.
func peerPIDFD(s int) (int, error) {
	fd, err := unix.GetsockoptInt(s, unix.SOL_SOCKET, soPeerPIDFD)
	if err != nil {
		return -1, err
	}
	unix.CloseOnExec(fd) // the kernel has set it
	return fd, nil
}

// probePeer asks a pair of sockets of our own whether the kernel has SO_PEERPIDFD. An error is for want of descriptors.
func probePeer() (bool, error) {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return false, err
	}
	defer unix.Close(pair[0])
	defer unix.Close(pair[1])
	fd, err := askPeer(pair[0])
	switch {
	case err == nil:
		unix.Close(fd)
		return true, nil
	case exhausted(err):
		return false, err
	}
	return false, nil
}

// exhausted reports an error that says nothing of the kernel nor of the process: the caller should try again.
func exhausted(err error) bool {
	return errors.Is(err, unix.EMFILE) || errors.Is(err, unix.ENFILE) || errors.Is(err, unix.ENOMEM)
}

// FromPIDFD returns a handle of a pidfd that somebody sent. It takes the descriptor, and closes it when it refuses it:
// with [ErrUnsupported] when it is no pidfd of a process, with [ErrDead] when the process is dead. The caller must
// judge whether the process is the sender: by [Process].PID where that is not 0.
func FromPIDFD(fd int) (*Handle, error) { return FromKept(fd, PathSentPIDFD) }

// checkPIDFD returns an error unless a descriptor is the pidfd of a process.
func checkPIDFD(fd int) error {
	flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFL, 0)
	if err != nil {
		return fmt.Errorf("%w: the descriptor is not an open file: %v", ErrUnsupported, err)
	}
	if _, ok := pidfsInode(fd); !ok {
		if _, err := pidOf(fd); err != nil {
			return err
		}
	}
	if flags&pidfdThread != 0 {
		return fmt.Errorf("%w: the descriptor is the pidfd of a thread, not of a process; open it without PIDFD_THREAD",
			ErrUnsupported)
	}
	return nil
}

// FromPID returns a handle of a process by its number in the agent's PID namespace and, unless that is 0, its start
// time ([Process].Start). It is [ErrDead] when there is no such process, and [ErrUnsupported] when pid is not above 0,
// when the kernel has no pidfd_open, or when /proc hides the process.
func FromPID(pid int32, start uint64) (*Handle, error) { return fromPID(pid, start, startTime) }

// fromPID is FromPID with a reader of start times. It reads before the pidfd is opened and after, because the number
// may pass to another process meanwhile.
func fromPID(pid int32, start uint64, startTime func(int32) uint64) (*Handle, error) {
	if pid <= 0 {
		return nil, fmt.Errorf("%w: it is in a PID namespace that is not visible from here", ErrUnsupported)
	}
	before := startTime(pid)
	if start != 0 && before != 0 && before != start {
		return nil, ErrDead
	}
	fd, err := unix.PidfdOpen(int(pid), 0)
	switch {
	case errors.Is(err, unix.ESRCH), errors.Is(err, unix.EINVAL), errors.Is(err, unix.ENOENT):
		return nil, ErrDead // nobody's number, or by now that of a thread of another process
	case exhausted(err):
		return nil, fmt.Errorf("pidfd_open of process %d: %w", pid, err)
	case err != nil:
		return nil, fmt.Errorf("%w: pidfd_open: %v", ErrUnsupported, err)
	}
	h, err := newHandle(fd, PathPIDFD)
	if err != nil {
		return nil, err
	}
	after := startTime(pid)
	switch {
	case before != 0 && after == before:
		return h, nil
	case dead(fd), before != 0 && after != 0: // or the number passed from one to another meanwhile
		err = ErrDead
	default:
		err = fmt.Errorf("%w: /proc does not show process %d (hidepid, or too few descriptors)", ErrUnsupported, pid)
	}
	_ = h.Close()
	return nil, err
}

// newHandle takes a pidfd, and closes it when the process is dead.
func newHandle(fd int, path Path) (*Handle, error) {
	if dead(fd) {
		unix.Close(fd)
		return nil, ErrDead
	}
	h := &Handle{path: path, process: whereabouts(), d: newDescriptor(fd)}
	if inode, ok := pidfsInode(fd); ok {
		h.process.Inode = inode
		h.process.Handle = fileHandle(fd)
	}
	// Without /proc the number stays 0: the pidfd is as good.
	if pid, err := pidOf(fd); err == nil && pid > 0 {
		h.process.PID = pid
		h.process.Start = startTime(pid)
		if dead(fd) { // the number may be another's, and so the start time
			_ = h.Close()
			return nil, ErrDead
		}
	}
	return h, nil
}

// dead asks a pidfd, which is readable when the whole process has ended (pidfd_open(2)): with its last thread, not its
// first.
func dead(fd int) bool {
	p := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
	for {
		n, err := unix.Poll(p, 0)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		return err == nil && n > 0 && p[0].Revents&(unix.POLLIN|unix.POLLHUP) != 0
	}
}

// pidfsInode returns a pidfd's inode where it says something.
func pidfsInode(fd int) (uint64, bool) {
	var fs unix.Statfs_t
	var st unix.Stat_t
	if unix.Fstatfs(fd, &fs) != nil || fs.Type != pidfsMagic || unix.Fstat(fd, &st) != nil {
		return 0, false
	}
	return st.Ino, true
}

// fileHandle returns a pidfd's file handle, nil where the kernel gives none.
func fileHandle(fd int) []byte {
	fh, _, err := unix.NameToHandleAt(fd, "", unix.AT_EMPTY_PATH)
	if err != nil {
		return nil
	}
	return append(binary.LittleEndian.AppendUint32(nil, uint32(fh.Type())), fh.Bytes()...)
}

// here is what whereabouts has read; nil: not all of it could be read yet.
var here atomic.Pointer[Process]

// whereabouts returns the namespaces and clocks that a process's number and start time depend on. They are those of
// this process, and stay: they are read once, and again where that failed, for want of descriptors, say.
func whereabouts() Process {
	if p := here.Load(); p != nil {
		return *p
	}
	p := readWhereabouts()
	if p.BootID != "" && p.PIDNS != 0 && p.TimeNS != 0 {
		here.Store(&p)
	}
	return p
}

func readWhereabouts() Process {
	var p Process
	if b, err := os.ReadFile("/proc/sys/kernel/random/boot_id"); err == nil {
		p.BootID = strings.TrimSpace(string(b))
	}
	var st unix.Stat_t
	if unix.Stat("/proc/self/ns/pid", &st) == nil {
		p.PIDNS = st.Ino
	}
	if unix.Stat("/proc/self/ns/time", &st) == nil {
		p.TimeNS = st.Ino
		p.TimeOffset, _ = clock.Offset() // where it is not known, each agent takes another
	}
	return p
}

// pidOf reads the process id of a pidfd (pidfd_open(2), fdinfo): 0 when the process is not visible from here, -1 when
// it is gone.
func pidOf(fd int) (int32, error) {
	var room [files.ShortRoom]byte
	b, err := files.Short("/proc/self/fdinfo/"+strconv.Itoa(fd), &room)
	if err != nil {
		return 0, fmt.Errorf("%w: %v", ErrUnsupported, err)
	}
	for line := range bytes.Lines(b) {
		if v, ok := bytes.CutPrefix(line, []byte("Pid:")); ok {
			n, err := strconv.ParseInt(string(bytes.TrimSpace(v)), 10, 32)
			if err != nil {
				return 0, fmt.Errorf("%w: fdinfo: %v", ErrUnsupported, err)
			}
			return int32(n), nil
		}
	}
	return 0, fmt.Errorf("%w: the descriptor is not a pidfd", ErrUnsupported)
}

// startTime returns when a process started, in clock ticks after boot (proc(5), stat, field 22); 0 when it cannot be
// read.
func startTime(pid int32) uint64 { return startTimeIn("/proc", pid) }

func startTimeIn(proc string, pid int32) uint64 {
	var room [files.ShortRoom]byte // which the fields up to that one never fill
	b, err := files.Short(proc+"/"+strconv.Itoa(int(pid))+"/stat", &room)
	if err != nil {
		return 0
	}
	n := 0
	for f := range bytes.FieldsSeq(b[bytes.LastIndexByte(b, ')')+1:]) { // the name before it may hold anything
		if n++; n == 20 {
			at, _ := strconv.ParseUint(string(f), 10, 64)
			return at
		}
	}
	return 0
}
