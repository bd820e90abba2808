//go:build unix

package files

import (
	"os"

	"golang.org/x/sys/unix"
)

// Lock takes the file's lock for as long as it is open, or fails at once.
func Lock(f *os.File) error { return unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB) }
