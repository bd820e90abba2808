package journal_test

import (
	"errors"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"testing"

	"github.com/usher-agent/usher/agent/journal"
)

// disk is a seam under a journal: real files whose calls fail on demand, and which forget unsynced bytes when the power
// goes.
type disk struct {
	mu     sync.Mutex
	files  []*diskFile                               // every one that was opened since the last crash
	hook   func(f *diskFile) error                   // called at the start of each fsync; nil: nothing is
	fails  func(op string) (part float64, err error) // part: how much of a write gets done before it fails
	syncs  int
	blocks chan struct{} // an fsync takes one of these first; nil: it does not
	began  chan struct{} // and gives one of these before; nil: it does not
}

type diskFile struct {
	*os.File
	d    *disk
	info os.FileInfo
	kept *kept // what all who opened this file since the last crash share
}

// kept is what a power cut leaves of a file for certain.
type kept struct{ sound []byte } // the bytes that an fsync has covered

func (d *disk) open(name string, flag int) (journal.File, error) {
	if _, err := d.fail("open"); err != nil && flag&os.O_CREATE != 0 {
		return nil, err
	}
	f, err := os.OpenFile(name, flag, 0o600)
	if err != nil {
		return nil, err
	}
	df := &diskFile{File: f, d: d, kept: &kept{}}
	if df.info, err = f.Stat(); err != nil {
		return nil, err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	known := false
	for _, earlier := range d.files {
		// opened before: bytes that its fsyncs did not cover are no safer now
		if flag&os.O_CREATE == 0 && os.SameFile(earlier.info, df.info) {
			df.kept, known = earlier.kept, true
		}
	}
	if !known && flag&os.O_CREATE == 0 {
		df.kept.sound, err = os.ReadFile(name)
	}
	d.files = append(d.files, df)
	return df, err
}

func (d *disk) fail(op string) (float64, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.fails == nil {
		return 0, nil
	}
	return d.fails(op)
}

func (f *diskFile) WriteAt(b []byte, at int64) (int, error) {
	if part, err := f.d.fail("write"); err != nil {
		n, _ := f.File.WriteAt(b[:int(part*float64(len(b)))], at)
		return n, err
	}
	return f.File.WriteAt(b, at)
}

func (f *diskFile) Truncate(size int64) error {
	if _, err := f.d.fail("truncate"); err != nil {
		return err
	}
	return f.File.Truncate(size)
}

func (f *diskFile) Sync() error {
	if f.d.hook != nil {
		if err := f.d.hook(f); err != nil {
			return err
		}
	}
	if f.d.began != nil {
		f.d.began <- struct{}{}
	}
	if f.d.blocks != nil {
		<-f.d.blocks
	}
	if _, err := f.d.fail("sync"); err != nil {
		return err
	}
	b, err := f.bytes() // through the open file: its name may be another's by now
	if err != nil {
		return err
	}
	f.d.mu.Lock()
	defer f.d.mu.Unlock()
	f.d.syncs++
	f.kept.sound = b
	return nil
}

// bytes are the file's, whatever name it has.
func (f *diskFile) bytes() ([]byte, error) {
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	b := make([]byte, info.Size())
	n, err := f.ReadAt(b, 0)
	if errors.Is(err, io.EOF) { // cut meanwhile, or empty
		err = nil
	}
	return b[:n], err
}

// crash ends every open file as a power cut does: synced bytes are there, some sectors of the rest are, and the end is
// anywhere.
func (d *disk) crash(t interface{ Fatal(...any) }, r *rand.Rand) {
	d.mu.Lock()
	defer d.mu.Unlock()
	cut := map[*kept]bool{} // the power goes once, however often a file is open
	for _, f := range d.files {
		b, err := f.bytes()
		if errors.Is(err, os.ErrClosed) {
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		if cut[f.kept] {
			f.File.Close()
			continue
		}
		cut[f.kept] = true
		sound := f.kept.sound
		if len(b) > len(sound) {
			b = b[:len(sound)+r.IntN(len(b)-len(sound)+1)]
		}
		if r.IntN(2) == 0 { // sectors that were never written read as zeros, or as they were
			for at := 0; at < len(b); at += 512 {
				if r.IntN(3) == 0 {
					end := min(at+512, len(b))
					clear(b[at:end])
					if at < len(sound) {
						copy(b[at:end], sound[at:])
					}
				}
			}
		}
		if err := errors.Join(f.File.Truncate(0), f.File.Truncate(int64(len(b)))); err != nil {
			t.Fatal(err)
		}
		if _, err := f.File.WriteAt(b, 0); err != nil {
			t.Fatal(err)
		}
		f.File.Close()
	}
	d.files = nil
}

// failing returns a fails that fails the given operations, each with its error.
func failing(errs map[string]error) func(string) (float64, error) {
	return func(op string) (float64, error) { return 0.5, errs[op] }
}

func (d *disk) set(fails func(string) (float64, error)) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.fails = fails
}

func TestFullDisk(t *testing.T) {
	for _, full := range []error{syscall.ENOSPC, syscall.EDQUOT} {
		d := &disk{}
		c := journal.Config{Dir: t.TempDir(), Name: "j", Sync: true, File: d.open}
		j, _, _ := open(t, c)
		add(t, j, "before")
		before := size(t, c)
		d.set(failing(map[string]error{"write": full}))
		if _, err := j.Append([]byte("does not fit")); !errors.Is(err, journal.ErrFull) || !errors.Is(err, full) {
			t.Errorf("%v: %v", full, err)
		}
		if err := j.Compact(func(write func([]byte) error) error {
			return write([]byte("snapshot"))
		}); !errors.Is(err, journal.ErrFull) {
			t.Errorf("compaction on %v: %v", full, err)
		}
		if size(t, c) != before {
			t.Errorf("a failed write left %d bytes", size(t, c)-before)
		}
		d.set(nil)
		add(t, j, "after")
		j.Close()
		if _, r, got := open(t, c); len(got) != 2 || got[1] != "after" || r.TornBytes != 0 {
			t.Errorf("replayed %q, %+v", got, r)
		}
	}
}

func TestFailedWriteThatCannotBeUndone(t *testing.T) {
	d := &disk{}
	c := journal.Config{Dir: t.TempDir(), Name: "j", File: d.open}
	j, _, _ := open(t, c)
	add(t, j, "before")
	d.set(failing(map[string]error{"write": syscall.EIO, "truncate": syscall.EROFS}))
	_, first := j.Append([]byte("lost"))
	d.set(nil)
	if _, err := j.Append([]byte("after")); !errors.Is(err, syscall.EIO) || err.Error() != first.Error() {
		t.Errorf("first %v, then %v", first, err)
	}
	if j.Due() {
		t.Error("a poisoned journal is due")
	}
	j.Close()
	if _, r, got := open(t, c); len(got) != 1 || r.TornBytes == 0 {
		t.Errorf("replayed %q, %+v", got, r)
	}
}

func TestFailedFsyncIsForGood(t *testing.T) {
	d := &disk{}
	c := journal.Config{Dir: t.TempDir(), Name: "j", Sync: true, File: d.open}
	j, _, _ := open(t, c)
	safe, err := j.Append([]byte("before"))
	if err != nil || safe.Wait(t.Context()) != nil {
		t.Fatal(err)
	}
	lost, err := j.Append([]byte("lost"))
	if err != nil {
		t.Fatal(err)
	}
	d.set(failing(map[string]error{"sync": syscall.EIO}))
	if err := lost.Wait(t.Context()); !errors.Is(err, syscall.EIO) {
		t.Errorf("wait: %v", err)
	}
	d.set(nil)
	if err := lost.Wait(t.Context()); !errors.Is(err, syscall.EIO) {
		t.Errorf("waiting again succeeded where an fsync had failed: %v", err)
	}
	if _, err := j.Append([]byte("after")); !errors.Is(err, syscall.EIO) {
		t.Errorf("append: %v", err)
	}
	if err := safe.Wait(t.Context()); err != nil {
		t.Errorf("what was on the disk before: %v", err)
	}
	if err := j.Close(); !errors.Is(err, syscall.EIO) {
		t.Errorf("close: %v", err)
	}
	j, _, _ = open(t, c)
	add(t, j, "again")
}

// TestPowerCutWhileFilesChange acknowledges a record when the successor is complete except for it. It cuts the power
// when the successor has the journal's name, before any further fsync.
func TestPowerCutWhileFilesChange(t *testing.T) {
	for seed := range uint64(20) {
		d := &disk{}
		c := journal.Config{Dir: t.TempDir(), Name: "j", Sync: true, File: d.open}
		j, _, _ := open(t, c)
		add(t, j, "before")
		appended := false
		d.hook = func(f *diskFile) error {
			_, err := os.Stat(filepath.Join(c.Dir, "j.tmp"))
			if filepath.Base(f.Name()) == "j.tmp" && err != nil {
				return syscall.EIO
			}
			if filepath.Base(f.Name()) == "j.tmp" && !appended {
				appended = true
				add(t, j, "acknowledged")
			}
			return nil
		}
		if err := j.Compact(func(write func([]byte) error) error {
			return write([]byte("before"))
		}); !errors.Is(err, syscall.EIO) || !appended {
			t.Fatalf("compaction: %v", err)
		}
		d.hook = nil
		d.crash(t, rand.New(rand.NewPCG(seed, 2)))
		j.Close()
		if _, r, got := open(t, c); len(got) != 2 || got[1] != "acknowledged" {
			t.Fatalf("replayed %q, %+v", got, r)
		}
	}
}
