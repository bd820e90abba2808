package watch

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/usher-agent/usher/enforcer"
)

// killed is the panic of a change where its agent would be killed.
var errKilled = errors.New("killed")

// folderOf returns a watcher that does not run, whose agent dies after so many steps of a change; 0: never.
func folderOf(t *testing.T, dir, keep string, dieAfter int) *Watcher {
	t.Helper()
	w, err := New(Config{Path: dir, KeepDir: keep, Check: func(string, []byte) *enforcer.Problem {
		return nil
	}, OnChange: func(Snapshot) {}})
	do(t, err)
	w.steps = func() {
		if dieAfter--; dieAfter == 0 {
			panic(errKilled)
		}
	}
	w.clean()
	return w
}

// dies runs a change and reports whether its agent was killed before the end of it.
func dies(t *testing.T, change func() error) (killed bool) {
	t.Helper()
	defer func() {
		if p := recover(); p != nil {
			if p != errKilled { // the test injects that very value
				panic(p)
			}
			killed = true
		}
	}()
	do(t, change())
	return false
}

// lies returns the bytes at a path; "-" where there are none.
func lies(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return "-"
	}
	do(t, err)
	return string(b)
}

// TestKilledWhileItChanges kills the agent after every step of an installation, a removal and a rollback. The folder
// then has the version before or the one after, and a rollback leads to the one before the last completed change.
func TestKilledWhileItChanges(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		change        func(*Watcher) error
		before, after string // in the folder
		older         string // to which a rollback leads if the change was not completed
	}{
		"install":       {func(w *Watcher) error { return w.Install("a.lic", []byte("three")) }, "two", "three", "one"},
		"first install": {func(w *Watcher) error { return w.Install("b.lic", []byte("three")) }, "-", "three", ""},
		"remove":        {func(w *Watcher) error { _, err := w.Remove("a.lic"); return err }, "two", "-", "one"},
		"rollback":      {func(w *Watcher) error { _, _, err := w.Rollback("a.lic"); return err }, "two", "one", "one"},
		"install twice": {func(w *Watcher) error { return w.Install("a.lic", []byte("two")) }, "two", "two", "one"},
	} {
		killed := true
		for step := 1; killed; step++ {
			at := fmt.Sprintf("%s, killed after step %d", name, step)
			dir, keep := t.TempDir(), t.TempDir()
			w := folderOf(t, dir, keep, 0)
			do(t, w.Install("a.lic", []byte("one")))
			do(t, w.Install("a.lic", []byte("two")))
			file := "a.lic"
			if name == "first install" {
				file = "b.lic"
			}
			killed = dies(t, func() error { return c.change(folderOf(t, dir, keep, step)) })

			w = folderOf(t, dir, keep, 0)
			got, want := lies(t, filepath.Join(dir, file)), c.older
			switch {
			case got == c.after && c.before != c.after:
				want = c.before
			case got != c.before || !killed && c.before != c.after:
				t.Fatalf("%s: %q lies there", at, got)
			}
			for _, folder := range []string{dir, filepath.Join(keep, keepGood), filepath.Join(keep, keepPrevious),
				filepath.Join(keep, keepPending)} {
				entries, _ := os.ReadDir(folder)
				for _, e := range entries {
					if strings.HasPrefix(e.Name(), tempPrefix) || filepath.Base(folder) == keepPending {
						t.Errorf("%s: %s is left", at, filepath.Join(folder, e.Name()))
					}
				}
			}
			_, _, err := w.Rollback(file)
			if want == "" {
				if !errors.Is(err, ErrNoPrevious) {
					t.Errorf("%s: a rollback of what never was: %v", at, err)
				}
				continue
			}
			if now := lies(t, filepath.Join(dir, file)); err != nil || now != want {
				t.Errorf("%s: the rollback of %q led to %q, want %q (%v)", at, got, now, want, err)
			}
			if _, _, err := w.Rollback(file); err != nil || lies(t, filepath.Join(dir, file)) != got {
				t.Errorf("%s: undone, the rollback leads to %q, want %q (%v)", at, lies(t, filepath.Join(dir, file)),
					got, err)
			}
		}
	}
}

// TestSweepTakesOnlyItsOwn: an installer's files under a similar name stay in the folder.
func TestSweepTakesOnlyItsOwn(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	mine := filepath.Join(dir, tempPrefix+strings.Repeat("A", 26))
	for _, path := range []string{mine, filepath.Join(dir, ".usher-notes"),
		filepath.Join(dir, "usher-"+strings.Repeat("A", 26))} {
		write(t, path, []byte("x"))
	}
	do(t, os.Mkdir(filepath.Join(dir, tempPrefix+strings.Repeat("B", 26)), 0o755))
	folderOf(t, dir, "", 0)
	if entries, err := os.ReadDir(dir); err != nil || len(entries) != 3 || lies(t, mine) != "-" {
		t.Errorf("left are %v (%v)", entries, err)
	}
}

// TestNoVersionRatherThanAWrongOne: where the replaced version cannot be kept, a rollback does not lead to an older
// one.
func TestNoVersionRatherThanAWrongOne(t *testing.T) {
	t.Parallel()
	dir, keep := t.TempDir(), t.TempDir()
	w := folderOf(t, dir, keep, 0)
	do(t, w.Install("a.lic", []byte("one")))
	do(t, w.Install("a.lic", []byte("two")))
	do(t, os.RemoveAll(filepath.Join(keep, keepPending)))
	write(t, filepath.Join(keep, keepPending), []byte("no folder"))
	do(t, w.Install("a.lic", []byte("three")))
	if _, _, err := w.Rollback("a.lic"); !errors.Is(err, ErrNoPrevious) {
		t.Errorf("Rollback = %v, to %q", err, lies(t, filepath.Join(dir, "a.lic")))
	}
}
