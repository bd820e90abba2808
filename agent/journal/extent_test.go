package journal

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"testing"
)

// sealedJournal writes a journal of five records, of which three are sealed.
func sealedJournal(t *testing.T, dir string) Extent {
	t.Helper()
	j, _, err := Open(Config{Dir: dir, Name: "j"}, func([]byte) error { return nil })
	if err != nil {
		t.Fatal(err)
	}
	defer j.Close()
	for _, r := range []string{"one", "two", "three"} {
		if _, err := j.Append([]byte(r)); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := j.Extent(); err != nil { // and on from there
		t.Fatal(err)
	}
	x, err := j.Extent()
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range []string{"four", "five"} {
		if _, err := j.Append([]byte(r)); err != nil {
			t.Fatal(err)
		}
	}
	return x
}

// A journal that does not begin as it was sealed is replayed, and reported as another. Records that were appended since
// are no fault.
func TestSealedBeginning(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name  string
		do    func(t *testing.T, path string)
		fault Fault
	}{
		{"as it was left", func(*testing.T, string) {}, ""},
		{"the end torn", func(t *testing.T, path string) { cutTo(t, path, -3) }, ""},
		{"cut before what is sealed", func(t *testing.T, path string) {
			cutTo(t, path, headerSize+2*(recordHead+3))
		}, Changed},
		{"another journal", func(t *testing.T, path string) {
			os.Remove(path)
			j, _, err := Open(Config{Dir: filepath.Dir(path), Name: "j"}, func([]byte) error { return nil })
			if err != nil {
				t.Fatal(err)
			}
			for _, r := range []string{"one", "owt", "three", "four", "five"} {
				if _, err := j.Append([]byte(r)); err != nil {
					t.Fatal(err)
				}
			}
			j.Close()
		}, Changed},
		{"removed", func(_ *testing.T, path string) { os.Remove(path) }, Missing},
		{"emptied", func(t *testing.T, path string) { cutTo(t, path, 0) }, Empty},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			x := sealedJournal(t, dir)
			path := filepath.Join(dir, "j")
			test.do(t, path)
			if fault, err := Check(path, []Extent{x}); err != nil || fault != test.fault {
				t.Errorf("looked at: %q, %v, want %q", fault, err, test.fault)
			}
			j, r, err := Open(Config{Dir: dir, Name: "j", Sealed: []Extent{x}}, func([]byte) error { return nil })
			if err != nil {
				t.Fatal(err)
			}
			defer j.Close()
			if r.Fault != test.fault {
				t.Errorf("the fault is %q, want %q", r.Fault, test.fault)
			}
			is, err := j.Extent()
			if whole, err2 := ExtentOf(path); err != nil || err2 != nil || is.Size != whole.Size ||
				!bytes.Equal(is.Digest, whole.Digest) {
				t.Errorf("summed on to %v (%v), the file is %v (%v)", is, err, whole, err2)
			}
		})
	}
}

// cutTo cuts a file to a size; a negative one is counted from its end.
func cutTo(t *testing.T, path string, size int64) {
	t.Helper()
	if size < 0 {
		fi, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		size += fi.Size()
	}
	if err := os.Truncate(path, size); err != nil {
		t.Fatal(err)
	}
}

// A crash on either side of a compaction's rename leaves a journal that begins as one of the two that were announced.
// An error keeps the old one.
func TestReplacingIsTold(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	x := sealedJournal(t, dir)
	var next Extent
	refuse := errors.New("the disk is full")
	fail := error(nil)
	j, _, err := Open(Config{Dir: dir, Name: "j", Sealed: []Extent{x}, Replacing: func(x Extent) error {
		next = x
		return fail
	}}, func([]byte) error { return nil })
	if err != nil {
		t.Fatal(err)
	}
	defer j.Close()
	path := filepath.Join(dir, "j")
	snapshot := func(write func([]byte) error) error { return write([]byte("all five")) }
	fail = refuse
	if err := j.Compact(snapshot); !errors.Is(err, refuse) {
		t.Errorf("compacted, though the next could not be told of: %v", err)
	}
	if fault, err := Check(path, []Extent{x}); err != nil || fault != "" {
		t.Errorf("the old journal is %q, %v", fault, err)
	}
	fail = nil
	if err := j.Compact(snapshot); err != nil {
		t.Fatal(err)
	}
	if _, err := j.Append([]byte("six")); err != nil {
		t.Fatal(err)
	}
	if fault, err := Check(path, []Extent{x, next}); err != nil || fault != "" {
		t.Errorf("the new journal is %q, %v", fault, err)
	}
	if fault, err := Check(path, []Extent{x}); err != nil || fault != Changed {
		t.Errorf("the new journal passes for the old: %q, %v", fault, err)
	}
}
