// Package output keeps an output that stands still from keeping anybody waiting. Whatever writes to a [Queue] goes on
// at once; one goroutine of the queue's own waits for the output. Start reading at [Queue].
package output

import (
	"errors"
	"io"
	"sync"
	"sync/atomic"
	"time"
)

// The bounds of what a queue holds for an output that stands still.
const (
	MaxLines = 8192
	MaxBytes = 4 << 20
)

// ErrClosed says that the queue was closed.
var ErrClosed = errors.New("the output was closed")

// Queue is a writer that never waits: it keeps lines for its output, and drops and counts what it has no room for. What
// the output does not take is lost and counted too. Make one with New. It is safe for concurrent use.
type Queue struct {
	to   io.Writer
	gap  func(to io.Writer, lines uint64)
	lost atomic.Uint64
	wake chan struct{} // capacity 1: there are lines, or there will be none
	done chan struct{} // closed when the goroutine has ended

	mu      sync.Mutex // guards all below
	lines   [][]byte
	bytes   int
	skipped uint64 // dropped after the last line of lines
	closed  bool
}

// New returns a queue before an output. gap writes to the output, where lines are missing, how many; nil: nothing does.
func New(to io.Writer, gap func(to io.Writer, lines uint64)) *Queue {
	if gap == nil {
		gap = func(io.Writer, uint64) {}
	}
	q := &Queue{to: to, gap: gap, wake: make(chan struct{}, 1), done: make(chan struct{})}
	go q.run()
	return q
}

// Write keeps a copy of one line, or of several that are written together. It fails only when the queue is closed.
func (q *Queue) Write(line []byte) (int, error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.closed {
		q.lost.Add(1)
		return 0, ErrClosed
	}
	if q.skipped > 0 || len(q.lines) == MaxLines || q.bytes+len(line) > MaxBytes {
		q.skipped++
		q.lost.Add(1)
		return len(line), nil
	}
	q.lines = append(q.lines, append([]byte(nil), line...))
	q.bytes += len(line)
	q.ring()
	return len(line), nil
}

// Dropped returns how many lines have been lost.
func (q *Queue) Dropped() uint64 { return q.lost.Load() }

// Close writes what is left, for as long as within at the most. An output that stands still keeps the rest.
func (q *Queue) Close(within time.Duration) {
	q.mu.Lock()
	q.closed = true
	q.ring()
	q.mu.Unlock()
	late := time.NewTimer(within)
	defer late.Stop()
	select {
	case <-q.done:
	case <-late.C:
	}
}

// ring wakes the goroutine.
func (q *Queue) ring() {
	select {
	case q.wake <- struct{}{}:
	default:
	}
}

// run writes lines until the queue is closed and empty.
func (q *Queue) run() {
	defer close(q.done)
	for range q.wake {
		for {
			lines, skipped, closed := q.take()
			for _, line := range lines {
				q.write(line)
			}
			if skipped > 0 {
				q.gap(q.to, skipped)
			}
			if len(lines) > 0 || skipped > 0 {
				continue
			}
			if closed {
				return
			}
			break
		}
	}
}

// write writes one line. What an output takes of a line before it fails stays.
func (q *Queue) write(line []byte) {
	if _, err := q.to.Write(line); err != nil {
		q.lost.Add(1)
	}
}

// take returns what is to be written, and how many lines are missing after it.
func (q *Queue) take() (lines [][]byte, skipped uint64, closed bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	lines, skipped, closed = q.lines, q.skipped, q.closed
	q.lines, q.bytes, q.skipped = nil, 0, 0
	return lines, skipped, closed
}
