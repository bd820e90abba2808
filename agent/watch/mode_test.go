package watch

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/fsnotify/fsnotify"
)

func TestPolling(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "license.d")
	g := watch(t, dir, polling)
	if s := g.last(); s.Mode != ModePolling || s.ModeReason == "" {
		t.Fatalf("mode: %s", describe(s))
	}
	do(t, os.Mkdir(dir, 0o755))
	path := filepath.Join(dir, "a.lic")
	write(t, path, doc("one"))
	g.until("a", has("a.lic", "one"))
	write(t, path, doc("two")) // as long as before, and perhaps within one tick of the file system's clock
	g.until("a anew", has("a.lic", "two"))
	write(t, path, []byte("noise"))
	g.until("noise", stale("a.lic", "two"))
	do(t, os.Remove(path))
	g.until("nothing", hasNot("a.lic"))
}

func TestPollSeesWhatWatchesMiss(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	do(t, os.Mkdir(filepath.Join(dir, "sub"), 0o755))
	write(t, filepath.Join(dir, "sub", "a.lic"), doc("one"))
	do(t, os.Symlink("sub/a.lic", filepath.Join(dir, "a.lic")))
	g := watch(t, dir, fastPoll)
	g.until("a", has("a.lic", "one"))
	write(t, filepath.Join(dir, "sub", "a.lic"), doc("two")) // no event in the folder itself
	g.until("a anew", has("a.lic", "two"))
}

// lines is a log's output, safe to read during writes.
type lines struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lines) count(s string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Count(l.b.String(), s)
}

func TestRemoteFileSystem(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	var remote atomic.Bool
	remote.Store(true)
	var log lines
	g := watch(t, dir, fastPoll, logTo(slog.New(slog.NewTextHandler(&log, nil))), func(w *Watcher) {
		w.fsKind = func(string) (string, bool) { return "NFS", remote.Load() }
	})
	if s := g.last(); s.Mode != ModePolling || !strings.Contains(s.ModeReason, "NFS") {
		t.Errorf("mode: %s", describe(s))
	}
	drop(t, filepath.Join(dir, "a.lic"), doc("one"))
	g.until("a", has("a.lic", "one"))
	g.settle()
	if n := log.count("polled"); n != 1 {
		t.Errorf("said %d times that it polls, want once", n)
	}
	remote.Store(false) // mounted again
	s := g.until("watches", func(s Snapshot) bool { return s.Mode == ModeNotify })
	if s.ModeReason != "" || s.file("a.lic") == nil {
		t.Errorf("after the change: %s", describe(s))
	}
}

func TestWatchesUsedUp(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	var none atomic.Bool
	none.Store(true)
	var log lines
	g := watch(t, dir, fastPoll, logTo(slog.New(slog.NewTextHandler(&log, nil))), func(w *Watcher) {
		w.retry = 0
		w.newNotifier = func() (*notifier, error) {
			if none.Load() {
				return nil, syscall.EMFILE
			}
			return newNotifier()
		}
	})
	if s := g.last(); s.Mode != ModePolling || !strings.Contains(s.ModeReason, "fs.inotify.max_user_instances") {
		t.Errorf("mode: %s", describe(s))
	}
	drop(t, filepath.Join(dir, "a.lic"), doc("one"))
	g.until("a", has("a.lic", "one"))
	g.settle()
	if n := log.count("polled"); n != 1 {
		t.Errorf("said %d times that it polls, want once", n)
	}
	none.Store(false)
	g.until("watches", func(s Snapshot) bool { return s.Mode == ModeNotify })
}

// An overflow says that events were lost. Only a look can tell which.
func TestOverflow(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	n, err := newNotifier()
	do(t, err)
	defer n.close()
	do(t, n.watch(locate(dir).targets()))
	faults := make(chan error, 1)
	faults <- fsnotify.ErrEventOverflow
	real := n.fs.Errors
	n.fs.Errors = faults
	defer func() { n.fs.Errors = real }()
	w, err := New(Config{Path: dir, Check: check, OnChange: func(Snapshot) {}})
	do(t, err)
	r := &run{Watcher: w, reader: newReader(check), settler: newSettler(), saver: newSaver("", w.cfg.Log), notify: n}
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	if force := r.wait(t.Context(), timer, time.Now().Add(time.Hour), time.Now()); force {
		t.Error("an overflow forces every file to be read")
	}
	if len(faults) != 0 {
		t.Error("the overflow was not heard")
	}
}

func TestConcerns(t *testing.T) {
	n := &notifier{on: map[string]watched{"/etc": {name: "usher"}, "/etc/usher": {}}, only: "odd.bak"}
	for name, want := range map[string]bool{
		"/etc/passwd": false, "/etc/usher": true, "/etc/usher/a.lic": true, "/etc/usher/..data": true, "/etc": true,
		"/etc/usher/.a.lic.new": false, "/etc/usher/a.tmp": false, "/etc/usher/odd.bak": true, "/elsewhere/x": true,
	} {
		if got := n.concerns(fsnotify.Event{Name: name}); got != want {
			t.Errorf("concerns(%s) = %v, want %v", name, got, want)
		}
	}
}

func TestNotifyReason(t *testing.T) {
	for _, tc := range []struct {
		err  error
		want string
	}{
		{syscall.ENOSPC, "max_user_watches"}, {syscall.EMFILE, "max_user_instances"}, {syscall.ENFILE, "file-max"},
		{errors.New("odd"), "odd"},
	} {
		if got := notifyReason(fmt.Errorf("add: %w", tc.err)); !strings.Contains(got, tc.want) {
			t.Errorf("%v: %q does not say %q", tc.err, got, tc.want)
		}
	}
}

// A neighbour of the folder that changes without end is no reason to look. The folder's own changes are.
func TestBusyNeighbour(t *testing.T) {
	t.Parallel()
	parent := t.TempDir()
	dir := filepath.Join(parent, "license.d")
	do(t, os.Mkdir(dir, 0o755))
	var looks atomic.Int64
	g := watch(t, dir, deaf, func(w *Watcher) {
		w.fsKind = func(string) (string, bool) { looks.Add(1); return "", false }
	})
	g.settle()
	before := looks.Load()
	for range 100 {
		write(t, filepath.Join(parent, "busy.log"), []byte("x"))
	}
	drop(t, filepath.Join(dir, "a.lic"), doc("one"))
	g.until("a", has("a.lic", "one"))
	if n := looks.Load() - before; n > 20 {
		t.Errorf("%d looks at the folder, want but a few", n)
	}
}

// BenchmarkRename measures the time from a rename into the folder to the return of OnChange.
func BenchmarkRename(b *testing.B) {
	dir := b.TempDir()
	path := filepath.Join(dir, "a.lic")
	told := make(chan []byte, 1)
	w, err := New(Config{Path: dir, KeepDir: filepath.Join(b.TempDir(), "keep"), Check: check,
		OnChange: func(s Snapshot) {
			if f := s.file("a.lic"); f != nil {
				told <- f.Data
			}
		}})
	do(b, err)
	ctx, cancel := context.WithCancel(b.Context())
	var running sync.WaitGroup
	running.Go(func() { _ = w.Run(ctx) })
	defer running.Wait()
	defer cancel()
	do(b, w.Sync(ctx))
	var took []time.Duration
	for i := 0; b.Loop(); i++ {
		data := doc(fmt.Sprint(i))
		write(b, filepath.Join(dir, ".next"), data)
		began := time.Now()
		do(b, os.Rename(filepath.Join(dir, ".next"), path))
		if got := <-told; !bytes.Equal(got, data) {
			b.Fatalf("told of %s, want %s", got, data)
		}
		took = append(took, time.Since(began))
	}
	slices.Sort(took)
	b.ReportMetric(float64(took[len(took)/2].Microseconds()), "p50-µs")
	b.ReportMetric(float64(took[len(took)*99/100].Microseconds()), "p99-µs")
}

// A directory that is moved away and back has the same inode, but its watch is gone.
func TestWatchOfAMovedFolder(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "license.d")
	do(t, os.Mkdir(dir, 0o755))
	n, err := newNotifier()
	do(t, err)
	defer n.close()
	only := []target{{dir, ""}}
	do(t, n.watch(only))
	do(t, os.Rename(dir, dir+".old"))
	do(t, os.Rename(dir+".old", dir))
	select {
	case <-n.fs.Events: // of the move; the watch is gone with it
	case <-time.After(60 * time.Second):
		t.Fatal("the move was not heard of")
	}
	do(t, n.watch(only))
	if !slices.Contains(n.fs.WatchList(), dir) {
		t.Error("the folder is watched no more")
	}
}
