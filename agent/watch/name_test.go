package watch

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/usher-agent/usher/enforcer"
)

// A licence's id makes a file name that Install takes; a path that is a single file has one name.
func TestNameFor(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	file := filepath.Join(dir, "product.lic")
	if err := os.WriteFile(file, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	of := func(path string) *Watcher {
		w, err := New(Config{Path: path, Check: func(string, []byte) *enforcer.Problem { return nil },
			OnChange: func(Snapshot) {}})
		if err != nil {
			t.Fatal(err)
		}
		return w
	}
	for id, want := range map[string]string{"L-1_a": "L-1_a.lic", "../etc/passwd": "etc-passwd.lic", "": "licence.lic",
		"…": "licence.lic", ".hidden": "hidden.lic"} {
		got := of(dir).NameFor(id)
		if got != want || checkName(got) != nil {
			t.Errorf("%q: %q, want %q", id, got, want)
		}
	}
	if got := of(file).NameFor("L1"); got != "product.lic" {
		t.Errorf("a single file is called %q", got)
	}
}
