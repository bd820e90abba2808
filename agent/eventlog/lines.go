package eventlog

import (
	"bufio"
	"bytes"
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"io"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// Line is one line of a log, as it lies on the disk.
type Line struct {
	File  string // its name
	Raw   []byte // without the line feed; no other's
	Event Event
	Bad   bool // it is no event, or is cut off
	Cut   bool // it lacks its line feed
}

// Append writes an event to the disk, and returns when it is there. It is for a log of which Run is never called.
func (l *Log) Append(e Event) error { return l.append(e) }

// Resume has the log go on behind a line that was its last, where later lines than it has were written once. So it
// shows that they are gone. It reports whether they are.
func (l *Log) Resume(was Head) bool {
	if was.Sequence <= l.last.Sequence {
		return false
	}
	l.last, l.prev = Event{Sequence: was.Sequence}, was.Digest
	l.head.Store(&was)
	return true
}

// Close closes a log of which Run is never called. Every line is on the disk already.
func (l *Log) Close() error {
	if l.file == nil {
		return nil
	}
	return closeAnd(&l.file)
}

// Each calls yield with each line of a log, the oldest first, until it returns false. It judges no line but by its
// form: [Digest] and [Signed] say more. A folder that does not exist has no lines.
func Each(dir string, yield func(Line) bool) error { return EachFrom(dir, 0, yield) }

// EachFrom is Each without files all of whose lines have smaller sequence numbers than from.
func EachFrom(dir string, from uint64, yield func(Line) bool) error {
	names, err := logFiles(dir)
	if err != nil {
		return err
	}
	for len(names) > 1 && firstOf(names[1]) <= from { // a file's name has the number of its first line
		names = names[1:]
	}
	for _, name := range names {
		if more, err := eachOf(dir, name, yield); err != nil || !more {
			return err
		}
	}
	return nil
}

// firstOf returns the sequence number in a file's name; one that cannot be read is the largest.
func firstOf(name string) uint64 {
	n, err := strconv.ParseUint(strings.TrimSuffix(strings.TrimPrefix(name, "events-"), ".jsonl"), 10, 64)
	if err != nil {
		return math.MaxUint64
	}
	return n
}

func eachOf(dir, name string, yield func(Line) bool) (more bool, err error) {
	f, err := os.Open(filepath.Join(dir, name))
	if err != nil {
		return false, err
	}
	defer f.Close()
	in := bufio.NewReaderSize(f, 64<<10)
	for {
		raw, err := in.ReadBytes('\n')
		cut := errors.Is(err, io.EOF)
		if cut && len(raw) == 0 {
			return true, nil
		}
		if err != nil && !cut {
			return false, err
		}
		l := Line{File: name, Raw: bytes.TrimSuffix(raw, []byte("\n")), Cut: cut}
		l.Bad = cut || len(l.Raw) > maxLine || json.Unmarshal(l.Raw, &l.Event) != nil
		if !yield(l) {
			return false, nil
		}
	}
}

// Last returns the last whole line of a log in a folder, and changes nothing; zero: there is none that can be read.
func Last(dir string) (Head, error) {
	names, err := logFiles(dir)
	if err != nil {
		return Head{}, err
	}
	for _, name := range slices.Backward(names) { // a crash may have left the newest without a line
		var e Event
		_, last, err := tail(filepath.Join(dir, name))
		if err != nil {
			return Head{}, err
		}
		if last != nil && json.Unmarshal(last, &e) == nil {
			return Head{e.Sequence, digest(last)}, nil
		}
	}
	return Head{}, nil
}

// Digest is what the line behind a line names as its predecessor: the SHA-256, in hex.
func Digest(line []byte) string { return digest(line) }

// Signed reports whether a line is an event, byte for byte as a log writes it, that the key has signed.
func Signed(line []byte, key ed25519.PublicKey) bool {
	var e Event
	return json.Unmarshal(line, &e) == nil && signed(e, line, key)
}
