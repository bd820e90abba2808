package api

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"testing"
)

// dribble reads at most as many bytes at once as somebody says.
type dribble struct {
	from io.Reader
	most func() int
}

func (d dribble) Read(p []byte) (int, error) { return d.from.Read(p[:min(len(p), d.most())]) }

// Lines are what a bufio.Reader of linesRoom makes of the same bytes, however they come; and a connection that is idle
// keeps no large buffer.
func TestLines(t *testing.T) {
	for seed := range uint64(200) {
		r := rand.New(rand.NewPCG(seed, 1))
		var sent []byte
		for range r.IntN(40) {
			length := []int{0, 10, 100, lineRoom - 1, lineRoom, lineRoom + 1, linesRoom - 1, linesRoom, linesRoom + 1,
				3 * linesRoom}[r.IntN(10)]
			sent = append(append(sent, bytes.Repeat([]byte{'a' + byte(r.IntN(26))}, length)...), '\n')
		}
		if r.IntN(2) == 0 {
			sent = append(sent, "the end"...)
		}
		most := []int{1, 7, lineRoom, linesRoom, 1 << 20}[r.IntN(5)]
		want := bufio.NewReaderSize(bytes.NewReader(sent), linesRoom)
		l := &lines{from: dribble{bytes.NewReader(sent), func() int { return most }}}
		for {
			for !l.more() {
				if !l.read() {
					break
				}
			}
			got, err := l.line()
			as, wantErr := want.ReadSlice('\n')
			if !bytes.Equal(got, as) || !errors.Is(err, wantErr) {
				t.Fatalf("seed %d: a line of %d bytes and %v, want %d and %v", seed, len(got), err, len(as), wantErr)
			}
			if err != nil && !errors.Is(err, bufio.ErrBufferFull) {
				break
			}
		}
		if l.idle(); l.large != nil {
			t.Fatalf("seed %d: what is idle keeps a large buffer", seed)
		}
	}
}

// A session that sends much at once reads it with few calls, and gives the large buffer back before it waits.
func TestLinesOfMany(t *testing.T) {
	line := append(bytes.Repeat([]byte{'x'}, 99), '\n')
	calls := 0
	l := &lines{from: dribble{bytes.NewReader(bytes.Repeat(line, 400)), func() int {
		calls++
		return 1 << 20
	}}}
	n := 0
	for {
		if !l.more() && !l.read() {
			break
		}
		if _, err := l.line(); err == nil {
			n++
		}
	}
	if n != 400 || calls > 14 {
		t.Errorf("%d lines were read with %d calls", n, calls)
	}
}
