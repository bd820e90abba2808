package watch

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/usher-agent/usher/enforcer"
)

// at returns a watcher of a path.
func at(t *testing.T, path string) *Watcher {
	t.Helper()
	w, err := New(Config{Path: path, Check: func(string, []byte) *enforcer.Problem { return nil },
		OnChange: func(Snapshot) {}})
	if err != nil {
		t.Fatal(err)
	}
	return w
}

// A licence's id makes a file name that Install takes; a path that is a single file has one name.
func TestNameFor(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	file := filepath.Join(dir, "product.lic")
	if err := os.WriteFile(file, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	for id, want := range map[string]string{"L-1_a": "L-1_a.lic", "../etc/passwd": "etc-passwd.lic", "": "licence.lic",
		"…": "licence.lic", ".hidden": "hidden.lic", "a.2026": "a-2026.lic"} {
		name, former := at(t, dir).NameFor(id)
		if former != want || checkName(name) != nil {
			t.Errorf("%q: %q, formerly %q, want %q", id, name, former, want)
		}
		if begins := strings.TrimSuffix(want, ".lic"); !strings.HasPrefix(name, begins) {
			t.Errorf("%q: %q does not begin with %s", id, name, begins)
		}
	}
	if got, former := at(t, file).NameFor("L1"); got != "product.lic" || former != got {
		t.Errorf("a single file is called %q, formerly %q", got, former)
	}
}

// Two ids never have one name: not those that differ in what a name cannot have, nor in their ends, nor one that is
// written as the name of another is.
func TestNamesOfTwoIDsDiffer(t *testing.T) {
	t.Parallel()
	w := at(t, t.TempDir())
	id := rapid.OneOf(rapid.StringMatching(`[a-b._/ é-]{0,4}`), rapid.StringMatching(`[a-b]{99,101}`), rapid.String())
	rapid.Check(t, func(t *rapid.T) {
		a, b := id.Draw(t, "one"), id.Draw(t, "other")
		x, _ := w.NameFor(a)
		if rapid.Bool().Draw(t, "the name of the first") {
			b = strings.TrimSuffix(x, ".lic")
		}
		y, _ := w.NameFor(b)
		if err := checkName(x); err != nil {
			t.Fatalf("%q: %v", a, err)
		}
		if a != b && x == y {
			t.Fatalf("%q and %q are both called %s", a, b, x)
		}
	})
}

// What editors, downloads and package managers leave beside a licence is no licence.
func TestWhatOthersLeaveIsIgnored(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"a.lic~", "a.lic.bak", "a.lic.old", "a.lic.OLD", "a.lic.orig", "#a.lic#", ".#a.lic",
		"a.lic.tmp", ".a.lic.swp", "a.lic.swo", "a.lic.save", "a.lic.rej", "a.lic.part", "a.lic.crdownload", "a.lic,v",
		"a.lic.rpmnew", "a.lic.rpmsave", "a.lic.dpkg-old", "a.lic.ucf-dist", "a.lic.pacnew", "Thumbs.db"} {
		if !Ignored(name) || checkName(name) == nil {
			t.Errorf("%s counts", name)
		}
	}
	for _, name := range []string{"a.lic", "old.lic", "orig", "#1.lic", "a#", "partial.lic", "acme (1).lic"} {
		if Ignored(name) || checkName(name) != nil {
			t.Errorf("%s is ignored", name)
		}
	}
}
