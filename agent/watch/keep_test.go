package watch

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/usher-agent/usher/enforcer"
)

func TestKeptBytesSurviveARestart(t *testing.T) {
	t.Parallel()
	dir, keep := t.TempDir(), filepath.Join(t.TempDir(), "state", "licences")
	path := filepath.Join(dir, "a.lic")
	g := watch(t, dir, keepIn(keep))
	drop(t, path, doc("one"))
	g.until("a", has("a.lic", "one"))
	g.stop()

	write(t, path, []byte("noise"))
	g = watch(t, dir, keepIn(keep))
	if s := g.last(); !has("a.lic", "one")(s) && !stale("a.lic", "one")(s) {
		t.Errorf("right after the start: %s", describe(s))
	}
	g.until("what was kept", stale("a.lic", "one"))
	g.stop()

	// Verified again: a key that is no longer trusted brings nothing back.
	g = watch(t, dir, keepIn(keep), checkBy(func(string, []byte) *enforcer.Problem { return noLicence }))
	g.until("nothing good", broken("a.lic", "no licence"))
	g.stop()

	// Tampered with or cut short, it does not count.
	file := filepath.Join(keep, keepGood, recordName(path))
	whole, err := os.ReadFile(file)
	do(t, err)
	for _, data := range [][]byte{nil, whole[:20], whole[:len(whole)-1], []byte("usher-kept/1 file x y\n"),
		bytes.Repeat([]byte("x"), 3<<20)} {
		write(t, file, data)
		g = watch(t, dir, keepIn(keep))
		g.until("nothing good", broken("a.lic", "no licence"))
		g.stop()
	}
	write(t, file, whole)

	// It was removed while nobody looked, and is forgotten.
	do(t, os.Remove(path))
	g = watch(t, dir, keepIn(keep))
	waitGone(t, file)
	write(t, path, []byte("noise"))
	g.until("nothing good", broken("a.lic", "no licence"))
}

func waitGone(t *testing.T, file string) {
	t.Helper()
	deadline := time.Now().Add(60 * time.Second)
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for {
		if _, err := os.Stat(file); errors.Is(err, fs.ErrNotExist) {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s is still there", file)
		}
		<-tick.C
	}
}

func TestKeptBytesGoWithTheFile(t *testing.T) {
	t.Parallel()
	dir, keep := t.TempDir(), filepath.Join(t.TempDir(), "keep")
	path := filepath.Join(dir, "a.lic")
	write(t, path, doc("one"))
	g := watch(t, dir, keepIn(keep))
	g.stop()
	file := filepath.Join(keep, keepGood, recordName(path))
	fi, err := os.Stat(file)
	do(t, err)
	if fi.Mode().Perm() != 0o600 {
		t.Errorf("mode of the kept file %v, want 0600", fi.Mode())
	}
	for _, d := range []string{keep, filepath.Dir(file)} {
		if fi, err := os.Stat(d); err != nil || fi.Mode().Perm() != 0o700 {
			t.Errorf("mode of %s %v, %v; want 0700", d, fi.Mode(), err)
		}
	}
	g = watch(t, dir, keepIn(keep))
	do(t, os.Remove(path))
	g.until("nothing", hasNot("a.lic"))
	waitGone(t, file)
}

// Two folders with files of one name do not collide in one keep folder.
func TestKeptByPath(t *testing.T) {
	t.Parallel()
	one, two, keep := t.TempDir(), t.TempDir(), filepath.Join(t.TempDir(), "keep")
	write(t, filepath.Join(one, "a.lic"), doc("one"))
	watch(t, one, keepIn(keep)).stop()
	write(t, filepath.Join(two, "a.lic"), []byte("noise"))
	watch(t, two, keepIn(keep)).until("nothing good", broken("a.lic", "no licence"))
	write(t, filepath.Join(one, "a.lic"), []byte("noise"))
	watch(t, filepath.Join(one, "a.lic"), keepIn(keep)).until("what was kept", stale("a.lic", "one"))
}

func TestKeepFolderCannotBeUsed(t *testing.T) {
	t.Parallel()
	dir, keep := t.TempDir(), filepath.Join(t.TempDir(), "keep")
	write(t, keep, []byte("a file"))
	g := watch(t, dir, keepIn(keep))
	path := filepath.Join(dir, "a.lic")
	drop(t, path, doc("one"))
	g.until("a", has("a.lic", "one"))
	write(t, path, []byte("noise"))
	g.until("a from memory", stale("a.lic", "one"))
}

func TestRecordNames(t *testing.T) {
	t.Parallel()
	at := time.Date(2026, 8, 1, 12, 0, 0, 5, time.UTC)
	for _, path := range []string{"/a b", "/line\nbreak", "/\xff\xfe", `/quo"te\`} {
		want := recordFile{path: path, modTime: at, data: []byte("x\ny")}
		dir := t.TempDir()
		do(t, writeRecord(dir, keepGood, want))
		got, err := readRecord(filepath.Join(dir, keepGood, recordName(path)))
		if err != nil || got.path != path || !got.modTime.Equal(at) || !bytes.Equal(got.data, want.data) || got.none {
			t.Errorf("%q: %+v, %v", path, got, err)
		}
	}
}

func FuzzHeader(f *testing.F) {
	f.Add("usher-kept/1 file 2026-08-01T12:00:00Z \"/etc/a.lic\"\n")
	f.Add("usher-kept/1 none 2026-08-01T12:00:00Z \"\\xff\"")
	f.Fuzz(func(t *testing.T, line string) {
		rec, err := parseHeader(line)
		if err != nil {
			return
		}
		again, err := parseHeader(rec.header())
		if err != nil || again.path != rec.path || !again.modTime.Equal(rec.modTime) || again.none != rec.none {
			t.Errorf("%q: %+v, %+v, %v", line, rec, again, err)
		}
	})
}

func TestInstall(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "license.d")
	do(t, Install(dir, "a.lic", doc("one")))
	do(t, Install(dir, "a.lic", doc("two")))
	path := filepath.Join(dir, "a.lic")
	data, err := os.ReadFile(path)
	do(t, err)
	fi, err := os.Stat(path)
	do(t, err)
	if !bytes.Equal(data, doc("two")) || fi.Mode().Perm() != 0o640 {
		t.Errorf("%q with mode %v", data, fi.Mode())
	}
	if left, _ := filepath.Glob(filepath.Join(dir, ".usher-*")); left != nil {
		t.Errorf("left behind: %v", left)
	}
	do(t, os.Mkdir(filepath.Join(dir, "folder.lic"), 0o755))
	for name, want := range map[string]string{
		"":                       "no file name",
		"../a.lic":               "is a path",
		"/etc/passwd":            "is a path",
		`a\b.lic`:                "is a path",
		"..":                     "is a path",
		".hidden":                "would be ignored",
		"a.lic.bak":              "would be ignored",
		"a\n.lic":                "do not print",
		"\xff.lic":               "do not print",
		strings.Repeat("n", 300): "longer than",
		"folder.lic":             "there is a folder of that name",
	} {
		if err := Install(dir, name, doc("x")); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("Install %.20q: %v, want %q", name, err, want)
		}
		if err := Remove(dir, name); err == nil {
			t.Errorf("Remove %.20q: no error", name)
		}
	}
	if err := Install(dir, "b.lic", nil); err == nil || !strings.Contains(err.Error(), "empty") {
		t.Errorf("empty: %v", err)
	}
	if err := Install(dir, "b.lic", make([]byte, MaxDocument+1)); err == nil ||
		!strings.Contains(err.Error(), "1 MiB") {
		t.Errorf("too large: %v", err)
	}
	if err := Remove(dir, "b.lic"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Remove of nothing: %v", err)
	}
	// A link is replaced, not written through.
	outside := filepath.Join(t.TempDir(), "outside")
	write(t, outside, []byte("untouched"))
	do(t, os.Symlink(outside, filepath.Join(dir, "link.lic")))
	do(t, Install(dir, "link.lic", doc("x")))
	if data, err := os.ReadFile(outside); err != nil || string(data) != "untouched" {
		t.Errorf("written through the link: %q, %v", data, err)
	}
	do(t, Remove(dir, "link.lic"))
}

func TestInstallAndRollback(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "license.d")
	g := watch(t, dir, deaf, keepIn(filepath.Join(t.TempDir(), "keep")))
	rollback := func(name, want string) {
		t.Helper()
		if got, _, err := g.Rollback(name); err != nil || got != want {
			t.Fatalf("Rollback(%q) = %q, %v; want %q", name, got, err, want)
		}
	}
	if _, _, err := g.Rollback(""); !errors.Is(err, ErrNoPrevious) {
		t.Errorf("Rollback of nothing: %v", err)
	}
	do(t, g.Install("a.lic", doc("one")))
	g.until("one", has("a.lic", "one"))
	do(t, g.Install("a.lic", doc("two")))
	do(t, g.Install("a.lic", doc("two"))) // twice; "one" stays the previous one
	g.until("two", has("a.lic", "two"))
	rollback("a.lic", "a.lic")
	g.until("one again", has("a.lic", "one"))
	rollback("", "a.lic")
	g.until("two again", has("a.lic", "two"))

	do(t, g.Install("b.lic", doc("new")))
	g.until("b", has("b.lic", "new"))
	rollback("", "b.lic") // there was none
	g.until("b gone", hasNot("b.lic"))
	rollback("b.lic", "b.lic")
	g.until("b again", has("b.lic", "new"))
	_, err := g.Remove("b.lic")
	do(t, err)
	g.until("b gone again", hasNot("b.lic"))
	rollback("b.lic", "b.lic")
	g.until("b back", has("b.lic", "new"))
	if _, _, err := g.Rollback("c.lic"); !errors.Is(err, ErrNoPrevious) {
		t.Errorf("Rollback of another: %v", err)
	}
	if _, err := g.Remove("c.lic"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Remove of another: %v", err)
	}
}

func TestInstallToAFilePath(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "etc", "acme.lic")
	g := watch(t, path, deaf, keepIn(filepath.Join(t.TempDir(), "keep")))
	do(t, g.Install("acme.lic", doc("one")))
	g.until("one", has("acme.lic", "one"))
	if err := g.Install("other.lic", doc("two")); err == nil || !strings.Contains(err.Error(), "single file") {
		t.Errorf("another name: %v", err)
	}
	if name, _, err := g.Rollback(""); name != "acme.lic" || err != nil {
		t.Errorf("Rollback = %q, %v", name, err)
	}
	g.until("nothing", hasNot("acme.lic"))
}
