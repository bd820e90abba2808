//go:build !linux && !darwin

package api

import (
	"net"
	"os"
)

// credentials cannot ask the kernel on this system. The socket's folder decides who may connect, and all callers are
// the agent's own user.
func credentials(*net.UnixConn) (peer, error) {
	uid := max(0, os.Getuid()) // -1 on Windows
	return peer{uid: uint32(uid), own: true}, nil
}

func (p *peer) lives() bool { return true }

func exeFile(int32) string { return "" }
