package shares

import (
	"context"
	"crypto/rand"
	"maps"
	"time"

	"github.com/usher-agent/usher/plugin"
)

// Bounds of watches.
const (
	watchFor   = 20 * time.Second       // for how long one watch waits
	watchSlack = 10 * time.Second       // more, before a watch without an answer is given up
	watchRest  = 100 * time.Millisecond // the least time from one watch to the next
	restateGap = time.Second            // the least time before a watch is begun again because more lies idle
	wantedFor  = 10 * time.Second       // for how long nothing is asked ahead of need after others lacked slots
	knownFor   = time.Minute            // for how long it counts where the others' slots are
)

// watch is what is kept of the watches of one licence's blocks.
type watch struct {
	stated   map[string]int64 // by pool: the idle slots that the upstream was told of
	lacked   map[string]int64 // by pool: the slots that the upstream was told to be waited for
	cancel   func()           // ends the watch under way; nil: none is
	at       time.Duration    // no watch sooner
	tries    int              // that have failed since one that did not
	restated bool             // the one under way was ended, so that another states more
	told     bool             // the upstream knows which blocks a restarted agent goes on with
}

// roamer is a [plugin.Watcher] that may have news although the agent has nothing for others and wants nothing.
type roamer interface{ Roams() bool }

// rememberer is a [plugin.Watcher] that hears those who gave the agent's blocks. Has tells it which blocks a restarted
// agent goes on with, and for how long, with the state of the calls for them.
type rememberer interface {
	Has(state []byte, blocks map[string]time.Duration)
}

// remind tells a watcher once which of a licence's blocks there are. mu is held.
func remind(w plugin.Watcher, e *entry[*Pool], now time.Duration) {
	r, ok := w.(rememberer)
	if !ok || e.watch.told {
		return
	}
	e.watch.told = true
	left := map[string]time.Duration{}
	for _, p := range e.plans {
		for _, b := range p.Blocks {
			left[b.ID] = b.Sent + b.For - now
		}
	}
	r.Has(e.state, left)
}

// idle returns by pool how many slots of a licence's blocks could be returned, and how many are lacked. mu is held.
func (b *blocks) idle(e *entry[*Pool], now time.Duration) (idle, lacks map[string]int64) {
	idle, lacks = map[string]int64{}, map[string]int64{}
	for name, p := range e.plans {
		d := b.cfg.Pool(name)
		have, _ := p.have(now)
		if n := have - p.need(now, d); n > 0 && !p.rigid {
			idle[name] = n
		} else if n < 0 {
			lacks[name] = -n
		}
	}
	return idle, lacks
}

// watches returns the watches that are to be begun now, and how long to wait for more. A licence is watched while the
// agent has something that others may want, or wants something that others may have. mu is held.
func (b *blocks) watches(now time.Duration) (calls []func(context.Context), wait time.Duration) {
	wait = longestTimer
	for _, ref := range b.refs() {
		e := b.entries[ref]
		w, ok := e.licence.Budgeter.(plugin.Watcher)
		if !ok || !e.inForce() {
			continue
		}
		remind(w, e, now)
		idle, lacks := b.idle(e, now)
		// What the upstream was told counts until it is told otherwise, also after the watch that told it.
		otherwise := lacksOthers(lacks, e.watch.lacked)
		roams, _ := w.(roamer)
		if len(idle) == 0 && len(lacks) == 0 && !otherwise && (roams == nil || !roams.Roams()) {
			continue
		}
		if e.watch.cancel != nil && (e.watch.restated || !otherwise && !moreIdle(idle, e.watch.stated)) {
			continue
		}
		if now < e.watch.at {
			wait = min(wait, max(time.Millisecond, e.watch.at-now))
			continue
		}
		if e.watch.cancel != nil {
			e.watch.restated = true
			e.watch.cancel()
			continue
		}
		calls = append(calls, b.beginWatch(e, w, idle, lacks))
	}
	return calls, wait
}

// moreIdle reports whether the upstream should hear of idle slots before the watch under way is over.
func moreIdle(idle, stated map[string]int64) bool {
	for name, n := range idle {
		if n >= 2*max(1, stated[name]) {
			return true
		}
	}
	return false
}

// lacksOthers reports whether callers wait for slots of other pools than those that the upstream was told of: it keeps
// the agent's turn for those.
func lacksOthers(lacks, told map[string]int64) bool {
	return !maps.EqualFunc(lacks, told, func(int64, int64) bool { return true })
}

// beginWatch returns a watch to be made. mu is held, and not meanwhile.
func (b *blocks) beginWatch(e *entry[*Pool], w plugin.Watcher, idle, lacks map[string]int64) func(context.Context) {
	now := b.cfg.Now()
	e.watch.lacked = lacks
	e.watch.stated, e.watch.at, e.watch.restated = maps.Clone(idle), now+restateGap, false
	stop := make(chan struct{})
	e.watch.cancel = func() { close(stop) }
	licence := e.licence
	return func(ctx context.Context) {
		ctx, cancel := context.WithTimeout(ctx, watchFor+watchSlack)
		defer cancel()
		go func() {
			select {
			case <-stop:
				cancel()
			case <-ctx.Done():
			}
		}()
		r := plugin.Request{System: licence.System, LicenseID: licence.ID, Document: licence.Document,
			Product: licence.Product, Nonce: make([]byte, 32)}
		rand.Read(r.Nonce) // never fails: see crypto/rand
		news, err := w.Watch(ctx, &plugin.Watch{Request: r, Idle: idle, Lacks: lacks, For: watchFor})
		b.mu.Lock()
		defer b.mu.Unlock()
		e.watch.cancel = nil
		b.watched(e, news, failure(err))
	}
}

// watched takes the answer to a watch. mu is held.
func (b *blocks) watched(e *entry[*Pool], news *plugin.News, failed *plugin.Error) {
	now := b.cfg.Now()
	if news != nil { // also of a watch that was ended just then: nobody says it again
		for name, n := range news.Pools {
			if p := e.plans[name]; p != nil {
				p.told(n, now)
			}
		}
		if news.Moves {
			for _, p := range e.plans {
				p.moves(now)
			}
		}
	}
	switch {
	case e.watch.restated:
		e.watch.at = now
	case failed == nil:
		e.watch.tries, e.watch.at = 0, now+watchRest
	case failed.Class == plugin.Misconfigured && failed.SystemCode == "":
		e.watch.at = now + refusedWait // it is an upstream of a former version
	default:
		e.watch.at = now + max(watchRest, backoff(e.watch.tries, longestWait, b.cfg.Jitter()))
		e.watch.tries++
	}
}

// moves has the agent ask for more time and for what it lacks at once.
func (p *Pool) moves(now time.Duration) {
	for _, b := range p.Blocks {
		b.extend, b.notBefore = now, min(b.notBefore, now)
	}
	p.notBefore, p.freed = now, true
}

// told takes the news of a pool.
func (p *Pool) told(n plugin.PoolNews, now time.Duration) {
	if n.Wanted > 0 {
		p.wanted, p.wantedUntil = n.Wanted, max(p.wantedUntil, now+wantedFor)
	}
	if n.Free > 0 {
		p.notBefore, p.freed = now, true
	}
}
