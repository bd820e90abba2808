//go:build linux

package api

import (
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
)

func lock(f *os.File) error { return unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB) }

// folder returns a folder whose paths are short.
func folder(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "u")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

func TestListen(t *testing.T) {
	path := filepath.Join(folder(t), "made", "s")
	s, err := Listen(SocketConfig{Path: path, Mode: 0o640, GID: os.Getgid(), Lock: lock})
	if err != nil {
		t.Fatal(err)
	}
	fi, err := os.Lstat(path)
	if err != nil || fi.Mode() != os.ModeSocket|0o640 {
		t.Errorf("got %v, %v", fi.Mode(), err)
	}
	if c, err := net.Dial("unix", path); err != nil {
		t.Error(err)
	} else {
		c.Close()
	}
	// A live one is never stolen, by whoever holds the lock or not.
	_, err = Listen(SocketConfig{Path: path, GID: -1, Lock: lock})
	if err == nil || !strings.Contains(err.Error(), "another agent (pid ") || !strings.Contains(err.Error(), "socket "+path) {
		t.Errorf("a second agent: %v", err)
	}
	_, err = Listen(SocketConfig{Path: path, GID: -1})
	if err == nil || !strings.Contains(err.Error(), "another program listens on it") {
		t.Errorf("without a lock: %v", err)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	if _, err := os.Lstat(path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the socket is left: %v", err)
	}
	left, err := filepath.Glob(filepath.Join(filepath.Dir(path), ".u*"))
	if err != nil || len(left) > 0 {
		t.Errorf("left are %v, %v", left, err)
	}
}

// A socket that nobody listens on any more is replaced; anything else is not.
func TestStale(t *testing.T) {
	path := filepath.Join(folder(t), "s")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	l.Close()
	s, err := Listen(SocketConfig{Path: path, GID: -1, Lock: lock})
	if err != nil {
		t.Fatal(err)
	}
	// Whoever took its place is left alone.
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte("mine"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	if b, err := os.ReadFile(path); string(b) != "mine" {
		t.Errorf("a file in its place: %q, %v", b, err)
	}
	_, err = Listen(SocketConfig{Path: path, GID: -1, Lock: lock})
	if err == nil || !strings.Contains(err.Error(), "there is a file of that name, and it is not a socket; move it away") {
		t.Errorf("over a file: %v", err)
	}
}

func TestLongPath(t *testing.T) {
	dir := folder(t)
	name := func(n int) string { return filepath.Join(dir, strings.Repeat("x", n-len(dir)-1)) }
	_, err := Listen(SocketConfig{Path: name(108), GID: -1, Lock: lock})
	if want := "the path has 108 bytes, and the kernel takes at most 107; choose a shorter socket.path"; err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("108 bytes: %v", err)
	}
	// The folder that it is bound in first makes the path longer than that.
	s, err := Listen(SocketConfig{Path: name(107), GID: -1, Lock: lock})
	if err != nil {
		t.Fatalf("107 bytes: %v", err)
	}
	if c, err := net.Dial("unix", name(107)); err != nil {
		t.Error(err)
	} else {
		c.Close()
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}

// Of many that want one socket at one time exactly one has it, whether it is new or a dead one's, and callers reach that one.
func TestRace(t *testing.T) {
	path := filepath.Join(folder(t), "s")
	for round := range 50 {
		if round%2 == 1 { // a killed agent's socket is in the way
			l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
			if err != nil {
				t.Fatal(err)
			}
			l.SetUnlinkOnClose(false)
			l.Close()
		}
		won := make(chan *Socket, 8)
		var all sync.WaitGroup
		start := make(chan struct{})
		for range cap(won) {
			all.Go(func() {
				<-start
				s, err := Listen(SocketConfig{Path: path, GID: -1, Lock: lock})
				if err == nil {
					won <- s
				} else if !strings.Contains(err.Error(), "listens on it") {
					t.Errorf("round %d: %v", round, err)
				}
			})
		}
		close(start)
		all.Wait()
		close(won)
		if len(won) != 1 {
			t.Fatalf("round %d: %d have it", round, len(won))
		}
		s := <-won
		if c, err := net.Dial("unix", path); err != nil {
			t.Errorf("round %d: %v", round, err)
		} else {
			c.Close()
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}
}
