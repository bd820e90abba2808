package api

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// SocketConfig says where the socket is to be.
type SocketConfig struct {
	Path string
	Key  string                 // what sets Path, for messages; empty: socket.path
	Mode fs.FileMode            // permissions; zero: 0660
	GID  int                    // the group it is given to; -1: the agent's own
	Lock func(f *os.File) error // takes a file's lock for as long as it is open, or fails at once
	// Inherit returns the listening socket that is bound to a file, where an earlier agent has left it to this one; nil: none.
	Inherit func(fs.FileInfo) *os.File
}

func (c SocketConfig) key() string { return cmp.Or(c.Key, "socket.path") }

// maxPath is the longest path of a Unix socket, in bytes: sun_path has 108 with the closing zero (unix(7)), 104 on others
// than Linux.
const maxPath = 107

// CheckPath says whether the kernel can take a socket's path.
func CheckPath(path string) error {
	if path == "" {
		return errors.New("socket.path is empty")
	}
	if len(path) > maxPath {
		return fmt.Errorf("socket %s: the path has %d bytes, and the kernel takes at most %d; choose a shorter socket.path", path, len(path), maxPath)
	}
	return nil
}

// Socket is a listening socket that nobody else can take while it is open.
type Socket struct {
	path     string
	lock     *os.File
	listener *net.UnixListener
	id       fs.FileInfo
	stay     bool
}

// Listen takes the socket. A live one is never stolen: a lock file beside it, and an answer on it, say that it is in use. A
// stale one is replaced. Until it has its mode and group nobody but the agent can reach it.
func Listen(c SocketConfig) (s *Socket, err error) {
	if err := CheckPath(c.Path); err != nil {
		return nil, err
	}
	if c.Mode == 0 {
		c.Mode = 0o660
	}
	dir := filepath.Dir(c.Path)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, fmt.Errorf("socket %s: %w; create the folder for the agent's user, or set another %s", c.Path, err, c.key())
	}
	lock, err := os.OpenFile(c.Path+".lock", os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("socket %s: %w; make its folder writable for uid %d, or set another %s", c.Path, err, os.Getuid(), c.key())
	}
	s = &Socket{path: c.Path, lock: lock}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.Close())
			s = nil
		}
	}()
	if c.Lock != nil {
		if err := c.Lock(lock); err != nil {
			pid, _ := os.ReadFile(c.Path + ".lock")
			return s, fmt.Errorf("socket %s: another agent%s listens on it; stop that one, or give this one a %s of its own", c.Path, ofPID(pid), c.key())
		}
		if err := lock.Truncate(0); err == nil {
			fmt.Fprintf(lock, "%d\n", os.Getpid())
		}
	}
	if s.inherit(c) {
		return s, s.dress(c.Path, c)
	}
	if err := unused(c.Path, c.key()); err != nil {
		return s, err
	}
	return s, s.bind(dir, c)
}

// inherit takes over the socket that an earlier agent has left, with those who wait in its backlog.
func (s *Socket) inherit(c SocketConfig) bool {
	if c.Inherit == nil {
		return false
	}
	fi, err := os.Lstat(c.Path)
	if err != nil || fi.Mode()&fs.ModeSocket == 0 {
		return false
	}
	f := c.Inherit(fi)
	if f == nil {
		return false
	}
	defer f.Close()
	l, err := net.FileListener(f)
	if err != nil {
		return false
	}
	u, ok := l.(*net.UnixListener)
	if !ok {
		l.Close()
		return false
	}
	u.SetUnlinkOnClose(false)
	s.listener, s.id = u, fi
	return true
}

// File returns the file that the socket is bound to.
func (s *Socket) File() fs.FileInfo { return s.id }

// Lend calls use with the listening socket, which it must not close nor keep.
func (s *Socket) Lend(use func(fd int)) error {
	if s.listener == nil {
		return net.ErrClosed
	}
	raw, err := s.listener.SyscallConn()
	if err != nil {
		return err
	}
	return raw.Control(func(fd uintptr) { use(int(fd)) })
}

// Stay has Close leave the socket's file where it is, because somebody keeps the socket open for the next agent.
func (s *Socket) Stay() { s.stay = true }

func ofPID(b []byte) string {
	if pid := strings.TrimSpace(string(b)); pid != "" {
		return " (pid " + pid + ")"
	}
	return ""
}

// unused says why a path cannot be taken; a socket that nobody answers on can be.
func unused(path, key string) error {
	fi, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("socket %s: %w", path, err)
	}
	if fi.Mode()&fs.ModeSocket == 0 {
		return fmt.Errorf("socket %s: there is a file of that name, and it is not a socket; move it away, or set another %s", path, key)
	}
	conn, err := net.DialTimeout("unix", path, time.Second)
	if err == nil {
		conn.Close()
		return fmt.Errorf("socket %s: another program listens on it; stop that one, or set another %s", path, key)
	}
	if errors.Is(err, syscall.ECONNREFUSED) || errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return fmt.Errorf("socket %s: whether it is in use cannot be told: %w", path, err)
}

// bind binds in a folder that only the agent can enter, and renames the socket into place when it is as it should be.
func (s *Socket) bind(dir string, c SocketConfig) error {
	private, err := os.MkdirTemp(dir, ".u")
	if err != nil {
		return fmt.Errorf("socket %s: %w; make its folder writable for uid %d, or set another %s", c.Path, err, os.Getuid(), c.key())
	}
	defer os.RemoveAll(private)
	name := filepath.Join(private, "s")
	short, done, err := shorten(name)
	if err != nil {
		return fmt.Errorf("socket %s: %w", c.Path, err)
	}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: short, Net: "unix"})
	done()
	if err != nil {
		return fmt.Errorf("socket %s: %w", c.Path, err)
	}
	l.SetUnlinkOnClose(false)
	s.listener = l
	if err := s.dress(name, c); err != nil {
		return err
	}
	if err := os.Rename(name, c.Path); err != nil {
		return fmt.Errorf("socket %s: %w", c.Path, err)
	}
	s.id, err = os.Lstat(c.Path)
	return err
}

// dress gives the socket's file its group and mode.
func (s *Socket) dress(name string, c SocketConfig) error {
	if c.GID >= 0 {
		if err := os.Lchown(name, -1, c.GID); err != nil {
			return fmt.Errorf("socket %s: give it to gid %d: %w; make the agent's user a member of that group, or leave the group out", c.Path, c.GID, err)
		}
	}
	if err := os.Chmod(name, c.Mode); err != nil {
		return fmt.Errorf("socket %s: %w", c.Path, err)
	}
	return nil
}

// Close stops listening and removes the socket, unless another has taken its place or it is to stay.
func (s *Socket) Close() error {
	var errs []error
	if s.listener != nil {
		if err := s.listener.Close(); !errors.Is(err, net.ErrClosed) {
			errs = append(errs, err)
		}
		if fi, err := os.Lstat(s.path); err == nil && s.id != nil && !s.stay && os.SameFile(fi, s.id) {
			errs = append(errs, os.Remove(s.path))
		}
		s.listener = nil
	}
	if s.lock != nil {
		errs = append(errs, s.lock.Close())
		s.lock = nil
	}
	return errors.Join(errs...)
}
