package api

import (
	"cmp"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/usher-agent/usher/agent/files"
)

// SocketConfig says where the socket is to be.
type SocketConfig struct {
	Path string
	Key  string                 // the key that sets Path, for messages; empty: socket.path
	Mode fs.FileMode            // permissions; zero: 0660
	GID  int                    // the group that it is given to; -1: the agent's own
	Lock func(f *os.File) error // locks a file for as long as it is open, or fails at once
	// LockFile is locked while the socket is open. It must lie with the agent's own files: in the socket's folder,
	// another user of that folder could put a link in its place. Empty: there is none.
	LockFile string
	Log      *slog.Logger // nil: nothing is logged
	// Inherit returns the listening socket that is bound to a file, where an earlier agent has left it to this one;
	// nil: there is none.
	Inherit func(fs.FileInfo) *os.File
	// Activated returns the socket that the service manager itself listens on at a path; nil: there is none. Its file,
	// mode and group are the service manager's, and stay as they are.
	Activated func(path string) *os.File
	// Moved is told when the socket had to be bound again: what it was bound to, and what it is; nil: nobody is.
	Moved func(s *Socket, was, is fs.FileInfo)
}

func (c SocketConfig) key() string { return cmp.Or(c.Key, "socket.path") }

// maxPath is the longest path of a Unix socket, in bytes: sun_path has 108 with the closing zero (unix(7)), 104 on
// others than Linux.
const maxPath = 107

// CheckPath says whether the kernel can take a socket's path.
func CheckPath(path string) error {
	if path == "" {
		return errors.New("socket.path is empty")
	}
	if len(path) > maxPath {
		return fmt.Errorf(
			"socket %s: the path has %d bytes, and the kernel takes at most %d; choose a shorter socket.path", path,
			len(path), maxPath)
	}
	return nil
}

// Socket is a listening socket that nobody else can take while it is open.
type Socket struct {
	path  string
	c     SocketConfig
	mode  fs.FileMode // of the socket's folder
	stay  bool
	again sync.Mutex // one binding again at a time; taken before mu

	mu       sync.Mutex // guards all below; a leaf
	lock     *os.File
	folder   *os.Root
	listener *net.UnixListener // nil: closed
	id       fs.FileInfo
	// activated: the service manager listens on it, too.
	activated bool
}

// Listen takes the socket. It never steals a live one: a lock, or an answer on it, says that it is in use. It replaces
// a stale one, and nothing else. Until the socket has its mode and group, only the agent can reach it.
//
// The socket's folder may be shared with callers, and some of them may be able to write to it. Listen follows no link
// in it and opens no file in it. Such a caller can still put another socket in its place, and Listen says so in the
// log.
func Listen(c SocketConfig) (s *Socket, err error) {
	if err := CheckPath(c.Path); err != nil {
		return nil, err
	}
	if c.Mode == 0 {
		c.Mode = 0o660
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	dir := filepath.Dir(c.Path)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, fmt.Errorf("socket %s: %w; create the folder for the agent's user, or set another %s", c.Path, err,
			c.key())
	}
	s = &Socket{path: c.Path, c: c}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.Close())
			s = nil
		}
	}()
	if err := s.takeLock(c); err != nil {
		return s, err
	}
	if s.folder, err = os.OpenRoot(dir); err != nil {
		return s, fmt.Errorf("socket %s: %w; its folder must let the agent in, or set another %s", c.Path, err, c.key())
	}
	fi, err := s.folder.Stat(".")
	if err != nil {
		return s, fmt.Errorf("socket %s: %w", c.Path, err)
	}
	if s.mode = fi.Mode(); s.mode.Perm()&0o022 != 0 && s.mode&fs.ModeSticky == 0 {
		c.Log.Warn(
			"others can write to the socket's folder, and so put a socket of their own in its place; let "+
				"products mount it read-only, or have them ask for a proof",
			"folder", dir, "mode", fi.Mode().Perm().String())
	}
	// Agents that begin at the same time look and bind one after the other. Every reader of the folder can hold its
	// lock, so that Listen does not wait for it without end.
	done := lockFolder(dir, c.Lock)
	defer done()
	s.sweep()
	if s.inherit(c) {
		return s, s.dress(s.folder, filepath.Base(c.Path), c)
	}
	if s.activate(c) {
		return s, nil
	}
	if err := unused(c.Path, c.key()); err != nil {
		return s, err
	}
	if err := s.bind(dir, c); err != nil {
		return s, err
	}
	s.dropOldLock(c.Path)
	return s, nil
}

// takeLock takes the lock file, which names its owner.
func (s *Socket) takeLock(c SocketConfig) (err error) {
	if c.Lock == nil || c.LockFile == "" {
		return nil
	}
	if s.lock, err = files.Open(c.LockFile, os.O_RDWR|os.O_CREATE); err != nil {
		return fmt.Errorf("socket %s: its lock: %w; make the runtime folder writable for uid %d", c.Path, err,
			os.Getuid())
	}
	if err := c.Lock(s.lock); err != nil && !errors.Is(err, files.ErrTaken) {
		return fmt.Errorf("socket %s: its lock %s: %w", c.Path, c.LockFile, err)
	} else if err != nil {
		pid, _ := files.Read(c.LockFile, 64)
		return fmt.Errorf("socket %s: another agent%s listens on it; stop that one, or give this one a %s of its own",
			c.Path, ofPID(pid), c.key())
	}
	if err := s.lock.Truncate(0); err == nil {
		fmt.Fprintf(s.lock, "%d\n", os.Getpid())
	}
	return nil
}

// folderPatience is how long an agent waits for another that is taking a socket in the same folder.
const folderPatience = 2 * time.Second

// lockFolder locks the socket's folder until done is called, or gives up.
func lockFolder(dir string, lock func(*os.File) error) (done func()) {
	f, err := os.Open(dir)
	if err != nil || lock == nil {
		return func() {}
	}
	for until := time.Now().Add(folderPatience); lock(f) != nil && time.Now().Before(until); {
		time.Sleep(5 * time.Millisecond)
	}
	return func() { f.Close() }
}

// dropOldLock removes the lock file that earlier versions kept beside the socket, if the agent owns it and it is no
// link.
func (s *Socket) dropOldLock(path string) {
	name := filepath.Base(path) + ".lock"
	fi, err := s.folder.Lstat(name)
	if err == nil && fi.Mode().IsRegular() && fi.Size() < 64 {
		_ = s.folder.Remove(name) // it does no harm
	}
}

// inherit takes over the socket that an earlier agent has left, with the connections in its backlog.
func (s *Socket) inherit(c SocketConfig) bool {
	if c.Inherit == nil {
		return false
	}
	fi, err := os.Lstat(c.Path)
	if err != nil || fi.Mode()&fs.ModeSocket == 0 {
		return false
	}
	return s.listenOn(c.Inherit(fi), fi)
}

// activate takes the socket that the service manager listens on, unless its file was removed: nobody reaches it then.
// What listens on a file of that path, if anything does, is that socket: the caller has the lock against other agents.
func (s *Socket) activate(c SocketConfig) bool {
	if c.Activated == nil {
		return false
	}
	f := c.Activated(c.Path)
	fi, err := os.Lstat(c.Path)
	if f == nil || err != nil || fi.Mode()&fs.ModeSocket == 0 || !answers(c.Path) {
		if f != nil {
			f.Close()
			c.Log.Warn("the socket of the service manager has lost its file, and the agent makes its own; restart "+
				"the socket unit", "socket", c.Path)
		}
		return false
	}
	if !s.listenOn(f, fi) {
		return false
	}
	s.activated, s.stay = true, true
	return true
}

// answers reports whether something listens on a socket's file.
func answers(path string) bool {
	conn, err := net.DialTimeout("unix", path, time.Second)
	if err != nil {
		return errors.Is(err, syscall.EAGAIN) // its queue is full
	}
	conn.Close()
	return true
}

// IsActivated reports whether the service manager itself listens on the socket, for as long as its file is there.
func (s *Socket) IsActivated() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.activated
}

// listenOn listens on an open socket, which is bound to a file, and closes f.
func (s *Socket) listenOn(f *os.File, fi fs.FileInfo) bool {
	if f == nil {
		return false
	}
	defer f.Close()
	listenAgain(f)
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

// Lend calls use with the listening socket. use must neither close nor keep it.
func (s *Socket) Lend(use func(fd int)) error {
	l := s.current()
	if l == nil {
		return net.ErrClosed
	}
	raw, err := l.SyscallConn()
	if err != nil {
		return err
	}
	return raw.Control(func(fd uintptr) { use(int(fd)) })
}

// Stay makes Close leave the socket's file where it is, because the service manager keeps the socket open for the next
// agent.
func (s *Socket) Stay() { s.stay = true }

func ofPID(b []byte) string {
	if pid := strings.TrimSpace(string(b)); pid != "" {
		return " (pid " + pid + ")"
	}
	return ""
}

// unused says why a path cannot be taken. A socket that nobody answers on can be.
func unused(path, key string) error {
	fi, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("socket %s: %w", path, err)
	}
	if fi.Mode()&fs.ModeSocket == 0 {
		return fmt.Errorf(
			"socket %s: there is a file of that name, and it is not a socket; move it away, or set another %s", path,
			key)
	}
	conn, err := net.DialTimeout("unix", path, time.Second)
	if err == nil {
		defer conn.Close()
		pid := ""
		if p, err := credentials(conn.(*net.UnixConn)); err == nil && p.pid > 0 {
			pid = fmt.Sprintf(" (pid %d)", p.pid)
		}
		return fmt.Errorf("socket %s: another program%s listens on it; stop that one, or set another %s", path, pid,
			key)
	}
	if errors.Is(err, syscall.ECONNREFUSED) || errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return fmt.Errorf("socket %s: the agent cannot tell whether it is in use: %w", path, err)
}

// bind binds in a folder that only the agent can enter, and renames the socket into place once it has its mode and
// group. It knows that folder by its descriptor: a user who can write to the folder around it can give its name to
// another.
func (s *Socket) bind(dir string, c SocketConfig) error {
	hidden := hiddenPrefix + rand.Text()[:hiddenLetters]
	private, err := s.hide(hidden)
	if err != nil {
		return fmt.Errorf("socket %s: %w; make its folder writable for uid %d, or set another %s", c.Path, err,
			os.Getuid(), c.key())
	}
	defer func() {
		private.Remove("s") // it has its place by now, or is useless
		private.Close()
		s.folder.Remove(hidden) // it is empty by now; another's stays
	}()
	short, done, err := nameIn(private, filepath.Join(dir, hidden), "s")
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
	if err := s.dress(private, "s", c); err != nil {
		return err
	}
	bound, err := private.Lstat("s")
	if err == nil {
		err = s.folder.Rename(filepath.Join(hidden, "s"), filepath.Base(c.Path))
	}
	if err == nil {
		s.id, err = s.folder.Lstat(filepath.Base(c.Path))
	}
	if err == nil && !os.SameFile(bound, s.id) {
		s.id, err = nil, errors.New("another user has put a socket in its place: others can write to the folder")
	}
	if err != nil {
		return fmt.Errorf("socket %s: %w", c.Path, err)
	}
	return nil
}

// names of the folder in which a socket is bound
const (
	hiddenPrefix  = ".u"
	hiddenLetters = 8
)

// sweep removes folders that a crash of the agent left.
func (s *Socket) sweep() {
	d, err := s.folder.Open(".")
	if err != nil {
		return
	}
	defer d.Close()
	names, _ := d.Readdirnames(1000) // the rest is somebody else's
	for _, name := range names {
		if !strings.HasPrefix(name, hiddenPrefix) || len(name) != len(hiddenPrefix)+hiddenLetters {
			continue
		}
		if fi, err := s.folder.Lstat(name); err == nil && isOwn(fi) {
			s.folder.Remove(filepath.Join(name, "s"))
			s.folder.Remove(name) // the next start tries again
		}
	}
}

// hide makes a folder within the socket's that only the agent can enter.
func (s *Socket) hide(name string) (*os.Root, error) {
	if err := s.folder.Mkdir(name, 0o700); err != nil {
		return nil, err
	}
	private, err := s.folder.OpenRoot(name)
	if err != nil {
		return nil, err
	}
	fi, err := private.Stat(".")
	if err == nil && !isOwn(fi) {
		err = errors.New(
			"another user has put a folder in the place of the agent's: others can write to the folder around it")
	}
	if err != nil {
		return nil, errors.Join(err, private.Close())
	}
	return private, nil
}

// dress gives the socket's file, which lies in a folder, its group and mode.
func (s *Socket) dress(in *os.Root, name string, c SocketConfig) error {
	if c.GID >= 0 {
		if err := in.Lchown(name, -1, c.GID); err != nil {
			return fmt.Errorf(
				"socket %s: give it to gid %d: %w; make the agent's user a member of that group, or leave the group "+
					"out", c.Path, c.GID, err)
		}
	}
	if err := in.Chmod(name, c.Mode); err != nil {
		return fmt.Errorf("socket %s: %w", c.Path, err)
	}
	return nil
}

// Close stops listening. It removes the socket, unless another has taken its place or Stay was called.
func (s *Socket) Close() error {
	s.again.Lock()
	defer s.again.Unlock()
	s.mu.Lock()
	defer s.mu.Unlock()
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
	if s.folder != nil {
		errs = append(errs, s.folder.Close())
		s.folder = nil
	}
	if s.lock != nil {
		errs = append(errs, s.lock.Close())
		s.lock = nil
	}
	return errors.Join(errs...)
}

// SocketLock returns the path of the file that is locked while the agent listens on a socket. It lies in the runtime
// folder with the agent's own files: callers may share the socket's folder.
func SocketLock(runtimeDir, socket string) string {
	if abs, err := filepath.Abs(socket); err == nil {
		socket = abs
	}
	sum := sha256.Sum256([]byte(socket))
	return filepath.Join(runtimeDir, "socket-"+hex.EncodeToString(sum[:8])+".lock")
}
