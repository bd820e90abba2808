package api

import (
	"bytes"
	"errors"
	"io"
	"net"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// A connection that reads and writes with its own calls ends every read and every write as Go's own do.
func TestDirectEndsAsGosOwnCalls(t *testing.T) {
	past := time.Unix(1, 0)
	for _, test := range []struct {
		name string
		do   func(c *conn, other int) (n int, err error)
		want error // nil: none
	}{
		{"what came is read", func(c *conn, other int) (int, error) {
			unix.Write(other, []byte("{}"))
			return c.Read(make([]byte, 8))
		}, nil},
		{"a read of nothing", func(c *conn, _ int) (int, error) { return c.Read(nil) }, nil},
		{"the other end has written all", func(c *conn, other int) (int, error) {
			unix.Shutdown(other, unix.SHUT_WR)
			return c.Read(make([]byte, 8))
		}, io.EOF},
		{"the other end did not read all", func(c *conn, other int) (int, error) {
			c.Write([]byte("{}"))
			unix.Close(other)
			return c.Read(make([]byte, 8))
		}, syscall.ECONNRESET},
		{"the read takes too long", func(c *conn, _ int) (int, error) {
			c.SetReadDeadline(past)
			return c.Read(make([]byte, 8))
		}, os.ErrDeadlineExceeded},
		{"the connection is closed, and read", func(c *conn, _ int) (int, error) {
			c.UnixConn.Close()
			return c.Read(make([]byte, 8))
		}, net.ErrClosed},
		{"a write", func(c *conn, _ int) (int, error) { return c.Write([]byte("{}")) }, nil},
		{"a write of nothing", func(c *conn, _ int) (int, error) { return c.Write(nil) }, nil},
		{"nobody reads", func(c *conn, other int) (int, error) {
			unix.Shutdown(other, unix.SHUT_RD)
			return c.Write([]byte("{}"))
		}, syscall.EPIPE},
		{"the write takes too long", func(c *conn, _ int) (int, error) {
			c.SetWriteDeadline(past)
			return c.Write([]byte("{}"))
		}, os.ErrDeadlineExceeded},
		{"the connection is closed, and written", func(c *conn, _ int) (int, error) {
			c.UnixConn.Close()
			return c.Write([]byte("{}"))
		}, net.ErrClosed},
	} {
		t.Run(test.name, func(t *testing.T) {
			got := endOf(t, true, test.do)
			want := endOf(t, false, test.do)
			if got != want {
				t.Errorf("%+v, and by Go's own call %+v", got, want)
			}
			if !errors.Is(got.err, test.want) {
				t.Errorf("%v, want %v", got.err, test.want)
			}
		})
	}
}

// ending is how a read or a write ends, as far as anybody looks at it.
type ending struct {
	n       int
	err     error  // what is at the root of the error
	op      string // of the net.OpError; empty: it is none
	timeout bool
}

func endOf(t *testing.T, direct bool, do func(*conn, int) (int, error)) (e ending) {
	t.Helper()
	c, other := connected(t)
	defer c.UnixConn.Close()
	if !direct {
		c.direct.raw = nil
	}
	var err error
	e.n, err = do(c, other)
	if op, ok := errors.AsType[*net.OpError](err); ok {
		e.op, e.timeout = op.Op, op.Timeout()
	}
	for e.err = err; errors.Unwrap(e.err) != nil; {
		e.err = errors.Unwrap(e.err)
	}
	return e
}

// A write that finds no room waits for it, and writes all; with a deadline it says how much it has written.
func TestDirectWriteWaitsForRoom(t *testing.T) {
	c, other := connected(t)
	defer unix.Close(other)
	defer c.UnixConn.Close()
	line := []byte(strings.Repeat("x", mostDirect-1) + "\n")
	c.SetWriteDeadline(time.Now().Add(50 * time.Millisecond))
	sent := 0
	for {
		n, err := c.Write(line)
		sent += n
		if errors.Is(err, os.ErrDeadlineExceeded) {
			break
		}
		if err != nil || n != len(line) {
			t.Fatalf("%d bytes were written: %v", n, err)
		}
	}
	c.SetWriteDeadline(time.Time{})
	var tasks sync.WaitGroup
	tasks.Go(func() {
		if n, err := c.Write(line); err != nil || n != len(line) {
			t.Errorf("%d bytes were written: %v", n, err)
		}
		c.CloseWrite()
	})
	var all bytes.Buffer
	b := make([]byte, 1000)
	for {
		n, err := unix.Read(other, b)
		if err != nil {
			t.Fatal(err)
		}
		if n == 0 {
			break
		}
		all.Write(b[:n])
	}
	tasks.Wait()
	if all.Len() != sent+len(line) {
		t.Errorf("%d bytes came, want %d", all.Len(), sent+len(line))
	}
}
