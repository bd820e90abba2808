package journal

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"testing"
)

// memoryFile returns a file on a tmpfs, and what reads it where it lies.
func memoryFile(t *testing.T, b []byte) (*os.File, resident) {
	t.Helper()
	dir := "/dev/shm"
	if !inMemory(dir) {
		t.Skip("there is no tmpfs at", dir)
	}
	f, err := os.CreateTemp(dir, "journal")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close(); os.Remove(f.Name()) })
	if _, err := f.Write(b); err != nil {
		t.Fatal(err)
	}
	return f, resident{f}
}

// long returns a journal of several pieces: short records, and some that are longer than what is read at a time.
func long() []byte {
	b := header(headerSize)
	for i := 0; len(b) < pieceSize*5/4; i++ {
		n := 100 + i%3000
		if i%500 == 0 {
			n = readSize + i
		}
		b = appendRecord(b, int64(len(b)), headerSize, bytes.Repeat([]byte{byte(i)}, n))
	}
	return b
}

// A file that is looked at where it lies comes to the same as one that is read: whole, damaged, and cut off by somebody
// after its size was learnt. No cut ends the process.
func TestLooksWhereItLies(t *testing.T) {
	b := long()
	size := int64(len(b))
	f, there := memoryFile(t, b)
	same := func(what string) {
		t.Helper()
		for _, sum := range []bool{true, false} {
			var read, seen [][]byte
			want, err := walk(f, headerSize, size, sum, func(b []byte) error {
				read = append(read, bytes.Clone(b))
				return nil
			})
			if err != nil {
				t.Fatal(err)
			}
			good, err := walk(there, headerSize, size, sum, func(b []byte) error {
				seen = append(seen, bytes.Clone(b))
				return nil
			})
			more := len(seen) - len(read)
			if !sum && more == 1 { // what is left of the last page reads as zeros
				seen, good = seen[:len(read)], want
			}
			if good != want || err != nil || !equal(seen, read) {
				t.Errorf("%s: good up to %d with %d records, %v; want %d, %d", what, good, len(seen), err, want,
					len(read))
			}
		}
		want, _, _ := whole(f, headerSize, size)
		if good, _, err := whole(there, headerSize, size); good != want || err != nil {
			t.Errorf("%s: in halves good up to %d, %v; want %d", what, good, err, want)
		}
		var read, seen summed
		fails, is := read.upto(f, f, size), seen.upto(f, there, size)
		if !errors.Is(is, fails) || is == nil && !bytes.Equal(read.hash.Sum(nil), seen.hash.Sum(nil)) {
			t.Errorf("%s: summed: %v; want %v", what, is, fails)
		}
	}
	same("whole")
	for _, at := range []int64{headerSize, size / 3, size - 1} {
		was := b[at]
		f.WriteAt([]byte{was ^ 4}, at)
		same("damaged")
		f.WriteAt([]byte{was}, at)
	}
	for _, to := range []int64{size - 1, size - 5000, size / 2, pieceSize, pieceSize/2 + 1, 4096, 100, 0} {
		if err := f.Truncate(to); err != nil {
			t.Fatal(err)
		}
		same("cut")
	}
}

func equal(a, b [][]byte) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if !bytes.Equal(a[i], b[i]) {
			return false
		}
	}
	return true
}

// Somebody who cuts the file off while it is replayed ends the start in order, and a fault of the replay itself stays
// one.
func TestCutWhileReplayed(t *testing.T) {
	f, _ := memoryFile(t, long())
	c := Config{Dir: filepath.Dir(f.Name()), Name: filepath.Base(f.Name()), Map: true}
	var nothing *Journal
	func() {
		defer func() {
			if recover() == nil {
				t.Error("a fault of the replay is taken for one of the file")
			}
		}()
		Open(c, func([]byte) error { nothing.seq++; return nil })
	}()
	for _, to := range []int64{100, pieceSize, int64(len(long())) - 1} {
		if err := os.WriteFile(f.Name(), long(), 0o600); err != nil {
			t.Fatal(err)
		}
		n := 0
		_, _, err := Open(c, func([]byte) error {
			if n++; n == 1 {
				return os.Truncate(f.Name(), to)
			}
			return nil
		})
		var corrupt *CorruptError
		if !errors.As(err, &corrupt) || corrupt.Reason != "it changed while it was read" {
			t.Errorf("cut to %d bytes while it is replayed: %v", to, err)
		}
	}
}
