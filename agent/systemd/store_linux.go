package systemd

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/coreos/go-systemd/v22/activation"
	"golang.org/x/sys/unix"

	"github.com/usher-agent/usher/agent/liveness"
)

// Store keeps descriptors with the service manager while the agent is away, however it ended: the pidfds of holders, so
// that the next agent knows at once whether they live, and the listening socket, so that a product that connects
// meanwhile waits instead of failing (systemd.service(5), FileDescriptorStoreMax=; sd_notify(3), FDSTORE=1). One
// goroutine, Run, sends everything: no acquire waits for the service manager. Without a service manager, Store keeps
// nothing. It is safe for concurrent use.
type Store struct {
	log  *slog.Logger
	conn *net.UnixConn // to the service manager; nil: there is none
	most int           // the number of descriptors that it keeps
	idle bool          // nothing is kept; set once
	wake chan struct{} // capacity 1

	sending sync.Mutex // one at a time; taken before mu

	mu        sync.Mutex // guards all below; taken last, and never held during a send
	want      map[string]Kept
	has       map[string]bool // the descriptors that the service manager has
	changed   map[string]bool
	inherited map[string]*os.File // the descriptors that it gave back, until they are taken
	activated []*os.File          // the sockets that it listens on itself, until they are taken
}

// sendWithin bounds how long a send to the service manager may take.
const sendWithin = 2 * time.Second

// OpenStore takes the descriptors that the service manager of this process has kept. It never fails: the agent starts
// without them as well.
func OpenStore(log *slog.Logger) *Store {
	s := &Store{log: log, most: 1 << 16, wake: make(chan struct{}, 1), want: map[string]Kept{}, has: map[string]bool{},
		changed: map[string]bool{}, inherited: map[string]*os.File{}}
	for _, f := range activation.Files(true) {
		if !isKept(f.Name()) {
			s.activated = append(s.activated, f)
			continue
		}
		if old := s.inherited[f.Name()]; old != nil {
			old.Close()
		}
		s.inherited[f.Name()] = f
		s.has[f.Name()] = true
	}
	if n, err := strconv.Atoi(os.Getenv("FDSTORE")); err == nil { // since systemd 254
		s.most = n
	}
	address := os.Getenv("NOTIFY_SOCKET")
	if address == "" || s.most == 0 {
		s.idle = true
		return s
	}
	conn, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: address, Net: "unixgram"})
	if err != nil {
		log.Warn("the service manager cannot be reached; it keeps nothing for a restart", "error", err)
		s.idle = true
		return s
	}
	s.conn = conn
	return s
}

// Idle reports that there is no service manager to keep anything.
func (s *Store) Idle() bool { return s.idle }

// take returns the descriptor that was kept by a name; nil when there is none.
func (s *Store) take(name string) *os.File {
	s.mu.Lock()
	defer s.mu.Unlock()
	f := s.inherited[name]
	delete(s.inherited, name)
	return f
}

// Settle gives back the kept descriptors that nobody has taken.
func (s *Store) Settle() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for name, f := range s.inherited {
		f.Close()
		delete(s.inherited, name)
	}
	for _, f := range s.activated {
		s.log.Warn("the service manager listens on a socket that no key of the configuration names; let "+
			"ListenStream= of its unit and socket.path be the same path", "unit", f.Name(), "address", boundTo(f))
		f.Close()
	}
	s.activated = nil
	for name := range s.has {
		if _, ok := s.want[name]; !ok {
			s.change(name)
		}
	}
}

// change notes that Run is to look at a name. s.mu is held.
func (s *Store) change(name string) {
	s.changed[name] = true
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// Keep makes the service manager keep a descriptor by a name until Drop, which closes k. It reports whether the
// descriptor will be kept: not without a service manager, by a name that is taken, or beyond the unit's number.
func (s *Store) Keep(name string, k Kept) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, twice := s.want[name]; s.conn == nil || twice || len(s.want) >= s.most {
		return false
	}
	s.want[name] = k
	s.change(name)
	return true
}

// KeepHolder makes the service manager keep the pidfd of a process until Drop, by a name that the next agent finds
// among Holders. It returns the name for Drop; empty: it is not kept.
func (s *Store) KeepHolder(handle *liveness.Handle, pid int32, start, inode uint64) (name string) {
	name = pidfdName(handle.Path(), Process{PID: pid, Start: start, Inode: inode})
	if name == "" {
		return ""
	}
	share, err := handle.Share()
	if err != nil {
		return ""
	}
	if !s.Keep(name, Kept{Lend: share.Lend, Close: func() { share.Close() }}) {
		share.Close()
		return ""
	}
	return name
}

// Drop ends the keeping of a descriptor.
func (s *Store) Drop(name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	k, ok := s.want[name]
	if !ok {
		return
	}
	delete(s.want, name)
	k.Close()
	s.change(name)
}

// Run reports every change to the service manager until ctx ends.
func (s *Store) Run(ctx context.Context) error {
	for {
		s.flush()
		select {
		case <-ctx.Done():
			return nil
		case <-s.wake:
		}
	}
}

// flush reports the changes to the service manager.
func (s *Store) flush() {
	s.sending.Lock()
	defer s.sending.Unlock()
	for {
		send := s.next()
		if send == nil {
			return
		}
		if err := send(); err != nil {
			s.log.Warn("the service manager was not reached; after a restart some holders may be unconfirmed",
				"error", err)
			return
		}
	}
}

// next returns a function that reports the next change; nil: there is none.
func (s *Store) next() (send func() error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for name := range s.changed {
		delete(s.changed, name)
		k, wanted := s.want[name]
		if s.conn == nil || wanted == s.has[name] {
			continue
		}
		conn := s.conn
		conn.SetWriteDeadline(time.Now().Add(sendWithin))
		if !wanted {
			delete(s.has, name)
			return func() error { _, err := conn.Write([]byte("FDSTOREREMOVE=1\nFDNAME=" + name)); return err }
		}
		s.has[name] = true
		return func() (err error) {
			// FDPOLL=0: a pidfd is ready when its process is dead, and the next agent wants to know just that. One that
			// was dropped meanwhile is lent no more, and its end is the next change.
			k.Lend(func(fd int) {
				err = sendBeside(conn, []byte("FDSTORE=1\nFDPOLL=0\nFDNAME="+name), fd)
			})
			return err
		}
	}
	return nil
}

// sendBeside sends a datagram with a descriptor beside it, which net cannot do on a connected socket.
func sendBeside(conn *net.UnixConn, b []byte, fd int) error {
	raw, err := conn.SyscallConn()
	if err != nil {
		return err
	}
	var failed error
	err = raw.Write(func(to uintptr) bool {
		failed = unix.Sendmsg(int(to), b, unix.UnixRights(fd), nil, unix.MSG_NOSIGNAL)
		return !errors.Is(failed, unix.EAGAIN)
	})
	return errors.Join(err, failed)
}

// Close reports the last changes to the service manager. The next agent gets what it keeps then.
func (s *Store) Close() {
	s.flush()
	s.mu.Lock()
	defer s.mu.Unlock()
	for name, k := range s.want {
		k.Close()
		delete(s.want, name)
	}
	for name, f := range s.inherited {
		f.Close()
		delete(s.inherited, name)
	}
	for _, f := range s.activated {
		f.Close()
	}
	s.activated = nil
	if s.conn != nil {
		s.conn.Close()
		s.conn = nil
	}
}

// The names of descriptors. sd_notify(3) allows 255 printable ASCII characters but the colon. They are short, because
// one environment variable of at most 128 KiB holds the names of all.

// pidfdName names a holder's pidfd, by its path and the process; empty where nothing tells the process from others.
func pidfdName(path liveness.Path, p Process) string {
	if p.Inode == 0 && (p.PID == 0 || p.Start == 0) {
		return ""
	}
	return strings.Join([]string{"pid", string(path), strconv.FormatInt(int64(p.PID), 36),
		strconv.FormatUint(p.Start, 36), strconv.FormatUint(p.Inode, 36)}, ".")
}

// SocketName names the listening socket by the file that it is bound to: one that is bound to another file is of no
// use. It is empty where the file has no inode.
func SocketName(fi fs.FileInfo) string {
	st, ok := fi.Sys().(*syscall.Stat_t)
	if !ok {
		return ""
	}
	return fmt.Sprintf("socket.%s.%s", strconv.FormatUint(st.Dev, 36), strconv.FormatUint(st.Ino, 36))
}

// isKept reports whether a descriptor's name is one of this package's. Others are those of socket units.
func isKept(name string) bool {
	return strings.HasPrefix(name, "socket.") || strings.HasPrefix(name, "pid.")
}

// Activated returns the socket that a socket unit listens on at a path (systemd.socket(5), ListenStream=); nil: there
// is none. The service manager made its file, and gave it its mode and group. The caller owns it.
func (s *Store) Activated(path string) *os.File {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i, f := range s.activated {
		if boundTo(f) == path && listens(f) {
			s.activated = slices.Delete(s.activated, i, i+1)
			return f
		}
	}
	return nil
}

// boundTo returns the path that a Unix socket is bound to; empty: it is none, or has no path.
func boundTo(f *os.File) string {
	address, err := unix.Getsockname(int(f.Fd()))
	if err != nil {
		return ""
	}
	if u, ok := address.(*unix.SockaddrUnix); ok {
		return u.Name
	}
	return ""
}

// listens reports whether a socket takes connections that are streams.
func listens(f *os.File) bool {
	kind, err := unix.GetsockoptInt(int(f.Fd()), unix.SOL_SOCKET, unix.SO_TYPE)
	if err != nil || kind != unix.SOCK_STREAM {
		return false
	}
	on, err := unix.GetsockoptInt(int(f.Fd()), unix.SOL_SOCKET, unix.SO_ACCEPTCONN)
	return err == nil && on == 1
}

// Socket returns the listening socket that is bound to a file; nil: it was not kept. The caller owns it.
func (s *Store) Socket(fi fs.FileInfo) *os.File { return s.take(SocketName(fi)) }

// Holders returns the processes whose pidfds were kept, each with its handle; nil: that process is dead. The caller
// closes the handles.
func (s *Store) Holders() map[Process]*liveness.Handle {
	out := map[Process]*liveness.Handle{}
	s.mu.Lock()
	defer s.mu.Unlock()
	for name, f := range s.inherited {
		path, p, ok := parsePIDFDName(name)
		if !ok {
			continue
		}
		delete(s.inherited, name)
		fd, err := syscall.Dup(int(f.Fd()))
		f.Close()
		if err != nil {
			continue // as if it were not kept
		}
		syscall.CloseOnExec(fd)
		if handle, err := liveness.FromKept(fd, path); err == nil || errors.Is(err, liveness.ErrDead) {
			out[p] = handle
		}
	}
	return out
}

// parsePIDFDName reads a name of pidfdName's.
func parsePIDFDName(name string) (path liveness.Path, p Process, ok bool) {
	f := strings.Split(name, ".")
	if len(f) != 5 || f[0] != "pid" {
		return "", p, false
	}
	pid, err1 := strconv.ParseInt(f[2], 36, 32)
	start, err2 := strconv.ParseUint(f[3], 36, 64)
	inode, err3 := strconv.ParseUint(f[4], 36, 64)
	ok = err1 == nil && err2 == nil && err3 == nil
	return liveness.Path(f[1]), Process{PID: int32(pid), Start: start, Inode: inode}, ok
}
