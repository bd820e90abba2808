package api

import (
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"syscall"
)

// A call of the kernel that may wait is announced to Go's scheduler before and after. Where the machine is busy, that
// costs more than the call itself: the kernel may prefer the process at the other end as soon as it has an answer, and
// then Go's monitor takes away what the thread needs in order to go on, and wakes another thread for it. A socket that
// does not block never waits, so that its calls are not announced. What finds nothing, or no room, waits as everything
// else does, until Go's poller says that there is something.

// mostDirect is the most that one such call writes, in bytes: it is over within microseconds.
const mostDirect = 16 << 10

// direct is a connection's way to read with such calls.
type direct struct {
	raw  syscall.RawConn // nil: there is none
	read transfer
}

// transfer is a read or a write that may have to wait for its turn.
type transfer struct {
	bytes []byte
	n     int
	errno syscall.Errno
	try   func(fd uintptr) bool // the method of that name, made once: it reports whether the transfer is over
}

// writes has transfers whose try writes. Few writes wait, so that a connection needs none of its own.
var writes = sync.Pool{New: func() any {
	t := &transfer{}
	t.try = t.tryWrite
	return t
}}

// goDirect has a connection read and write so. Nobody uses the connection yet.
func (c *conn) goDirect() {
	if raw, err := c.SyscallConn(); err == nil {
		c.direct.raw, c.direct.read.try = raw, c.direct.read.tryRead
	}
}

// receive reads from the connection itself.
func (c *conn) receive(p []byte) (int, error) {
	d, t := &c.direct, &c.direct.read
	if d.raw == nil || len(p) == 0 {
		return c.UnixConn.Read(p)
	}
	t.bytes, t.n, t.errno = p, 0, 0
	err := d.raw.Read(t.try)
	t.bytes = nil
	switch {
	case err != nil:
		return 0, named(err, "read")
	case t.errno != 0:
		return 0, &net.OpError{Op: "read", Net: "unix", Err: os.NewSyscallError("read", t.errno)}
	case t.n == 0:
		return 0, io.EOF
	}
	return t.n, nil
}

// transmit writes to the connection itself.
func (c *conn) transmit(p []byte) (n int, err error) {
	if c.direct.raw == nil || len(p) > mostDirect {
		return c.UnixConn.Write(p)
	}
	t := writes.Get().(*transfer)
	t.bytes, t.n, t.errno = p, 0, 0
	err = c.direct.raw.Write(t.try)
	n = t.n
	switch {
	case err != nil:
		err = named(err, "write")
	case t.errno != 0:
		err = &net.OpError{Op: "write", Net: "unix", Err: os.NewSyscallError("write", t.errno)}
	}
	t.bytes = nil
	writes.Put(t)
	return n, err
}

// named gives an error of a deadline, or of a connection that is closed, the name that Go's own call gives it: net/http
// looks at it.
func named(err error, op string) error {
	if e, ok := errors.AsType[*net.OpError](err); ok {
		e.Op = op
	}
	return err
}

// tryRead reads once.
func (t *transfer) tryRead(fd uintptr) bool {
	for {
		switch n, errno := readNow(fd, t.bytes); errno {
		case syscall.EINTR:
		case syscall.EAGAIN:
			return false
		default:
			t.n, t.errno = n, errno
			return true
		}
	}
}

// tryWrite writes until all is written.
func (t *transfer) tryWrite(fd uintptr) bool {
	for t.n < len(t.bytes) {
		n, errno := writeNow(fd, t.bytes[t.n:])
		switch errno {
		case 0:
			t.n += n
		case syscall.EINTR:
		case syscall.EAGAIN:
			return false
		default:
			t.errno = errno
			return true
		}
	}
	return true
}
