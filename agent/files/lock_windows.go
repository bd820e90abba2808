package files

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/windows"
)

// Lock takes the file's lock for as long as it is open, or fails at once: with [ErrTaken] where another has it. The
// locked byte lies beyond the content, which stays readable.
func Lock(f *os.File) error {
	const flags = windows.LOCKFILE_EXCLUSIVE_LOCK | windows.LOCKFILE_FAIL_IMMEDIATELY
	err := windows.LockFileEx(windows.Handle(f.Fd()), flags, 0, 1, 0, &windows.Overlapped{Offset: 1 << 20})
	switch {
	case err == nil:
		return nil
	case errors.Is(err, windows.ERROR_LOCK_VIOLATION), errors.Is(err, windows.ERROR_IO_PENDING):
		return ErrTaken
	}
	return fmt.Errorf("it cannot be locked: %w", err)
}

// Unlock does nothing: the lock is given back when the file is closed, which no other process has open.
func Unlock(*os.File) {}
