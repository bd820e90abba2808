// Package journal keeps records in one append-only file, so that acknowledged records survive a crash. It does not know
// what the records mean.
//
// The owner replays a Journal when it opens it, and then appends to it. Once it has grown, the owner compacts it to a
// snapshot while appending goes on. See docs/decisions/0004-journal.md for the format and its reasons. Start reading at
// [Open].
package journal

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"syscall"
)

// DefaultMaxSize is the size in bytes above which compaction is due, unless the Config says otherwise.
const DefaultMaxSize = 8 << 20

var (
	// ErrFull is wrapped by errors of Append and Compact for which the disk, or a quota on it, is full. The journal
	// goes on: a later Append that fits succeeds.
	ErrFull = errors.New("the disk or its quota is full")

	// ErrClosed says that the journal has been closed.
	ErrClosed = errors.New("the journal is closed")
)

// File is what a Journal needs of an open file. An *os.File is one.
type File interface {
	io.ReaderAt
	io.WriterAt
	io.Closer
	Stat() (fs.FileInfo, error)
	Truncate(size int64) error
	Sync() error
}

// Config says where a journal is and how it is kept.
type Config struct {
	Dir, Name string
	Sync      bool // Commit.Wait returns only after an fsync
	// in bytes: compaction is due above this and above twice the last snapshot; 0: DefaultMaxSize
	MaxSize int64
	// opens files, which it makes with mode 0600; nil: os.OpenFile without following links
	File        func(name string, flag int) (File, error)
	Late        bool // on a full disk, the first Append for which there is room makes the file
	AllowRemote bool // do not refuse network file systems
	// Map has records stored through mapped memory, without a call of the kernel, where the folder is on a tmpfs. It is
	// for what need not outlive the host: with Sync it changes nothing.
	Map bool
	// Sealed are the beginnings of which the file must have one; none: nothing is known of it. A file with another
	// beginning is replayed all the same, and the Report says so.
	Sealed []Extent
	// Expect is told how many records are about to be replayed; nil: there is none to tell.
	Expect func(records int)
	// Replacing learns of the file that is about to take the journal's place after a compaction. Its error gives the
	// compaction up; nil: there is none to ask.
	Replacing func(Extent) error
}

// Report says what Open found.
type Report struct {
	Records   int   // replayed
	Size      int64 // of the journal, in bytes, without the torn tail
	TornBytes int64 // cut from its end, left by a crash in the middle of a write
	New       bool  // there was no journal
	Fault     Fault // how it differs from Config.Sealed; empty: it does not
}

// Journal is an open journal. Its methods are safe for concurrent use. The caller sees to it that no other process has
// it open.
type Journal struct {
	c    Config
	path string

	mu         sync.Mutex
	file       File
	size       int64  // where the next record goes
	safe       int64  // the file is safe up to here: with Sync on the disk, else written
	base       int64  // size of the last snapshot
	generation int    // counts compactions
	seq        uint64 // counts appends
	synced     uint64 // the last append known to be on the disk
	failed     error  // until a successor takes its place
	closed     bool
	round      chan struct{} // closed when the fsync under way is done; nil: none is under way
	renamed    bool          // the file got its name, and the folder has not been synced since
	next       *successor    // the file that will take the journal's place, and gets every record too
	compacting chan struct{} // closed when the compaction under way is over; nil: none is under way
	retry      int64         // a compaction failed: none is due below this size
	buf        []byte
	head       [sumHead]byte // room for checksumBy
	window     *window       // nil: records are written with write(2)
	unborn     bool          // there is no file yet: see Config.Late

	sums summed
}

// Commit is the promise of one Append.
type Commit struct {
	j   *Journal
	seq uint64
	// Due says what [Journal.Due] says right after the Append.
	Due bool
}

// Open opens the journal, or makes it, and calls replay for every record, the snapshot's first, in order. The record is
// replay's until it returns. An error of replay ends Open. Open cuts a tail that a crash has torn, and reports it.
// Other damage is a *CorruptError, an unknown version a *VersionError, a network file system a *RemoteError.
func Open(c Config, replay func(record []byte) error) (*Journal, Report, error) {
	if c.MaxSize <= 0 {
		c.MaxSize = DefaultMaxSize
	}
	if c.File == nil {
		c.File = func(name string, flag int) (File, error) { return openPlain(name, flag) }
	}
	if c.Name == "" || c.Name != filepath.Base(c.Name) {
		return nil, Report{}, fmt.Errorf("a journal cannot have the name %q", c.Name)
	}
	if err := os.MkdirAll(c.Dir, 0o700); err != nil {
		return nil, Report{}, fmt.Errorf("cannot make the journal's folder: %w", err)
	}
	if kind := remoteKind(c.Dir); kind != "" && !c.AllowRemote {
		return nil, Report{}, &RemoteError{Dir: c.Dir, Kind: kind}
	}
	j := &Journal{c: c, path: filepath.Join(c.Dir, c.Name)}
	// A compaction that a crash cut short left this. It never got its name, so nothing in it counts.
	if err := os.Remove(j.tmp()); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, Report{}, fmt.Errorf("cannot remove what an earlier compaction left: %w", err)
	}
	report, err := j.open(replay)
	if c.Late && j.file == nil && errors.Is(err, ErrFull) {
		j.unborn = true
		report, err = Report{New: true, Fault: report.Fault}, nil
	}
	if err == nil && report.New && len(c.Sealed) > 0 && report.Fault == "" {
		report.Fault = Missing
	}
	if err != nil {
		if j.file != nil {
			j.file.Close()
		}
		return nil, Report{}, err
	}
	return j, report, nil
}

func (j *Journal) tmp() string { return j.path + ".tmp" }

func (j *Journal) open(replay func([]byte) error) (r Report, err error) {
	empty, err := j.openFile()
	if err != nil {
		return r, err
	}
	if j.file == nil {
		r, err = j.create(nil)
		if empty && len(j.c.Sealed) > 0 {
			r.Fault = Empty
		}
		return r, err
	}
	var seal *checking // nil: nothing is known of it
	if len(j.c.Sealed) > 0 {
		seal = j.check()
		defer func() { _, _ = seal.end() }() // nothing reads the file behind
	}
	if r.TornBytes, err = j.cutTornTail(); err != nil {
		return r, err
	}
	// A process that was killed leaves records that are written but not yet on the disk. They are about to be believed.
	if j.c.Sync {
		if err := j.file.Sync(); err != nil {
			return r, j.cannot("sync", err)
		}
		if err := syncDir(j.c.Dir); err != nil {
			return r, j.cannot("sync the folder of", err)
		}
	}
	if seal != nil {
		seal.sound <- j.size
	}
	j.safe = j.size
	j.mapEnd()
	var refused error
	good, err := walk(j.file, headerSize, j.size, false, func(b []byte) error {
		refused = replay(b)
		r.Records++
		return refused
	})
	var unread error
	if seal != nil {
		r.Fault, unread = seal.end()
	}
	switch {
	case refused != nil:
		return r, refused
	case unread != nil:
		return r, j.cannot("read", unread)
	case err != nil:
		return r, j.cannot("read", err)
	case good != j.size:
		return r, &CorruptError{File: j.path, Offset: good, Reason: "it changed while it was read"}
	}
	r.Size = j.size
	return r, nil
}

// openFile opens the journal's file and learns its size. The file stays nil where there is none, or an empty one.
func (j *Journal) openFile() (empty bool, err error) {
	j.file, err = j.c.File(j.path, os.O_RDWR)
	if err != nil {
		if j.file = nil; errors.Is(err, fs.ErrNotExist) {
			return false, nil
		}
		return false, j.cannot("open", err)
	}
	info, err := j.file.Stat()
	if err != nil {
		return false, j.cannot("look at", err)
	}
	if !info.Mode().IsRegular() {
		return false, fmt.Errorf("the journal %s is not a regular file: move it away", j.path)
	}
	if j.size = info.Size(); j.size > 0 {
		return false, nil
	}
	err = j.file.Close()
	if j.file = nil; err != nil {
		return true, j.cannot("close", err)
	}
	return true, nil
}

// cutTornTail looks at the whole journal, and cuts off the end that a crash has left half written. It returns how many
// bytes these were. It comes before any replay, so that a journal that is damaged further on is not replayed in part.
func (j *Journal) cutTornTail() (tornBytes int64, err error) {
	good, records, err := j.soundEnd()
	if err != nil {
		return 0, err
	}
	if j.c.Expect != nil {
		j.c.Expect(records)
	}
	if good < j.size {
		zeros, err := blank(j.file, good, j.size)
		if err != nil {
			return 0, j.cannot("read", err)
		}
		if err := j.file.Truncate(good); err != nil {
			return 0, j.cannot("cut the torn tail of", err)
		}
		if tornBytes = j.size - good; j.c.Map && !j.c.Sync {
			tornBytes -= zeros // which were never written
		}
		j.size = good
	}
	return tornBytes, nil
}

// create makes the journal under another name first, so that there is never one with half a header. It calls announce
// before the file has its name; nil: it calls nothing.
func (j *Journal) create(announce func(*successor) error) (Report, error) {
	s, err := j.begin()
	if err != nil {
		return Report{}, err
	}
	if err = s.finish(); err == nil && announce != nil {
		if err = announce(s); err != nil {
			err = j.cannot("announce", err)
		}
	}
	if err != nil {
		return Report{}, errors.Join(err, s.drop())
	}
	if err := os.Rename(j.tmp(), j.path); err != nil {
		return Report{}, errors.Join(j.cannot("make", err), s.drop())
	}
	j.file, j.size, j.safe, j.base = s.file, s.size, s.size, s.size
	j.mapEnd()
	if j.c.Sync {
		if err := syncDir(j.c.Dir); err != nil {
			return Report{}, j.cannot("sync the folder of", err)
		}
	}
	return Report{Size: j.size, New: true}, nil
}

// Append writes records at the end of the journal, in order, with one write. It does not wait for the disk; the Commit
// does. A crash may keep the first few of the records only, so what must stand together goes in one record. A failed
// Append leaves nothing behind. Its error wraps ErrFull if the disk is full. When Append cannot undo half a write, or
// an fsync has failed, or the file is lost, every later one fails too, until a compaction succeeds.
func (j *Journal) Append(records ...[]byte) (Commit, error) {
	for _, r := range records {
		if len(r) == 0 || len(r) > MaxRecord {
			return Commit{}, fmt.Errorf("a record of %d bytes cannot be journalled: it must have 1 to %d", len(r),
				MaxRecord)
		}
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	if err := j.usable(); err != nil {
		return Commit{}, err
	}
	if len(records) == 0 {
		return Commit{j: j, seq: j.seq}, nil
	}
	if j.unborn {
		if _, err := j.create(j.replacing); err != nil {
			return Commit{}, err
		}
		j.unborn = false
	}
	if err := j.put(records); err != nil {
		return Commit{}, err
	}
	if !j.c.Sync {
		j.safe = j.size
	}
	if s := j.next; s != nil {
		s.append(j.encode(s.size, s.safe, records))
		if s.err != nil { // the journal is whole without its successor
			j.next = nil
		}
	}
	j.seq++
	return Commit{j, j.seq, j.due()}, nil
}

func (j *Journal) usable() error {
	if j.closed {
		return ErrClosed
	}
	return j.failed
}

// Wait returns nil when the appended records are safe: with Sync when they are on the disk, else at once. Many waiters
// share one fsync. It fails if the fsync failed, or with ctx's error when ctx ends first. Then a crash may keep the
// records, or not.
func (c Commit) Wait(ctx context.Context) error {
	j := c.j
	if j == nil || !j.c.Sync {
		return nil
	}
	for {
		j.mu.Lock()
		if c.seq <= j.synced {
			j.mu.Unlock()
			return nil
		}
		if err := j.usable(); err != nil {
			j.mu.Unlock()
			return err
		}
		round := j.startRound()
		j.mu.Unlock()
		select {
		case <-round:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// startRound starts one fsync, and returns a channel that is closed when it is done. The lock is held.
func (j *Journal) startRound() chan struct{} {
	if j.round == nil {
		j.round = make(chan struct{})
		go j.syncRound(j.round)
	}
	return j.round
}

// syncRound makes all that is written now safe, in the file and in its successor: whichever of the two a crash leaves
// under the journal's name then holds every acknowledged record.
func (j *Journal) syncRound(done chan struct{}) {
	j.mu.Lock()
	file, size, seq, next, renamed := j.file, j.size, j.seq, j.next, j.renamed
	var nextSize int64
	if next != nil {
		nextSize = next.size
	}
	j.mu.Unlock()

	err := file.Sync()
	if err == nil {
		err = j.named(file, size) // what cannot be found again is not safe
	}
	if err == nil && renamed {
		err = syncDir(j.c.Dir)
	}
	var nextErr error
	if err == nil && next != nil {
		nextErr = next.file.Sync()
	}

	j.mu.Lock()
	defer j.mu.Unlock()
	defer close(done)
	j.round = nil
	if err == nil && nextErr != nil {
		if j.file == next.file {
			err = nextErr
		} else {
			next.err, j.next = j.cannot("sync the successor of", nextErr), nil
		}
	}
	if err != nil {
		// The kernel may have forgotten what it could not write, and the next fsync would not say so.
		if j.failed == nil {
			j.failed = fmt.Errorf("%w: look at the disk", j.cannot("sync", err))
		}
		return
	}
	j.synced = max(j.synced, seq)
	if renamed {
		j.renamed = false
	}
	switch {
	case j.file == file:
		j.safe = max(j.safe, size)
	case next != nil && j.file == next.file && nextErr == nil:
		j.safe = max(j.safe, nextSize)
	}
	if next != nil && nextErr == nil {
		next.safe = max(next.safe, nextSize)
	}
}

// Close ends the use of the journal. With Sync it makes the appended records safe. It gives a compaction under way up,
// and waits for its snapshot function to return.
func (j *Journal) Close() error {
	j.mu.Lock()
	if j.closed {
		j.mu.Unlock()
		return nil
	}
	j.closed = true
	if over := j.compacting; over != nil { // it ends soon, and leaves nothing behind
		j.mu.Unlock()
		<-over
		j.mu.Lock()
	}
	for j.round != nil {
		round := j.round
		j.mu.Unlock()
		<-round
		j.mu.Lock()
	}
	defer j.mu.Unlock()
	err := j.failed
	if j.c.Sync && err == nil && (j.synced < j.seq || j.renamed) {
		round := j.startRound()
		j.mu.Unlock()
		<-round
		j.mu.Lock()
		err = j.failed
	}
	if j.unborn {
		return err
	}
	if j.window != nil {
		j.window.close()
		if j.failed == nil {
			err = errors.Join(err, j.file.Truncate(j.size)) // what was made ready for more records
		}
	}
	return errors.Join(err, j.file.Close())
}

// cannot returns the error of an operation on the journal.
func (j *Journal) cannot(do string, err error) error {
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, errQuota) {
		return fmt.Errorf("cannot %s the journal %s: %w: %w", do, j.path, ErrFull, err)
	}
	return fmt.Errorf("cannot %s the journal %s: %w", do, j.path, err)
}
