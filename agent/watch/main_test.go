package watch

import (
	"bytes"
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/usher-agent/usher/enforcer"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// doc returns a document that check verifies; no part of it verifies.
func doc(text string) []byte { return []byte("licence<" + text + ">") }

// check stands for a format and its anchors. An untrusted key has signed a document that names "revoked".
func check(_ string, data []byte) *enforcer.Problem {
	switch {
	case !bytes.HasPrefix(data, []byte("licence<")) || !bytes.HasSuffix(data, []byte(">")):
		return &enforcer.Problem{Code: enforcer.Malformed, Reason: "no licence"}
	case bytes.Contains(data, []byte("revoked")):
		return &enforcer.Problem{Code: enforcer.UntrustedKey, Reason: "unknown key"}
	}
	return nil
}

// watching is a watcher under test and its reports.
type watching struct {
	*Watcher
	t    *testing.T
	stop func()

	mu    sync.Mutex
	all   []Snapshot
	said  chan struct{} // one when there is something new
	given int           // how many of all a test has looked at
}

type option func(*Watcher)

func polling(w *Watcher)  { w.cfg.ForcePolling = true; w.cfg.Poll = 5 * time.Millisecond }
func deaf(w *Watcher)     { w.cfg.Poll = time.Hour } // only changes that fsnotify reports
func fastPoll(w *Watcher) { w.cfg.Poll = 5 * time.Millisecond }
func keepIn(dir string) option {
	return func(w *Watcher) { w.cfg.KeepDir = dir }
}
func checkBy(f func(string, []byte) *enforcer.Problem) option {
	return func(w *Watcher) { w.cfg.Check = f }
}
func logTo(l *slog.Logger) option { return func(w *Watcher) { w.cfg.Log = l } }

// watch runs a watcher on a path until the test ends.
func watch(t *testing.T, path string, options ...option) *watching {
	t.Helper()
	g := &watching{t: t, said: make(chan struct{}, 1)}
	w, err := New(Config{Path: path, Check: check, OnChange: func(s Snapshot) {
		g.mu.Lock()
		g.all = append(g.all, s)
		g.mu.Unlock()
		nudge(g.said)
	}})
	if err != nil {
		t.Fatal(err)
	}
	for _, o := range options {
		o(w)
	}
	g.Watcher = w
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- w.Run(ctx) }()
	g.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("Run = %v, want nil", err)
		}
	})
	t.Cleanup(g.stop)
	g.until("the first snapshot", func(Snapshot) bool { return true })
	return g
}

// until returns the first new snapshot that fulfils the condition, or else the last one.
func (g *watching) until(what string, ok func(Snapshot) bool) Snapshot {
	g.t.Helper()
	deadline := time.NewTimer(60 * time.Second)
	defer deadline.Stop()
	for {
		g.mu.Lock()
		from := max(0, g.given-1)
		for i := from; i < len(g.all); i++ {
			g.given = i + 1
			if ok(g.all[i]) {
				s := g.all[i]
				g.mu.Unlock()
				return s
			}
		}
		g.mu.Unlock()
		select {
		case <-g.said:
		case <-deadline.C:
			g.t.Fatalf("no snapshot with %s; last: %s", what, describe(g.last()))
		}
	}
}

func (g *watching) last() Snapshot {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.all[len(g.all)-1]
}

func (g *watching) snapshots() []Snapshot {
	g.mu.Lock()
	defer g.mu.Unlock()
	return append([]Snapshot(nil), g.all...)
}

// settle waits until the watcher has looked at all that lies there now.
func (g *watching) settle() {
	g.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	if err := g.Sync(ctx); err != nil {
		g.t.Fatalf("Sync: %v", err)
	}
}

func describe(s Snapshot) string {
	var b strings.Builder
	for _, f := range s.Files {
		b.WriteString("\n  " + f.Name)
		if f.Data != nil && len(f.Data) < 100 {
			b.WriteString(" " + string(f.Data))
		}
		if f.Stale {
			b.WriteString(" stale")
		}
		if f.Problem != nil {
			b.WriteString(" " + string(f.Problem.Code) + ": " + f.Problem.Reason)
		}
	}
	if s.Problem != nil {
		b.WriteString("\n  problem " + s.Problem.Reason)
	}
	return string(s.Mode) + " " + s.ModeReason + b.String()
}

func (s Snapshot) file(name string) *File {
	for i := range s.Files {
		if s.Files[i].Name == name {
			return &s.Files[i]
		}
	}
	return nil
}

// has is the condition that a file is good and says text.
func has(name, text string) func(Snapshot) bool {
	return func(s Snapshot) bool {
		f := s.file(name)
		return f != nil && f.Problem == nil && bytes.Equal(f.Data, doc(text))
	}
}

// broken is the condition that a file has no good bytes and a problem that says text.
func broken(name, text string) func(Snapshot) bool {
	return func(s Snapshot) bool {
		f := s.file(name)
		return f != nil && !f.Stale && f.Problem != nil && strings.Contains(f.Problem.Reason, text)
	}
}

// stale is the condition that the last good bytes stand in for a broken replacement.
func stale(name, text string) func(Snapshot) bool {
	return func(s Snapshot) bool {
		f := s.file(name)
		return f != nil && f.Stale && f.Problem != nil && f.Problem.Stale && bytes.Equal(f.Data, doc(text))
	}
}

func hasNot(name string) func(Snapshot) bool {
	return func(s Snapshot) bool { return s.file(name) == nil }
}

func write(t testing.TB, path string, data []byte) {
	t.Helper()
	if err := os.WriteFile(path, data, 0o644); err != nil {
		t.Fatal(err)
	}
}

// drop renames a document into place, as installers do.
func drop(t testing.TB, path string, data []byte) {
	t.Helper()
	tmp := filepath.Join(filepath.Dir(path), ".new-"+filepath.Base(path))
	write(t, tmp, data)
	do(t, os.Rename(tmp, path))
}

func do(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
