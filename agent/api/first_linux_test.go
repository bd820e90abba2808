package api

import (
	"fmt"
	"io"
	"net"
	"path/filepath"
	"testing"
)

// The first byte of a connection, read with room for a pidfd and without, and a pidfd's worth of control message at
// hand.
func BenchmarkFirstByte(b *testing.B) {
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: filepath.Join(b.TempDir(), "s"), Net: "unix"})
	if err != nil {
		b.Fatal(err)
	}
	defer l.Close()
	out, err := net.Dial("unix", l.Addr().String())
	if err != nil {
		b.Fatal(err)
	}
	defer out.Close()
	in, err := l.AcceptUnix()
	if err != nil {
		b.Fatal(err)
	}
	defer in.Close()
	for _, take := range []bool{false, true} {
		b.Run(fmt.Sprintf("room=%v", take), func(b *testing.B) {
			s := &Server{}
			if take {
				s.takeSent, s.sentSpace = func([]byte) io.Closer { return nil }, 24
			}
			for b.Loop() {
				if _, err := out.Write([]byte{'{'}); err != nil {
					b.Fatal(err)
				}
				if err := s.readFirst(&conn{UnixConn: in}); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
