//go:build unix

package files

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// flock is flock(2); tests have it fail.
var flock = unix.Flock

// Lock takes the file's lock for as long as it is open, or fails at once: with [ErrTaken] where another has it, and
// with the kernel's error and the file system where it cannot be had.
func Lock(f *os.File) error {
	err := unix.Errno(unix.EINTR)
	for errors.Is(err, unix.EINTR) {
		err = asErrno(flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB))
	}
	switch {
	case err == 0:
		return nil
	case err == unix.EWOULDBLOCK:
		return ErrTaken
	}
	return fmt.Errorf(
		"it cannot be locked: %w (errno %d), on a file system of type %s; choose a folder on a local one "+
			"that knows flock(2)", err, int(err), fileSystem(f))
}

// Unlock gives the file's lock back. Closing the file alone would do so only once a process that this one was starting
// at the time is another program: until then it has the file open, too.
func Unlock(f *os.File) { _ = flock(int(f.Fd()), unix.LOCK_UN) } // the file is closed next, whatever this says

func asErrno(err error) unix.Errno {
	var number unix.Errno
	if err != nil && !errors.As(err, &number) {
		return unix.EIO
	}
	return number
}
