package api

import (
	"net"

	"golang.org/x/sys/unix"
)

// credentials asks the kernel who connected: LOCAL_PEERCRED and LOCAL_PEERPID. Executables are not known here.
func credentials(c *net.UnixConn) (peer, error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return peer{}, err
	}
	var p peer
	var failed error
	if err := raw.Control(func(fd uintptr) {
		x, err := unix.GetsockoptXucred(int(fd), unix.SOL_LOCAL, unix.LOCAL_PEERCRED)
		if err != nil {
			failed = err
			return
		}
		p.uid = x.Uid
		if x.Ngroups > 0 {
			p.gid, p.groups = x.Groups[0], x.Groups[1:min(int(x.Ngroups), len(x.Groups))]
		}
		if pid, err := unix.GetsockoptInt(int(fd), unix.SOL_LOCAL, unix.LOCAL_PEERPID); err == nil {
			p.pid = int32(pid)
		}
	}); err != nil {
		return peer{}, err
	}
	return p, failed
}

func (p *peer) lives() bool { return true }

func exeFile(int32) string { return "" }
