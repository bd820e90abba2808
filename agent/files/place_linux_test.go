package files_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
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

// Root makes folders for an agent that runs as another user, again and again, and takes none away from a third.
func TestFoldersForAnotherUser(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root gives folders away")
	}
	const uid, gid = 10473, 10474
	dir := t.TempDir()
	state, run := files.StateFolder(dir+"/new/state"), files.RuntimeFolder(dir+"/run")
	folders := []files.Place{files.SocketFolder(dir + "/sock/usher.sock"), run, state,
		files.RuntimeFolder(dir + "/new/state/run")}
	for range 2 {
		if err := files.GiveTo(uid, gid, folders...); err != nil {
			t.Fatal(err)
		}
	}
	for path, want := range map[string]os.FileMode{"new/state": 0o700, "run": 0o755, "sock": 0o755} {
		fi, err := os.Stat(filepath.Join(dir, path))
		if err != nil {
			t.Fatal(err)
		}
		st := fi.Sys().(*syscall.Stat_t)
		if fi.Mode().Perm() != want || st.Uid != uid || st.Gid != gid {
			t.Errorf("%s: %v of %d:%d", path, fi.Mode(), st.Uid, st.Gid)
		}
	}
	if _, err := os.Stat(dir + "/new/state/run"); err == nil {
		t.Error("root made a folder within the other user's")
	}
	if fi, err := os.Stat(dir + "/new"); err != nil || fi.Sys().(*syscall.Stat_t).Uid != 0 {
		t.Errorf("the folder on the way was given away: %v", err)
	}
	if err := os.Chown(dir+"/run", 4711, 4711); err != nil {
		t.Fatal(err)
	}
	if err := files.GiveTo(uid, gid, run); err == nil || !strings.Contains(err.Error(), "4711") {
		t.Errorf("a third user's folder: %v", err)
	}
	if err := errors.Join(os.Remove(dir+"/run"), os.Symlink(t.TempDir(), dir+"/run")); err != nil {
		t.Fatal(err)
	}
	if err := files.GiveTo(uid, gid, run); err == nil {
		t.Error("a link was taken for a folder")
	}
}
