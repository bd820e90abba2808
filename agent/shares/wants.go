package shares

import (
	"sync"
	"sync/atomic"

	"github.com/usher-agent/usher/enforcer"
)

// Wants is what a Keeper is told of the wants on this host. It is made before the Keeper, and before those who tell it.
// Its methods wait for nothing, and are safe for concurrent use.
type Wants struct {
	wake  chan struct{} // capacity 1
	heard atomic.Bool   // a keeper has something to keep; without it nothing concerns anybody

	mu     sync.Mutex       // guards missed; taken last
	missed map[string]int64 // by pool or meter: the largest of the acquires that were denied since take
}

// NewWants returns Wants that no Keeper listens to yet.
func NewWants() *Wants {
	return &Wants{wake: make(chan struct{}, 1), missed: map[string]int64{}}
}

// Changed tells that what is in use or waited for has changed.
func (w *Wants) Changed() {
	if !w.heard.Load() {
		return
	}
	select {
	case w.wake <- struct{}{}:
	default:
	}
}

// Missed tells of an acquire that was denied for want of slots or draws.
func (w *Wants) Missed(r *enforcer.Acquire) {
	if !w.heard.Load() {
		return
	}
	w.mu.Lock()
	if r.Pool != "" {
		it := enforcer.Item{Pool: r.Pool, N: r.N, Of: r.Of}
		w.missed[r.Pool] = max(w.missed[r.Pool], it.Slots())
	}
	for _, it := range r.Items {
		w.missed[it.Pool] = max(w.missed[it.Pool], it.Slots())
	}
	w.mu.Unlock()
	w.Changed()
}

// take returns what was missed since it was called last.
func (w *Wants) take() map[string]int64 {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.missed) == 0 {
		return nil
	}
	out := w.missed
	w.missed = map[string]int64{}
	return out
}
