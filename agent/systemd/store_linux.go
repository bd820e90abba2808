package systemd

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/coreos/go-systemd/v22/activation"
	"golang.org/x/sys/unix"

	"github.com/usher-agent/usher/agent/liveness"
)

// Store keeps descriptors with the service manager while the agent is away, however it went: the pidfds of holders, so
// that the next agent knows at once whether they live, and the listening socket, so that a product that connects
// meanwhile waits instead of failing (systemd.service(5), FileDescriptorStoreMax=; sd_notify(3), FDSTORE=1). One
// goroutine, Run, sends everything: no acquire waits for the service manager. Without a service manager nothing is
// kept. It is safe for concurrent use.
type Store struct {
	log  *slog.Logger
	conn *net.UnixConn // to the service manager; nil: there is none
	most int           // descriptors that it keeps
	idle bool          // nothing is kept: set once
	wake chan struct{} // capacity 1

	sending sync.Mutex // one at a time; taken before mu

	mu        sync.Mutex // guards all below; taken last, and never held while something is sent
	want      map[string]Kept
	has       map[string]bool // what the service manager was given
	changed   map[string]bool
	inherited map[string]*os.File // what it gave back, until it is taken
}

// sendWithin bounds how long the service manager is waited for.
const sendWithin = 2 * time.Second

// OpenStore takes what the service manager of this process has kept. It never fails: the agent starts without it as
// well.
func OpenStore(log *slog.Logger) *Store {
	s := &Store{log: log, most: 1 << 16, wake: make(chan struct{}, 1), want: map[string]Kept{}, has: map[string]bool{},
		changed: map[string]bool{}, inherited: map[string]*os.File{}}
	for _, f := range activation.Files(true) {
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

// Idle reports that there is no service manager that would keep anything.
func (s *Store) Idle() bool { return s.idle }

// take returns a descriptor that was kept by that name; nil when there is none.
func (s *Store) take(name string) *os.File {
	s.mu.Lock()
	defer s.mu.Unlock()
	f := s.inherited[name]
	delete(s.inherited, name)
	return f
}

// Settle gives back what was kept and nobody has taken.
func (s *Store) Settle() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for name, f := range s.inherited {
		f.Close()
		delete(s.inherited, name)
	}
	for name := range s.has {
		if _, ok := s.want[name]; !ok {
			s.change(name)
		}
	}
}

// change notes that a name is to be looked at. s.mu is held.
func (s *Store) change(name string) {
	s.changed[name] = true
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// Keep has the service manager keep a descriptor by a name until Drop, which closes k. It reports whether it will be
// kept: not without a service manager, by a name that is taken, or beyond the number that the unit allows.
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

// KeepHolder has the service manager keep the pidfd of a process until Drop, by what the next agent finds it by among
// Holders. It returns the name to drop it by; empty: it is not kept.
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

// Run tells the service manager of every change until ctx ends.
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

// flush tells the service manager of what has changed.
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

// next returns how to tell of the next change; nil: there is none.
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
			// FDPOLL=0: a pidfd is ready when its process is dead, which is what is to be known later. One that was
			// dropped meanwhile is lent no more, and its end is the next change.
			k.Lend(func(fd int) {
				err = sendBeside(conn, []byte("FDSTORE=1\nFDPOLL=0\nFDNAME="+name), fd)
			})
			return err
		}
	}
	return nil
}

// sendBeside sends a datagram with a descriptor beside it, which net does not do on a connected socket.
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

// Close tells the service manager the last changes. What it keeps then is the next agent's.
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
	if s.conn != nil {
		s.conn.Close()
		s.conn = nil
	}
}

// The names of what is kept. sd_notify(3) allows 255 printable ASCII characters but the colon; they are short, for the
// names of all stand in one environment variable of at most 128 KiB.

// pidfdName names a holder's pidfd, by the way it was got and the process; empty where nothing tells the process from
// others.
func pidfdName(path liveness.Path, p Process) string {
	if p.Inode == 0 && (p.PID == 0 || p.Start == 0) {
		return ""
	}
	return strings.Join([]string{"pid", string(path), strconv.FormatInt(int64(p.PID), 36),
		strconv.FormatUint(p.Start, 36), strconv.FormatUint(p.Inode, 36)}, ".")
}

// SocketName names the listening socket by the file that it is bound to, for one that is bound to another is of no use.
// It is empty where the file has no inode.
func SocketName(fi fs.FileInfo) string {
	st, ok := fi.Sys().(*syscall.Stat_t)
	if !ok {
		return ""
	}
	return fmt.Sprintf("socket.%s.%s", strconv.FormatUint(st.Dev, 36), strconv.FormatUint(st.Ino, 36))
}

// Socket returns the listening socket that is bound to a file, which is the caller's then; nil: it was not kept.
func (s *Store) Socket(fi fs.FileInfo) *os.File { return s.take(SocketName(fi)) }

// Holders returns the processes whose pidfds were kept, and what watches each; nil: that process is dead. The caller
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

// parsePIDFDName reads what pidfdName writes.
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
