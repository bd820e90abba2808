// Package desk is the one place where decisions are made: a request is decided by the enforcer, its events are written
// to a journal and applied, and waiters are answered, all under one lock and in one order. The desk keeps the licence
// time, which never goes back. Nothing is acknowledged before it is as durable as it must be, and nothing that only
// watches (a subscriber, a metric) keeps it waiting. Start reading at [Desk.Do]; acquires are in acquire.go, the
// journals in store.go, and the clock in mark.go.
package desk

import (
	"context"
	"log/slog"
	"slices"
	"sync/atomic"
	"time"

	"github.com/usher-agent/usher/agent/clock"
	"github.com/usher-agent/usher/agent/liveness"
	"github.com/usher-agent/usher/agent/memory"
	"github.com/usher-agent/usher/agent/seals"
	"github.com/usher-agent/usher/enforcer"
)

// Observer is what the metrics ask of the desk. All is called under the desk's lock but Acquired and Waited, and none
// may wait for anything.
type Observer interface {
	// Observe may keep what the event points to, but not the event itself.
	Observe(*enforcer.Event)
	// Acquired is told of each decision about an acquire and how long it took, waiting apart.
	Acquired(pool string, took time.Duration, d *enforcer.Denial, replayed bool)
	Waited(time.Duration)
}

// Watcher brings events to their subscribers. Observe is called under the desk's lock, and must not wait.
type Watcher interface {
	// It may keep what the event points to, but not the event itself.
	Observe(*enforcer.Event)
	// Revoking is told of leases that are to be revoked. It is not called under the desk's lock, but by Run, some
	// leases at a time.
	Revoking(now time.Time, leases []*enforcer.Lease)
}

// nobody watches.
type nobody struct{}

func (nobody) Observe(*enforcer.Event)               {}
func (nobody) Revoking(time.Time, []*enforcer.Lease) {}

// Signals are the desk's calls to others for them to act. A nil one is not called.
type Signals struct {
	// Ended is called with each lease that is over and why, under the desk's lock.
	Ended func(*enforcer.Lease, enforcer.Cause)
	// Used is called under the desk's lock with how many slots a lease that is granted takes, or gives back when it
	// ends: then less than zero. DemandChanged is called likewise when slots or draws in use, or waited for, have
	// changed in another way, or while somebody waits.
	Used          func(slots int64)
	DemandChanged func()
	// Short is called with an acquire that was denied for want of slots or draws.
	Short func(*enforcer.Acquire)
	// Denied is called with an acquire that was denied, and whose caller is still there, and must not wait; optional.
	// It may keep neither.
	Denied func(*enforcer.Acquire, *enforcer.Denial)
	// Elsewhere says how many slots of a pool other hosts have, and how many of them lie idle, where that is known. It
	// waits for nothing; optional.
	Elsewhere func(pool string) (out, idle int64, rule string, known bool)
	// Drained says what ends an operator's order that this host give its slots of a pool back to the site and take
	// none; empty: there is no such order. It waits for nothing; optional.
	Drained func(pool string) (end string)
	// FencePassed has the verdict judged again, since part of what it grants is over (see [Desk.SetVerdict]), and
	// returns when it is in force.
	FencePassed func()
}

// Options is what New needs.
type Options struct {
	Now      func() time.Time // the wall clock
	Observer Observer
	Watcher  Watcher // nil: nobody watches
	Signals  Signals
	Core     enforcer.Options
	// RuntimeDir and StateDir are the folders of the journals, both locked by the caller. Both empty: nothing is kept.
	RuntimeDir, StateDir string
	Seals                *seals.Seals // both folders' seals are open; nil: nothing is sealed
	// Locked says why the runtime folder, or that of the state, is no longer the one that the caller has locked; nil:
	// both always are.
	Locked func(state bool) error
	// Beat says how long it is until the next look at the journals, of those that come so often; nil: that long.
	Beat func(every time.Duration) time.Duration
	Log  *slog.Logger
}

// Desk serialises the requests to the enforcer: decide, then apply, under one lock, with due leases ended first. Its
// methods are safe for concurrent use.
type Desk struct {
	now  func() time.Time     // the wall clock
	boot func() time.Duration // since the host was started
	// passed returns the time between two readings of now by Go's monotonic clock, which leaves suspensions out.
	passed  func(from, to time.Time) time.Duration
	seen    Observer
	watcher Watcher
	signals Signals
	store   *store       // nil: nothing is kept
	memory  memory.Share // RunJournals's alone while it runs

	mu       lock                           // guards all below
	fence    time.Duration                  // since boot: what the verdict grants is partly over then; 0: never
	past     func(fence time.Duration) bool // whether that is over; by a glance, for each grant is looked at again
	core     *enforcer.Enforcer
	ids      ids
	last     time.Time     // the licence time when it was last asked for; zero: it was not
	wall     time.Time     // the wall clock, then
	read     time.Duration // since boot, then
	glance   time.Time     // the wall clock when clocks read it last, with Go's monotonic reading
	steady   steady
	asked    time.Time     // when the kernel was asked for the time since boot
	atBoot   time.Duration // what it said
	advanced time.Duration // since boot, when mark was last advanced; 0: it is to be
	steps    int           // how often it was set
	unproved time.Duration // how far the core counts last as ahead of what is proved
	unsure   bool          // whether the core counts by a first clock that is not proved
	signed   time.Time     // the latest date of a document at hand
	// the latest time of which there is evidence, which outlives the agent
	mark     enforcer.Mark
	markKept time.Duration                            // since boot, when mark was last kept; 0: not yet
	next     time.Time                                // what the timer waits for
	held     lifetimes                                // leases held
	pools    int                                      // pools and meters of the verdict
	pooled   int                                      // of them when memory was given back for them; keepMemory's alone
	most     int                                      // leases held at one time, since keepMemory looked
	owned    map[string]map[enforcer.LeaseID]struct{} // leases held with data, by its owner
	labels   map[string]*labelled                     // see Follow
	doubted  map[enforcer.LeaseID]struct{}            // leases that are unconfirmed
	waiting  map[enforcer.LeaseID]waiter
	stirred  []string // pools where a waiter may be served: see enforcer.Event.Stirs
	anywhere bool     // it may be in any pool
	telling  bool     // leases are to be revoked, and their holders are not all told
	told     enforcer.Cursor
	idle     chan struct{} // closed when no lease but borrows is held; nil: nobody waits for that

	judged atomic.Pointer[enforcer.Verdict] // the verdict in force; nil: none has been yet
	byPod  atomic.Bool                      // a pool counts, or is about to count, by pod
	// a rule of the site looks at the pod
	rulesByPod atomic.Bool
	podOf      func(pid int32, start uint64) string // see liveness.PodOf
	drained    atomic.Bool
	rounds     atomic.Uint64 // of Run
	wake       chan struct{} // capacity 1: next became sooner
}

// New opens the journals, and makes a desk that goes on where the last one has ended.
func New(o Options) (*Desk, error) {
	d := newDesk(o)
	if o.StateDir == "" && o.RuntimeDir == "" {
		return d, nil
	}
	if err := d.open(o); err != nil {
		return nil, err
	}
	d.keepStart()
	return d, nil
}

func newDesk(o Options) *Desk {
	if o.Watcher == nil {
		o.Watcher = nobody{}
	}
	return &Desk{now: o.Now, boot: clock.Boot, passed: func(from, to time.Time) time.Duration {
		return to.Sub(from)
	}, seen: o.Observer, watcher: o.Watcher, signals: o.Signals, core: enforcer.New(o.Core), podOf: liveness.PodOf,
		past: new(clock.Glance).Past,
		wake: make(chan struct{}, 1), waiting: map[enforcer.LeaseID]waiter{},
		owned:   map[string]map[enforcer.LeaseID]struct{}{},
		doubted: map[enforcer.LeaseID]struct{}{}}
}

// open opens the journals of a desk that is new.
func (d *Desk) open(o Options) (err error) {
	defer memory.Pause()() // nearly all that is made of the journals is kept: there is nothing to collect
	d.store, err = openStore(o.RuntimeDir, o.StateDir, o.Seals, d.core, d.restore, o.Log)
	if err == nil && o.Locked != nil {
		d.store.locked = o.Locked
	}
	if err == nil && o.Beat != nil {
		d.store.beat = o.Beat
	}
	if err == nil {
		d.memory.Set(d.core.Len())
		d.memory.Gave() // the agent does so once it is ready
	}
	return err
}

// Do decides one request, carries the decision out, and returns when it may be acknowledged.
func (d *Desk) Do(r enforcer.Request) enforcer.Decision { return d.await(d.decide(r)) }

func (d *Desk) decide(r enforcer.Request) outcome {
	d.enter()
	defer d.mu.Unlock()
	dec, now := d.decideNow(r, nil)
	out := d.carry(dec)
	d.serve(now, false)
	return out
}

// outcome is a decision that has been carried out, and the write that must end before it is acknowledged.
type outcome struct {
	enforcer.Decision
	written commit
	fence   time.Duration // of a grant, since boot: what it was granted from is partly over then; zero: never
}

// carry writes a decision's events and carries them out. A decision that gives something (a grant, a renewal,
// a draw) is denied when it cannot be written. One that takes is carried out in any case. d.mu is held.
func (d *Desk) carry(dec enforcer.Decision) outcome {
	var written commit
	if d.store != nil && len(dec.Events) > 0 {
		var err error
		var rest []enforcer.Event
		if written, rest, err = d.store.write(dec.Events); err != nil {
			if slices.ContainsFunc(rest, d.gives) {
				return outcome{Decision: enforcer.Decision{Denial: notStored(err)}}
			}
			d.store.owe(rest, err)
		}
	}
	if d.store != nil && repeats(&dec) {
		written = d.store.barrier() // the first answer may not be out yet
	}
	d.apply(dec.Events, written)
	return outcome{dec, written, d.fenceOf(&dec)}
}

// settle waits until an outcome may be acknowledged. A lease that could not be stored is undone; a draw stays drawn,
// for it may have been stored.
func (d *Desk) settle(out outcome) outcome {
	var err error
	if out.written != nil {
		err = out.written()
	}
	if err == nil {
		return out
	}
	if out.Lease != nil && out.Lease.Lifetime != enforcer.LifetimeDraw && !out.Replayed {
		d.Do(&enforcer.End{ID: out.Lease.ID, Cause: enforcer.CauseUndelivered})
	}
	return outcome{Decision: enforcer.Decision{Denial: notStored(err)}}
}

// await is settle for an outcome whose fence is not looked at again.
func (d *Desk) await(out outcome) enforcer.Decision {
	out = d.settle(out)
	if late := d.late(out); late != nil {
		if denial := late(false); denial != nil {
			return enforcer.Decision{Denial: denial}
		}
	}
	return out.Decision
}

// enter takes d.mu to decide something. By then the verdict no longer has a share that is over on the boot-time clock:
// others may have it.
func (d *Desk) enter() { d.enterBy(d.past) }

// enterBy is enter by a look at the clock.
func (d *Desk) enterBy(past func(fence time.Duration) bool) {
	for {
		d.mu.Lock()
		if !d.overBy(past) {
			return
		}
		d.mu.Unlock()
		d.signals.FencePassed()
	}
}

// over reports whether what the verdict grants is partly over. d.mu is held.
func (d *Desk) over() bool { return d.overBy(d.past) }

func (d *Desk) overBy(past func(fence time.Duration) bool) bool {
	return d.fence != 0 && d.signals.FencePassed != nil && past(d.fence)
}

// apply carries out events and tells others of them. Waiters that are answered wait for written first. d.mu is held.
func (d *Desk) apply(events []enforcer.Event, written commit) {
	if len(events) == 0 {
		return
	}
	for i := range events {
		ev := &events[i]
		d.core.CarryOut(ev)
		if ev.Kind == enforcer.EventVerdict { // whoever hears of it and asks is told of this one
			d.judged.Store(d.core.Verdict())
		}
		d.stir(ev)
		d.count(ev)
		d.answer(ev, written)
		if ev.Kind == enforcer.EventEnded && d.signals.Ended != nil {
			d.signals.Ended(ev.Lease, ev.Cause)
		}
		d.seen.Observe(ev)
		d.watcher.Observe(ev)
	}
	if next := d.core.NextTick(); !next.IsZero() && (d.next.IsZero() || next.Before(d.next)) {
		d.next = next
		d.Look()
	}
}

// Look has Run read the clocks now rather than when the next thing is due.
func (d *Desk) Look() {
	select {
	case d.wake <- struct{}{}:
	default:
	}
}

// answer tells a waiter what came of its waiting. d.mu is held.
func (d *Desk) answer(ev *enforcer.Event, written commit) {
	if ev.Waiter == nil || ev.Kind == enforcer.EventQueued {
		return
	}
	if w, ok := d.waiting[ev.Waiter.ID]; ok {
		delete(d.waiting, ev.Waiter.ID)
		dec := enforcer.Decision{Events: []enforcer.Event{*ev}, Lease: ev.Lease, Denial: ev.Denial,
			Replayed: ev.Cause == enforcer.CauseReplayed && ev.Lease != nil}
		w.tell(outcome{dec, written, d.fenceOf(&dec)})
	}
}

// demandChanged sends the signal of that name for an event, or Used. d.mu is held.
func (d *Desk) demandChanged(ev *enforcer.Event) {
	if ev.Kind == enforcer.EventGranted || ev.Kind == enforcer.EventEnded {
		if d.signals.Used != nil {
			d.signals.Used(slotsOf(ev))
		}
		if d.core.Waiting() == 0 {
			return
		}
	}
	if d.signals.DemandChanged != nil {
		d.signals.DemandChanged()
	}
}

// slotsOf returns how many slots a grant takes, or an end gives back: then less than zero.
func slotsOf(ev *enforcer.Event) (n int64) {
	for i := range ev.Lease.Items {
		n += ev.Lease.Items[i].Slots()
	}
	if ev.Kind == enforcer.EventEnded {
		n = -n
	}
	return n
}

// count keeps the leases counted. d.mu is held.
func (d *Desk) count(ev *enforcer.Event) {
	d.demandChanged(ev)
	switch ev.Kind {
	case enforcer.EventGranted:
		d.countIn(ev.Lease)
	case enforcer.EventLifted:
		if d.store != nil {
			d.store.holdOffsOver = true
			d.store.forgetHoldOffs(d.core)
		}
	case enforcer.EventChanged:
		if ev.Lease.Unconfirmed {
			d.doubted[ev.Lease.ID] = struct{}{}
		} else {
			delete(d.doubted, ev.Lease.ID)
		}
	case enforcer.EventEnded:
		d.held.add(ev.Lease.Lifetime, -1)
		d.tellIdle()
		delete(d.doubted, ev.Lease.ID)
		d.label(ev.Lease, false)
		if ev.Lease.Data != nil {
			delete(d.owned[ev.Lease.Data.Owner], ev.Lease.ID)
		}
	default:
	}
}

// countIn counts a lease that is held. d.mu is held.
func (d *Desk) countIn(l *enforcer.Lease) {
	d.held.add(l.Lifetime, 1)
	d.most = max(d.most, d.core.Len())
	d.label(l, true)
	if l.Data == nil {
		return
	}
	if d.owned[l.Data.Owner] == nil {
		d.owned[l.Data.Owner] = map[enforcer.LeaseID]struct{}{}
	}
	d.owned[l.Data.Owner][l.ID] = struct{}{}
}

// Unconfirmed counts the leases whose holder is not known to live.
func (d *Desk) Unconfirmed() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return len(d.doubted)
}

// SetVerdict puts a verdict in force and tells holders of leases that are to be revoked. Part of what it grants is over
// when fence has come, on the boot-time clock; zero: never.
func (d *Desk) SetVerdict(v *enforcer.Verdict, fence time.Duration) {
	now := d.lockSettled()
	defer d.mu.Unlock()
	d.byPod.Store(countsByPod(v))
	d.pools = len(v.Pools) + len(v.Meters)
	d.carry(d.core.Decide(&enforcer.SetVerdict{Verdict: v}, now))
	d.carry(d.core.Decide(&enforcer.TakeOver{}, now))
	if d.fence = fence; fence != 0 {
		d.Look()
	}
	d.serve(d.last, true)
	if d.core.Revoking() {
		d.telling, d.told = true, enforcer.Cursor{}
		d.Look()
	}
}

// countsByPod reports whether a pool counts by pod under a verdict, or what it turns into.
func countsByPod(v *enforcer.Verdict) bool {
	for _, g := range v.Pools {
		if g.CountBy.Counts(enforcer.CountPod) || g.HoldersBy.Counts(enforcer.CountPod) {
			return true
		}
	}
	return slices.ContainsFunc(v.Next, countsByPod)
}

// Place says in which pod a caller is, where that counts and is known.
func (d *Desk) Place(c *enforcer.Caller) {
	if (d.byPod.Load() || d.rulesByPod.Load()) && c.Pod == "" && c.PID != 0 {
		c.Pod = d.podOf(c.PID, c.Start)
	}
}

// longestTimer bounds a wait on the monotonic clock, which stops while the host is suspended.
const longestTimer = time.Minute

// Run ends leases when they are due, until ctx ends.
func (d *Desk) Run(ctx context.Context) error {
	timer := time.NewTimer(0)
	defer timer.Stop()
	var p pace
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-d.wake:
		case <-timer.C:
		}
		d.enter()
		d.advance(false)
		now := d.last
		more := d.tick(now)
		d.serve(now, false) // a meter's period may have begun
		d.next = d.core.NextTick()
		wait := longestTimer
		if !d.next.IsZero() {
			wait = min(wait, max(0, d.next.Sub(now)))
		}
		if d.fence != 0 {
			wait = min(wait, max(time.Millisecond, d.fence-clock.Fence()))
		}
		d.mu.Unlock()
		d.tell()
		d.rounds.Add(1)
		if more {
			p.giveWay()
		}
		timer.Reset(wait)
	}
}

// Rounds returns how often Run has gone round: it does so when something is due, and after each Look.
func (d *Desk) Rounds() uint64 { return d.rounds.Load() }
