//go:build linux && !race

package api

import (
	"errors"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// A read waits in Go's poller, and ends by its deadline, even where another that has the same descriptor had all calls
// of it wait in the kernel.
func TestDirectNeverWaitsInTheKernel(t *testing.T) {
	c, other := connected(t)
	defer unix.Close(other)
	defer c.UnixConn.Close()
	f, err := c.File()
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := unix.SetNonblock(int(f.Fd()), false); err != nil {
		t.Fatal(err)
	}
	c.SetReadDeadline(time.Now().Add(10 * time.Millisecond))
	if _, err := c.Read(make([]byte, 8)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("a read ends with %v", err)
	}
	c.SetWriteDeadline(time.Now().Add(10 * time.Millisecond))
	for err == nil {
		_, err = c.Write(make([]byte, 4<<10))
	}
	if !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("a write ends with %v", err)
	}
}

// A read and a write of a connection make no garbage.
func TestDirectMakesNoGarbage(t *testing.T) {
	c, other := connected(t)
	defer unix.Close(other)
	defer c.UnixConn.Close()
	b := make([]byte, 8)
	if n := testing.AllocsPerRun(1000, func() {
		unix.Write(other, b)
		c.Read(b)
		c.Write(b)
		unix.Read(other, b)
	}); n > 0 {
		t.Errorf("%v allocations", n)
	}
}
