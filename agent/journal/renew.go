package journal

import (
	"errors"
	"fmt"
	"os"
)

// ErrLost says that the journal's file no longer has its name: somebody removed or replaced it, or its folder.
var ErrLost = errors.New("its file is gone, or another has its place")

// Look returns why the journal is not well; nil: it is. A write or a sync has failed for good, or its file is no longer
// the one that the next start will find. [Journal.CompactFrom] makes it well.
func (j *Journal) Look() error {
	j.mu.Lock()
	file, err, known := j.file, j.usable(), j.size
	if err == nil && j.unborn {
		file = nil // there is nothing to lose
	}
	j.mu.Unlock()
	if err != nil || file == nil {
		return err
	}
	return j.named(file, known)
}

// named says that a file no longer has the journal's name, or is shorter than it was known to be.
func (j *Journal) named(file File, known int64) error {
	open, err := file.Stat()
	if errors.Is(err, os.ErrClosed) {
		return nil // a compaction has just replaced it
	}
	if err != nil {
		return j.cannot("look at", err)
	}
	is, err := os.Lstat(j.path)
	here := err == nil && os.SameFile(open, is)
	j.mu.Lock()
	defer j.mu.Unlock()
	switch {
	case j.file != file:
		return nil // likewise
	case !here:
		return fmt.Errorf("the journal %s: %w", j.path, ErrLost)
	case open.Size() < known:
		return j.cannot("go on with", errCut)
	}
	return nil
}

// Fail has every later Append fail, until a compaction succeeds: what would be written could not be found again.
func (j *Journal) Fail(why error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.failed == nil && !j.closed {
		j.failed = why
	}
}

// renew gives a journal that has failed its successor, which begins with what the owner has in memory. Nothing was
// appended since from. The lock is held before and after.
func (j *Journal) renew(s *successor, from Mark) error {
	j.waitRound() // it would speak of the file of before
	switch {
	case j.closed:
		return ErrClosed
	case from.offset != j.size:
		return fmt.Errorf("the journal %s has been written since the snapshot was taken: take another", j.path)
	}
	if err := os.Rename(j.tmp(), j.path); err != nil {
		return j.cannot("replace", err)
	}
	j.next, j.failed, j.synced = nil, nil, j.seq
	j.become(s)
	return j.settle()
}

// become has the journal go on in a successor that has its name. The lock is held.
func (j *Journal) become(s *successor) {
	j.file, j.size, j.safe, j.base = s.file, s.size, s.safe, s.base
	j.mapEnd()
	if !j.c.Sync {
		j.safe = j.size
	}
	j.generation++
	j.retry = 0
	j.renamed = j.c.Sync
}
