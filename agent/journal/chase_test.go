package journal

import (
	"bytes"
	"fmt"
	"os"
	"slices"
	"sync/atomic"
	"testing"
)

// waitedFor is a file that counts what is read of it while the journal's lock is held, and so while appends wait.
type waitedFor struct {
	*os.File
	j      *atomic.Pointer[Journal]
	locked *atomic.Int64
}

func (f waitedFor) ReadAt(b []byte, at int64) (int, error) {
	if j := f.j.Load(); j != nil {
		if j.mu.TryLock() {
			j.mu.Unlock()
		} else {
			f.locked.Add(int64(len(b)))
		}
	}
	return f.File.ReadAt(b, at)
}

// Appends wait for little of a compaction, however much is appended while it writes its snapshot or sums it.
func TestCompactionHoldsNobodyUp(t *testing.T) {
	for _, sync := range []bool{false, true} {
		t.Run(fmt.Sprintf("sync=%v", sync), func(t *testing.T) {
			var is atomic.Pointer[Journal]
			var locked atomic.Int64
			var want [][]byte
			appended := func(n int) {
				for range n {
					r := fmt.Appendf(nil, "record %d %s", len(want), bytes.Repeat([]byte("x"), 100))
					if _, err := is.Load().Append(r); err != nil {
						t.Fatal(err)
					}
					want = append(want, r)
				}
			}
			c := Config{Dir: t.TempDir(), Name: "j", Sync: sync, File: func(name string, flag int) (File, error) {
				f, err := openPlain(name, flag)
				if err != nil {
					return nil, err
				}
				return waitedFor{f, &is, &locked}, nil
			}}
			c.Replacing = func(Extent) error { appended(10_000); return nil }
			j, _, err := Open(c, nil)
			if err != nil {
				t.Fatal(err)
			}
			is.Store(j)
			appended(100)
			from, held := j.Mark(), slices.Clone(want)
			if err := j.CompactFrom(from, func(write func([]byte) error) error {
				appended(10_000)
				for _, r := range held {
					if err := write(r); err != nil {
						return err
					}
				}
				return nil
			}); err != nil {
				t.Fatal(err)
			}
			if n := locked.Load(); n > 2*restSize {
				t.Errorf("appends waited while %d bytes were copied", n)
			}
			appended(10)
			is.Store(nil)
			if err := j.Close(); err != nil {
				t.Fatal(err)
			}
			n := 0
			j, r, err := Open(c, func(b []byte) error {
				if n >= len(want) || !bytes.Equal(b, want[n]) {
					return fmt.Errorf("record %d is %q", n, b)
				}
				n++
				return nil
			})
			if err != nil || n != len(want) || r.TornBytes != 0 {
				t.Fatalf("%d records of %d, %+v, %v", n, len(want), r, err)
			}
			j.Close()
		})
	}
}
