package liveness

import (
	"fmt"
	"net"
	"os"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// SendPIDFD writes b to a connection with a pidfd of this process beside it (unix(7), SCM_RIGHTS). b must not be empty.
// It is [ErrUnsupported], and writes nothing, where there is no pidfd_open.
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

// Sent is a pidfd that came beside the first bytes of a connection. nil is none.
type Sent struct{ fd int }

// wantsSent says whether a sent pidfd is of use: 0 not known yet, 1 yes, 2 no.
var wantsSent atomic.Int32

// WantsSent reports whether a pidfd that a peer sends of itself can tell the agent anything on this kernel.
func WantsSent() bool {
	if w := wantsSent.Load(); w != 0 {
		return w == 1
	}
	has, err := probePeer()
	if err != nil {
		return true // not known for want of descriptors
	}
	wantsSent.Store(map[bool]int32{false: 1, true: 2}[has])
	return !has
}

// SentSpace is the room for control messages that one pidfd needs (cmsg(3)). The kernel closes descriptors beyond it.
var SentSpace = unix.CmsgSpace(4)

// ReceiveSent is [ReceivePIDFD] as a Sent: nil when no pidfd came. Close it, or hand it to [FromConn].
func ReceiveSent(oob []byte) *Sent {
	fd, ok := ReceivePIDFD(oob)
	if !ok {
		return nil
	}
	return &Sent{fd}
}

// Close gives the pidfd back, unless a handle has it. It may be called more than once, and of nil.
func (s *Sent) Close() error {
	if s == nil || s.fd < 0 {
		return nil
	}
	fd := s.fd
	s.fd = -1
	return unix.Close(fd)
}

// Handle returns a handle of the process that the pidfd is of, whoever sent it; the Sent is used up. Its errors are
// those of [FromPIDFD].
func (s *Sent) Handle() (*Handle, error) {
	if s == nil || s.fd < 0 {
		return nil, fmt.Errorf("%w: no pidfd was sent", ErrUnsupported)
	}
	fd := s.fd
	s.fd = -1
	return FromPIDFD(fd)
}

// handle returns the sent pidfd's handle if it is the peer's, whose process id is pid as the kernel gives it; nil if
// not.
//
// A peer that is visible must have sent itself. Of a peer in a PID namespace that is not visible from here the kernel
// shows no number and, before it has SO_PEERPIDFD, nothing else to compare. Then handle accepts only a process that is
// not visible either. A peer could send another process's pidfd to gain a slot for as long as that process lives. That
// is no more than it gets by staying alive. Whose slot it is stays the connection's word.
func (s *Sent) handle(pid int32) (*Handle, error) {
	if s == nil || s.fd < 0 {
		return nil, ErrUnsupported
	}
	fd := s.fd
	s.fd = -1
	h, err := FromPIDFD(fd)
	if err != nil {
		if pid > 0 { // its number tells whether the peer is dead
			err = ErrUnsupported
		}
		return nil, err
	}
	if h.process.PID != pid {
		_ = h.Close()
		return nil, fmt.Errorf("%w: the pidfd that was sent is of process %d, and the peer is %d", ErrUnsupported,
			h.process.PID, pid)
	}
	return h, nil
}

// ReceivePIDFD takes the pidfd out of the control messages that came with a read ([net.UnixConn.ReadMsgUnix]; 64 bytes
// are enough for one). ok is false, and every descriptor is closed, unless there is exactly one and it is the pidfd of
// a process. Pass it to [FromPIDFD].
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
