package liveness

import (
	"fmt"
	"net"
	"os"

	"golang.org/x/sys/unix"
)

// SendPIDFD writes b to a connection with a pidfd of this process beside it (unix(7), SCM_RIGHTS). b must not be empty. It is
// [ErrUnsupported] where there is no pidfd_open; then nothing is written.
func SendPIDFD(c *net.UnixConn, b []byte) error {
	fd, err := unix.PidfdOpen(os.Getpid(), 0)
	if err != nil {
		return fmt.Errorf("%w: pidfd_open: %v", ErrUnsupported, err)
	}
	defer unix.Close(fd)
	n, oobn, err := c.WriteMsgUnix(b, unix.UnixRights(fd), nil)
	if err != nil {
		return fmt.Errorf("send a pidfd: %w", err)
	}
	if n < len(b) || oobn == 0 {
		return fmt.Errorf("send a pidfd: %d of %d bytes were sent", n, len(b))
	}
	return nil
}

// ReceivePIDFD takes the pidfd out of the control messages that came with a read ([net.UnixConn.ReadMsgUnix]; 64 bytes are
// enough for one). ok is false, and every descriptor that came is closed, unless it is exactly one and the pidfd of a
// process. Hand it to [FromPIDFD].
func ReceivePIDFD(oob []byte) (fd int, ok bool) {
	var fds []int
	for len(oob) >= unix.CmsgLen(0) {
		hdr, data, rest, err := unix.ParseOneSocketControlMessage(oob)
		if err != nil {
			break
		}
		oob = rest
		if hdr.Level != unix.SOL_SOCKET || hdr.Type != unix.SCM_RIGHTS {
			continue
		}
		more, err := unix.ParseUnixRights(&unix.SocketControlMessage{Header: hdr, Data: data})
		if err != nil {
			break
		}
		fds = append(fds, more...)
	}
	if len(fds) == 1 && checkPIDFD(fds[0]) == nil {
		unix.CloseOnExec(fds[0])
		return fds[0], true
	}
	for _, fd := range fds {
		unix.Close(fd)
	}
	return -1, false
}
