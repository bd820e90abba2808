package journal

import (
	"errors"
	"fmt"
	"io"
	"os"
)

// successor is a journal in the making, under another name.
type successor struct {
	j    *Journal
	file File
	size int64 // where the next record goes
	safe int64 // as of Journal
	err  error // of the first write or fsync that failed
	base int64 // of the header, after finish
}

// begin makes the file of a successor.
func (j *Journal) begin() (*successor, error) {
	f, err := j.c.File(j.tmp(), os.O_RDWR|os.O_CREATE|os.O_TRUNC)
	if err != nil {
		return nil, j.cannot("make a successor of", err)
	}
	return &successor{j: j, file: f, size: headerSize}, nil
}

// append writes encoded records at the end.
func (s *successor) append(b []byte) {
	if s.err != nil {
		return
	}
	n, err := s.file.WriteAt(b, s.size)
	if err == nil && n != len(b) {
		err = io.ErrShortWrite
	}
	if err != nil {
		s.err = s.j.cannot("write a successor of", err)
		return
	}
	s.size += int64(len(b))
}

// finish writes the header, whose base is here, and makes all of it safe.
func (s *successor) finish() error {
	if s.err != nil {
		return s.err
	}
	b := header(s.size)
	n, err := s.file.WriteAt(b, 0)
	if err == nil && n != len(b) {
		err = io.ErrShortWrite
	}
	if err == nil && s.j.c.Sync {
		err = s.file.Sync()
	}
	if err != nil {
		s.err = s.j.cannot("write a successor of", err)
		return s.err
	}
	s.base, s.safe = s.size, s.size
	return nil
}

// drop gives the successor up.
func (s *successor) drop() error {
	return errors.Join(s.file.Close(), os.Remove(s.j.tmp()))
}

// Mark is a place in a journal, between two records.
type Mark struct {
	generation int
	offset     int64
}

// Mark returns the end of the journal.
func (j *Journal) Mark() Mark {
	j.mu.Lock()
	defer j.mu.Unlock()
	return Mark{j.generation, j.size}
}

// Due reports whether compaction is worth its while.
func (j *Journal) Due() bool {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.due()
}

// due is Due with the lock held.
func (j *Journal) due() bool {
	return j.compacting == nil && j.size > max(j.c.MaxSize, 2*j.base, j.retry) && j.usable() == nil
}

// Compact is CompactFrom the journal's present end. A record that is appended between the call and the moment of the
// snapshot is replayed after a snapshot that has it already.
func (j *Journal) Compact(snapshot func(write func(record []byte) error) error) error {
	return j.CompactFrom(j.Mark(), snapshot)
}

// CompactFrom makes the journal begin with the records that snapshot writes, which stand for all records before from,
// followed by those after. To count every record once, take the Mark in the same critical section as the copy of the
// state behind the snapshot. Appends go on meanwhile, and none waits for the disk because of it. A crash leaves either
// the journal before or the one after, each with all acknowledged records. If CompactFrom fails, the journal is as it
// was. One compaction runs at a time.
//
// A journal that has failed is made well so: its successor stands for all that the owner knows. Appends fail until
// then, and the owner keeps what it must not forget of them.
func (j *Journal) CompactFrom(from Mark, snapshot func(write func(record []byte) error) error) (err error) {
	j.mu.Lock()
	failed := j.failed
	switch {
	case j.closed:
		err = ErrClosed
	case j.compacting != nil:
		err = fmt.Errorf("the journal %s is being compacted already", j.path)
	case from.generation != j.generation || from.offset < headerSize || from.offset > j.size:
		err = fmt.Errorf("the journal %s has been compacted since the snapshot was taken: take another", j.path)
	}
	if err != nil {
		j.mu.Unlock()
		return err
	}
	over := make(chan struct{})
	defer close(over)
	j.compacting = over
	old := j.file
	j.mu.Unlock()

	s, err := j.begin()
	if err == nil {
		if err = j.succeed(s, from, failed, snapshot); err != nil {
			err = errors.Join(err, j.abandon(s))
		}
	}
	j.mu.Lock()
	if err != nil {
		j.retry = j.size + max(j.c.MaxSize/8, 1)
	}
	j.compacting = nil
	swapped := s != nil && j.file == s.file
	j.mu.Unlock()
	if swapped {
		// No round uses it any more: one that began earlier was over before the last one.
		return errors.Join(err, old.Close())
	}
	return err
}

// abandon forgets s, unless it has the journal's name by now.
func (j *Journal) abandon(s *successor) error {
	j.mu.Lock()
	if j.file == s.file {
		j.mu.Unlock()
		return nil
	}
	if j.next == s {
		j.next = nil
	}
	j.waitRound()
	j.mu.Unlock()
	return s.drop()
}

// waitRound waits for the fsync under way, if any. The lock is held before and after, not meanwhile.
func (j *Journal) waitRound() {
	if round := j.round; round != nil {
		j.mu.Unlock()
		<-round
		j.mu.Lock()
	}
}

// settle runs a whole fsync of all that is written now. The lock is held before and after, not meanwhile.
func (j *Journal) settle() error {
	if !j.c.Sync {
		return nil
	}
	j.waitRound() // it may have begun too early
	round := j.startRound()
	j.mu.Unlock()
	<-round
	j.mu.Lock()
	return j.failed
}

// succeed fills s and puts it in the journal's place. failed is why the journal was not well when that began.
func (j *Journal) succeed(s *successor, from Mark, failed error,
	snapshot func(write func([]byte) error) error) error {
	out := &batch{s: s}
	if err := snapshot(out.write); err != nil {
		return err
	}
	// First the records that were appended meanwhile, without the lock.
	j.mu.Lock()
	file := j.file
	j.mu.Unlock()
	upto, err := j.chase(file, from.offset, failed, out)
	if err != nil {
		return err
	}
	if err := s.finish(); err != nil {
		return err
	}
	if err := j.replacing(s); err != nil {
		return err
	}
	out.behind = true
	if upto, err = j.chase(file, upto, failed, out); err != nil {
		return err
	}

	j.mu.Lock()
	defer j.mu.Unlock()
	if failed != nil && !j.closed {
		return j.renew(s, from)
	}
	if err := j.usable(); err != nil {
		return err
	}
	// Then the rest, which is little. From here on every record goes to both.
	if err := j.copy(file, upto, j.size, out.write); err != nil {
		return err
	}
	if err := out.flush(); err != nil {
		return err
	}
	j.next = s
	if err := j.settle(); err != nil {
		return err
	}
	if s.err != nil {
		return s.err
	}
	if err := j.usable(); err != nil {
		return err
	}
	if err := os.Rename(j.tmp(), j.path); err != nil {
		return j.cannot("replace", err)
	}
	j.next = nil
	j.become(s)
	return j.settle()
}

const (
	// restSize is about how many bytes of records are copied at the most while appends wait.
	restSize = 16 << 10
	// chases bounds how often what was appended meanwhile is copied: appends that are as fast as copies are waited for
	// no longer.
	chases = 64
)

// chase copies the records from an offset of the file on, and those that are appended meanwhile, until few are left. It
// returns where it stopped. failed is as of succeed.
func (j *Journal) chase(file File, from int64, failed error, out *batch) (upto int64, err error) {
	for range chases {
		j.mu.Lock()
		size, err := j.size, j.usable()
		j.mu.Unlock()
		if err != nil && failed == nil {
			return from, err
		}
		if size-from <= restSize {
			break
		}
		if err := j.copy(file, from, size, out.write); err != nil {
			return from, err
		}
		from = size
	}
	return from, out.flush()
}

// replacing announces a successor before it can have the journal's name. The successor lacks only what is appended
// meanwhile.
func (j *Journal) replacing(s *successor) error {
	if j.c.Replacing == nil {
		return nil
	}
	var sum summed
	if err := sum.upto(s.file, s.size); err != nil {
		return j.cannot("read a successor of", err)
	}
	return j.c.Replacing(Extent{s.size, sum.hash.Sum(nil)})
}

// copy calls each for the records between two offsets of the file, which are good.
func (j *Journal) copy(file File, from, to int64, each func([]byte) error) error {
	if from == to {
		return nil
	}
	good, err := scan(file, from, to, each)
	if err != nil {
		return err
	}
	if good != to {
		return &CorruptError{File: j.path, Offset: good, Reason: "a record there is not as it was written"}
	}
	return nil
}

// batch gathers the records of a successor into larger writes.
type batch struct {
	s      *successor
	buf    []byte
	behind bool // they lie behind what the header's base covers
}

func (b *batch) write(data []byte) error {
	if len(data) == 0 || len(data) > MaxRecord {
		return fmt.Errorf("a record of %d bytes cannot be journalled: it must have 1 to %d", len(data), MaxRecord)
	}
	at := b.s.size + int64(len(b.buf))
	mark := int64(headerSize)
	switch {
	case b.behind && b.s.j.c.Sync:
		mark = b.s.safe
	case b.behind:
		mark = at
	}
	b.buf = appendRecord(b.buf, at, mark, data)
	if len(b.buf) < 256<<10 {
		return nil
	}
	return b.flush()
}

func (b *batch) flush() error {
	b.s.append(b.buf)
	b.buf = b.buf[:0]
	return b.s.err
}
