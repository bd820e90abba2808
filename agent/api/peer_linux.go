package api

import (
	"bytes"
	"fmt"
	"net"
	"os"
	"slices"
	"strconv"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/usher-agent/usher/agent/files"
)

// credentials asks the kernel for the peer's identity (unix(7), SO_PEERCRED).
func credentials(c *net.UnixConn) (peer, error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return peer{}, err
	}
	var p peer
	var failed error
	if err := raw.Control(func(fd uintptr) {
		ucred, err := unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
		if err != nil {
			failed = err
			return
		}
		p.uid, p.gid, p.pid = told(ucred.Uid, overflow.uid()), told(ucred.Gid, overflow.gid()), ucred.Pid
		p.groups = peerGroups(fd)
		for i, g := range p.groups {
			p.groups[i] = told(g, overflow.gid())
		}
	}); err != nil {
		return peer{}, err
	}
	if failed != nil {
		return peer{}, fmt.Errorf("SO_PEERCRED: %w", failed)
	}
	if p.pid > 0 {
		p.start = startTime(p.pid)
		if exe, err := os.Readlink("/proc/" + strconv.Itoa(int(p.pid)) + "/exe"); err == nil {
			p.exe = exe
		}
		// By the time it was read, the pid may have been another process's.
		if p.start == 0 || startTime(p.pid) != p.start {
			p.exe, p.start = "", 0
		}
	}
	return p, nil
}

// maxGroups bounds the supplementary groups that are looked at; Linux allows 65536.
const maxGroups = 1 << 16

// peerGroups returns the peer's supplementary groups (SO_PEERGROUPS, Linux 4.13), none where the kernel does not tell.
func peerGroups(fd uintptr) []uint32 {
	var most [64]uint32
	groups := most[:]
	for {
		size := uint32(len(groups) * 4)
		_, _, errno := unix.Syscall6(unix.SYS_GETSOCKOPT, fd, unix.SOL_SOCKET, unix.SO_PEERGROUPS,
			uintptr(unsafe.Pointer(&groups[0])), uintptr(unsafe.Pointer(&size)), 0)
		switch {
		case errno == unix.ERANGE && size/4 > uint32(len(groups)) && size/4 <= maxGroups:
			groups = make([]uint32, size/4)
		case errno != 0:
			return nil
		default:
			return slices.Clone(groups[:size/4]) // an idle connection keeps them
		}
	}
}

// startTime returns when a process started, in clock ticks after boot (proc(5), field 22 of stat); 0: it is not known.
func startTime(pid int32) uint64 {
	var room [files.ShortRoom]byte // which the fields up to that one never fill
	b, err := files.Short("/proc/"+strconv.Itoa(int(pid))+"/stat", &room)
	if err != nil {
		return 0
	}
	// The name, in brackets, may hold anything: the fields come after the last bracket.
	n := 0
	for f := range bytes.FieldsSeq(b[bytes.LastIndexByte(b, ')')+1:]) {
		if n++; n == 20 {
			at, _ := strconv.ParseUint(string(f), 10, 64)
			return at
		}
	}
	return 0
}

// lives reports whether the peer's number is still its own.
func (p *peer) lives() bool { return p.start == 0 || startTime(p.pid) == p.start }

// exeFile is the path at which a process's executable can be read, even when the file has been replaced.
func exeFile(pid int32) string { return "/proc/" + strconv.Itoa(int(pid)) + "/exe" }
