package files

import (
	"os"

	"golang.org/x/sys/windows"
)

// Lock takes the file's lock for as long as it is open, or fails at once. The locked byte lies beyond the content,
// which stays readable.
func Lock(f *os.File) error {
	const flags = windows.LOCKFILE_EXCLUSIVE_LOCK | windows.LOCKFILE_FAIL_IMMEDIATELY
	return windows.LockFileEx(windows.Handle(f.Fd()), flags, 0, 1, 0, &windows.Overlapped{Offset: 1 << 20})
}
