package watch

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/usher-agent/usher/enforcer"
)

func TestNewRefuses(t *testing.T) {
	ok := Config{Path: "x", Check: check, OnChange: func(Snapshot) {}}
	for name, change := range map[string]func(*Config){
		"no path":       func(c *Config) { c.Path = "" },
		"no check":      func(c *Config) { c.Check = nil },
		"no listener":   func(c *Config) { c.OnChange = nil },
		"negative poll": func(c *Config) { c.Poll = -1 },
	} {
		cfg := ok
		change(&cfg)
		if _, err := New(cfg); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

func TestRunOnce(t *testing.T) {
	t.Parallel()
	g := watch(t, t.TempDir())
	if err := g.Run(t.Context()); err == nil {
		t.Error("a second Run was accepted")
	}
}

func TestEmptyFolder(t *testing.T) {
	t.Parallel()
	g := watch(t, t.TempDir())
	if s := g.last(); len(s.Files) != 0 || s.Problem != nil || s.Mode != ModeNotify || s.ModeReason != "" {
		t.Errorf("first snapshot: %s", describe(s))
	}
}

func TestRename(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	g := watch(t, dir, deaf)
	drop(t, filepath.Join(dir, "a.lic"), doc("one"))
	g.until("a", has("a.lic", "one"))
	drop(t, filepath.Join(dir, "a.lic"), doc("two"))
	g.until("the replacement", has("a.lic", "two"))
	do(t, os.Rename(filepath.Join(dir, "a.lic"), filepath.Join(dir, "b.lic")))
	g.until("the new name", has("b.lic", "two"))
	g.until("the old name gone", hasNot("a.lic"))
}

func TestWriteInPlace(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	g := watch(t, dir, deaf)
	path := filepath.Join(dir, "a.lic")
	whole := doc("a longer text")

	f, err := os.Create(path)
	do(t, err)
	for i := range whole {
		_, err = f.Write(whole[i : i+1])
		do(t, err)
	}
	do(t, f.Close())
	g.until("the whole", has("a.lic", "a longer text"))

	// Over the good one: truncated, then in pieces, with looks in between.
	f, err = os.OpenFile(path, os.O_WRONLY|os.O_TRUNC, 0)
	do(t, err)
	g.settle()
	for _, b := range doc("a second text") {
		_, err = f.Write([]byte{b})
		do(t, err)
	}
	do(t, f.Close())
	g.until("the second", has("a.lic", "a second text"))
	for _, s := range g.snapshots() {
		if f := s.file("a.lic"); f != nil && f.Problem != nil {
			t.Errorf("a write under way was called broken: %s", describe(s))
		}
	}
}

func TestBrokenReplacement(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	g := watch(t, dir, deaf)
	path := filepath.Join(dir, "a.lic")
	drop(t, path, doc("one"))
	g.until("a", has("a.lic", "one"))

	write(t, path, doc("one")[:9])
	s := g.until("the truncated one", stale("a.lic", "one"))
	if p := s.file("a.lic").Problem; p.Code != enforcer.Malformed {
		t.Errorf("code %s, want MALFORMED", p.Code)
	}
	write(t, path, nil)
	g.until("the empty one", func(s Snapshot) bool {
		return stale("a.lic", "one")(s) && strings.Contains(s.file("a.lic").Problem.Reason, "a.lic is empty")
	})
	drop(t, path, doc("revoked"))
	g.until("the untrusted one", func(s Snapshot) bool {
		return stale("a.lic", "one")(s) && s.file("a.lic").Problem.Code == enforcer.UntrustedKey
	})
	drop(t, path, doc("two"))
	g.until("the mended one", has("a.lic", "two"))
	do(t, os.Remove(path))
	g.until("nothing", hasNot("a.lic"))
	write(t, path, []byte("noise"))
	g.until("no licence", broken("a.lic", "no licence"))
}

func TestBrokenWithoutAGoodOne(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	g := watch(t, dir, deaf)
	write(t, filepath.Join(dir, "a.lic"), []byte("noise"))
	s := g.until("a problem", broken("a.lic", "no licence"))
	if f := s.file("a.lic"); string(f.Data) != "noise" {
		t.Errorf("data %q, want the latest bytes", f.Data)
	}
	write(t, filepath.Join(dir, "b.lic"), nil)
	g.until("the empty file", broken("b.lic", "b.lic is empty"))
}

// configMap fills a folder as the kubelet fills a ConfigMap or Secret volume: each file a link through ..data.
func configMap(t *testing.T, dir string, version int, files map[string][]byte) {
	t.Helper()
	real := fmt.Sprintf("..2026_%d", version)
	do(t, os.Mkdir(filepath.Join(dir, real), 0o755))
	for name, data := range files {
		write(t, filepath.Join(dir, real, name), data)
	}
	old, _ := os.Readlink(filepath.Join(dir, "..data"))
	do(t, os.Symlink(real, filepath.Join(dir, "..data_tmp")))
	do(t, os.Rename(filepath.Join(dir, "..data_tmp"), filepath.Join(dir, "..data")))
	for name := range files {
		if err := os.Symlink(filepath.Join("..data", name), filepath.Join(dir, name)); err != nil &&
			!errors.Is(err, os.ErrExist) {
			t.Fatal(err)
		}
	}
	if old == "" {
		return
	}
	links, err := filepath.Glob(filepath.Join(dir, "*.lic"))
	do(t, err)
	for _, link := range links {
		if files[filepath.Base(link)] == nil {
			do(t, os.Remove(link))
		}
	}
	do(t, os.RemoveAll(filepath.Join(dir, old)))
}

func TestConfigMap(t *testing.T) {
	for _, mode := range []string{"folder", "file"} {
		t.Run(mode, func(t *testing.T) {
			dir := t.TempDir()
			path := dir
			if mode == "file" {
				path = filepath.Join(dir, "a.lic")
			}
			g := watch(t, path, deaf)
			configMap(t, dir, 1, map[string][]byte{"a.lic": doc("one")})
			g.until("a", has("a.lic", "one"))
			if mode == "folder" {
				configMap(t, dir, 2, map[string][]byte{"a.lic": doc("two"), "b.lic": doc("more")})
				g.until("b", has("b.lic", "more"))
			} else {
				configMap(t, dir, 2, map[string][]byte{"a.lic": doc("two")})
			}
			g.until("a anew", has("a.lic", "two"))
			configMap(t, dir, 3, map[string][]byte{"a.lic": doc("three")})
			s := g.until("a last", has("a.lic", "three"))
			s = g.until("b gone", hasNot("b.lic"))
			if len(s.Files) != 1 {
				t.Errorf("besides a.lic: %s", describe(s))
			}
			for _, s := range g.snapshots() {
				if f := s.file("a.lic"); len(s.Files) > 0 && (f == nil || f.Problem != nil) {
					t.Errorf("a.lic flapped: %s", describe(s))
				}
			}
		})
	}
}

func TestFolderRemovedAndMadeAgain(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "license.d")
	do(t, os.Mkdir(dir, 0o755))
	g := watch(t, dir, deaf)
	for i := range 3 { // the new folder may have the inode of the old one
		text := fmt.Sprint(i)
		drop(t, filepath.Join(dir, "a.lic"), doc(text))
		g.until("a", has("a.lic", text))
		do(t, os.RemoveAll(dir))
		s := g.until("the folder missing", func(s Snapshot) bool { return len(s.Files) == 0 && s.Problem != nil })
		if s.Problem.Code != enforcer.NotFound || !strings.Contains(s.Problem.Hint, "mkdir -p ") {
			t.Errorf("problem %+v", s.Problem)
		}
		do(t, os.Mkdir(dir, 0o755))
		g.until("the folder back", func(s Snapshot) bool { return s.Problem == nil })
	}
}

func TestFolderReplacedAtOnce(t *testing.T) {
	t.Parallel()
	parent := t.TempDir()
	dir := filepath.Join(parent, "license.d")
	do(t, os.Mkdir(dir, 0o755))
	g := watch(t, dir, deaf)
	drop(t, filepath.Join(dir, "a.lic"), doc("one"))
	g.until("a", has("a.lic", "one"))
	fresh := filepath.Join(parent, "fresh")
	do(t, os.Mkdir(fresh, 0o755))
	write(t, filepath.Join(fresh, "a.lic"), doc("two"))
	do(t, os.Rename(dir, filepath.Join(parent, "old")))
	do(t, os.Rename(fresh, dir))
	g.until("the new folder's", has("a.lic", "two"))
	drop(t, filepath.Join(dir, "a.lic"), doc("three"))
	g.until("a change in the new folder", has("a.lic", "three"))
}

func TestFolderIsASwappedLink(t *testing.T) {
	t.Parallel()
	parent, elsewhere := t.TempDir(), t.TempDir()
	for _, v := range []string{"v1", "v2"} {
		do(t, os.Mkdir(filepath.Join(elsewhere, v), 0o755))
		write(t, filepath.Join(elsewhere, v, "a.lic"), doc(v))
	}
	dir := filepath.Join(parent, "license.d")
	swap := func(v string) {
		do(t, os.Symlink(filepath.Join(elsewhere, v), filepath.Join(parent, "next")))
		do(t, os.Rename(filepath.Join(parent, "next"), dir))
	}
	swap("v1")
	g := watch(t, dir, deaf)
	g.until("v1", has("a.lic", "v1"))
	for range 2 {
		swap("v2")
		g.until("v2", has("a.lic", "v2"))
		swap("v1")
		g.until("v1 again", has("a.lic", "v1"))
	}
	drop(t, filepath.Join(elsewhere, "v1", "a.lic"), doc("new"))
	g.until("a change behind the link", has("a.lic", "new"))
	// The folder at the end of the link is exchanged; the link stays as it is.
	do(t, os.Rename(filepath.Join(elsewhere, "v1"), filepath.Join(elsewhere, "old")))
	s := g.until("nothing", func(s Snapshot) bool { return s.Problem != nil && len(s.Files) == 0 })
	if want := "is a link to " + filepath.Join(elsewhere, "v1") +
		", which does not exist"; !strings.Contains(s.Problem.Reason, want) {
		t.Errorf("reason %q, want %q", s.Problem.Reason, want)
	}
	do(t, os.Rename(filepath.Join(elsewhere, "v2"), filepath.Join(elsewhere, "v1")))
	g.until("the folder behind the link", has("a.lic", "v2"))
}

// Deployment tools swap a link further up: current -> releases/42.
func TestLinkOnTheWayIsSwapped(t *testing.T) {
	t.Parallel()
	parent := t.TempDir()
	for _, v := range []string{"1", "2"} {
		do(t, os.MkdirAll(filepath.Join(parent, "releases", v, "license.d"), 0o755))
		write(t, filepath.Join(parent, "releases", v, "license.d", "a.lic"), doc(v))
	}
	current := filepath.Join(parent, "current")
	do(t, os.Symlink("releases/1", current))
	g := watch(t, filepath.Join(current, "license.d"), deaf)
	g.until("release 1", has("a.lic", "1"))
	do(t, os.Symlink("./releases/../releases/2/", filepath.Join(parent, "next")))
	do(t, os.Rename(filepath.Join(parent, "next"), current))
	g.until("release 2", has("a.lic", "2"))
	do(t, os.Remove(current))
	g.until("no release", hasNot("a.lic"))
	do(t, os.Symlink("releases/1", current))
	g.until("release 1 again", has("a.lic", "1"))
}

func TestWayEnds(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	do(t, os.Symlink("loop/x", filepath.Join(dir, "loop")))
	if got := way(filepath.Join(dir, "loop")); len(got) > maxWay+1 {
		t.Errorf("%d targets", len(got))
	}
}

func TestFolderCreatedLater(t *testing.T) {
	t.Parallel()
	parent := t.TempDir()
	dir := filepath.Join(parent, "etc", "usher", "license.d")
	g := watch(t, dir, deaf)
	if s := g.last(); s.Problem == nil || s.Mode != ModeNotify {
		t.Fatalf("first snapshot: %s", describe(s))
	}
	do(t, os.MkdirAll(dir, 0o755))
	g.until("the folder", func(s Snapshot) bool { return s.Problem == nil })
	drop(t, filepath.Join(dir, "a.lic"), doc("one"))
	g.until("a", has("a.lic", "one"))
}

func TestFilePathOfAnIgnoredName(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "license.bak") // its name was asked for
	g := watch(t, path, deaf)
	write(t, path, doc("one"))
	g.until("the file", has("license.bak", "one"))
	write(t, path, doc("two"))
	g.until("the file anew", has("license.bak", "two"))
}

func TestFilePath(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path := filepath.Join(dir, "acme.lic")
	g := watch(t, path, deaf)
	if s := g.last(); s.Problem == nil || s.Problem.Code != enforcer.NotFound {
		t.Fatalf("first snapshot: %s", describe(s))
	}
	write(t, filepath.Join(dir, "other.lic"), doc("other"))
	drop(t, path, doc("one"))
	g.until("the file", has("acme.lic", "one"))
	write(t, path, doc("two"))
	g.until("the file anew", has("acme.lic", "two"))
	do(t, os.Remove(path))
	g.until("nothing", func(s Snapshot) bool { return len(s.Files) == 0 && s.Problem != nil })
	write(t, path, []byte("noise"))
	g.until("noise", broken("acme.lic", "no licence"))
	for _, s := range g.snapshots() {
		if s.file("other.lic") != nil {
			t.Errorf("a neighbour counts: %s", describe(s))
		}
	}
}

func TestIgnoredNames(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	ignored := []string{"README.bak", ".hidden.lic", "a.lic~", "a.tmp", "a.lic.swp", ".a.lic.swp", "a.lic.rpmsave",
		"a.lic.rpmnew",
		"a.lic.dpkg-dist", "A.LIC.BAK"}
	for _, name := range ignored {
		write(t, filepath.Join(dir, name), doc(name))
	}
	do(t, os.Mkdir(filepath.Join(dir, "lost+found"), 0o700))
	g := watch(t, dir)
	write(t, filepath.Join(dir, "README"), []byte("put licences here"))
	s := g.until("the README", broken("README", "no licence"))
	if len(s.Files) != 1 {
		t.Errorf("besides the README: %s", describe(s))
	}
}

func TestTooLarge(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	g := watch(t, dir)
	write(t, filepath.Join(dir, "a.lic"), bytes.Repeat([]byte("x"), 2<<20))
	s := g.until("a problem",
		broken("a.lic", "a.lic has 2097152 bytes; a licence document has at most 1048576 (1 MiB)"))
	if f := s.file("a.lic"); f.Data != nil || f.Problem.Code != enforcer.Malformed {
		t.Errorf("%d bytes were read, code %s", len(f.Data), f.Problem.Code)
	}
	most := append(doc(strings.Repeat("y", MaxDocument-len(doc("")))), 0)[:MaxDocument]
	drop(t, filepath.Join(dir, "b.lic"), most)
	g.until("the largest", func(s Snapshot) bool { f := s.file("b.lic"); return f != nil && f.Problem == nil })
}

func TestTooMany(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for i := range MaxFiles {
		write(t, filepath.Join(dir, fmt.Sprintf("m%03d.lic", i)), doc("x"))
	}
	g := watch(t, dir, deaf)
	write(t, filepath.Join(dir, "a.lic"), doc("early in the alphabet"))
	write(t, filepath.Join(dir, "z.lic"), doc("late"))
	s := g.until("two left out", func(s Snapshot) bool { return s.Omitted == 2 })
	if len(s.Files) != MaxFiles || s.file("a.lic") != nil || s.Problem == nil ||
		!strings.Contains(s.Problem.Reason, "at most 256") {
		t.Errorf("%d files, problem %+v", len(s.Files), s.Problem)
	}
	do(t, os.Remove(filepath.Join(dir, "m000.lic")))
	do(t, os.Remove(filepath.Join(dir, "m001.lic")))
	s = g.until("room for the others", func(s Snapshot) bool {
		return s.Problem == nil && has("z.lic", "late")(s) && s.file("m000.lic") == nil && s.file("m001.lic") == nil
	})
	if len(s.Files) != MaxFiles || s.file("a.lic") == nil {
		t.Errorf("%d files", len(s.Files))
	}
}

func TestThousandReplacements(t *testing.T) {
	for _, how := range []string{"rename", "remove and write"} {
		t.Run(how, func(t *testing.T) {
			// Where the test itself was kept waiting with half a replacement, the watcher may tell of it.
			for thousandReplacements(t, how) >= Patience && how != "rename" && !t.Failed() {
			}
		})
	}
}

// thousandReplacements returns the longest time that one of them took. If that is shorter than Patience, no look must
// have told of half a replacement.
func thousandReplacements(t *testing.T, how string) (longest time.Duration) {
	dir := t.TempDir()
	path := filepath.Join(dir, "a.lic")
	write(t, path, doc("0"))
	g := watch(t, dir, deaf, keepIn(filepath.Join(t.TempDir(), "keep")))
	for i := range 1000 {
		began := time.Now()
		if data := doc(fmt.Sprint(i + 1)); how == "rename" {
			drop(t, path, data)
		} else {
			do(t, os.Remove(path))
			write(t, path, data)
		}
		longest = max(longest, time.Since(began))
	}
	s := g.until("the last", has("a.lic", "1000"))
	if len(s.Files) != 1 {
		t.Errorf("at the end: %s", describe(s))
	}
	for _, s := range g.snapshots() {
		if f := s.file("a.lic"); (f == nil || f.Problem != nil) && (longest < Patience || how == "rename") {
			t.Fatalf("flapped: %s\nno replacement took longer than %s", describe(s), longest)
		}
	}
	g.stop()
	kept, err := readRecord(filepath.Join(g.cfg.KeepDir, keepGood, recordName(path)))
	if err != nil || !bytes.Equal(kept.data, doc("1000")) {
		t.Errorf("kept %q, %v; want the last", kept.data, err)
	}
	return longest
}

func TestRecheck(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	var trusted atomic.Bool
	trusted.Store(true)
	g := watch(t, dir, deaf, checkBy(func(name string, data []byte) *enforcer.Problem {
		if p := check(name, data); p != nil || trusted.Load() {
			return p
		}
		return &enforcer.Problem{Code: enforcer.UntrustedKey, Reason: "unknown key"}
	}))
	drop(t, filepath.Join(dir, "a.lic"), doc("one"))
	drop(t, filepath.Join(dir, "b.lic"), doc("one"))
	g.until("b", has("b.lic", "one"))
	write(t, filepath.Join(dir, "b.lic"), []byte("noise"))
	g.until("b broken", stale("b.lic", "one"))
	trusted.Store(false)
	g.Recheck()
	s := g.until("a distrusted", broken("a.lic", "unknown key"))
	if !broken("b.lic", "no licence")(s) {
		t.Errorf("the last good bytes outlive their key: %s", describe(s))
	}
	trusted.Store(true)
	g.Recheck()
	s = g.until("a trusted again", has("a.lic", "one"))
	if !stale("b.lic", "one")(s) {
		t.Errorf("the last good bytes do not stand again: %s", describe(s))
	}
}

func TestTouchIsNoChange(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path := filepath.Join(dir, "a.lic")
	write(t, path, doc("one"))
	g := watch(t, dir)
	n := len(g.snapshots())
	drop(t, path, doc("one"))
	g.settle()
	if got := len(g.snapshots()); got != n {
		t.Errorf("%d snapshots for the same bytes, want none", got-n)
	}
}
