package files

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

const other = 1001 // a user who is neither root nor the one who tests

func root(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("only root can give files away")
	}
}

func do(t *testing.T, errs ...error) {
	t.Helper()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
}

func refused(t *testing.T, what string, err error, want string) {
	t.Helper()
	if err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("%s: %v; want %q", what, err, want)
	}
}

// mkdir makes a folder with a mode, whatever the umask says.
func mkdir(t *testing.T, path string, mode os.FileMode) string {
	t.Helper()
	do(t, os.MkdirAll(path, 0o755), os.Chmod(path, mode))
	return path
}

// TestFolder: the agent corrects a folder of its own that others may write to. It refuses what it cannot correct, with
// the mend.
func TestFolder(t *testing.T) {
	dir := t.TempDir()
	for _, c := range []struct {
		was, as, want os.FileMode
		corrected     string
	}{
		{0o700, 0o700, 0o700, ""},
		{0o755, 0o700, 0o700, "0755"},
		{0o777, 0o700, 0o700, "0777"},
		{0o755, 0o755, 0o755, ""},
		{0o777, 0o755, 0o755, "0777"},
		{0o775, 0o755, 0o755, "0775"},
		{0o750, 0o755, 0o750, ""},
	} {
		path := mkdir(t, filepath.Join(dir, "own"), c.was)
		corrected, err := Folder(path, c.as)
		fi, statErr := os.Stat(path)
		if err != nil || statErr != nil || corrected != c.corrected || fi.Mode().Perm() != c.want {
			t.Errorf("%o as %o: mode %o, corrected %q (%v)", c.was, c.as, fi.Mode().Perm(), corrected, err)
		}
	}
	if _, err := Folder(filepath.Join(dir, "new", "deep"), 0o700); err != nil {
		t.Error(err)
	}
	write(t, filepath.Join(dir, "file"), "x")
	if _, err := Folder(filepath.Join(dir, "file"), 0o700); err == nil {
		t.Error("a file passes for a folder")
	}

	open := mkdir(t, filepath.Join(dir, "open"), 0o777)
	_, err := Folder(filepath.Join(open, "state"), 0o700)
	refused(t, "a folder in one that all can write to", err,
		"others can write to the folder "+open+" on the way (mode 0777)")
	do(t, os.Chmod(open, 0o777|os.ModeSticky))
	if _, err := Folder(filepath.Join(open, "state"), 0o700); err != nil {
		t.Errorf("a folder in a sticky one: %v", err)
	}
	do(t, os.Chmod(open, 0o777), os.Symlink(filepath.Join(open, "state"), filepath.Join(dir, "link")))
	_, err = Folder(filepath.Join(dir, "link"), 0o700)
	refused(t, "a link into a folder that all can write to", err, "others can write to the folder "+open)

	root(t)
	foreign := mkdir(t, filepath.Join(dir, "foreign"), 0o700)
	do(t, os.Chown(foreign, other, other))
	_, err = Folder(foreign, 0o700)
	refused(t, "another's folder", err, "it belongs to uid 1001")
	_, err = Folder(filepath.Join(foreign, "state"), 0o700)
	refused(t, "a folder in another's", err, foreign+", which leads there, belongs to uid 1001")
	sticky := mkdir(t, filepath.Join(dir, "sticky"), 0o777|os.ModeSticky)
	do(t, os.Symlink(dir, filepath.Join(sticky, "l")), os.Lchown(filepath.Join(sticky, "l"), other, other))
	_, err = Folder(filepath.Join(sticky, "l", "own"), 0o700)
	refused(t, "another's link", err, "belongs to uid 1001")
}

// TestOpenIsTheAgentsOwn: among its own files the agent follows no link, waits for no pipe, and cuts nothing of
// another's.
func TestOpenIsTheAgentsOwn(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "file")
	write(t, path, "content")
	whole := func(what string) {
		t.Helper()
		if b, err := os.ReadFile(path); err != nil || string(b) != "content" {
			t.Errorf("%s: the file holds %q (%v)", what, b, err)
		}
	}
	link := filepath.Join(dir, "link")
	do(t, os.Symlink(path, link))
	for _, flag := range []int{os.O_RDONLY, os.O_RDWR | os.O_CREATE, os.O_RDWR | os.O_CREATE | os.O_TRUNC} {
		_, err := Open(link, flag)
		refused(t, "a link", err, link+" is a link, and the agent follows none among its own files; move it away")
	}
	whole("through a link")
	do(t, syscall.Mkfifo(filepath.Join(dir, "pipe"), 0o600))
	_, err := Open(filepath.Join(dir, "pipe"), os.O_RDWR)
	refused(t, "a pipe", err, "is not a regular file")
	do(t, os.Chmod(path, 0o606))
	_, err = Open(path, os.O_RDWR|os.O_TRUNC)
	refused(t, "a file that all can write", err, "can be written by others (mode 0606)")
	whole("written by others")
	do(t, os.Chmod(path, 0o600))
	f, err := Open(path, os.O_RDWR|os.O_TRUNC)
	do(t, err, f.Close())
	if b, _ := os.ReadFile(path); len(b) > 0 {
		t.Errorf("the file was not cut: %q", b)
	}
	if _, err := Open(filepath.Join(dir, "none"), os.O_RDONLY); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a missing file: %v", err)
	}

	root(t)
	write(t, path, "content")
	do(t, os.Chown(path, other, other))
	_, err = Open(path, os.O_RDWR|os.O_TRUNC)
	refused(t, "another's file", err, "belongs to uid 1001")
	whole("another's")
	// Root mends the files of the agent's folder, and the files that it makes there are the agent's.
	do(t, os.Chown(dir, other, other))
	if f, err := Open(path, os.O_RDWR); err != nil {
		t.Errorf("a file of the folder's owner, as root: %v", err)
	} else {
		f.Close()
	}
	f, err = Open(filepath.Join(dir, "made"), os.O_RDWR|os.O_CREATE)
	do(t, err)
	defer f.Close()
	fi, err := f.Stat()
	do(t, err)
	if uid := fi.Sys().(*syscall.Stat_t).Uid; uid != other {
		t.Errorf("what root makes in another's folder belongs to uid %d", uid)
	}
}

// TestReadNamed: ReadNamed reads a configured file through links, as the kubelet makes them, where nobody else can
// change their targets.
func TestReadNamed(t *testing.T) {
	dir := t.TempDir()
	// As a Secret is mounted: a sticky folder, a dated one in it, and links.
	secret := mkdir(t, filepath.Join(dir, "secret"), 0o777|os.ModeSticky)
	mkdir(t, filepath.Join(secret, "..2026_01_01"), 0o755)
	write(t, filepath.Join(secret, "..2026_01_01", "token"), "t")
	do(t, os.Symlink("..2026_01_01", filepath.Join(secret, "..data")),
		os.Symlink("..data/token", filepath.Join(secret, "token")))
	path := filepath.Join(secret, "token")
	if b, err := ReadNamed(path, 10); err != nil || string(b) != "t" {
		t.Fatalf("a Secret's file: %q, %v", b, err)
	}
	_, err := ReadNamed(path, 0)
	refused(t, "a file beyond the bound", err, "more than 0 bytes")
	if _, err := ReadNamed(filepath.Join(dir, "none"), 10); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a missing file: %v", err)
	}
	do(t, syscall.Mkfifo(filepath.Join(dir, "pipe"), 0o600))
	_, err = ReadNamed(filepath.Join(dir, "pipe"), 10)
	refused(t, "a pipe", err, "is not a regular file")
	do(t, os.Symlink("loop", filepath.Join(dir, "loop")))
	_, err = ReadNamed(filepath.Join(dir, "loop"), 10)
	refused(t, "a link to itself", err, "more than 40 links")

	real := filepath.Join(secret, "..2026_01_01", "token")
	do(t, os.Chmod(real, 0o666))
	_, err = ReadNamed(path, 10)
	refused(t, "a file that all can write", err, "can be written by others (mode 0666); chmod go-w it")
	do(t, os.Chmod(real, 0o644), os.Chmod(secret, 0o777))
	_, err = ReadNamed(path, 10)
	refused(t, "a folder that all can write", err, "others can write to the folder "+secret)
	do(t, os.Chmod(secret, 0o755))

	root(t)
	do(t, os.Chown(real, other, other))
	_, err = ReadNamed(path, 10)
	refused(t, "another's file", err, "belongs to uid 1001, who could change it")
	// On a read-only file system the file comes from the one that runs the container.
	if err := syscall.Mount(secret, secret, "", syscall.MS_BIND, ""); err != nil {
		t.Skipf("nothing can be mounted: %v", err)
	}
	t.Cleanup(func() { do(t, syscall.Unmount(secret, syscall.MNT_DETACH)) })
	do(t, syscall.Mount("", secret, "", syscall.MS_BIND|syscall.MS_REMOUNT|syscall.MS_RDONLY, ""))
	if b, err := ReadNamed(path, 10); err != nil || string(b) != "t" {
		t.Errorf("another's file on a read-only mount: %q, %v", b, err)
	}
	do(t, os.RemoveAll(filepath.Join(dir, "none")))
	do(t, os.Symlink(path, filepath.Join(dir, "l")), os.Lchown(filepath.Join(dir, "l"), other, other))
	_, err = ReadNamed(filepath.Join(dir, "l"), 10)
	refused(t, "another's link", err, "belongs to uid 1001, who could make it lead elsewhere")
}
