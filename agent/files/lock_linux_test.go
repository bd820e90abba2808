package files

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// A lock that another has is told apart from one that cannot be had, which says the kernel's error and the file system.
func TestLockSaysWhy(t *testing.T) {
	dir := t.TempDir()
	first, err := StateFolder(dir).Lock()
	if err != nil {
		t.Fatal(err)
	}
	defer first.Close()
	if _, err := StateFolder(dir).Lock(); !errors.Is(err, ErrTaken) ||
		!strings.Contains(err.Error(), "another agent (pid") {
		t.Errorf("a lock that is taken: %v", err)
	}
	defer func() { flock = unix.Flock }()
	for _, number := range []unix.Errno{unix.ENOLCK, unix.ENOSYS, unix.EOPNOTSUPP, unix.EIO} {
		flock = func(int, int) error { return number }
		_, err := StateFolder(t.TempDir()).Lock()
		if err == nil || errors.Is(err, ErrTaken) || !errors.Is(err, number) ||
			!strings.Contains(err.Error(), "on a file system of type ") ||
			strings.Contains(err.Error(), "another agent") {
			t.Errorf("%v: %v", number, err)
		}
	}
	interrupted := 0
	flock = func(fd, how int) error {
		if interrupted++; interrupted < 3 {
			return unix.EINTR
		}
		return unix.Flock(fd, how)
	}
	f, err := StateFolder(t.TempDir()).Lock()
	if err != nil {
		t.Fatalf("a lock that a signal interrupts: %v", err)
	}
	f.Close()
}

// A folder, or only its lock, is removed or replaced while it is held. It is missed, and comes back locked.
func TestHeldFolderIsRestored(t *testing.T) {
	for what, do := range map[string]func(dir string) error{
		"removed":    os.RemoveAll,
		"renamed":    func(dir string) error { return os.Rename(dir, dir+".old") },
		"lock gone":  func(dir string) error { return os.Remove(filepath.Join(dir, "agent.lock")) },
		"lock stood": func(string) error { return nil },
	} {
		dir := filepath.Join(t.TempDir(), "state")
		if err := os.Mkdir(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		h, err := StateFolder(dir).Hold()
		if err != nil {
			t.Fatal(err)
		}
		if err := do(dir); err != nil {
			t.Fatal(err)
		}
		stood := what == "lock stood"
		if err := h.Look(); (err == nil) != stood || err != nil && !errors.Is(err, ErrGone) {
			t.Errorf("%s: %v", what, err)
		}
		if restored, err := h.Restore(); err != nil || restored == stood {
			t.Errorf("%s: restored %v, %v", what, restored, err)
		}
		if _, err := StateFolder(dir).Lock(); !errors.Is(err, ErrTaken) {
			t.Errorf("%s: another agent can lock it: %v", what, err)
		}
		if err := errors.Join(h.Look(), h.Close()); err != nil {
			t.Errorf("%s: %v", what, err)
		}
	}
}

// Another agent took the place meanwhile: it keeps it.
func TestHeldFolderIsTaken(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "state")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	h, err := StateFolder(dir).Hold()
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	if err := errors.Join(os.Rename(dir, dir+".old"), os.Mkdir(dir, 0o700)); err != nil {
		t.Fatal(err)
	}
	other, err := StateFolder(dir).Hold()
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	if restored, err := h.Restore(); !errors.Is(err, ErrTaken) || restored {
		t.Errorf("restored %v, %v", restored, err)
	}
	if err := other.Look(); err != nil {
		t.Error(err)
	}
}

// A folder that is given back is free at once, also while a process that was being started has the lock's file open
// still, as between fork and exec.
func TestFolderIsFreeWhileAProcessStarts(t *testing.T) {
	dir := t.TempDir()
	h, err := StateFolder(dir).Hold()
	if err != nil {
		t.Fatal(err)
	}
	child, err := unix.Dup(int(h.lock.Fd()))
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(child)
	if err := h.Close(); err != nil {
		t.Fatal(err)
	}
	again, err := StateFolder(dir).Hold()
	if err != nil {
		t.Fatal(err)
	}
	again.Close()
}
