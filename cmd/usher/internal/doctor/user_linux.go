package doctor

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// asUser calls f on a thread of its own that has become the user, and that ends afterwards. What f does must not leave
// its goroutine.
func asUser(u account, f func()) error {
	failed := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread ends with the goroutine
		if unix.Gettid() == os.Getpid() {
			// The process's first thread cannot end, and stands for the process in /proc. While this goroutine keeps
			// it, another one has another thread.
			defer runtime.UnlockOSThread()
			failed <- asUser(u, f)
			return
		}
		groups := make([]uint32, len(u.gids))
		for i, g := range u.gids {
			groups[i] = uint32(g)
		}
		become := func() error {
			// The system calls themselves change one thread; what the library has for them changes all.
			if _, _, err := syscall.RawSyscall(unix.SYS_SETGROUPS, uintptr(len(groups)),
				uintptr(unsafe.Pointer(unsafe.SliceData(groups))), 0); err != 0 {
				return err
			}
			gid, uid := uintptr(groups[0]), uintptr(u.uid)
			if _, _, err := syscall.RawSyscall(unix.SYS_SETRESGID, gid, gid, gid); err != 0 {
				return err
			}
			if _, _, err := syscall.RawSyscall(unix.SYS_SETRESUID, uid, uid, uid); err != 0 {
				return err
			}
			return nil
		}
		if err := become(); err != nil {
			failed <- fmt.Errorf("become %s: %w", u, err)
			return
		}
		f()
		failed <- nil
	}()
	return <-failed
}

// ownerOf returns the uid of a file's owner.
func ownerOf(fi fs.FileInfo) int {
	st, ok := fi.Sys().(*syscall.Stat_t)
	if !ok {
		return -1
	}
	return int(st.Uid)
}

// ownerOfAgent returns the uid of the running agent.
func (e *exam) ownerOfAgent() (uid int, ok bool) {
	if e.pid == 0 {
		return 0, false
	}
	fi, err := os.Stat(fmt.Sprintf("/proc/%d", e.pid))
	if err != nil {
		return 0, false
	}
	return ownerOf(fi), true
}

// writable says why this thread may not make files in a folder; nil: it may.
func writable(dir string) error {
	return unix.Faccessat(unix.AT_FDCWD, dir, unix.W_OK|unix.X_OK, unix.AT_EACCESS)
}

// room is the free room of a file system.
type room struct {
	free, total  uint64 // bytes for users other than root
	files, nodes uint64 // inodes, free and all; nodes is 0 where there is no bound
}

func roomOf(dir string) (room, error) {
	var s unix.Statfs_t
	if err := unix.Statfs(dir, &s); err != nil {
		return room{}, err
	}
	return room{s.Bavail * uint64(s.Bsize), s.Blocks * uint64(s.Bsize), s.Ffree, s.Files}, nil
}

// holder returns the process that has a lock on a file, as /proc/locks has it (proc(5)). 0: none that can be seen.
func holder(path string) int {
	var st unix.Stat_t
	if unix.Stat(path, &st) != nil {
		return 0
	}
	b, err := os.ReadFile("/proc/locks")
	if err != nil {
		return 0
	}
	id := fmt.Sprintf("%02x:%02x:%d", unix.Major(st.Dev), unix.Minor(st.Dev), st.Ino)
	for line := range strings.Lines(string(b)) {
		f := strings.Fields(line)
		if len(f) > 5 && f[1] == "FLOCK" && f[5] == id {
			pid, _ := strconv.Atoi(f[4]) // the kernel's own
			return pid
		}
	}
	return 0
}

// programOf names a process.
func programOf(pid int) string {
	exe, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", pid))
	if err != nil {
		b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/comm", pid)) // it may be gone
		exe = strings.TrimSpace(string(b))
	}
	if exe == "" {
		return fmt.Sprintf("pid %d", pid)
	}
	return fmt.Sprintf("%s (pid %d)", filepath.Base(exe), pid)
}

// listener returns the process that listens on a TCP port; 0: none that can be seen.
func listener(port int) int {
	inodes := map[string]bool{}
	for _, file := range []string{"/proc/net/tcp", "/proc/net/tcp6"} {
		b, _ := os.ReadFile(file) // there may be no IPv6
		for line := range strings.Lines(string(b)) {
			f := strings.Fields(line)
			if len(f) < 10 || f[3] != "0A" { // TCP_LISTEN
				continue
			}
			_, hex, _ := strings.Cut(f[1], ":")
			if n, err := strconv.ParseInt(hex, 16, 32); err == nil && int(n) == port {
				inodes["socket:["+f[9]+"]"] = true
			}
		}
	}
	links, _ := filepath.Glob("/proc/[0-9]*/fd/*") // the pattern is good
	for _, link := range links {
		if to, err := os.Readlink(link); err == nil && inodes[to] {
			pid, _ := strconv.Atoi(strings.Split(link, "/")[2]) // as the pattern has it
			return pid
		}
	}
	return 0
}
