//go:build linux && race

package api

import (
	"errors"
	"syscall"
)

// readNow is read(2), of which Go tells the detector of races: it knows by it what came before what.
func readNow(fd uintptr, p []byte) (int, syscall.Errno) {
	n, err := syscall.Read(int(fd), p)
	return max(n, 0), number(err)
}

// writeNow is write(2), as readNow is read(2).
func writeNow(fd uintptr, p []byte) (int, syscall.Errno) {
	n, err := syscall.Write(int(fd), p)
	return max(n, 0), number(err)
}

// number returns the kernel's number of an error; 0: there is none.
func number(err error) syscall.Errno {
	errno, _ := errors.AsType[syscall.Errno](err)
	return errno
}
