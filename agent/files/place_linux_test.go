package files_test

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/usher-agent/usher/agent/files"
)

// In a place that is everybody's, as an emptyDir is, the agent makes folders that it can then be given without that
// place.
func TestMakeFolders(t *testing.T) {
	dir := t.TempDir()
	if err := os.Chmod(dir, 0o777); err != nil {
		t.Fatal(err)
	}
	state, runtime := files.StateFolder(dir+"/state"), files.RuntimeFolder(dir+"/state/run")
	for range 2 {
		if err := files.MakeOwn(state, runtime); err != nil {
			t.Fatal(err)
		}
	}
	for path, want := range map[string]os.FileMode{"state": 0o700, "state/run": 0o755} {
		if fi, err := os.Stat(filepath.Join(dir, path)); err != nil || fi.Mode().Perm() != want {
			t.Errorf("%s: %v, %v", path, fi, err)
		}
	}
	if err := errors.Join(os.RemoveAll(dir+"/state"), os.Symlink(t.TempDir(), dir+"/state")); err != nil {
		t.Fatal(err)
	}
	if err := files.MakeOwn(state, runtime); err == nil {
		t.Error("a link was taken for a folder")
	}
}
