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

	"github.com/usher-agent/usher/agent/files"
)

func lock(f *os.File) error { return files.Lock(f) }

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
	s, err := Listen(SocketConfig{Path: path, Mode: 0o640, GID: os.Getgid(), Lock: lock, LockFile: path + ".l"})
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
	// Listen never steals a live socket, whether its owner holds the lock or not.
	_, err = Listen(SocketConfig{Path: path, GID: -1, Lock: lock, LockFile: path + ".l"})
	if err == nil || !strings.Contains(err.Error(), "another agent (pid ") ||
		!strings.Contains(err.Error(), "socket "+path) {
		t.Errorf("a second agent: %v", err)
	}
	_, err = Listen(SocketConfig{Path: path, GID: -1})
	if err == nil || !strings.Contains(err.Error(), "listens on it; stop that one") {
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

// Listen replaces a socket that nobody listens on any more, and nothing else.
func TestStale(t *testing.T) {
	path := filepath.Join(folder(t), "s")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	l.Close()
	s, err := Listen(SocketConfig{Path: path, GID: -1, Lock: lock, LockFile: path + ".l"})
	if err != nil {
		t.Fatal(err)
	}
	// Close leaves a socket alone that has taken its place.
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
	_, err = Listen(SocketConfig{Path: path, GID: -1, Lock: lock, LockFile: path + ".l"})
	if err == nil || !strings.Contains(err.Error(),
		"there is a file of that name, and it is not a socket; move it away") {
		t.Errorf("over a file: %v", err)
	}
}

func TestLongPath(t *testing.T) {
	dir := folder(t)
	name := func(n int) string { return filepath.Join(dir, strings.Repeat("x", n-len(dir)-1)) }
	_, err := Listen(SocketConfig{Path: name(108), GID: -1, Lock: lock, LockFile: filepath.Join(dir, "l")})
	if want := "the path has 108 bytes, and the kernel takes at most 107; choose a shorter socket.path"; err == nil ||
		!strings.Contains(err.Error(), want) {
		t.Errorf("108 bytes: %v", err)
	}
	// The folder in which it is bound first makes the path longer than that.
	s, err := Listen(SocketConfig{Path: name(107), GID: -1, Lock: lock, LockFile: filepath.Join(dir, "l")})
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

// Of many that want one socket at one time exactly one gets it, whether it is new or a dead agent's, and callers reach
// that one.
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
				s, err := Listen(SocketConfig{Path: path, GID: -1, Lock: lock, LockFile: path + ".l"})
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

// Listen follows, cuts and replaces nothing that others have put into the socket's folder. It takes a lock of an
// earlier version away.
func TestSharedFolder(t *testing.T) {
	dir := folder(t)
	if err := os.Chmod(dir, 0o777); err != nil {
		t.Fatal(err)
	}
	path, own := filepath.Join(dir, "s"), filepath.Join(folder(t), "agent.key")
	if err := os.WriteFile(own, []byte("secret"), 0o600); err != nil {
		t.Fatal(err)
	}
	listen := func() (*Socket, error) {
		return Listen(SocketConfig{Path: path, GID: -1, Mode: 0o666, Lock: lock, LockFile: own + ".lock"})
	}
	for _, name := range []string{".lock", ""} {
		if err := os.Symlink(own, path+name); err != nil {
			t.Fatal(err)
		}
		s, err := listen()
		if name == "" {
			if err == nil || !strings.Contains(err.Error(), "it is not a socket; move it away") {
				t.Errorf("a link in the socket's place: %v", err)
			}
			if err := os.Remove(path); err != nil {
				t.Fatal(err)
			}
		} else if err != nil {
			t.Errorf("a link beside the socket: %v", err)
		} else if err := s.Close(); err != nil {
			t.Error(err)
		}
		fi, err := os.Stat(own)
		if b, readErr := os.ReadFile(own); string(b) != "secret" || readErr != nil || err != nil ||
			fi.Mode().Perm() != 0o600 {
			t.Errorf("%q: what the link leads to is %q with mode %v (%v, %v)", name, b, fi.Mode(), readErr, err)
		}
	}
	if to, err := os.Readlink(path + ".lock"); err != nil || to != own {
		t.Errorf("the link of another is gone: %v", err)
	}
	if err := errors.Join(os.Remove(path+".lock"), os.WriteFile(path+".lock", []byte("12\n"), 0o600)); err != nil {
		t.Fatal(err)
	}
	left := filepath.Join(dir, ".uABCDEFGH")
	if err := errors.Join(os.Mkdir(left, 0o700), os.WriteFile(filepath.Join(left, "s"), nil, 0o600)); err != nil {
		t.Fatal(err)
	}
	s, err := listen()
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if entries, err := os.ReadDir(dir); err != nil || len(entries) != 1 {
		t.Errorf("the folder holds %v (%v), want the socket alone", entries, err)
	}
	if fi, err := os.Stat(path); err != nil || fi.Mode().Perm() != 0o666 {
		t.Errorf("the socket's mode is %v (%v)", fi.Mode(), err)
	}
}

// A folder that another user has put in the place of the agent's is not bound in.
func TestHiddenFolderIsTheAgents(t *testing.T) {
	dir := folder(t)
	root, err := os.OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	s := &Socket{folder: root}
	private, err := s.hide(".uABCDEFGH")
	if err != nil {
		t.Fatal(err)
	}
	private.Close()
	open := filepath.Join(dir, ".uABCDEFGH")
	if err := os.Chmod(open, 0o777); err != nil {
		t.Fatal(err)
	}
	if fi, err := os.Stat(open); err != nil || isOwn(fi) {
		t.Errorf("a folder that all can enter passes for the agent's (%v)", err)
	}
	if os.Geteuid() == 0 {
		if err := errors.Join(os.Chmod(open, 0o700), os.Chown(open, 1001, 1001)); err != nil {
			t.Fatal(err)
		}
		if fi, err := os.Stat(open); err != nil || isOwn(fi) {
			t.Errorf("another's folder passes for the agent's (%v)", err)
		}
	}
}
