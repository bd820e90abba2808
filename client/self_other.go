//go:build !linux

package client

import (
	"net"
	"os"
)

// sendFirst writes b. This system has no pidfd to send with it.
func sendFirst(c *net.UnixConn, b []byte) (int, error) { return c.Write(b) }

// sendBeside writes b alone.
func sendBeside(c *net.UnixConn, _ int, b []byte) (int, error) { return c.Write(b) }

// pidfdOf returns no pidfd, and does not know whether there is such a process.
func pidfdOf(int) (fd int, gone bool) { return -1, false }

func closePIDFD(int) error { return nil }

// whoami returns this process as the kernel knows it.
func whoami() self {
	me := self{pids: []int64{int64(os.Getpid())}}
	if uid := os.Geteuid(); uid >= 0 { // Windows has none
		me.uids = []int64{int64(uid)}
	}
	return me
}
