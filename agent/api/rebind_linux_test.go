package api

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"testing"
	"time"
)

// boundSocket listens on a socket in a folder of its own, and echoes what a caller sends.
func boundSocket(t *testing.T) (s *Socket, path string, moved *int) {
	t.Helper()
	dir := folder(t)
	path, moved = filepath.Join(dir, "run", "s"), new(int)
	s, err := Listen(SocketConfig{Path: path, Mode: 0o600, GID: -1, Lock: lock, LockFile: filepath.Join(dir, "s.lock"),
		Moved: func(*Socket, fs.FileInfo, fs.FileInfo) { *moved++ }})
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			c, err := listening{s}.Accept()
			if err != nil {
				return
			}
			go func() { io.Copy(c, c); c.Close() }()
		}
	}()
	t.Cleanup(func() { s.Close(); <-done })
	return s, path, moved
}

func echoes(t *testing.T, c net.Conn) {
	t.Helper()
	c.SetDeadline(time.Now().Add(10 * time.Second))
	b := make([]byte, 2)
	if _, err := io.WriteString(c, "hi"); err != nil {
		t.Error(err)
	} else if _, err := io.ReadFull(c, b); err != nil || string(b) != "hi" {
		t.Errorf("read %q, %v", b, err)
	}
}

// Whatever takes the socket's file away, it is noticed and bound again with its mode, and who is connected stays so.
func TestSocketIsBoundAgain(t *testing.T) {
	for what, do := range map[string]func(path string) error{
		"removed":        os.Remove,
		"renamed":        func(path string) error { return os.Rename(path, path+".old") },
		"folder removed": func(path string) error { return os.RemoveAll(filepath.Dir(path)) },
		"folder renamed": func(path string) error { return os.Rename(filepath.Dir(path), filepath.Dir(path)+".old") },
		"dead socket in its place": func(path string) error {
			l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path + ".x", Net: "unix"})
			if err != nil {
				return err
			}
			l.SetUnlinkOnClose(false)
			return errors.Join(l.Close(), os.Rename(path+".x", path))
		},
	} {
		t.Run(what, func(t *testing.T) {
			s, path, moved := boundSocket(t)
			early, err := net.Dial("unix", path)
			if err != nil {
				t.Fatal(err)
			}
			defer early.Close()
			echoes(t, early)
			if err := errors.Join(s.Look(), s.Mend()); err != nil || *moved != 0 {
				t.Fatalf("a socket that is well: %v, bound again %d times", err, *moved)
			}
			if err := do(path); err != nil {
				t.Fatal(err)
			}
			if err := s.Look(); !errors.Is(err, errUnbound) {
				t.Errorf("Look: %v", err)
			}
			if err := errors.Join(s.Mend(), s.Look()); err != nil || *moved != 1 {
				t.Fatalf("Mend: %v, bound again %d times", err, *moved)
			}
			late, err := net.Dial("unix", path)
			if err != nil {
				t.Fatal(err)
			}
			defer late.Close()
			echoes(t, late)
			echoes(t, early)
			if fi, err := os.Lstat(path); err != nil || fi.Mode().Perm() != 0o600 {
				t.Errorf("its mode is %v, %v", fi.Mode(), err)
			}
			if err := s.Close(); err != nil {
				t.Error(err)
			}
			if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("Close left the socket: %v", err)
			}
		})
	}
}

// Another program has the socket's place. It keeps it, and the agent says so.
func TestSocketIsNotStolenBack(t *testing.T) {
	s, path, _ := boundSocket(t)
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	other, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Mend(); err == nil || s.Look() == nil {
		t.Errorf("Mend: %v", err)
	}
	other.Close()
	if err := errors.Join(s.Mend(), s.Look()); err != nil {
		t.Errorf("when it has gone: %v", err)
	}
}

// The lock of the socket is taken again where it was removed.
func TestSocketLockIsTakenAgain(t *testing.T) {
	s, path, moved := boundSocket(t)
	if err := os.Remove(s.c.LockFile); err != nil {
		t.Fatal(err)
	}
	if err := s.Mend(); err != nil || *moved != 0 {
		t.Fatal(err, *moved)
	}
	if other, err := Listen(SocketConfig{Path: path + "2", GID: -1, Lock: lock, LockFile: s.c.LockFile}); err == nil {
		other.Close()
		t.Error("another agent could take the lock")
	}
}

// However many connections others' listener is given, it takes only its part of them all, and gives it back.
func TestCountedListenerLeavesRoom(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := New(Config{MaxConns: 40})
	web := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "ok") })}
	served := make(chan struct{})
	go func() { defer close(served); web.Serve(s.Counted(l)) }()
	defer func() { web.Close(); <-served }()
	var open []net.Conn
	for range 100 {
		c, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		open = append(open, c)
	}
	eventually(t, func() bool { return s.connections.of(overOps) == 10 })
	if !s.connections.take(key{uid: 7}, 15) {
		t.Error("a caller of the local API finds no room")
	}
	for _, c := range open {
		c.Close()
	}
	// The kernel's queue may still hold closed connections; each takes a place until the server has read its end.
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: 10 * time.Second}
	eventually(t, func() bool {
		res, err := client.Get("http://" + l.Addr().String())
		if err == nil {
			res.Body.Close()
		}
		return err == nil
	})
	eventually(t, func() bool { return s.connections.of(overOps) == 0 })
}

// eventually waits until something is so.
func eventually(t *testing.T, so func() bool) {
	t.Helper()
	for until := time.Now().Add(20 * time.Second); !so(); runtime.Gosched() {
		if time.Now().After(until) {
			t.Fatal("it does not come to be")
		}
	}
}
