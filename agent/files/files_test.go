package files

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
)

func write(t *testing.T, path, content string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestReplaceLeavesOneOfTwo(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "state.json")
	write(t, path, "old")
	if err := Replace(path, []byte("new"), 0o640); err != nil {
		t.Fatal(err)
	}
	if b, err := Read(path, MaxSize); err != nil || string(b) != "new" {
		t.Errorf("the file holds %q (%v), want new", b, err)
	}
	if err := Replace(filepath.Join(dir, "none", "state.json"), nil, 0o600); err == nil {
		t.Error("a file was written into a folder that is not there")
	}
	if entries, err := os.ReadDir(dir); err != nil || len(entries) != 1 {
		t.Errorf("the folder holds %v (%v), want the file alone", entries, err)
	}
}

func TestReadFollowsNothing(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "file")
	write(t, path, "0123456789")
	if _, err := Read(path, 9); err == nil {
		t.Error("a file beyond the bound was read")
	}
	if _, err := Read(dir, MaxSize); err == nil {
		t.Error("a folder was read")
	}
	if _, err := Read(filepath.Join(dir, "none"), MaxSize); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a missing file's error is %v, want ErrNotExist", err)
	}
	link := filepath.Join(dir, "link")
	if err := os.Symlink(path, link); err != nil {
		t.Skip("no links here:", err)
	}
	if openFlags == 0 {
		return // this system has no flag that makes open stop at a link
	}
	if b, err := Read(link, MaxSize); err == nil {
		t.Errorf("a link was followed to %q", b)
	}
}

func TestSweepRemovesOnlyTemporaryFiles(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{TempPrefix + "X", "state.json", ".hidden"} {
		write(t, filepath.Join(dir, name), "x")
	}
	if err := Sweep(dir); err != nil {
		t.Fatal(err)
	}
	left, err := filepath.Glob(filepath.Join(dir, "*"))
	if err != nil || len(left) != 2 { // Glob matches dotfiles too
		t.Errorf("left are %v (%v), want the two files that are not temporary", left, err)
	}
}
