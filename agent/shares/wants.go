package shares

import (
	"sync"
	"sync/atomic"
	"time"

	"github.com/usher-agent/usher/enforcer"
	"github.com/usher-agent/usher/plugin"
)

// Wants is what a Keeper is told of the wants on this host. It is made before the Keeper, and before those who tell it.
// Its methods wait for nothing, and are safe for concurrent use.
type Wants struct {
	// Both have capacity 1: what has changed may need more of a share than before, or it does not.
	pressing, used chan struct{}
	heard          atomic.Bool  // a keeper has something to keep; without it nothing concerns anybody
	rests          atomic.Int32 // it looks soon anyway: nobody need wake it, which would cost each acquire some µs
	// Slots in use as Used has it, the most since the keeper's last look, and the most between the two looks before.
	inUse, most, before atomic.Int64

	mu     sync.Mutex       // guards all below; taken last
	missed map[string]int64 // by pool or meter: the largest of the acquires that were denied since take
	others map[string]others
}

// others is where the slots of a pool are that this agent has asked for in vain.
type others struct {
	plugin.Elsewhere
	until time.Time // it counts
}

// How soon a keeper looks anyway.
const (
	notSoon    int32 = iota
	within25ms       // as is soon enough where no more is in use than before
	within5ms        // as is soon enough in any case
)

// NewWants returns Wants that no Keeper listens to yet.
func NewWants() *Wants {
	return &Wants{pressing: make(chan struct{}, 1), used: make(chan struct{}, 1),
		missed: map[string]int64{}, others: map[string]others{}}
}

// Changed tells that what is in use or waited for has changed.
func (w *Wants) Changed() { w.tell(w.pressing, within5ms) }

// Used tells that so many slots more are in use, fewer where it is less than zero, and that nothing else has changed.
// It presses where more is in use than lately. Its calls are one after the other. Without a keeper nothing is counted:
// only how much more or less it has become since a look counts.
func (w *Wants) Used(slots int64) {
	if !w.heard.Load() {
		return
	}
	n := w.inUse.Add(slots)
	if n > w.most.Load() {
		w.most.Store(n)
	}
	if n > w.before.Load() {
		w.Changed()
	} else {
		w.tell(w.used, within25ms)
	}
}

// tell wakes the keeper, unless it looks soon enough.
func (w *Wants) tell(wake chan struct{}, enough int32) {
	if !w.heard.Load() || w.rests.Load() >= enough {
		return
	}
	select {
	case wake <- struct{}{}:
	default:
	}
}

// looks tells that the keeper looks now: what changes from now on is seen by the look, or wakes it again.
func (w *Wants) looks() {
	w.rests.Store(notSoon)
	w.before.Store(w.most.Load())
	w.most.Store(w.inUse.Load())
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

// elsewhere notes for a while where the slots of a pool, or the draws of a meter are; nil: it is not known, or this
// agent has what it asked for.
func (w *Wants) elsewhere(pool string, e *plugin.Elsewhere, counts time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if delete(w.others, pool); e != nil {
		w.others[pool] = others{*e, time.Now().Add(counts)}
	}
}

// Elsewhere returns how many slots of a pool other hosts have, and how many of those lie idle, as the upstream said
// when it last gave this agent too few, and the rule for hosts that leaves it no more; empty: none does.
func (w *Wants) Elsewhere(pool string) (out, idle int64, rule string, known bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	o, ok := w.others[pool]
	return o.Out, o.Idle, o.Rule, ok && time.Now().Before(o.until)
}
