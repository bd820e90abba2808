package api

import (
	"bufio"
	"encoding/binary"
	"encoding/hex"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"
)

// tcpUser returns the user whose socket a loopback connection comes from. The kernel lists all sockets of this network
// namespace with their owners (proc(5), /proc/net/tcp). It returns false where the list lacks the socket, and for an
// overflow id, which stands for many users.
func tcpUser(remote, local net.Addr) (uint32, bool) {
	from, ok := remote.(*net.TCPAddr)
	to, ok2 := local.(*net.TCPAddr)
	if !ok || !ok2 {
		return 0, false
	}
	for _, file := range []string{"/proc/net/tcp", "/proc/net/tcp6"} {
		if uid, found := listedUser(file, from.AddrPort(), to.AddrPort()); found {
			return uid, uid != overflow.uid()
		}
	}
	return 0, false
}

// listedUser looks a socket up by its two ends.
func listedUser(file string, from, to netip.AddrPort) (uint32, bool) {
	f, err := os.Open(file)
	if err != nil {
		return 0, false
	}
	defer f.Close()
	in := bufio.NewScanner(f)
	for in.Scan() {
		x := strings.Fields(in.Text())
		if len(x) < 8 || !sameEnd(x[1], from) || !sameEnd(x[2], to) {
			continue
		}
		uid, err := strconv.ParseUint(x[7], 10, 32)
		return uint32(uid), err == nil
	}
	return 0, false
}

// sameEnd reports whether an end is the given address. The kernel writes each four bytes of an address in the host's
// order.
func sameEnd(text string, end netip.AddrPort) bool {
	addr, port, _ := strings.Cut(text, ":")
	if n, err := strconv.ParseUint(port, 16, 16); err != nil || uint16(n) != end.Port() {
		return false
	}
	b, err := hex.DecodeString(addr)
	if err != nil || len(b)%4 != 0 {
		return false
	}
	for i := 0; i < len(b); i += 4 {
		binary.BigEndian.PutUint32(b[i:], binary.NativeEndian.Uint32(b[i:]))
	}
	a, ok := netip.AddrFromSlice(b)
	return ok && a.Unmap() == end.Addr().Unmap()
}
