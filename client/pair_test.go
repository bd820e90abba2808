package client_test

import (
	"bufio"
	"bytes"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/usher-agent/usher/client"
)

// serveCanned answers every request on a socket with the same lease, or with an empty result, under the request's id.
// It allocates nothing for a request, so that a benchmark beside it shows the client's own costs.
func serveCanned(socket string) error {
	l, err := net.Listen("unix", socket)
	if err != nil {
		return err
	}
	for {
		c, err := l.Accept()
		if err != nil {
			return err
		}
		go answerCanned(c)
	}
}

func answerCanned(c net.Conn) {
	defer c.Close()
	lease := []byte(`{"id":"0123456789abcdef0123456789abcdef","pool":"streams","n":1,` +
		`"items":[{"pool":"streams","n":1}],"lifetime":"process","liveness":"peerpidfd","state":"held",` +
		`"acquired_at":"2026-05-01T12:00:00.123456789Z","expires_at":null,"holder":{"uid":1000,"gid":1000,` +
		`"pid":12345,"exe":"/usr/bin/some-product"}}`)
	in := bufio.NewReader(c)
	var out []byte
	for {
		line, err := in.ReadSlice('\n')
		if err != nil {
			return
		}
		_, rest, ok := bytes.Cut(line, []byte(`"id":`))
		id, _, _ := bytes.Cut(rest, []byte(`,`))
		if !ok {
			continue // a notification
		}
		result := []byte(`{}`)
		if bytes.Contains(line, []byte(`"lease.acquire"`)) {
			result = lease
		}
		out = append(append(append(out[:0], `{"jsonrpc":"2.0","id":`...), id...), `,"result":`...)
		out = append(append(out, result...), '}', '\n')
		if _, err := c.Write(out); err != nil {
			return
		}
	}
}

// cannedServer starts the canned server in a process of its own.
func cannedServer(b *testing.B) string {
	dir, err := os.MkdirTemp("", "u") // a socket's path must be short
	if err != nil {
		b.Fatal(err)
	}
	socket := filepath.Join(dir, "s")
	cmd := exec.Command(os.Args[0], "-test.run=^$")
	cmd.Env = append(os.Environ(), "CLIENT_TEST_CANNED="+socket)
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
		os.RemoveAll(dir)
	})
	for b.Context().Err() == nil {
		if c, err := net.Dial("unix", socket); err == nil {
			c.Close()
			break
		}
	}
	return socket
}

// BenchmarkPair measures an acquire and its release: by the client, and by the same two lines written and read by hand.
// The difference is what the client costs.
func BenchmarkPair(b *testing.B) {
	socket := cannedServer(b)
	b.Run("by hand", func(b *testing.B) {
		c, err := net.Dial("unix", socket)
		if err != nil {
			b.Fatal(err)
		}
		defer c.Close()
		in := bufio.NewReader(c)
		acquire := []byte(`{"jsonrpc":"2.0","id":1,"method":"lease.acquire","params":{"pool":"streams"}}` + "\n")
		release := []byte(`{"jsonrpc":"2.0","id":2,"method":"lease.release","params":{"id":` +
			`"0123456789abcdef0123456789abcdef"}}` + "\n")
		b.ReportAllocs()
		for b.Loop() {
			for _, line := range [][]byte{acquire, release} {
				if _, err := c.Write(line); err != nil {
					b.Fatal(err)
				}
				if _, err := in.ReadSlice('\n'); err != nil {
					b.Fatal(err)
				}
			}
		}
	})
	b.Run("client", func(b *testing.B) {
		s, err := client.Open(b.Context(), client.WithSocket(socket))
		if err != nil {
			b.Fatal(err)
		}
		defer s.Close()
		b.ReportAllocs()
		for b.Loop() {
			l, err := s.Acquire(testContext, client.Slots("streams", 1))
			if err != nil {
				b.Fatal(err)
			}
			if err := l.Close(); err != nil {
				b.Fatal(err)
			}
		}
	})
}
