package api

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"sync"
)

// current returns the socket's listener; nil: the socket is closed.
func (s *Socket) current() *net.UnixListener {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.listener
}

// File returns the file that the socket is bound to.
func (s *Socket) File() fs.FileInfo {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.id
}

// listening is a socket as a listener, which goes on where the socket is bound again.
type listening struct{ *Socket }

func (l listening) Accept() (net.Conn, error) {
	for {
		on := l.current()
		if on == nil {
			return nil, net.ErrClosed
		}
		c, err := on.Accept()
		if errors.Is(err, net.ErrClosed) && l.current() != on {
			continue
		}
		return c, err
	}
}

// Close stops listening, and leaves the file to the socket's own Close.
func (l listening) Close() error {
	l.again.Lock()
	defer l.again.Unlock()
	if on := l.current(); on != nil {
		return on.Close()
	}
	return nil
}

func (l listening) Addr() net.Addr { return &net.UnixAddr{Name: l.path, Net: "unix"} }

// errUnbound says that the socket's file is gone.
var errUnbound = errors.New("its file is gone, or another has its place")

// Look says why callers no longer reach the socket by its path; nil: they do.
func (s *Socket) Look() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.listener == nil {
		return nil // it is closed on purpose
	}
	fi, err := os.Lstat(s.path)
	switch {
	case err == nil && os.SameFile(fi, s.id):
		return nil
	case err == nil, errors.Is(err, fs.ErrNotExist):
		err = errUnbound
	}
	return fmt.Errorf("socket %s: %w", s.path, err)
}

// Mend binds the socket again, where its file or folder was removed. It takes the place of nobody who listens. Who is
// connected stays connected.
func (s *Socket) Mend() error {
	s.again.Lock()
	defer s.again.Unlock()
	if err := s.relock(); err != nil {
		return err
	}
	if s.Look() == nil {
		return nil
	}
	dir := filepath.Dir(s.path)
	if err := os.MkdirAll(dir, s.mode.Perm()); err != nil {
		return fmt.Errorf("socket %s: %w", s.path, err)
	}
	fresh := &Socket{path: s.path, c: s.c}
	var err error
	if fresh.folder, err = os.OpenRoot(dir); err != nil {
		return fmt.Errorf("socket %s: %w", s.path, err)
	}
	done := lockFolder(dir, s.c.Lock)
	defer done()
	if err = unused(s.path, s.c.key()); err == nil {
		err = fresh.bind(dir, s.c)
	}
	if err != nil {
		return errors.Join(err, fresh.Close())
	}
	s.mu.Lock()
	if s.listener == nil { // it was closed meanwhile
		s.mu.Unlock()
		return fresh.Close()
	}
	old, folder, was := s.listener, s.folder, s.id
	s.listener, s.folder, s.id = fresh.listener, fresh.folder, fresh.id
	if s.activated { // this one is the agent's own
		s.activated, s.stay = false, false
	}
	s.mu.Unlock()
	if s.c.Moved != nil {
		s.c.Moved(s, was, fresh.id)
	}
	return errors.Join(old.Close(), folder.Close())
}

// relock takes the lock file again, where it was removed. s.again is held.
func (s *Socket) relock() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.lock == nil || s.listener == nil {
		return nil
	}
	open, err := s.lock.Stat()
	if err != nil {
		return fmt.Errorf("socket %s: its lock: %w", s.path, err)
	}
	if is, err := os.Lstat(s.c.LockFile); err == nil && os.SameFile(open, is) {
		return nil
	}
	fresh := &Socket{path: s.path}
	if err := fresh.takeLock(s.c); err != nil {
		return errors.Join(err, fresh.Close())
	}
	s.lock, fresh.lock = fresh.lock, s.lock
	return fresh.lock.Close()
}

// Counted is a listener of others' whose connections count among the server's, so that they leave the local API its
// descriptors. One connection too many is closed.
func (s *Server) Counted(l net.Listener) net.Listener { return &counted{l, s} }

type counted struct {
	net.Listener
	server *Server
}

// The operators' listener has at most this many connections, and this part of all.
const (
	mostOps = 64
	opsPart = 4
)

func (l *counted) Accept() (net.Conn, error) {
	for {
		c, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		s := l.server.connections
		if s.of(overOps) < min(mostOps, s.most/opsPart) && s.take(overOps, 1) {
			return &countedConn{c, sync.OnceFunc(func() { s.give(overOps, 1) })}, nil
		}
		c.Close()
	}
}

type countedConn struct {
	net.Conn
	leave func()
}

func (c *countedConn) Close() error {
	c.leave()
	return c.Conn.Close()
}
