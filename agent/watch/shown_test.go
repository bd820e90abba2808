package watch

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"unicode/utf8"

	"pgregory.net/rapid"
)

// A file whose name is in Latin-1, or has characters that do not print, is removed and comes back by its own name, by
// the name that answers have for it, and by what a terminal shows.
func TestOddNamesAreAccepted(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ name, by string }{{"caf\xe9.lic", `caf\xe9.lic`}, {"caf\xe9.lic", "caf\xe9.lic"},
		{"a\nb.lic", `a\nb.lic`}, {"a\nb.lic", "a\nb.lic"}, {"x\u202eb.lic", `x\u202eb.lic`}, {`a\b.lic`, `a\b.lic`},
		{"caf\xe9\\.lic", `caf\xe9\\.lic`}} {
		dir := t.TempDir()
		g := watch(t, dir, deaf, keepIn(filepath.Join(t.TempDir(), "keep")))
		file := filepath.Join(dir, c.name)
		if err := os.WriteFile(file, doc("one"), 0o600); err != nil {
			t.Skip("no file can have that name here:", err)
		}
		g.until("it is seen", has(shown(c.name), "one"))
		of, err := g.Remove(c.by)
		if _, there := os.Lstat(file); err != nil || of != shown(c.name) || !errors.Is(there, fs.ErrNotExist) {
			t.Errorf("remove %q: %q, %v, %v", c.by, of, err, there)
			continue
		}
		of, removed, err := g.Rollback(c.by)
		if b, _ := os.ReadFile(file); err != nil || removed || of != shown(c.name) || string(b) != string(doc("one")) {
			t.Errorf("rollback %q: %q, %v, %q", c.by, of, err, b)
		}
	}
}

// A name is one file's: what two files are shown as is nobody's, what none has is a name like any, and no path leads
// out of the folder.
func TestNamesOfOneFile(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for _, name := range []string{"caf\xe9.lic", `caf\xe9.lic`, "a\u2028.lic", `a\u2028.lic`, "b\n\x1b.lic",
		".hidden\xe9"} {
		if err := os.WriteFile(filepath.Join(dir, name), nil, 0o600); err != nil {
			t.Skip("no file can have that name here:", err)
		}
	}
	for by, want := range map[string]string{"caf\xe9.lic": "caf\xe9.lic", `caf\xe9.lic`: `caf\xe9.lic`,
		`caf\\xe9.lic`: `caf\xe9.lic`, `a\u2028.lic`: `a\u2028.lic`, "a\u2028.lic": "a\u2028.lic",
		`b\n\x1b.lic`: "b\n\x1b.lic", "none.lic": "none.lic", `.hidden\xe9`: `.hidden\xe9`, "../a": "../a"} {
		if got, err := there(dir, by); err != nil || got != want {
			t.Errorf("%q is %q, %v; want %q", by, got, err, want)
		}
	}
	g := watch(t, dir, deaf)
	for _, by := range []string{"../a", "/etc/passwd", "..", `.hidden\xe9`, ".hidden\xe9", ""} {
		if _, err := g.Remove(by); err == nil {
			t.Errorf("%q is removed", by)
		}
	}
	if _, err := os.Lstat(filepath.Join(dir, ".hidden\xe9")); err != nil {
		t.Error(err)
	}
}

// No two names are shown alike, and what is shown is UTF-8.
func TestShownNamesDiffer(t *testing.T) {
	t.Parallel()
	part := rapid.SampledFrom([]string{"\xe9", `\xe9`, `\`, "x", "e9", "\xff", "é", `\x`})
	name := rapid.Custom(func(t *rapid.T) string {
		out := ""
		for _, s := range rapid.SliceOfN(part, 0, 6).Draw(t, "parts") {
			out += s
		}
		return out
	})
	rapid.Check(t, func(t *rapid.T) {
		a, b := name.Draw(t, "one"), name.Draw(t, "other")
		if x, y := shown(a), shown(b); (a == b) != (x == y) || !utf8.ValidString(x) {
			t.Fatalf("%q is shown as %q, %q as %q", a, x, b, y)
		}
	})
}

// A document that could not be brought back is not removed: the report promises that it can.
func TestRemoveKeepsOrRefuses(t *testing.T) {
	t.Parallel()
	dir, keep := t.TempDir(), filepath.Join(t.TempDir(), "keep")
	g := watch(t, dir, deaf, keepIn(keep))
	do(t, os.WriteFile(filepath.Join(dir, "a.lic"), doc("one"), 0o600))
	g.until("it is seen", has("a.lic", "one"))
	// The watcher may be making its copy there. Once it is a file, nothing can be written into it.
	for os.RemoveAll(keep) != nil || os.WriteFile(keep, []byte("no folder"), 0o600) != nil {
		runtime.Gosched()
	}
	_, err := g.Remove("a.lic")
	if _, lost := os.Lstat(filepath.Join(dir, "a.lic")); err == nil || lost != nil ||
		!strings.Contains(err.Error(), "state.dir") {
		t.Errorf("it cannot be kept: %v; the file: %v", err, lost)
	}
	do(t, os.Remove(keep))
	if _, err := g.Remove("a.lic"); err != nil {
		t.Error(err)
	}
	if _, _, err := g.Rollback("a.lic"); err != nil {
		t.Error(err)
	}
}
