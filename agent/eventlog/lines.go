package eventlog

import (
	"bufio"
	"bytes"
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
)

// Line is one line of a log, as it lies on the disk.
type Line struct {
	File  string // its name
	At    int64  // bytes before it in the file
	Raw   []byte // without the line feed; no other's
	Event Event
	Bad   bool // it is no event, or is cut off
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
func Each(dir string, yield func(Line) bool) error {
	names, err := logFiles(dir)
	if err != nil {
		return err
	}
	for _, name := range names {
		if more, err := eachOf(dir, name, yield); err != nil || !more {
			return err
		}
	}
	return nil
}

func eachOf(dir, name string, yield func(Line) bool) (more bool, err error) {
	f, err := os.Open(filepath.Join(dir, name))
	if err != nil {
		return false, err
	}
	defer f.Close()
	in := bufio.NewReaderSize(f, 64<<10)
	for at := int64(0); ; {
		raw, err := in.ReadBytes('\n')
		cut := errors.Is(err, io.EOF)
		if cut && len(raw) == 0 {
			return true, nil
		}
		if err != nil && !cut {
			return false, err
		}
		l := Line{File: name, At: at, Raw: bytes.TrimSuffix(raw, []byte("\n"))}
		l.Bad = cut || len(l.Raw) > maxLine || json.Unmarshal(l.Raw, &l.Event) != nil
		if !yield(l) {
			return false, nil
		}
		at += int64(len(raw))
	}
}

// Digest is what the line behind a line names as its predecessor: the SHA-256, in hex.
func Digest(line []byte) string { return digest(line) }

// Signed reports whether a line is an event, byte for byte as a log writes it, that the key has signed.
func Signed(line []byte, key ed25519.PublicKey) bool {
	var e Event
	return json.Unmarshal(line, &e) == nil && signed(e, line, key)
}
