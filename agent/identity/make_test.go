package identity_test

import (
	"crypto/ed25519"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/usher-agent/usher/agent/identity"
)

// A key that is made beforehand is one that an agent reads, for its owner alone, and overwrites none.
func TestMakeKey(t *testing.T) {
	path := filepath.Join(t.TempDir(), "agent.key")
	key, err := identity.Make(path, false)
	if err != nil {
		t.Fatal(err)
	}
	if fi, err := os.Stat(path); err != nil || fi.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", fi, err)
	}
	read, err := identity.File{Path: path}.Existing()
	if err != nil || !read.Equal(key) {
		t.Errorf("the agent reads another key: %v", err)
	}
	_, err = identity.Make(path, false)
	thumb := identity.Thumbprint(key.Public().(ed25519.PublicKey))
	if !errors.Is(err, fs.ErrExist) || !strings.Contains(err.Error(), thumb) {
		t.Errorf("over a key: %v", err)
	}
	if again, err := (identity.File{Path: path}).Existing(); err != nil || !again.Equal(key) {
		t.Errorf("it was overwritten: %v", err)
	}
	next, err := identity.Make(path, true)
	if again, readErr := (identity.File{Path: path}).Existing(); err != nil || readErr != nil || !again.Equal(next) {
		t.Errorf("replacing it: %v, %v", err, readErr)
	}
	if left, err := os.ReadDir(filepath.Dir(path)); err != nil || len(left) != 1 {
		t.Errorf("it leaves %v: %v", left, err)
	}
	gone := filepath.Join(t.TempDir(), "none", "agent.key")
	if _, err := identity.Make(gone, false); err == nil {
		t.Error("it wrote into a folder that is not there")
	}
}
