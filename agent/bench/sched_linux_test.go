package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// pinned returns on how many processors the threads of a process may run, of the thread that may on most.
func pinned(t *testing.T, pid int) (most int) {
	threads, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*", pid))
	if err != nil || len(threads) == 0 {
		t.Fatal(threads, err)
	}
	for _, thread := range threads {
		tid, err := strconv.Atoi(filepath.Base(thread))
		if err != nil {
			t.Fatal(err)
		}
		var set unix.CPUSet
		if unix.SchedGetaffinity(tid, &set) == nil {
			most = max(most, set.Count())
		}
	}
	return most
}

func TestPinHasAllThreadsOnOneProcessor(t *testing.T) {
	holder, err := begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer end(holder)
	var set unix.CPUSet
	if err := unix.SchedGetaffinity(0, &set); err != nil {
		t.Fatal(err)
	}
	undo, err := pin(holder.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	if n := pinned(t, holder.Process.Pid); n != 1 {
		t.Errorf("a thread may run on %d processors", n)
	}
	undo()
	if n := pinned(t, holder.Process.Pid); n != set.Count() {
		t.Errorf("after the undoing a thread may run on %d processors, not on %d", n, set.Count())
	}
}

// The writer beside takes a processor and the disk only when nobody else wants them.
func TestWriterYields(t *testing.T) {
	file := filepath.Join(t.TempDir(), "noise")
	writer, err := self(t.Context(), "writer", "-file", file)
	if err == nil {
		err = writer.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	defer end(writer)
	for begin := time.Now(); ; <-time.After(time.Millisecond) { // until it writes: it has yielded before
		if i, err := os.Stat(file); err == nil && i.Size() > 0 {
			break
		}
		if time.Since(begin) > 30*time.Second {
			t.Fatal("it does not write after 30 s")
		}
	}
	threads, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*", writer.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	for _, thread := range threads {
		tid, err := strconv.Atoi(filepath.Base(thread))
		if err != nil {
			t.Fatal(err)
		}
		attr, err := unix.SchedGetAttr(tid, 0)
		class, _, errno := unix.Syscall(unix.SYS_IOPRIO_GET, 1, uintptr(tid), 0)
		if err == nil && errno == 0 && attr.Policy == unix.SCHED_IDLE && class>>13 == 3 {
			return
		}
	}
	t.Error("no thread of the writer yields to others")
}

// What a host gives to others is a part of what this machine has needed; what was idle is not.
func TestTicks(t *testing.T) {
	needed, stolen := ticks("cpu  100 20 30 4000 500 6 7 80 90 10\ncpu0 1 1 1 1 1 1 1 1 0 0\n")
	if needed != 243 || stolen != 80 {
		t.Errorf("needed %d, stolen %d; want 243, 80", needed, stolen)
	}
	if needed, stolen := processors(); needed <= 0 || stolen < 0 || stolen > needed {
		t.Errorf("the machine has needed %d ticks, and did not get %d", needed, stolen)
	}
}
