package doctor

import (
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// peerOf returns the process that listens at the other end of a connection; 0: it is not known.
func peerOf(conn net.Conn) int {
	c, ok := conn.(*net.UnixConn)
	if !ok {
		return 0
	}
	raw, err := c.SyscallConn()
	if err != nil {
		return 0
	}
	pid := 0
	_ = raw.Control(func(fd uintptr) { // pid stays 0
		if who, err := unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED); err == nil {
			pid = int(who.Pid)
		}
	})
	return pid
}

// groupOf returns the gid of a file's group.
func groupOf(fi fs.FileInfo) int {
	st, ok := fi.Sys().(*syscall.Stat_t)
	if !ok {
		return -1
	}
	return int(st.Gid)
}

// groupName names a group for people.
func groupName(gid int) string {
	if g, err := user.LookupGroupId(strconv.Itoa(gid)); err == nil {
		return g.Name
	}
	return fmt.Sprintf("gid %d", gid)
}

// openFiles returns the limit of open files of a process, and how many it has open, 0 where that is not to be seen. pid
// 0 is this one. Go programs raise the soft limit to the hard one when they start.
func openFiles(pid int) (limit, used uint64, whose string) {
	if pid != 0 {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/limits", pid))
		if err == nil {
			for line := range strings.Lines(string(b)) {
				if f := strings.Fields(line); strings.HasPrefix(line, "Max open files") && len(f) > 4 {
					limit, _ = strconv.ParseUint(f[3], 10, 64) // unlimited is 0
				}
			}
			open, _ := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", pid)) // none where this user may not look
			return limit, uint64(len(open)), "the agent"
		}
	}
	var l unix.Rlimit
	if unix.Getrlimit(unix.RLIMIT_NOFILE, &l) != nil {
		return 0, 0, ""
	}
	return l.Max, 0, "an agent that is started here"
}

// watchable says why this thread cannot watch a folder; nil: it can, or there is none.
func watchable(dir string) error {
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	_, err = unix.InotifyAddWatch(fd, dir, unix.IN_CREATE)
	return err
}

// isSynchronised reports whether the kernel says that a time server keeps its clock.
func isSynchronised() bool {
	var t unix.Timex
	state, err := unix.Adjtimex(&t)
	return err == nil && state != unix.TIME_ERROR && t.Status&unix.STA_UNSYNC == 0
}
