package journal_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"

	"github.com/usher-agent/usher/agent/journal"
)

func TestGroupCommitSharesFsyncs(t *testing.T) {
	d := &disk{}
	j, _, _ := open(t, journal.Config{Dir: t.TempDir(), Name: "j", Sync: true, File: d.open})
	d.syncs, d.blocks, d.began = 0, make(chan struct{}), make(chan struct{})
	commit := func() journal.Commit {
		c, err := j.Append([]byte("record"))
		if err != nil {
			t.Error(err)
		}
		return c
	}
	const waiters = 50
	errs := make(chan error, waiters+1)
	first := commit()
	go func() { errs <- first.Wait(t.Context()) }()
	<-d.began
	// These come while an fsync is under way that need not cover them.
	for range waiters {
		c := commit()
		go func() { errs <- c.Wait(t.Context()) }()
	}
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	if err := commit().Wait(gone); !errors.Is(err, context.Canceled) {
		t.Errorf("a waiter that gave up: %v", err)
	}
	d.blocks <- struct{}{}
	if err := <-errs; err != nil {
		t.Error(err)
	}
	<-d.began
	select {
	case <-errs:
		t.Error("a waiter returned before an fsync that covers it was done")
	default:
	}
	d.blocks <- struct{}{}
	for range waiters {
		if err := <-errs; err != nil {
			t.Error(err)
		}
	}
	if d.syncs != 2 {
		t.Errorf("%d fsyncs for %d waiters; want 2", d.syncs, waiters+1)
	}
	d.blocks, d.began = nil, nil
}

func TestAppendsAndCompactionsTogether(t *testing.T) {
	for _, sync := range []bool{false, true} {
		t.Run(fmt.Sprintf("sync=%v", sync), func(t *testing.T) { appendAndCompact(t, sync) })
	}
}

// appendAndCompact appends from many goroutines while it takes snapshots of all that was appended, and wants each
// record once, in order.
func appendAndCompact(t *testing.T, fsync bool) {
	c := journal.Config{Dir: t.TempDir(), Name: "j", Sync: fsync}
	j, _, _ := open(t, c)
	var mu sync.Mutex
	var state []string
	var writers sync.WaitGroup
	for w := range 4 {
		writers.Go(func() {
			for i := range 150 {
				r := fmt.Sprintf("writer %d record %d", w, i)
				mu.Lock()
				commit, err := j.Append([]byte(r))
				state = append(state, r)
				mu.Unlock()
				if err == nil {
					err = commit.Wait(t.Context())
				}
				if err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	over := make(chan struct{})
	go func() { writers.Wait(); close(over) }()
	compactions := 0
	for running := true; running; compactions++ {
		select {
		case <-over:
			running = false
		default:
		}
		mu.Lock()
		from, copied := j.Mark(), slices.Clone(state)
		mu.Unlock()
		err := j.CompactFrom(from, func(write func([]byte) error) error {
			for _, r := range copied {
				if err := write([]byte(r)); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	if _, r, got := open(t, c); !slices.Equal(got, state) || r.TornBytes != 0 {
		t.Errorf("after %d compactions: replayed %d records, want %d; %+v", compactions, len(got), len(state), r)
	}
}

func TestCloseEndsACompaction(t *testing.T) {
	c := journal.Config{Dir: t.TempDir(), Name: "j", Sync: true}
	j, _, _ := open(t, c)
	add(t, j, "kept")
	inside, result := make(chan struct{}), make(chan error)
	go func() {
		result <- j.Compact(func(write func([]byte) error) error {
			close(inside)
			for { // until Close has begun
				if _, err := j.Append([]byte("x")); err != nil {
					return write([]byte("snapshot"))
				}
			}
		})
	}()
	<-inside
	closed := make(chan error)
	go func() { closed <- j.Close() }()
	if err := <-result; !errors.Is(err, journal.ErrClosed) {
		t.Errorf("compaction: %v", err)
	}
	if err := <-closed; err != nil {
		t.Error(err)
	}
	if _, _, got := open(t, c); got[0] != "kept" {
		t.Errorf("replayed %q", got)
	}
}
