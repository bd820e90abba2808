package liveness

import (
	"container/list"
	"context"
	"errors"
	"fmt"
	"os"
	"sync"

	"golang.org/x/sys/unix"
)

// Watcher waits for many processes in one epoll loop: no goroutine and one descriptor a process, however many watches.
type Watcher struct {
	mu       sync.Mutex // guards all below
	epoll    int
	wake     int // an eventfd that ends Run
	posts    map[uint64]*post
	byKey    map[key]*post
	next     uint64 // the last post's id; 0 is wake
	running  bool
	closed   bool // calls nobody any more
	released bool // its own descriptors are closed
}

// key makes two handles one process.
type key struct {
	inode uint64
	pid   int32
	start uint64
	d     *descriptor // where nothing else names the process
}

// keyOf is for the holder of the handle's lock.
func keyOf(h *Handle) key {
	p := h.process
	switch {
	case p.Inode != 0:
		return key{inode: p.Inode}
	case p.PID > 0 && p.Start != 0:
		return key{pid: p.PID, start: p.Start}
	default:
		return key{d: h.d}
	}
}

// post is one process that is waited for.
type post struct {
	id      uint64
	key     key
	d       *descriptor
	watches *list.List // of *Watch, the oldest first
}

// Watch is one request to be called at a process's death.
type Watch struct {
	watcher *Watcher
	post    *post
	place   *list.Element // nil: the watch is over
	dead    func()
}

// NewWatcher returns a watcher, which calls nobody before Run. Close it if Run is never called.
func NewWatcher() (*Watcher, error) {
	epoll, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("watch processes: %w", os.NewSyscallError("epoll_create1", err))
	}
	wake, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		unix.Close(epoll)
		return nil, fmt.Errorf("watch processes: %w", os.NewSyscallError("eventfd2", err))
	}
	w := &Watcher{epoll: epoll, wake: wake, posts: map[uint64]*post{}, byKey: map[key]*post{}}
	if err := unix.EpollCtl(epoll, unix.EPOLL_CTL_ADD, wake, &unix.EpollEvent{Events: unix.EPOLLIN}); err != nil {
		w.Close()
		return nil, fmt.Errorf("watch processes: %w", os.NewSyscallError("epoll_ctl", err))
	}
	return w, nil
}

// event asks epoll for a post: its id is in both halves of the data.
func (p *post) event() *unix.EpollEvent {
	return &unix.EpollEvent{Events: unix.EPOLLIN | unix.EPOLLONESHOT, Fd: int32(uint32(p.id)),
		Pad: int32(uint32(p.id >> 32))}
}

// Watch makes Run call dead once, on its goroutine, when the process has died; soon when it is dead already. dead must
// not block. The caller may close the handle at once: the watch has its own share of the pidfd, and all watches of one
// process share one. Watch returns [ErrClosed] after Close, and another error for want of descriptors or of epoll
// watches (fs.epoll.max_user_watches).
func (w *Watcher) Watch(h *Handle, dead func()) (*Watch, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.d == nil {
		return nil, fmt.Errorf("watch a process: its handle is %w", ErrClosed)
	}
	k := keyOf(h)
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.closed {
		return nil, fmt.Errorf("watch a process: the watcher is %w", ErrClosed)
	}
	p := w.byKey[k]
	if p == nil {
		w.next++
		p = &post{id: w.next, key: k, d: h.d, watches: list.New()}
		if err := unix.EpollCtl(w.epoll, unix.EPOLL_CTL_ADD, p.d.fd, p.event()); err != nil {
			return nil, fmt.Errorf("watch a process: %w", os.NewSyscallError("epoll_ctl", err))
		}
		p.d.share()
		w.posts[p.id] = p
		w.byKey[k] = p
	} else if p.d != h.d { // two pidfds of one process: the handle gives up its own
		d := p.d.share()
		_ = h.d.release()
		h.d = d
	}
	x := &Watch{watcher: w, post: p, dead: dead}
	x.place = p.watches.PushBack(x)
	return x, nil
}

// Stop ends a watch: from now on dead is not called, unless a call is under way. It may be called more than once.
func (x *Watch) Stop() {
	w := x.watcher
	w.mu.Lock()
	defer w.mu.Unlock()
	if x.off() && x.post.watches.Len() == 0 {
		w.drop(x.post)
	}
}

// off takes a watch off, with the lock held. It reports whether it was on.
func (x *Watch) off() bool {
	if x.place == nil {
		return false
	}
	x.post.watches.Remove(x.place)
	x.place = nil
	return true
}

// drop ends the waiting for a process, with the lock held. A second time it does nothing.
func (w *Watcher) drop(p *post) {
	if w.posts[p.id] != p {
		return
	}
	delete(w.posts, p.id)
	delete(w.byKey, p.key)
	// Closing is not enough: epoll keeps the open file, which a client that sent its pidfd shares.
	_ = unix.EpollCtl(w.epoll, unix.EPOLL_CTL_DEL, p.d.fd, &unix.EpollEvent{})
	_ = p.d.release()
}

// Run reports deaths until ctx ends or Close is called, neither of which is an error. Then no watch calls anybody any
// more, and the watcher's descriptors are closed. It runs once.
func (w *Watcher) Run(ctx context.Context) error {
	w.mu.Lock()
	if w.closed || w.running {
		w.mu.Unlock()
		return fmt.Errorf("watch processes: the watcher is running, or %w", ErrClosed)
	}
	w.running = true
	w.mu.Unlock()
	defer func() {
		w.mu.Lock()
		w.running = false
		w.mu.Unlock()
		w.Close()
	}()
	defer context.AfterFunc(ctx, w.Close)()
	events := make([]unix.EpollEvent, 128)
	for {
		n, err := unix.EpollWait(w.epoll, events, -1)
		if err != nil {
			if errors.Is(err, unix.EINTR) {
				continue
			}
			return fmt.Errorf("watch processes: %w", os.NewSyscallError("epoll_wait", err))
		}
		for _, e := range events[:n] {
			id := uint64(uint32(e.Fd)) | uint64(uint32(e.Pad))<<32
			if id == 0 {
				return nil
			}
			w.tell(id)
		}
	}
}

// tell calls every watch of a process, if the process is dead indeed.
func (w *Watcher) tell(id uint64) {
	w.mu.Lock()
	p := w.posts[id]
	if p == nil || w.closed {
		w.mu.Unlock()
		return
	}
	if !dead(p.d.fd) {
		_ = unix.EpollCtl(w.epoll, unix.EPOLL_CTL_MOD, p.d.fd, p.event()) // woken for nothing: wait once more
		w.mu.Unlock()
		return
	}
	w.drop(p) // later watches get a new post, which wakes at once
	for {
		first := p.watches.Front()
		if first == nil {
			break
		}
		x := first.Value.(*Watch)
		x.off()
		w.mu.Unlock()
		x.dead()
		w.mu.Lock()
	}
	w.mu.Unlock()
}

// Close ends Run and every watch. It does not wait for Run. It may be called more than once.
func (w *Watcher) Close() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.released {
		return
	}
	if !w.closed {
		w.closed = true
		for _, p := range w.posts {
			for e := p.watches.Front(); e != nil; e = p.watches.Front() {
				e.Value.(*Watch).off()
			}
			w.drop(p)
		}
	}
	if w.running { // Run closes the descriptors that it waits on, by another call of Close
		_, _ = unix.Write(w.wake, []byte{1, 0, 0, 0, 0, 0, 0, 0})
		return
	}
	w.released = true
	unix.Close(w.epoll)
	unix.Close(w.wake)
}

// Len returns how many processes are watched.
func (w *Watcher) Len() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.posts)
}
