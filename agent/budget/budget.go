// Package budget keeps what an agent may hand out of pools that are a whole site's: blocks of slots that an upstream (a
// site server, a floating upstream) gives for a while. It asks ahead of need, asks for more time long before a block is
// over, gives back what lies idle, and stops handing out of a block before the upstream may give its slots to others.
// Nothing of it is on the way of an acquire.
//
// Start reading at [Pool.Next], which says what is to be done and is a pure function; [Keeper.Run] does it.
package budget

import (
	"context"
	"crypto/rand"
	"errors"
	"log/slog"
	"maps"
	mathrand "math/rand/v2"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/usher-agent/usher/enforcer"
	"github.com/usher-agent/usher/plugin"
)

// Bounds of calls and waits.
const (
	defaultCallWithin = 30 * time.Second
	callLeast         = 2 * time.Second // the shortest time that one call is given
	askFor            = time.Hour       // for how long blocks are asked; upstreams shorten it
	// bounds a wait on the monotonic clock, which stops while the host is suspended
	longestTimer = 30 * time.Second
	restBetween  = 2 * time.Millisecond
	goneAfter    = 10 * time.Second // for how long a licence that is not in force keeps its blocks
	closeWithin  = 5 * time.Second  // what is not given back by then is over in its time
	refusedWait  = 5 * time.Minute  // before an upstream that serves no slots is asked again
)

// Config is what a Keeper needs. All but those marked are required.
type Config struct {
	File string // the record, which a restarted agent goes on with; on a disk that may be lost with the host
	// Read reads it; its error is fs.ErrNotExist where there is none. nil: os.ReadFile.
	Read func(file string) ([]byte, error)
	// Write replaces the record, whole or not at all.
	Write  func(file string, data []byte) error
	BootID string // of this start of the host, from which Now counts; empty: a record of another process is no good
	// Offset says that this process is in a time namespace whose clock is not the host's: records of former versions,
	// which counted by that, are no good.
	Offset     bool
	CallWithin time.Duration        // of one call; zero: 30 seconds
	Now        func() time.Duration // since boot, suspension included
	// Request makes what leaves the host with a call, but for nonce and state.
	Request func(*enforcer.License, []byte) plugin.Request
	// Demand says what is asked of a pool.
	Demand func(pool string) Demand
	// OnChange is told that Budgets says something new. When it returns, nothing is handed out any more that Budgets
	// does not say. The keeper holds no lock meanwhile.
	OnChange func()
	// Stopping is told, when Run is to end, that nothing must be handed out from now on; optional.
	Stopping func()
	Called   func(call, result string) // told of each call; optional
	Log      *slog.Logger              // optional
	Jitter   func() float64            // from 0 to 1; optional
}

// Licence is one licence in force, as it was installed, and who gives blocks for it.
type Licence struct {
	*enforcer.License
	Document []byte
	Upstream plugin.Budgeter
}

// Keeper keeps the blocks of the licences that Set names.
type Keeper struct {
	cfg  Config
	wake chan struct{} // capacity 1
	busy sync.WaitGroup

	mu     sync.Mutex // guards all below; Demand is asked under it, and nothing is told
	of     map[enforcer.Ref]*entry
	unkept error

	missing sync.Mutex       // guards missed; taken last
	missed  map[string]int64 // by pool: the largest of the acquires that were denied since pass has looked
}

// entry is what is kept for one licence.
type entry struct {
	Named bool             `json:"named,omitempty"` // it is kept under a Ref; former versions kept it under an id
	State []byte           `json:"state,omitempty"` // what the upstream said last
	Pools map[string]*Pool `json:"pools"`

	licence Licence
	set     bool          // Set has named it
	goneAt  time.Duration // since when it is not in force; zero: it is
	calling bool
	fault   string // why calls failed last; empty: the last one did not
}

// New reads the record. It starts nothing.
func New(cfg Config) (*Keeper, error) {
	if cfg.CallWithin == 0 {
		cfg.CallWithin = defaultCallWithin
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.Jitter == nil {
		cfg.Jitter = mathrand.Float64
	}
	if cfg.Called == nil {
		cfg.Called = func(string, string) {}
	}
	if cfg.Stopping == nil {
		cfg.Stopping = func() {}
	}
	if cfg.Read == nil {
		cfg.Read = os.ReadFile
	}
	of, err := load(cfg)
	return &Keeper{cfg: cfg, wake: make(chan struct{}, 1), of: of, missed: map[string]int64{}}, err
}

// Set says which licences are in force, and returns whether Budgets names a pool that it did not. A licence that is no
// longer in force gives its blocks back after a moment.
func (k *Keeper) Set(licences []Licence) (more bool) {
	k.mu.Lock()
	now := k.cfg.Now()
	there := map[enforcer.Ref]bool{}
	for _, l := range licences {
		site := l.SitePools()
		if l.Upstream == nil || len(site) == 0 {
			continue
		}
		ref := l.Ref()
		there[ref] = true
		e, _ := enforcer.Kept(k.of, l.License)
		if e == nil {
			e = &entry{Pools: map[string]*Pool{}}
			k.of[ref] = e
		}
		e.Named = true
		more = more || !e.set
		e.licence, e.set, e.goneAt = l, true, 0
		for name := range site {
			if e.Pools[name] == nil {
				e.Pools[name], more = &Pool{}, true
			}
		}
		for name, p := range e.Pools {
			p.total = int64(site[name]) // zero: it is no pool of the licence any more
		}
	}
	for id, e := range k.of {
		if e.set && !there[id] && e.goneAt == 0 {
			e.goneAt = max(now, 1)
		}
	}
	k.mu.Unlock()
	k.Nudge()
	return more
}

// Nudge has the keeper look at the demand.
func (k *Keeper) Nudge() {
	select {
	case k.wake <- struct{}{}:
	default:
	}
}

// Missed tells of an acquire that was denied for want of n slots of a pool. It waits for no disk.
func (k *Keeper) Missed(pool string, n int64) {
	k.missing.Lock()
	k.missed[pool] = max(k.missed[pool], n)
	k.missing.Unlock()
	k.Nudge()
}

// heed takes note of what was missed. k.mu is held.
func (k *Keeper) heed(now time.Duration) {
	k.missing.Lock()
	defer k.missing.Unlock()
	for pool, n := range k.missed {
		for _, e := range k.of {
			if p := e.Pools[pool]; p != nil && e.set {
				if now >= p.missedUntil {
					p.missed = 0
				}
				p.missed, p.missedUntil = max(p.missed, n), now+missedFor
			}
		}
	}
	clear(k.missed)
}

// Budgets returns what may be handed out now, and until when that holds on the boot-time clock; zero: until something
// changes. A pool whose upstream serves no slots is not named.
func (k *Keeper) Budgets() (map[enforcer.Share]enforcer.Limit, time.Duration) {
	k.mu.Lock()
	defer k.mu.Unlock()
	var fence time.Duration
	now, out := k.cfg.Now(), map[enforcer.Share]enforcer.Limit{}
	for id, e := range k.of {
		for name, p := range e.Pools {
			n, until := p.have(now)
			if n == 0 && (p.refused || !e.set) {
				continue
			}
			out[enforcer.Share{License: id, Pool: name}] = enforcer.Limit(n)
			if until != 0 && (fence == 0 || until < fence) {
				fence = until
			}
		}
	}
	return out, fence
}

// Preview returns what would leave the host with the next call for each licence, but for nonce, pool and number of
// slots.
func (k *Keeper) Preview() (out []plugin.Request) {
	k.mu.Lock()
	var all []Licence
	states := map[enforcer.Ref][]byte{}
	for _, id := range slices.Sorted(maps.Keys(k.of)) {
		if e := k.of[id]; e.set && e.goneAt == 0 {
			all, states[id] = append(all, e.licence), e.State
		}
	}
	k.mu.Unlock()
	for _, l := range all {
		r := k.cfg.Request(l.License, l.Document)
		r.State = states[l.Ref()]
		out = append(out, r)
	}
	return out
}

// Run keeps the blocks until ctx ends, and then gives back what is not in use.
func (k *Keeper) Run(ctx context.Context) error {
	// A call that is under way is not cut off: what it brings would be lost until its time is over.
	calls, cut := context.WithCancel(context.WithoutCancel(ctx))
	defer cut()
	timer := time.NewTimer(0)
	defer timer.Stop()
	var last time.Time
	for {
		select {
		case <-ctx.Done():
			k.cfg.Stopping()
			end := time.AfterFunc(closeWithin, cut)
			defer end.Stop()
			k.busy.Wait()
			k.close(calls)
			return nil
		case <-k.wake:
			if rest := restBetween - time.Since(last); rest > 0 {
				timer.Reset(rest)
				continue
			}
		case <-timer.C:
		}
		last = time.Now()
		timer.Reset(k.pass(calls))
	}
}

// pass does what is due, and returns how long to wait for more.
func (k *Keeper) pass(ctx context.Context) time.Duration {
	k.mu.Lock()
	now, wait, lapsed := k.cfg.Now(), longestTimer, false
	k.heed(now)
	for id, e := range k.of {
		for name, p := range e.Pools {
			lapsed = p.lapse(now) || lapsed
			if len(p.Blocks) == 0 && p.total == 0 {
				delete(e.Pools, name)
			}
		}
		if e.over(now) {
			delete(k.of, id)
		}
	}
	type due struct {
		e    *entry
		pool string
		p    *Pool
		s    *Step
	}
	var all []due
	for _, id := range slices.Sorted(maps.Keys(k.of)) {
		e := k.of[id]
		if e.calling || !e.set {
			continue
		}
		for _, name := range slices.Sorted(maps.Keys(e.Pools)) {
			s, again := e.next(name, now, k.cfg.Demand(name), false)
			if s != nil {
				all = append(all, due{e, name, e.Pools[name], s})
				e.calling = true
				break // one call of a licence after the other: each shows what the last one said
			}
			if again != 0 {
				wait = min(wait, max(time.Millisecond, again-now))
			}
		}
	}
	if lapsed {
		k.keep()
	}
	k.mu.Unlock()
	if lapsed {
		k.cfg.OnChange()
	}
	for _, d := range all {
		k.busy.Go(func() {
			k.do(ctx, d.e, d.pool, d.p, d.s)
			k.mu.Lock()
			d.e.calling = false
			k.mu.Unlock()
			k.Nudge()
		})
	}
	return wait
}

// over reports whether there is nothing more to keep: a licence that is not in force, and no block of it. k.mu is held.
func (e *entry) over(now time.Duration) bool {
	for _, p := range e.Pools {
		if len(p.Blocks) > 0 {
			return false
		}
	}
	return !e.calling && (!e.set || e.goneAt != 0 && now-e.goneAt > goneAfter)
}

// next returns what is due for a pool. k.mu is held.
func (e *entry) next(pool string, now time.Duration, d Demand, closing bool) (*Step, time.Duration) {
	p := e.Pools[pool]
	if e.goneAt != 0 {
		if at := e.goneAt + goneAfter; now < at {
			return nil, at
		}
		closing, d = true, Demand{} // nothing is handed out on its word
	}
	return p.Next(now, d, closing)
}

// do carries one step out, and reports whether it went well.
func (k *Keeper) do(ctx context.Context, e *entry, name string, p *Pool, s *Step) bool {
	if s.Kind == Reduce {
		return k.reduce(e, name, p, s)
	}
	k.mu.Lock()
	l := e.licence
	if e.behind() && !k.keep() {
		if b, now := p.block(s.Block), k.cfg.Now(); b != nil {
			b.notBefore = now + b.unkeptWait()
		} else {
			p.notBefore = now + longestWait
		}
		k.mu.Unlock()
		return false
	}
	k.mu.Unlock()
	r := k.cfg.Request(l.License, l.Document)
	k.mu.Lock()
	r.State, r.Nonce = e.State, make([]byte, 32)
	rand.Read(r.Nonce) // never fails: see crypto/rand
	if s.Kind == CheckOut {
		if p.token == "" {
			p.token, p.tokenSlots = rand.Text(), s.Slots
		}
		s.Slots = p.tokenSlots // the same again, where the answer was lost
	}
	token, within := p.token, k.cfg.CallWithin
	if p.span > 0 { // an answer that hangs leaves time for another try before the blocks are over
		within = min(within, max(callLeast, p.span/4))
	}
	k.mu.Unlock()

	ctx, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	sent := k.cfg.Now()
	var got *plugin.Block
	var err error
	switch s.Kind {
	case CheckOut:
		got, err = l.Upstream.CheckOut(ctx,
			&plugin.CheckOut{Request: r, Pool: name, Slots: s.Slots, AtLeast: 1, For: askFor, Token: token})
		if err == nil {
			err = got.Check(name, s.Slots, 1, askFor)
		}
	case Extend:
		got, err = l.Upstream.Extend(ctx, &plugin.Extend{Request: r, Block: s.Block, Slots: s.Slots, For: askFor})
		if err == nil {
			err = got.Check("", 0, 1, askFor)
		}
	default:
		err = l.Upstream.Return(ctx, &plugin.Return{Request: r, Block: s.Block})
	}
	k.mu.Lock()
	k.told(e, p, s, sent, got, failure(err))
	k.keep()
	k.mu.Unlock()
	k.cfg.OnChange()
	return err == nil
}

// reduce takes slots out of use here, so that they can be given back; what has come into use meanwhile stays.
func (k *Keeper) reduce(e *entry, name string, p *Pool, s *Step) bool {
	k.mu.Lock()
	b := p.block(s.Block)
	if b == nil {
		k.mu.Unlock()
		return false
	}
	was := b.Use
	b.Use = s.Slots
	gone := e.goneAt != 0
	// A restarted agent must not hand out what this one has given back.
	kept := k.keep()
	if !kept {
		b.Use = was
		b.notBefore = k.cfg.Now() + b.unkeptWait()
	}
	k.mu.Unlock()
	if !kept {
		return false
	}
	k.cfg.OnChange()
	if gone {
		return true
	}
	d := k.cfg.Demand(name)
	k.mu.Lock()
	undo := d.InUse > d.Capacity
	if undo {
		b.Use = was
		p.peak, p.peakAt = max(p.peak, d.InUse), k.cfg.Now()
		k.keep()
	} else if have, _ := p.have(k.cfg.Now()); have == 0 {
		p.resting = true
	}
	k.mu.Unlock()
	if undo {
		k.cfg.OnChange()
	}
	return !undo
}

// failure returns the error of a call as the contract has it; nil for none.
func failure(err error) *plugin.Error {
	if err == nil {
		return nil
	}
	var e *plugin.Error
	if !errors.As(err, &e) {
		e = plugin.Transiently("%v", err)
	}
	return e.Checked()
}

// told takes what came of a call. k.mu is held.
func (k *Keeper) told(e *entry, p *Pool, s *Step, sent time.Duration, got *plugin.Block, failed *plugin.Error) {
	result := "ok"
	if failed != nil {
		result = string(failed.Class)
	}
	k.cfg.Called(string(s.Kind), result)
	now := k.cfg.Now()
	if failed != nil {
		k.failed(e, p, s, now, failed)
		return
	}
	p.refused, e.fault = false, ""
	b := p.block(s.Block)
	if s.Kind == Return {
		p.Blocks = slices.DeleteFunc(p.Blocks, func(x *Block) bool { return x == b })
		return
	}
	e.State = got.State
	p.span = got.For
	if p.wanted, p.wantedUntil = got.Wanted, 0; got.Wanted > 0 {
		p.wantedUntil = now + got.For/2
	}
	if s.Kind == CheckOut {
		p.token = ""
		if b = p.block(got.ID); b == nil {
			b = &Block{ID: got.ID}
			p.Blocks = append(p.Blocks, b)
		}
		p.fixed = p.fixed || p.stuck
		p.stuck = false
		k.short(p, s.Slots-got.Slots, now)
	} else if b == nil {
		return // it was over before the answer came
	} else if s.Slots > b.Slots {
		p.stuck = got.Slots == b.Slots
		k.short(p, s.Slots-got.Slots, now)
	} else if s.Slots < got.Slots {
		p.rigid = true
	}
	b.Slots, b.Use, b.Sent, b.For, b.tries, b.notBefore = got.Slots, got.Slots, sent, got.For, 0, 0
	b.extend = sent + time.Duration(float64(got.For)/3*(0.9+0.2*k.cfg.Jitter()))
}

// short notes that a check-out brought so many slots fewer than it asked for. k.mu is held.
func (k *Keeper) short(p *Pool, lacking int64, now time.Duration) {
	p.full = false
	if lacking <= 0 {
		p.tries, p.notBefore, p.missed = 0, 0, 0
		return
	}
	k.later(p, now)
}

// later sets when the next check-out may be. k.mu is held.
func (k *Keeper) later(p *Pool, now time.Duration) {
	p.notBefore = now + backoff(p.tries, p.longest(), k.cfg.Jitter())
	p.tries++
}

// longest returns the longest wait between check-outs that fail.
func (p *Pool) longest() time.Duration {
	if p.span > 0 {
		return min(longestWait, p.span/6)
	}
	return longestWait
}

// failed takes what a call failed with. k.mu is held.
func (k *Keeper) failed(e *entry, p *Pool, s *Step, now time.Duration, err *plugin.Error) {
	if fault := string(err.Class) + err.SystemCode + err.Reason; e.fault != fault &&
		err.SystemCode != plugin.SystemFull {
		e.fault = fault
		k.cfg.Log.Warn("slots are not had, and tried for again", "call", s.Kind, "licence", e.licence.ID, "class",
			err.Class, "reason", err.Reason, "hint", err.Hint)
	}
	if err.SystemCode == plugin.SystemCloned {
		// Another goes on with this one's state, and with its blocks: begin anew.
		e.State = nil
		for _, p := range e.Pools {
			p.Blocks = nil
		}
	}
	b := p.block(s.Block)
	switch {
	case s.Kind == CheckOut:
		if err.Class != plugin.Transient {
			p.token = ""
		}
		k.later(p, now)
		if p.full = err.SystemCode == plugin.SystemFull; p.full || err.SystemCode == plugin.SystemSettling {
			p.stuck = false
		}
		if err.SystemCode == plugin.SystemNoPools {
			p.refused, p.notBefore = true, now+refusedWait
		}
		// No signature covers a Retry-After: it puts a check-out off for no longer than a failure does by itself.
		p.notBefore = max(p.notBefore, now+min(err.RetryAfter, p.longest()))
	case b == nil:
	case err.SystemCode == plugin.SystemLapsed:
		// Its slots may be another's: at once.
		p.Blocks = slices.DeleteFunc(p.Blocks, func(x *Block) bool { return x == b })
	default: // it goes on until its own time is over
		if s.Slots > b.Slots {
			k.later(p, now)
		}
		b.notBefore = now + max(min(err.RetryAfter, b.For/12), backoff(b.tries, b.For/12, k.cfg.Jitter()))
		b.tries++
	}
}

// close gives back what is not in use, as far as the upstream answers.
func (k *Keeper) close(ctx context.Context) {
	k.mu.Lock()
	of := maps.Clone(k.of)
	maps.DeleteFunc(of, func(_ enforcer.Ref, e *entry) bool { return !e.set })
	k.mu.Unlock()
	for _, e := range of {
		for name, p := range e.Pools {
			p.missedUntil = 0
			for ctx.Err() == nil {
				d := k.cfg.Demand(name)
				k.mu.Lock()
				p.lapse(k.cfg.Now())
				s, _ := p.Next(k.cfg.Now(), d, true)
				k.mu.Unlock()
				if s == nil || !k.do(ctx, e, name, p, s) {
					break
				}
			}
		}
	}
}
