package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// hasCPUTime says whether cpuTime can be had.
const hasCPUTime = true

// cpuTime returns the time that processes have run on a processor, by the scheduler's count: the first number of
// schedstat of each thread (Documentation/scheduler/sched-stats.rst of Linux), in ns. Threads that have ended are not
// in it; a Go program ends none but those that a goroutine locked.
func cpuTime(pids ...int) (all time.Duration, err error) {
	for _, pid := range pids {
		threads, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/schedstat", pid))
		if err != nil {
			return 0, err
		}
		if len(threads) == 0 {
			return 0, fmt.Errorf("the kernel counts no processor time of process %d, or the process is gone", pid)
		}
		for _, t := range threads {
			b, err := os.ReadFile(t)
			if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ESRCH) {
				continue // the thread has just ended
			}
			if err != nil {
				return 0, err
			}
			first, _, _ := strings.Cut(string(b), " ")
			ns, err := strconv.ParseInt(first, 10, 64)
			if err != nil {
				return 0, fmt.Errorf("%s: %w", t, err)
			}
			all += time.Duration(ns)
		}
	}
	return all, nil
}

// processors returns how much of the processors' time this machine has needed since it started, and how much of that it
// did not get, because its host gave it to others, in the kernel's ticks; 0: it is not known.
func processors() (needed, stolen int64) {
	b, err := os.ReadFile("/proc/stat")
	if err != nil {
		return 0, 0
	}
	return ticks(string(b))
}

// ticks is processors of the text of /proc/stat. Its first line is "cpu", and then user, nice, system, idle, iowait,
// irq, softirq, steal, guest and guest_nice (proc_stat(5)). Guests are in user and nice already.
func ticks(stat string) (needed, stolen int64) {
	line, _, _ := strings.Cut(stat, "\n")
	for i, text := range strings.Fields(line) {
		n, err := strconv.ParseInt(text, 10, 64)
		if err != nil || i > 8 || i == 4 || i == 5 {
			continue
		}
		if needed += n; i == 8 {
			stolen = n
		}
	}
	return needed, stolen
}

// pin has all threads of a process run on the one processor that the run pins to, until undo. A thread that a pinned
// one makes is pinned, too.
func pin(pid int) (undo func(), err error) {
	var was, one unix.CPUSet
	if err := unix.SchedGetaffinity(0, &was); err != nil {
		return nil, err
	}
	for cpu := range 1024 {
		if was.IsSet(cpu) {
			one.Set(cpu) // the last one: interrupts and what starts early crowd on the first
			for other := range cpu {
				one.Clear(other)
			}
		}
	}
	if err := setAffinity(pid, &one); err != nil {
		return nil, err
	}
	return func() { setAffinity(pid, &was) }, nil
}

func setAffinity(pid int, set *unix.CPUSet) error {
	done := map[string]bool{}
	for { // until no thread is new: one may be made while the list is read
		threads, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", pid))
		if err != nil {
			return err
		}
		before := len(done)
		for _, t := range threads {
			if done[t.Name()] {
				continue
			}
			done[t.Name()] = true
			tid, err := strconv.Atoi(t.Name())
			if err != nil {
				return err
			}
			if err := unix.SchedSetaffinity(tid, set); err != nil && !errors.Is(err, unix.ESRCH) {
				return err
			}
		}
		if len(done) == before {
			return nil
		}
	}
}

// yieldToAll has this thread run, read and write only when nobody else wants to: SCHED_IDLE, nice 19, and the idle
// class of input and output (ioprio_set(2)). The goroutine keeps the thread.
func yieldToAll() error {
	runtime.LockOSThread()
	const whoProcess, idleClass = 1, 3 << 13 // of linux/ioprio.h
	if err := unix.Setpriority(unix.PRIO_PROCESS, 0, 19); err != nil {
		return err
	}
	if _, _, errno := unix.Syscall(unix.SYS_IOPRIO_SET, whoProcess, 0, idleClass); errno != 0 {
		return errno
	}
	return unix.SchedSetAttr(0, &unix.SchedAttr{Size: unix.SizeofSchedAttr, Policy: unix.SCHED_IDLE, Nice: 19}, 0)
}

// isMemory reports whether a folder lies in memory.
func isMemory(dir string) bool {
	var s unix.Statfs_t
	return unix.Statfs(dir, &s) == nil && (s.Type == unix.TMPFS_MAGIC || s.Type == unix.RAMFS_MAGIC)
}

// become has this process go on as another user, where it may.
func become(uid int) error {
	if os.Geteuid() != 0 {
		return nil
	}
	return errors.Join(syscall.Setgroups(nil), syscall.Setgid(uid), syscall.Setuid(uid))
}

// resetPeak has the kernel count the greatest resident memory of a process from now on (proc(5), clear_refs).
func resetPeak(pid int) error {
	return os.WriteFile(fmt.Sprintf("/proc/%d/clear_refs", pid), []byte("5"), 0)
}

// program returns the name of the program that a process runs, as the kernel has it.
func program(pid int) string {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/comm", pid))
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(b))
}
