package api

import (
	"syscall"

	"golang.org/x/sys/unix"
)

// emptyQueue is a bound of what SIOCOUTQ says of a queue that is empty: while the last buffer is being freed it says 1,
// and the least buffer counts for more than this.
const emptyQueue = 256

// awaitRead waits until nothing that was written lies unread at the other end, for it was read, or the other end has
// closed, by the deadline of writes at the latest. Each buffer that is read, or thrown away when the other end closes,
// wakes whoever waits to write (edge-triggered), and SIOCOUTQ (unix(7)) says what is left.
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

// pendingError returns the error that the kernel holds ready for the next read, and takes it away.
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
