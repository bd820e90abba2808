package journal

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"runtime"
	"runtime/debug"
)

// errCut says that the file became shorter than what was written to it.
var errCut = errors.New("somebody has cut the file off while it was in use")

// mapEnd has the end of the file mapped from now on, where that is wanted and possible. The window of the file of
// before is given back.
func (j *Journal) mapEnd() {
	j.window.close()
	j.window = nil
	if j.c.Map && !j.c.Sync && inMemory(j.c.Dir) {
		j.window = newWindow(j.file)
	}
}

// put writes records at the end of the file. The lock is held. A failed put leaves nothing behind, or the journal has
// failed.
func (j *Journal) put(records [][]byte) error {
	if j.window == nil {
		return j.write(records)
	}
	size := 0
	for _, r := range records {
		size += recordHead + len(r)
	}
	to, err := j.window.room(j.size, size)
	if err != nil {
		return j.cannot("write to", err)
	}
	if err := store(to, j.size, records, &j.head); err != nil {
		j.failed = j.cannot("write to", err)
		return j.failed
	}
	j.size += int64(size)
	return nil
}

// Room returns why a record of n bytes could not be appended now; nil: it could, or that is not known. It writes
// nothing. The error wraps ErrFull if the disk is full.
func (j *Journal) Room(n int) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	if err := j.usable(); err != nil {
		return err
	}
	if j.unborn {
		if _, err := j.create(j.replacing); err != nil {
			return err
		}
		j.unborn = false
	}
	var err error
	if n += recordHead; j.window != nil {
		_, err = j.window.room(j.size, n)
	} else {
		err = reserve(j.file, j.size, n)
	}
	if err != nil {
		return j.cannot("write to", err)
	}
	return nil
}

// write is put with write(2).
func (j *Journal) write(records [][]byte) error {
	b := j.encode(j.size, j.safe, records)
	if n, err := j.file.WriteAt(b, j.size); err != nil || n != len(b) {
		if err == nil {
			err = io.ErrShortWrite
		}
		err = j.cannot("write to", err)
		if undo := j.file.Truncate(j.size); undo != nil {
			j.failed = fmt.Errorf("%w; and half a write cannot be cut off: %w: free the disk", err, undo)
			return j.failed
		}
		return err
	}
	j.size += int64(len(b))
	return nil
}

// encode returns records as they stand from offset at. The next call overwrites the bytes.
func (j *Journal) encode(at, safe int64, records [][]byte) []byte {
	if cap(j.buf) > MaxRecord {
		j.buf = nil // a large record is rare; do not keep its room
	}
	b := j.buf[:0]
	for _, r := range records {
		mark := safe
		if !j.c.Sync {
			mark = at + int64(len(b))
		}
		b = appendRecord(b, at+int64(len(b)), mark, r)
	}
	j.buf = b
	return b
}

// store puts records into mapped memory, one after the other and the checksum of each last: at any instant all but the
// last one are whole. Somebody who cuts the file meanwhile makes the kernel send SIGBUS, which is an error here.
func store(to []byte, at int64, records [][]byte, head *[sumHead]byte) (err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if r := recover(); r != nil {
			if _, ok := r.(runtime.Error); !ok {
				panic(r)
			}
			err = errCut
		}
	}()
	for _, r := range records {
		n := recordHead + len(r)
		b := to[:n:n]
		binary.LittleEndian.PutUint64(b[8:], uint64(at))
		copy(b[recordHead:], r)
		binary.LittleEndian.PutUint32(b, uint32(len(r)))
		seal(b, checksumBy(head, at, uint32(len(r)), b[8:]))
		to, at = to[n:], at+int64(n)
	}
	return nil
}

// seal stores a record's checksum. It is a call of its own so that the compiler moves no store past it.
//
//go:noinline
func seal(b []byte, sum uint32) { binary.LittleEndian.PutUint32(b[4:], sum) }

// unfinished reports whether b begins with a record that was being stored when its process ended, and has nothing
// behind it: its checksum would have come last.
func unfinished(b []byte) bool {
	if len(b) < recordHead || binary.LittleEndian.Uint32(b[4:]) != 0 {
		return false
	}
	end := recordHead + int64(binary.LittleEndian.Uint32(b))
	return end >= int64(len(b)) || len(bytes.TrimRight(b[end:], "\x00")) == 0
}

// blank returns how many zeros r ends with, between two offsets: what was made ready for records, and got none.
func blank(r io.ReaderAt, from, to int64) (n int64, err error) {
	buf := make([]byte, 64<<10)
	for to > from {
		b := buf[:min(int64(len(buf)), to-from)]
		if _, err := r.ReadAt(b, to-int64(len(b))); err != nil && !errors.Is(err, io.EOF) {
			return 0, err
		}
		zeros := len(b) - len(bytes.TrimRight(b, "\x00"))
		n += int64(zeros)
		if zeros < len(b) {
			break
		}
		to -= int64(len(b))
	}
	return n, nil
}
