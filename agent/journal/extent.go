package journal

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"os"
	"slices"
	"sync"
)

// Extent is the beginning of a journal: so many bytes, and their SHA-256.
type Extent struct {
	Size   int64
	Digest []byte
}

// Fault says how a journal is not as it was sealed.
type Fault string

// The faults, a closed set.
const (
	Missing Fault = "missing" // there is none
	Empty   Fault = "empty"   // it has no byte
	Changed Fault = "edited"  // it begins with none of Config.Sealed: it was edited, cut or replaced
)

// summed is how far the file has been summed. No append waits for it.
type summed struct {
	mu   sync.Mutex // one at a time; taken before the journal's
	file File
	size int64
	hash hash.Hash
}

// upto sums file as far as size.
func (s *summed) upto(file File, size int64) error {
	if s.file != file || s.hash == nil || s.size > size {
		s.file, s.size, s.hash = file, 0, sha256.New()
	}
	err := s.more(size)
	if err == nil && s.size != size {
		err = io.ErrUnexpectedEOF
	}
	if err != nil {
		s.file = nil // nobody knows which bytes were summed
	}
	return err
}

// more sums on, to size or to where the file ends.
func (s *summed) more(size int64) error {
	in := piecesOf(s.file, s.size, size)
	for s.size < size {
		b, err := in.bytes(s.size, readSize)
		if err != nil || len(b) == 0 {
			return err
		}
		s.hash.Write(b)
		s.size += int64(len(b))
	}
	return nil
}

// Extent returns the whole journal as far as it is safe. It reads what has been appended since the last call, and no
// append waits for it.
func (j *Journal) Extent() (Extent, error) {
	j.sums.mu.Lock()
	defer j.sums.mu.Unlock()
	j.mu.Lock()
	file, size, err := j.file, j.safe, j.usable()
	j.mu.Unlock()
	switch {
	case errors.Is(err, ErrClosed):
		return Extent{}, err
	case file == nil: // see Config.Late
		return Extent{}, j.cannot("read", ErrFull)
	}
	if err := j.sums.upto(file, size); err != nil {
		return Extent{}, j.cannot("read", err)
	}
	return Extent{size, j.sums.hash.Sum(nil)}, nil
}

// begins reports how file, of size bytes, differs from what want says of its beginning; empty: it does not. It sums as
// many bytes as it must.
func (s *summed) begins(file File, size int64, want []Extent) (Fault, error) {
	for _, x := range slices.SortedFunc(slices.Values(want), func(a, b Extent) int {
		return cmp.Compare(a.Size, b.Size)
	}) {
		if x.Size > size || x.Size < 0 {
			break
		}
		if err := s.upto(file, x.Size); err != nil {
			return "", err
		}
		if bytes.Equal(s.hash.Sum(nil), x.Digest) {
			return "", nil
		}
	}
	return Changed, nil
}

// checking is a look whether the file begins as one of Config.Sealed says, beside the replay.
type checking struct {
	sound chan int64 // capacity 1: how far the file is whole
	once  sync.Once  // closes sound
	done  chan struct{}
	fault Fault
	err   error
}

// check starts to look. The caller waits for the answer, also where it needs none.
func (j *Journal) check() *checking {
	c := &checking{sound: make(chan int64, 1), done: make(chan struct{})}
	file, size := j.file, j.size
	go func() {
		defer close(c.done)
		if c.fault, c.err = j.sums.begins(file, size, j.c.Sealed); c.err != nil {
			return
		}
		if size, ok := <-c.sound; ok { // the seal of this start covers all of it
			_ = j.sums.upto(file, size) // Extent sums again, and says so
		}
	}()
	return c
}

// end waits for the answer. Nothing reads the file from then on.
func (c *checking) end() (Fault, error) {
	c.once.Do(func() { close(c.sound) })
	<-c.done
	return c.fault, c.err
}

// Check reports how the file of a journal that is not open differs from what want says of its beginning; empty: it does
// not, or want is empty.
func Check(path string, want []Extent) (Fault, error) {
	if len(want) == 0 {
		return "", nil
	}
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return Missing, nil
	}
	if err != nil {
		return "", err
	}
	defer f.Close()
	fi, err := f.Stat()
	switch {
	case err != nil:
		return "", err
	case fi.Size() == 0:
		return Empty, nil
	}
	var s summed
	return s.begins(f, fi.Size(), want)
}

// ExtentOf returns the whole of a journal's file that is not open. Where there is none, the error is fs.ErrNotExist.
func ExtentOf(path string) (Extent, error) {
	f, err := os.Open(path)
	if err != nil {
		return Extent{}, err
	}
	defer f.Close()
	fi, err := f.Stat()
	if err != nil {
		return Extent{}, err
	}
	zeros, err := blank(f, 0, fi.Size()) // the next start cuts them off
	if err != nil {
		return Extent{}, fmt.Errorf("journal %s: %w", path, err)
	}
	var s summed
	if err := s.upto(f, fi.Size()-zeros); err != nil {
		return Extent{}, fmt.Errorf("journal %s: %w", path, err)
	}
	return Extent{s.size, s.hash.Sum(nil)}, nil
}
