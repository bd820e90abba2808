package journal

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"hash"
	"io"
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

// summed is how far the file has been summed. It is on no path of an append.
type summed struct {
	mu   sync.Mutex // one at a time; taken before the journal's
	file File
	size int64
	hash hash.Hash
}

// sumChunk is how much is read at a time.
const sumChunk = 256 << 10

// upto sums file as far as size.
func (s *summed) upto(file File, size int64) error {
	if s.file != file || s.hash == nil || s.size > size {
		s.file, s.size, s.hash = file, 0, sha256.New()
	}
	n, err := io.CopyBuffer(s.hash, io.NewSectionReader(file, s.size, size-s.size), make([]byte, min(sumChunk, max(1, size-s.size))))
	s.size += n
	if err == nil && s.size != size {
		err = io.ErrUnexpectedEOF
	}
	if err != nil {
		s.file = nil // what of it was summed is not known
	}
	return err
}

// Extent returns the whole journal as far as it is safe. It reads what has been appended since it was last asked, and holds up no append.
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

// check begins to look whether the file begins as one of Config.Sealed says, beside the replay; what it returns waits for the answer.
func (j *Journal) check() func() (Fault, error) {
	want := slices.SortedFunc(slices.Values(j.c.Sealed), func(a, b Extent) int { return int(a.Size - b.Size) })
	file, size := j.file, j.size
	fault, failed := Changed, error(nil)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for _, x := range want {
			if x.Size > size || x.Size < 0 {
				return
			}
			if failed = j.sums.upto(file, x.Size); failed != nil {
				return
			}
			if bytes.Equal(j.sums.hash.Sum(nil), x.Digest) {
				fault = ""
				return
			}
		}
	}()
	return func() (Fault, error) {
		<-done
		return fault, failed
	}
}
