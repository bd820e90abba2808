package output

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/usher-agent/usher/agent/bubble"
)

// still is an output that takes nothing until it is let go on.
type still struct {
	mu    sync.Mutex
	goOn  chan struct{}
	taken bytes.Buffer
}

func (s *still) Write(p []byte) (int, error) {
	<-s.goOn
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.taken.Write(p)
}

func told(to io.Writer, lines uint64) { fmt.Fprintf(to, "missing %d\n", lines) }

// A writer never waits for an output that stands still. What there is no room for is counted, and the output is told of
// it where it is missing.
func TestStandsStill(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		out := &still{goOn: make(chan struct{})}
		q := New(out, told)
		fmt.Fprintln(q, "first")
		synctest.Wait() // it is being written
		began := time.Now()
		for i := range MaxLines + 5 {
			fmt.Fprintln(q, "line", i)
		}
		if took := time.Since(began); took != 0 {
			t.Errorf("writing took %v", took)
		}
		if q.Dropped() != 5 {
			t.Errorf("%d lines were dropped, want 5", q.Dropped())
		}
		close(out.goOn)
		synctest.Wait()
		fmt.Fprintln(q, "last")
		q.Close(time.Minute)
		got := strings.Split(strings.TrimSpace(out.taken.String()), "\n")
		if len(got) != MaxLines+3 || got[0] != "first" || got[MaxLines+1] != "missing 5" || got[MaxLines+2] != "last" {
			t.Errorf("%d lines, the end is %q", len(got), got[max(0, len(got)-3):])
		}
		if _, err := q.Write([]byte("late\n")); !errors.Is(err, ErrClosed) {
			t.Errorf("after Close: %v", err)
		}
	})
}

// Few long lines are bounded too.
func TestBytesAreBounded(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		out := &still{goOn: make(chan struct{})}
		q := New(out, nil)
		q.Write([]byte("first"))
		synctest.Wait()
		for range 5 {
			q.Write(make([]byte, MaxBytes/4))
		}
		if q.Dropped() != 1 {
			t.Errorf("%d lines were dropped, want 1", q.Dropped())
		}
		close(out.goOn)
		q.Close(time.Minute)
	})
}

// Close waits for an output that stands still no longer than it was told.
func TestCloseIsBounded(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		out := &still{goOn: make(chan struct{})}
		q := New(out, nil)
		q.Write([]byte("first"))
		began := time.Now()
		q.Close(2 * time.Second)
		if took := time.Since(began); took != 2*time.Second {
			t.Errorf("closing took %v", took)
		}
		close(out.goOn) // so that the goroutine ends
	})
}

// broken is an output whose reader is gone for a while.
type broken struct {
	fails int
	bytes.Buffer
}

func (b *broken) Write(p []byte) (int, error) {
	if b.fails > 0 {
		b.fails--
		return 0, io.ErrClosedPipe
	}
	return b.Buffer.Write(p)
}

// A reader that is gone costs lines and nothing else.
func TestReaderIsGone(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		out := &broken{fails: 2}
		q := New(out, nil)
		for i := range 3 {
			fmt.Fprintln(q, i)
		}
		q.Close(time.Minute)
		if q.Dropped() != 2 || out.String() != "2\n" {
			t.Errorf("%d dropped, written %q", q.Dropped(), out.String())
		}
	})
}
