package api

import (
	"syscall"

	"golang.org/x/sys/unix"
)

// emptyQueue is an upper bound of what SIOCOUTQ says of an empty queue. It says 1 while the last buffer is being freed,
// and the least buffer counts for more than this.
const emptyQueue = 256

// awaitRead waits until the other end has read all that was written, or has closed, at most until the deadline of
// writes. The kernel wakes a waiting writer (edge-triggered) for each buffer that the other end reads, or throws away
// when it closes. SIOCOUTQ (unix(7)) says what is left.
func (c *conn) awaitRead() error {
	raw, err := c.SyscallConn()
	if err != nil {
		return err
	}
	return raw.Write(func(fd uintptr) bool {
		left, err := unix.IoctlGetInt(int(fd), unix.SIOCOUTQ)
		return err != nil || left < emptyQueue
	})
}

// pendingError returns the error that the kernel holds ready for the next read, and clears it.
func (c *conn) pendingError() error {
	raw, err := c.SyscallConn()
	if err != nil {
		return err
	}
	var pending int
	if raw.Control(func(fd uintptr) {
		pending, err = unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_ERROR)
	}) != nil || err != nil || pending == 0 {
		return nil
	}
	return syscall.Errno(pending)
}
