package agent

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

// handover keeps descriptors with the service manager while the agent is away, however it went: the pidfds of holders, so that
// whether they live is known at once when it is back, and the listening socket, so that who connects meanwhile waits instead
// of failing (systemd.service(5), FileDescriptorStoreMax=; sd_notify(3), FDSTORE=1). All goes out on one goroutine: nobody who
// acquires waits for the service manager. Without one nothing is kept.
type handover struct {
	log  *slog.Logger
	conn *net.UnixConn // to the service manager; nil: there is none
	most int           // descriptors that it keeps
	idle bool          // there is no service manager
	wake chan struct{} // capacity 1

	sending sync.Mutex // one at a time; taken before mu

	mu        sync.Mutex // guards all below; taken under holders.mu, and never while something is sent
	want      map[string]kept
	has       map[string]bool // what the service manager was given
	changed   map[string]bool
	inherited map[string]*os.File // what it gave back, until it is taken
}

// kept is an open file that is lent to be sent, and its end.
type kept struct {
	lend  func(use func(fd int)) error
	close func()
}

// sendWithin bounds how long the service manager is waited for.
const sendWithin = 2 * time.Second

// newHandover takes what the service manager of this process has kept. It never fails: without it the agent starts as well.
func newHandover(log *slog.Logger) *handover {
	h := &handover{log: log, most: 1 << 16, wake: make(chan struct{}, 1), want: map[string]kept{}, has: map[string]bool{}, changed: map[string]bool{},
		inherited: map[string]*os.File{}}
	for _, f := range activation.Files(true) {
		if old := h.inherited[f.Name()]; old != nil {
			old.Close() //nolint:errcheck // the same one, twice
		}
		h.inherited[f.Name()] = f
		h.has[f.Name()] = true
	}
	if n, err := strconv.Atoi(os.Getenv("FDSTORE")); err == nil { // since systemd 254
		h.most = n
	}
	address := os.Getenv("NOTIFY_SOCKET")
	if address == "" || h.most == 0 {
		h.idle = true
		return h
	}
	conn, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: address, Net: "unixgram"})
	if err != nil {
		log.Warn("the service manager cannot be reached; it keeps nothing for a restart", "error", err)
		h.idle = true
		return h
	}
	h.conn = conn
	return h
}

// take returns a descriptor that was kept by that name; nil when there is none.
func (h *handover) take(name string) *os.File {
	h.mu.Lock()
	defer h.mu.Unlock()
	f := h.inherited[name]
	delete(h.inherited, name)
	return f
}

// settle gives back what was kept and nobody has taken.
func (h *handover) settle() {
	h.mu.Lock()
	defer h.mu.Unlock()
	for name, f := range h.inherited {
		f.Close() //nolint:errcheck // of no use
		delete(h.inherited, name)
	}
	for name := range h.has {
		if _, ok := h.want[name]; !ok {
			h.change(name)
		}
	}
}

// change notes that a name is to be looked at. h.mu is held.
func (h *handover) change(name string) {
	h.changed[name] = true
	select {
	case h.wake <- struct{}{}:
	default:
	}
}

// keep has a descriptor kept until drop; k is closed then. It reports whether it is.
func (h *handover) keep(name string, k kept) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if _, twice := h.want[name]; h.conn == nil || twice || len(h.want) >= h.most {
		return false
	}
	h.want[name] = k
	h.change(name)
	return true
}

// drop has a descriptor kept no longer.
func (h *handover) drop(name string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	k, ok := h.want[name]
	if !ok {
		return
	}
	delete(h.want, name)
	k.close()
	h.change(name)
}

// run tells the service manager of every change until ctx ends.
func (h *handover) run(ctx context.Context) error {
	for {
		h.flush()
		select {
		case <-ctx.Done():
			return nil
		case <-h.wake:
		}
	}
}

// flush tells the service manager of what has changed.
func (h *handover) flush() {
	h.sending.Lock()
	defer h.sending.Unlock()
	for {
		send := h.next()
		if send == nil {
			return
		}
		if err := send(); err != nil {
			h.log.Warn("the service manager was not reached; after a restart some holders may be unconfirmed", "error", err)
			return
		}
	}
}

// next returns how to tell of the next change; nil: there is none.
func (h *handover) next() (send func() error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for name := range h.changed {
		delete(h.changed, name)
		k, wanted := h.want[name]
		if h.conn == nil || wanted == h.has[name] {
			continue
		}
		conn := h.conn
		conn.SetWriteDeadline(time.Now().Add(sendWithin)) //nolint:errcheck // the write says it
		if !wanted {
			delete(h.has, name)
			return func() error { _, err := conn.Write([]byte("FDSTOREREMOVE=1\nFDNAME=" + name)); return err }
		}
		h.has[name] = true
		return func() (err error) {
			// FDPOLL=0: a pidfd is ready when its process is dead, which is what is to be known later. One that was dropped
			// meanwhile is lent no more, and its end is the next change.
			k.lend(func(fd int) { //nolint:errcheck // see above
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

// close tells the last changes.
func (h *handover) close() {
	h.flush()
	h.mu.Lock()
	defer h.mu.Unlock()
	for name, k := range h.want {
		k.close()
		delete(h.want, name)
	}
	for name, f := range h.inherited {
		f.Close() //nolint:errcheck // of no use
		delete(h.inherited, name)
	}
	if h.conn != nil {
		h.conn.Close() //nolint:errcheck // all was sent
		h.conn = nil
	}
}

// The names of what is kept. sd_notify(3) allows 255 printable ASCII characters but the colon; they are short, for the names of
// all stand in one environment variable of at most 128 KiB.

// pidfdName names a holder's pidfd, by the way it was got and the process; empty where nothing tells the process from others.
func pidfdName(path liveness.Path, p process) string {
	if p.inode == 0 && (p.pid == 0 || p.start == 0) {
		return ""
	}
	return strings.Join([]string{"pid", string(path), strconv.FormatInt(int64(p.pid), 36), strconv.FormatUint(p.start, 36), strconv.FormatUint(p.inode, 36)}, ".")
}

// socketName names the listening socket by the file that it is bound to, for one that is bound to another is of no use.
func socketName(fi fs.FileInfo) string {
	st, ok := fi.Sys().(*syscall.Stat_t)
	if !ok {
		return ""
	}
	return fmt.Sprintf("socket.%s.%s", strconv.FormatUint(st.Dev, 36), strconv.FormatUint(st.Ino, 36))
}

// socket returns the listening socket that is bound to a file, if it was kept.
func (h *handover) socket(fi fs.FileInfo) *os.File { return h.take(socketName(fi)) }

// inheritedHolder is a process whose pidfd was kept. Its handle is nil when it is dead.
type inheritedHolder struct{ handle *liveness.Handle }

// holders returns the processes whose pidfds were kept, by what they are known by. The caller closes their handles.
func (h *handover) holders() map[process]inheritedHolder {
	out := map[process]inheritedHolder{}
	if h == nil {
		return out
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	for name, f := range h.inherited {
		path, p, ok := parsePIDFDName(name)
		if !ok {
			continue
		}
		delete(h.inherited, name)
		fd, err := syscall.Dup(int(f.Fd()))
		f.Close() //nolint:errcheck // fd has it
		if err != nil {
			continue // as if it were not kept
		}
		syscall.CloseOnExec(fd)
		if handle, err := liveness.FromKept(fd, path); err == nil || errors.Is(err, liveness.ErrDead) {
			out[p] = inheritedHolder{handle}
		}
	}
	return out
}

// parsePIDFDName reads what pidfdName writes.
func parsePIDFDName(name string) (path liveness.Path, p process, ok bool) {
	f := strings.Split(name, ".")
	if len(f) != 5 || f[0] != "pid" {
		return "", p, false
	}
	pid, err1 := strconv.ParseInt(f[2], 36, 32)
	start, err2 := strconv.ParseUint(f[3], 36, 64)
	inode, err3 := strconv.ParseUint(f[4], 36, 64)
	return liveness.Path(f[1]), process{pid: int32(pid), start: start, inode: inode}, err1 == nil && err2 == nil && err3 == nil
}
