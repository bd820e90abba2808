package api

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"io"
	"os"
	"sync"
	"time"
)

// Bounds of what exe_sha256 rules cost.
const (
	maxExecutable  = 1 << 30 // bytes that are hashed of one file; a larger one matches no rule
	hashesKept     = 4096
	hashesAtOnce   = 2 // for different users
	hashesPerStart = 64 << 10
	// hashedAtOnce is how many bytes of a file are hashed without a pause. The rest of a larger one takes a tenth of a
	// core, so that a caller with a huge file takes no core from others.
	hashedAtOnce = 256 << 20
)

// executables knows the SHA-256 of executables. It hashes a file once for as long as the file stays as it is, however
// many processes run it and however many callers ask. Only callers that nothing but that hash lets in wait for it.
type executables struct {
	ending <-chan struct{} // closed when nobody waits any more
	turns  *turns

	mu     sync.Mutex // guards all below
	known  map[fileState]string
	order  []fileState // as they became known, the oldest first
	hashes int         // that were made, for tests
	under  map[fileState]*hashing
}

// hashing is a file that is being hashed.
type hashing struct {
	done chan struct{}
	sum  string
}

func newExecutables(ending <-chan struct{}) *executables {
	return &executables{ending: ending, turns: newTurns(hashesAtOnce), known: map[fileState]string{},
		under: map[fileState]*hashing{}}
}

// sum returns the SHA-256 of a file in hex; empty: it cannot be read, is too large, or changes while it is read.
func (e *executables) sum(k key, name string) string {
	f, err := os.Open(name)
	if err != nil {
		return ""
	}
	defer f.Close()
	state, ok := stateOf(f)
	if !ok || state.size > maxExecutable {
		return ""
	}
	e.mu.Lock()
	if sum, known := e.known[state]; known {
		e.mu.Unlock()
		return sum
	}
	h := e.under[state]
	if h != nil {
		e.mu.Unlock()
		select {
		case <-h.done:
		case <-e.ending:
		}
		return h.result()
	}
	h = &hashing{done: make(chan struct{})}
	e.under[state] = h
	e.mu.Unlock()
	sum := e.hash(k, f)
	if after, ok := stateOf(f); !ok || after != state {
		sum = ""
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	h.sum = sum
	close(h.done)
	delete(e.under, state)
	select {
	case <-e.ending:
	default:
		if state.settled() {
			e.remember(state, sum)
		}
	}
	return sum
}

// result returns the hash, empty while it is not known.
func (h *hashing) result() string {
	select {
	case <-h.done:
		return h.sum
	default:
		return ""
	}
}

// remember keeps a hash, or that there is none. e.mu is held.
func (e *executables) remember(state fileState, sum string) {
	if len(e.order) >= hashesKept {
		delete(e.known, e.order[0])
		e.order = e.order[1:]
	}
	e.known[state] = sum
	e.order = append(e.order, state)
}

// hash reads a file when it is its caller's turn: a user that has many files hashed waits for itself alone.
func (e *executables) hash(k key, f *os.File) string {
	ctx, cancel := context.WithCancel(endingContext{e.ending})
	defer cancel()
	done, err := e.turns.take(ctx, k)
	if err != nil {
		return ""
	}
	defer done()
	e.mu.Lock()
	e.hashes++
	e.mu.Unlock()
	h, b, began := sha256.New(), make([]byte, hashesPerStart), time.Now()
	for total := 0; total <= maxExecutable; {
		if worked := time.Since(began); total > hashedAtOnce && worked > 5*time.Millisecond {
			select {
			case <-e.ending:
				return ""
			case <-time.After(9 * worked):
			}
			began = time.Now()
		} else if total <= hashedAtOnce {
			began = time.Now()
		}
		n, err := f.Read(b)
		h.Write(b[:n])
		total += n
		switch {
		case err == io.EOF:
			return hex.EncodeToString(h.Sum(nil))
		case err != nil, ctx.Err() != nil:
			return ""
		}
	}
	return ""
}
