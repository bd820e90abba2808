package client

import (
	"bytes"
	"net"
	"os"
	"strconv"
	"strings"
	"syscall"
)

// sysPidfdOpen is pidfd_open(2), Linux 5.3. Every Linux architecture of Go has this number.
const sysPidfdOpen = 434

// pidfd returns a pidfd of this process, or -1 if the kernel has none. The kernel sets close-on-exec.
func pidfd() int {
	fd, _, errno := syscall.Syscall(sysPidfdOpen, uintptr(syscall.Getpid()), 0, 0)
	if errno != 0 {
		return -1
	}
	return int(fd)
}

// pidfdOf returns a pidfd of a process, or -1 if the kernel gives none; gone says that there is no such process.
func pidfdOf(pid int) (fd int, gone bool) {
	got, _, errno := syscall.Syscall(sysPidfdOpen, uintptr(pid), 0, 0)
	switch errno {
	case 0:
		return int(got), false
	case syscall.ESRCH, syscall.EINVAL, syscall.ENOENT: // or it is the number of a thread that is not the first
		return -1, true
	}
	return -1, false
}

func closePIDFD(fd int) error {
	if fd < 0 {
		return nil
	}
	return syscall.Close(fd)
}

// sendFirst writes b together with a pidfd of this process (unix(7), SCM_RIGHTS). So the agent learns of its death even
// where the kernel cannot tell it which process connected.
func sendFirst(c *net.UnixConn, b []byte) (int, error) {
	fd := pidfd()
	defer closePIDFD(fd)
	return sendBeside(c, fd, b)
}

// sendBeside writes b together with a pidfd (unix(7), SCM_RIGHTS). It returns the number of bytes written. If the pidfd
// cannot be sent, it writes b alone; -1 is none.
func sendBeside(c *net.UnixConn, fd int, b []byte) (int, error) {
	if fd < 0 {
		return c.Write(b)
	}
	n, _, err := c.WriteMsgUnix(b, syscall.UnixRights(fd), nil)
	if err != nil && n == 0 {
		return c.Write(b)
	}
	return n, err
}

// whoami returns this process as the kernel knows it.
func whoami() self {
	me := self{uids: []int64{int64(os.Geteuid())}, pids: []int64{int64(os.Getpid())}}
	if fd := pidfd(); fd >= 0 {
		var st syscall.Stat_t
		if syscall.Fstat(fd, &st) == nil {
			me.inode = st.Ino
		}
		syscall.Close(fd)
	}
	if b, err := os.ReadFile("/proc/self/stat"); err == nil {
		// The name, in brackets, may contain anything; the fields begin after the last bracket (proc(5), field 22).
		if f := bytes.Fields(b[bytes.LastIndexByte(b, ')')+1:]); len(f) > 19 {
			me.start, _ = strconv.ParseUint(string(f[19]), 10, 64)
		}
	}
	if b, err := os.ReadFile("/proc/self/status"); err == nil {
		for line := range strings.Lines(string(b)) {
			numbers, ok := strings.CutPrefix(line, "NSpid:")
			for _, f := range strings.Fields(numbers) {
				if n, err := strconv.ParseInt(f, 10, 64); ok && err == nil {
					me.pids = append(me.pids, n)
				}
			}
		}
	}
	// 0xEFFFFFFC is the inode of the first PID namespace in every kernel (PROC_PID_INIT_INO). In another namespace, the
	// process has a number outside that it cannot know.
	if ns, err := os.Readlink("/proc/self/ns/pid"); err == nil && ns != "pid:[4026531836]" {
		me.hidden = true
	}
	// The agent sees the uid outside of a user namespace (user_namespaces(7)).
	if b, err := os.ReadFile("/proc/self/uid_map"); err == nil {
		for line := range strings.Lines(string(b)) {
			var n [3]int64
			f := strings.Fields(line)
			for i := range min(3, len(f)) {
				n[i], _ = strconv.ParseInt(f[i], 10, 64)
			}
			if uid := me.uids[0]; uid >= n[0] && uid < n[0]+n[2] {
				me.uids = append(me.uids, uid-n[0]+n[1])
			}
		}
	}
	return me
}
