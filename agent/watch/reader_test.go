package watch

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"
)

// Where a file system's clock is coarse, two writes of one length leave the same stamps.
func TestCoarseClock(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	root, err := os.OpenRoot(dir)
	do(t, err)
	defer root.Close()
	path := filepath.Join(dir, "a.lic")
	r := newReader(check)
	write(t, path, doc("one"))
	first := r.look(root, "a.lic", nil, false)
	write(t, path, doc("two"))
	fi, err := os.Stat(path)
	do(t, err)
	first.link, first.target = stampOf(fi), stampOf(fi) // as a coarse clock would make it
	second := r.look(root, "a.lic", first, false)
	if string(second.data) != string(doc("two")) || second.gen == first.gen {
		t.Errorf("read %q, generation %d after %d", second.data, second.gen, first.gen)
	}
}

func TestRecent(t *testing.T) {
	t.Parallel()
	now := time.Unix(1000, 0)
	for age, want := range map[time.Duration]bool{
		0: true, time.Second: true, -time.Second: true, 3 * time.Second: false, -3 * time.Second: false,
	} {
		s := stamp{modified: now.Add(-time.Hour).UnixNano(), changed: now.Add(-age).UnixNano()}
		if got := s.recent(now); got != want {
			t.Errorf("changed %v ago: recent %v, want %v", age, got, want)
		}
	}
}

// A file that has not changed for a while is not read again.
func TestUnchangedIsNotRead(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	root, err := os.OpenRoot(dir)
	do(t, err)
	defer root.Close()
	write(t, filepath.Join(dir, "a.lic"), doc("one"))
	r := newReader(check)
	f := r.look(root, "a.lic", nil, false)
	f.again = false
	if r.look(root, "a.lic", f, false) != f {
		t.Error("read again without need")
	}
	if r.look(root, "a.lic", f, true) == f {
		t.Error("not read again on demand")
	}
}

func TestPlainAndShell(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		"acme.lic": "acme.lic", "license (1).lic.txt": "license (1).lic.txt", "größe.lic": "größe.lic",
		"a\nb": `"a\nb"`, "\x1b[31m": `"\x1b[31m"`, "\xff": `"\xff"`,
	} {
		if got := plain(in); got != want {
			t.Errorf("plain(%q) = %s, want %s", in, got, want)
		}
	}
	for in, want := range map[string]string{"/etc/a.lic": "/etc/a.lic", "/a b": "'/a b'", "/it's": `'/it'\''s'`,
		"/a;rm": "'/a;rm'"} {
		if got := shell(in); got != want {
			t.Errorf("shell(%q) = %s, want %s", in, got, want)
		}
	}
}

func TestMendFolder(t *testing.T) {
	t.Parallel()
	for _, errno := range []error{syscall.EROFS, fs.ErrPermission, syscall.EBUSY, syscall.ENOSPC} {
		if err := mendFolder("/etc/usher", errno); !errors.Is(err, errno) {
			t.Errorf("%v is lost in %v", errno, err)
		}
	}
}
