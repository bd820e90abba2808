//go:build unix

package watch

import (
	"errors"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/usher-agent/usher/enforcer"
)

func TestNotAFile(t *testing.T) {
	t.Parallel()
	dir, err := os.MkdirTemp("", "u") // a socket's path must be short
	do(t, err)
	t.Cleanup(func() { do(t, os.RemoveAll(dir)) })
	do(t, syscall.Mkfifo(filepath.Join(dir, "fifo.lic"), 0o644))
	do(t, os.Mkdir(filepath.Join(dir, "archive"), 0o755))
	do(t, os.Symlink("/etc/shadow", filepath.Join(dir, "shadow.lic")))
	do(t, os.Symlink("../elsewhere.lic", filepath.Join(dir, "up.lic")))
	do(t, os.Symlink("fifo.lic", filepath.Join(dir, "pipe.lic")))
	do(t, os.Symlink("loop.lic", filepath.Join(dir, "loop.lic")))
	do(t, os.Symlink("/dev/zero", filepath.Join(dir, "zero.lic")))
	do(t, os.Symlink("none.lic", filepath.Join(dir, "dangling.lic")))
	l, err := net.Listen("unix", filepath.Join(dir, "socket.lic"))
	do(t, err)
	defer l.Close()
	write(t, filepath.Join(dir, "good.lic"), doc("good"))

	read := map[string]bool{}
	g := watch(t, dir, checkBy(func(name string, data []byte) *enforcer.Problem {
		read[name] = true
		return check(name, data)
	}))
	s := g.until("all of them", func(s Snapshot) bool { return len(s.Files) == 10 })
	for name, want := range map[string]string{
		"fifo.lic":     "a named pipe, not a file",
		"pipe.lic":     "a named pipe, not a file",
		"archive":      "a folder, not a file",
		"shadow.lic":   "shadow.lic is a link to /etc/shadow, which is outside the licence folder",
		"up.lic":       "is a link to ../elsewhere.lic, which is outside",
		"zero.lic":     "is a link to /dev/zero, which is outside",
		"loop.lic":     "cannot be followed: too many levels of symbolic links",
		"dangling.lic": "is a link to none.lic, which does not exist",
		"socket.lic":   "a socket, not a file",
	} {
		if !broken(name, want)(s) {
			t.Errorf("%s does not say %q: %s", name, want, describe(s))
			continue
		}
		if f := s.file(name); f.Data != nil || f.Problem.Hint == "" {
			t.Errorf("%s: data %q, hint %q", name, f.Data, f.Problem.Hint)
		}
	}
	if !has("good.lic", "good")(s) {
		t.Errorf("the good one suffers: %s", describe(s))
	}
	g.stop()
	if len(read) != 1 {
		t.Errorf("read: %v, want good.lic alone", read)
	}
}

// A pipe that takes a file's place after the look must not hold the watcher up.
func TestPipeInTheLastMoment(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	do(t, syscall.Mkfifo(filepath.Join(dir, "a.lic"), 0o644))
	root, err := os.OpenRoot(dir)
	do(t, err)
	defer root.Close()
	got := make(chan error, 1)
	go func() {
		_, _, err := contents(root, "a.lic")
		got <- err
	}()
	select {
	case err := <-got:
		if !errors.Is(err, errNotRegular) {
			t.Errorf("contents: %v, want %v", err, errNotRegular)
		}
	case <-time.After(60 * time.Second):
		t.Fatal("waits for the pipe's other end")
	}
}

func TestFolderThroughALinkInside(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	write(t, filepath.Join(dir, "v1.lic"), doc("one"))
	do(t, os.Symlink("v1.lic", filepath.Join(dir, "current.lic")))
	g := watch(t, dir)
	g.until("the link's", has("current.lic", "one"))
	do(t, os.Remove(filepath.Join(dir, "v1.lic")))
	g.until("the link alone", broken("current.lic", "which does not exist"))
}

const asNobodyIn = "USHER_TEST_AS_NOBODY_IN"

// asNobody runs the rest of a test as a user who may not read root's private files: where the test runs as root, in a
// process of its own. The test's own user prepares the folder.
func asNobody(t *testing.T, prepare, rest func(t *testing.T, dir string)) {
	t.Helper()
	if dir := os.Getenv(asNobodyIn); dir != "" {
		do(t, syscall.Setgroups(nil))
		do(t, syscall.Setgid(65534))
		do(t, syscall.Setuid(65534))
		rest(t, dir)
		return
	}
	dir, err := os.MkdirTemp("", "usher")
	do(t, err)
	t.Cleanup(func() {
		_ = filepath.WalkDir(dir, func(p string, d os.DirEntry, _ error) error {
			if d != nil && d.IsDir() {
				_ = os.Chmod(p, 0o700)
			}
			return nil
		})
		do(t, os.RemoveAll(dir))
	})
	do(t, os.Chmod(dir, 0o755))
	prepare(t, dir)
	if os.Geteuid() != 0 {
		rest(t, dir)
		return
	}
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^"+t.Name()+"$", "-test.v",
		"-test.count=1")
	cmd.Env = append(os.Environ(), asNobodyIn+"="+dir)
	out, err := cmd.CombinedOutput()
	if err != nil || !strings.Contains(string(out), "--- PASS: "+t.Name()) {
		t.Fatalf("as nobody: %v\n%s", err, out)
	}
}

func TestUnreadableFile(t *testing.T) {
	t.Parallel()
	asNobody(t, func(t *testing.T, dir string) {
		write(t, filepath.Join(dir, "good.lic"), doc("good"))
		write(t, filepath.Join(dir, "root.lic"), doc("secret"))
		mode := os.FileMode(0o600)
		if os.Geteuid() != 0 {
			mode = 0
		}
		do(t, os.Chmod(filepath.Join(dir, "root.lic"), mode))
	}, func(t *testing.T, dir string) {
		g := watch(t, dir)
		s := g.until("the unreadable one", broken("root.lic", "root.lic cannot be read: it belongs to uid "))
		p := s.file("root.lic").Problem
		t.Logf("%s; %s", p.Reason, p.Hint)
		if p.Code != enforcer.Unavailable || !strings.Contains(p.Reason, "the agent runs as uid ") ||
			!strings.HasPrefix(p.Hint, "ch") || !strings.Contains(p.Hint, filepath.Join(dir, "root.lic")) {
			t.Errorf("problem %+v", p)
		}
		if !has("good.lic", "good")(s) {
			t.Errorf("the good one suffers: %s", describe(s))
		}
	})
}

func TestUnreadableFolder(t *testing.T) {
	t.Parallel()
	asNobody(t, func(t *testing.T, dir string) {
		for _, name := range []string{"closed", "blind", "upper"} {
			do(t, os.Mkdir(filepath.Join(dir, name), 0o755))
			write(t, filepath.Join(dir, name, "a.lic"), doc("one"))
		}
		do(t, os.Mkdir(filepath.Join(dir, "upper", "lower"), 0o755))
		closed := filepath.Join(dir, "closed")
		keep := filepath.Join(dir, "keep")
		do(t, writeRecord(keep, keepGood, recordFile{path: filepath.Join(closed, "a.lic"), data: doc("one")}))
		do(t, writeRecord(keep, keepGood, recordFile{path: filepath.Join(closed, "b.lic"), data: doc("revoked")}))
		if os.Geteuid() == 0 {
			do(t, filepath.WalkDir(keep, func(p string, _ os.DirEntry, _ error) error {
				return os.Chown(p, 65534, 65534)
			}))
		}
		do(t, os.Chmod(closed, 0))
		do(t, os.Chmod(filepath.Join(dir, "blind"), 0o444))
		do(t, os.Chmod(filepath.Join(dir, "upper"), 0o600))
	}, func(t *testing.T, dir string) {
		closed := filepath.Join(dir, "closed")
		g := watch(t, closed, fastPoll, keepIn(filepath.Join(dir, "keep")))
		s := g.last()
		if s.Problem == nil || s.Problem.Code != enforcer.Unavailable ||
			!strings.Contains(s.Problem.Reason, "mode 0000") ||
			!strings.Contains(s.Problem.Hint, "chmod o+rx "+closed) {
			t.Errorf("problem %+v", s.Problem)
		}
		// A file that cannot be seen is not gone: its kept bytes count, as far as they verify.
		if !stale("a.lic", "one")(s) || s.file("b.lic") == nil || s.file("b.lic").Data != nil {
			t.Errorf("at the start: %s", describe(s))
		}
		if g.last().Mode != ModeNotify {
			t.Errorf("mode: %s", describe(s))
		}

		g = watch(t, filepath.Join(dir, "blind"))
		if p := g.last().Problem; p == nil || !strings.Contains(p.Reason, "mode 0444") {
			t.Errorf("problem %+v", p)
		}

		g = watch(t, filepath.Join(dir, "upper", "lower"))
		if p := g.last().Problem; p == nil || !strings.Contains(p.Hint, "chmod o+x "+filepath.Join(dir, "upper")) {
			t.Errorf("problem %+v", p)
		}
	})
}

// Closing a folder that is in use takes nothing away, and opening it gives everything back.
func TestFolderClosedInUse(t *testing.T) {
	t.Parallel()
	asNobody(t, func(t *testing.T, dir string) {
		do(t, os.Mkdir(filepath.Join(dir, "d"), 0o777))
		if os.Geteuid() == 0 {
			do(t, os.Chown(filepath.Join(dir, "d"), 65534, 65534))
		}
	}, func(t *testing.T, dir string) {
		dir = filepath.Join(dir, "d")
		g := watch(t, dir)
		drop(t, filepath.Join(dir, "a.lic"), doc("one"))
		g.until("a", has("a.lic", "one"))
		do(t, os.Chmod(dir, 0))
		s := g.until("the last good bytes", stale("a.lic", "one"))
		if s.Problem == nil || s.file("a.lic").Problem.Code != enforcer.Unavailable {
			t.Errorf("closed: %s", describe(s))
		}
		do(t, os.Chmod(dir, 0o755))
		g.until("a again", func(s Snapshot) bool { return s.Problem == nil && has("a.lic", "one")(s) })
	})
}
