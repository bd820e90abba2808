package api

import (
	"bufio"
	"bytes"
	"io"
	"sync"
)

const (
	// lineRoom is the buffer of a session that is idle: most messages fit.
	lineRoom = 512
	// linesRoom is the buffer of a session that has sent more at once.
	linesRoom = 4096
)

var lineBuffers = sync.Pool{New: func() any { return new([linesRoom]byte) }}

// lines reads lines from a connection. A connection that is idle keeps a small buffer. One that sends much at once has
// a larger one, from a pool, until it has nothing more to take out of it.
type lines struct {
	from   io.Reader
	buf    []byte           // small, or large; nil before the first read
	large  *[linesRoom]byte // nil: small is in use
	begin  int              // of what has not been taken yet, up to end
	end    int
	filled bool // the last read filled the buffer
	err    error
	small  [lineRoom]byte
}

// more reports whether a whole line is at hand, or all that will be.
func (l *lines) more() bool {
	return l.err != nil || l.end-l.begin == linesRoom || bytes.IndexByte(l.buf[l.begin:l.end], '\n') >= 0
}

// read reads once more. It reports whether there may be more. What line returned is no longer good.
func (l *lines) read() bool {
	if l.begin == l.end {
		l.begin, l.end = 0, 0
		if !l.filled {
			l.idle()
		}
	}
	switch {
	case l.large == nil && (l.filled || l.end == lineRoom && l.begin == 0):
		l.large = lineBuffers.Get().(*[linesRoom]byte)
		l.end = copy(l.large[:], l.buf[l.begin:l.end])
		l.buf, l.begin = l.large[:], 0
	case l.begin > 0:
		l.end = copy(l.buf, l.buf[l.begin:l.end])
		l.begin = 0
	}
	n, err := l.from.Read(l.buf[l.end:])
	l.end += n
	l.filled, l.err = l.end == len(l.buf), err
	return err == nil
}

// idle gives a large buffer back that has nothing in it.
func (l *lines) idle() {
	if l.large != nil && l.begin == l.end {
		lineBuffers.Put(l.large)
		l.large = nil
	}
	if l.large == nil {
		l.buf = l.small[:]
	}
}

// line returns the next line with its end, or bufio.ErrBufferFull and the beginning of one that is longer than
// linesRoom, or the error that ended the reading, and what came before it. It is good until the next read.
func (l *lines) line() ([]byte, error) {
	if i := bytes.IndexByte(l.buf[l.begin:l.end], '\n'); i >= 0 {
		line := l.buf[l.begin : l.begin+i+1]
		l.begin += i + 1
		return line, nil
	}
	rest := l.buf[l.begin:l.end]
	l.begin = l.end
	if len(rest) == linesRoom {
		return rest, bufio.ErrBufferFull
	}
	return rest, l.err
}
