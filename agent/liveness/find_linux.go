package liveness

import (
	"encoding/binary"
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// maxHandle is MAX_HANDLE_SZ (open_by_handle_at(2)) and the type before it.
const maxHandle = 128 + 4

// Find looks for a process that an earlier agent knew. With [Alive] comes a handle, of [PathPIDFD]. It says [Dead] only
// when that is sure: a slot that is freed for a living process is a slot too many. A process that is not visible from
// here is [Unknown].
func Find(p Process) (*Handle, State) {
	here := whereabouts()
	if p.BootID == "" || here.BootID == "" {
		return nil, Unknown
	}
	if p.BootID != here.BootID {
		return nil, Dead
	}
	// A PID namespace's inode may pass to another when the first has ended. All processes of the first are dead then,
	// so their numbers, looked up in the second, can only be dead too: the start time tells.
	same := p.PID > 0 && p.PIDNS != 0 && p.PIDNS == here.PIDNS
	stale := false
	if p.Handle == nil && p.Inode != 0 {
		p.Handle = handleOf(p.Inode)
	}
	if n := len(p.Handle); n > 4 && n <= maxHandle {
		h, err := openHandle(p)
		switch {
		case err == nil && same && h.process.PID != p.PID:
			_ = h.Close() // the stored fields do not fit together
		case err == nil:
			return h, Alive
		case errors.Is(err, ErrDead):
			return nil, Dead
		case errors.Is(err, unix.ESTALE):
			// Dead, or out of sight: the kernel opens no handle of a process in a PID namespace that is not below ours.
			stale = true
		}
	}
	if !same {
		return nil, Unknown
	}
	if p.Start != 0 && sameClock(p, here) {
		h, err := FromPID(p.PID, p.Start)
		switch {
		case err == nil && p.Inode != 0 && h.process.Inode != 0 && p.Inode != h.process.Inode:
			_ = h.Close()
			return nil, Dead // another took its number within one clock tick
		case err == nil:
			return h, Alive
		case errors.Is(err, ErrDead):
			return nil, Dead
		}
	}
	if stale { // this very namespace showed it, and does not any more
		return nil, Dead
	}
	if t := startTime(p.PID); t != 0 && p.Start != 0 && sameClock(p, here) && t != p.Start {
		return nil, Dead
	}
	return nil, Unknown
}

// sameClock reports whether start times from two places compare.
func sameClock(a, b Process) bool { return a.TimeNS == b.TimeNS && a.TimeOffset == b.TimeOffset }

// handleOf returns the file handle of a pidfd by its inode; nil where this kernel's handles are not simply that. On
// 64-bit kernels they are (fs/pidfs.c, pidfs_encode_fh), as our own pidfd shows, so that it is enough to store the
// inode. The caller checks afterwards that it opened the right process.
func handleOf(inode uint64) []byte {
	fd, err := unix.PidfdOpen(os.Getpid(), 0)
	if err != nil {
		return nil
	}
	defer unix.Close(fd)
	own, ok := pidfsInode(fd)
	h := fileHandle(fd)
	if !ok || len(h) != 4+8 || binary.NativeEndian.Uint64(h[4:]) != own {
		return nil
	}
	return binary.NativeEndian.AppendUint64(h[:4], inode)
}

// openHandle opens a process by the file handle of its pidfd. Any pidfd shows the kernel the file system.
func openHandle(p Process) (*Handle, error) {
	root, err := unix.PidfdOpen(os.Getpid(), 0)
	if err != nil {
		return nil, err
	}
	defer unix.Close(root)
	if _, ok := pidfsInode(root); !ok {
		return nil, ErrUnsupported
	}
	fh := unix.NewFileHandle(int32(binary.LittleEndian.Uint32(p.Handle)), p.Handle[4:])
	fd, err := unix.OpenByHandleAt(root, fh, unix.O_CLOEXEC)
	if err != nil {
		return nil, err
	}
	if inode, ok := pidfsInode(fd); !ok || p.Inode != 0 && inode != p.Inode {
		unix.Close(fd)
		return nil, ErrUnsupported // another than the stored one: it tells nothing
	}
	return newHandle(fd, PathPIDFD)
}

// Supported asks the kernel which paths it offers.
func Supported() Support {
	var s Support
	var u unix.Utsname
	if unix.Uname(&u) == nil {
		s.Kernel = unix.ByteSliceToString(u.Release[:])
	}
	s.PeerPIDFD, _ = probePeer()
	h, err := FromPID(int32(os.Getpid()), 0)
	if err != nil {
		return s
	}
	defer h.Close()
	s.PIDFDOpen = true
	s.PIDFS = h.process.Inode != 0
	if h.process.Handle != nil {
		if again, err := openHandle(h.process); err == nil {
			s.Handles = true
			_ = again.Close()
		}
	}
	return s
}
