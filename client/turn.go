package client

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"sync"
	"time"
)

// quiet is how long a connection has no call before the session's own goroutine reads it. An event that comes between
// two calls waits for at most twice as long.
const quiet = 2 * time.Millisecond

// readAhead is how much later than asked a read deadline may come, so that most calls need not set one.
const readAhead = time.Second

// One goroutine at a time reads a connection, and has the turn. A call takes the turn where it is free and reads its
// own answer, as code without a session would: no other goroutine has to be woken for it. It hands the answers of other
// calls to them. Where no call is made, the session's goroutine has the turn and reads events.

// call is a call that waits for its answer.
type call struct {
	got   chan answer // holds one
	lease *Lease      // the lease that it asks for; granted before the caller gets the answer
	given bool        // up: nobody waits, and a granted lease is given back
}

type answer struct {
	result string
	err    error
}

// calls has calls whose answer was taken: nothing else knows them.
var calls = sync.Pool{New: func() any { return &call{got: make(chan answer, 1)} }}

// newCall returns a call for the lease; nil: for none.
func newCall(lease *Lease) *call {
	c := calls.Get().(*call)
	c.lease = lease
	return c
}

// take ends a call with its answer.
func (c *call) take(a answer) (string, error) {
	c.lease = nil
	calls.Put(c)
	return a.result, a.err
}

// attend reads the connection while no call does, until it breaks.
func (l *link) attend() {
	still := time.NewTimer(quiet)
	defer still.Stop()
	for {
		still.Reset(quiet)
		seen := l.taken.Load()
		select {
		case <-still.C:
		case <-l.done:
			select {
			case <-l.turn:
				close(l.over)
			case <-l.over:
			}
			return
		}
		if l.taken.Load() != seen {
			continue // calls read it
		}
		select {
		case <-l.turn:
			if l.readOn() {
				l.turn <- struct{}{}
			}
		default:
		}
	}
}

// readOn has the turn. It reads until a call has got its answer; false when the connection is broken.
func (l *link) readOn() bool {
	for {
		called, err := l.message()
		switch {
		case errors.Is(err, os.ErrDeadlineExceeded):
			l.conn.SetReadDeadline(time.Time{}) // a call's
			l.readBy = time.Time{}
		case err != nil:
			l.broke(err)
			return false
		case called:
			return true
		}
	}
}

// broke ends a connection that cannot be read. The caller has the turn and keeps it.
func (l *link) broke(err error) {
	l.fail(err)
	close(l.over)
}

// await returns the answer to a call, which it reads itself when the turn is free. by is the latest time; zero: none.
// ok is false if none came: ctx or the time is over, or the connection is broken.
func (l *link) await(ctx context.Context, c *call, by time.Time) (a answer, ok bool) {
	select {
	case <-l.turn:
		return l.readFor(ctx, c, by)
	default:
	}
	var over <-chan time.Time
	if !by.IsZero() {
		t := time.NewTimer(time.Until(by))
		defer t.Stop()
		over = t.C
	}
	select {
	case a := <-c.got:
		return a, true
	case <-l.turn:
		return l.readFor(ctx, c, by)
	case <-l.done:
	case <-ctx.Done():
	case <-over:
	}
	return answer{}, false
}

// readFor has the turn. It reads until c has its answer, or until there will be none; see await.
func (l *link) readFor(ctx context.Context, c *call, by time.Time) (a answer, ok bool) {
	l.taken.Add(1)
	if ctx.Done() != nil {
		stop := context.AfterFunc(ctx, func() { l.conn.SetReadDeadline(time.Unix(1, 0)) })
		defer stop()
	}
	for {
		select {
		case a := <-c.got:
			l.turn <- struct{}{}
			return a, true
		default:
		}
		if ctx.Err() != nil || !l.readUntil(by) {
			l.turn <- struct{}{}
			return answer{}, false
		}
		_, err := l.message()
		switch {
		case errors.Is(err, os.ErrDeadlineExceeded):
			// Perhaps another call's: the loop looks whether this one is over.
			l.conn.SetReadDeadline(time.Time{})
			l.readBy = time.Time{}
		case err != nil:
			l.broke(err)
			return answer{}, false
		}
	}
}

// readUntil makes a read end soon after by; false if that time has come.
func (l *link) readUntil(by time.Time) bool {
	if by.IsZero() {
		return true
	}
	now := time.Now()
	if !now.Before(by) {
		return false
	}
	if l.readBy.Before(now) || l.readBy.Sub(by) > readAhead {
		l.readBy = by.Add(readAhead)
		l.conn.SetReadDeadline(l.readBy)
	}
	return true
}

// message reads one message and handles it. called is true for the answer to a call. After [os.ErrDeadlineExceeded],
// it may be called again.
func (l *link) message() (called bool, err error) {
	line, err := l.in.line(l.conn)
	if err != nil {
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return false, err
		}
		return false, fmt.Errorf("the connection is closed: %w", err)
	}
	return l.line(line)
}

// input holds what was read of a connection and not yet handled.
type input struct {
	buf        []byte
	begin, end int // of what is in it
	looked     int // no newline before it
}

// line returns the next line, which is good until the next call. An error loses nothing that was read.
func (in *input) line(conn net.Conn) ([]byte, error) {
	for {
		if i := bytes.IndexByte(in.buf[in.looked:in.end], '\n'); i >= 0 {
			line := in.buf[in.begin : in.looked+i+1]
			in.begin, in.looked = in.looked+i+1, in.looked+i+1
			return line, nil
		}
		in.looked = in.end
		if err := in.room(); err != nil {
			return nil, err
		}
		n, err := conn.Read(in.buf[in.end:])
		in.end += n
		if err != nil && n == 0 {
			return nil, err
		}
	}
}

// room makes room for more: at the buffer's end, or in a longer one for a long line.
func (in *input) room() error {
	switch {
	case in.begin == in.end:
		in.begin, in.end, in.looked = 0, 0, 0
		if len(in.buf) == 0 || len(in.buf) > 16*firstBuffer {
			in.buf = make([]byte, firstBuffer)
		}
	case in.end < len(in.buf):
	case in.begin > 0:
		in.end = copy(in.buf, in.buf[in.begin:in.end])
		in.looked -= in.begin
		in.begin = 0
	case len(in.buf) >= maxLine:
		return fmt.Errorf("its answer is longer than %d MiB", maxLine>>20)
	default:
		in.buf = append(in.buf, make([]byte, len(in.buf))...)
	}
	return nil
}
