// Package draws takes draws of meters that are a whole site's from an upstream, for good, and says how many this agent
// may hand out. It takes few ahead of need, and none of a meter that nobody asks for. Each call is on the disk before
// it is made: what a crash or a lost answer leaves open is asked again with the same token, so that draws are taken
// once. Nothing of it is on the way of an acquire.
//
// Start reading at [Meter.Next], which says how many are taken and is a pure function; [Keeper.Run] does it.
package draws

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
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
	// bounds a wait on the monotonic clock, which stops while the host is suspended
	longestTimer = 30 * time.Second
	closeWithin  = 5 * time.Second // a call is cut off then: it is made again after the restart
)

// Config is what a Keeper needs. All but those marked are required.
type Config struct {
	File string // the record, which must outlive the host's crash
	// Read reads it; its error is fs.ErrNotExist where there is none. nil: os.ReadFile.
	Read func(file string) ([]byte, error)
	// Write replaces the record, whole or not at all, and returns when it is on the disk.
	Write      func(file string, data []byte) error
	CallWithin time.Duration    // of one call; zero: 30 seconds
	Now        func() time.Time // the licence time as far as it is proved, by which meters reset
	// Request makes what leaves the host with a call, but for nonce and state.
	Request func(*enforcer.License, []byte) plugin.Request
	// Demand says what is asked of a meter.
	Demand func(meter string) Demand
	// OnChange is told that Taken says something new. The keeper holds no lock meanwhile.
	OnChange func()
	Called   func(call, result string) // told of each call; optional
	Log      *slog.Logger              // optional
	Jitter   func() float64            // from 0 to 1; optional
}

// Licence is one licence in force, as it was installed, and of whom draws are had for it.
type Licence struct {
	*enforcer.License
	Document []byte
	Upstream plugin.Drawer
}

// Keeper keeps what was taken for the licences that Set names.
type Keeper struct {
	cfg   Config
	began time.Time
	wake  chan struct{} // capacity 1
	busy  sync.WaitGroup

	mu     sync.Mutex // guards all below; Demand is asked under it, and nothing is told
	of     map[enforcer.Ref]*entry
	unkept bool // the record could not be written last

	missing sync.Mutex       // guards missed; taken last
	missed  map[string]int64 // by meter: the largest of the acquires that were denied since pass has looked
}

// entry is what is kept for one licence, in force or not: what was taken is taken.
type entry struct {
	Named  bool              `json:"named,omitempty"` // it is kept under a Ref; former versions kept it under an id
	State  []byte            `json:"state,omitempty"` // what the upstream said last
	Meters map[string]*Meter `json:"meters"`

	licence Licence
	set     bool   // it is in force
	calling string // the meter of the call that is under way
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
	if cfg.Read == nil {
		cfg.Read = os.ReadFile
	}
	of, err := load(cfg.Read, cfg.File)
	return &Keeper{cfg: cfg, began: time.Now(), wake: make(chan struct{}, 1), of: of, missed: map[string]int64{}}, err
}

// Set says which licences are in force, and returns whether Taken names a meter that it did not.
func (k *Keeper) Set(licences []Licence) (more bool) {
	k.mu.Lock()
	there := map[enforcer.Ref]bool{}
	for _, l := range licences {
		site := l.SiteMeters()
		if l.Upstream == nil || len(site) == 0 {
			continue
		}
		ref := l.Ref()
		there[ref] = true
		e, _ := enforcer.Kept(k.of, l.License)
		if e == nil {
			e = &entry{Meters: map[string]*Meter{}}
			k.of[ref] = e
		}
		e.Named = true
		more = more || !e.set
		e.licence, e.set = l, true
		for name := range site {
			if e.Meters[name] == nil {
				e.Meters[name], more = &Meter{}, true
			}
		}
		for name, m := range e.Meters {
			m.total = int64(site[name]) // zero: it is no meter of the licence any more
		}
	}
	for id, e := range k.of {
		e.set = there[id]
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

// Missed tells of an acquire that was denied for want of n draws of a meter. It waits for no disk.
func (k *Keeper) Missed(meter string, n int64) {
	k.missing.Lock()
	k.missed[meter] = max(k.missed[meter], n)
	k.missing.Unlock()
	k.Nudge()
}

// heed takes note of what was missed. k.mu is held.
func (k *Keeper) heed() {
	k.missing.Lock()
	defer k.missing.Unlock()
	for meter, n := range k.missed {
		for _, e := range k.of {
			if m := e.Meters[meter]; m != nil && e.set {
				m.miss(k.up(), n)
			}
		}
	}
	clear(k.missed)
}

// up is the keeper's own clock, for spans.
func (k *Keeper) up() time.Duration { return time.Since(k.began) }

// roll begins the periods that have come, and reports whether any has. k.mu is held.
func (k *Keeper) roll() (rolled bool) {
	now := k.cfg.Now()
	for _, e := range k.of {
		for name, m := range e.Meters {
			if t, ok := e.licence.meter(name); ok && e.calling == "" && m.roll(t.Resets.Start(now)) {
				rolled = true
			}
		}
	}
	return rolled
}

// meter returns a meter's term.
func (l Licence) meter(name string) (enforcer.MeterTerm, bool) {
	if l.License == nil {
		return enforcer.MeterTerm{}, false
	}
	t, ok := l.Meters[name]
	return t, ok
}

// Taken returns what was taken, each in its meter's present period: that and no more may be drawn here.
func (k *Keeper) Taken() map[enforcer.Share]enforcer.Taken {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.roll()
	out := map[enforcer.Share]enforcer.Taken{}
	for id, e := range k.of {
		for name, m := range e.Meters {
			if e.set && m.total > 0 {
				out[enforcer.Share{License: id, Pool: name}] = enforcer.Taken{N: enforcer.Limit(m.Taken),
					Period: m.Period}
			}
		}
	}
	return out
}

// Run takes draws until ctx ends.
func (k *Keeper) Run(ctx context.Context) error {
	// A call that is under way is not cut off at once: its answer saves one after the restart.
	calls, cut := context.WithCancel(context.WithoutCancel(ctx))
	defer cut()
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			end := time.AfterFunc(closeWithin, cut)
			defer end.Stop()
			k.busy.Wait()
			return nil
		case <-k.wake:
		case <-timer.C:
		}
		timer.Reset(k.pass(calls))
	}
}

// call is one that is due.
type call struct {
	e    *entry
	name string
	m    *Meter
	n    int64
}

// pass does what is due, and returns how long to wait for more.
func (k *Keeper) pass(ctx context.Context) time.Duration {
	k.mu.Lock()
	rolled := k.roll()
	k.mu.Unlock()
	if rolled {
		k.cfg.OnChange() // the demand is that of the old period until then
	}
	k.mu.Lock()
	k.heed()
	wait, now := longestTimer, k.up()
	demands, calling := k.look(now)
	var all []call
	for _, id := range slices.Sorted(maps.Keys(k.of)) {
		e := k.of[id]
		if e.calling != "" || !e.set {
			continue
		}
		for _, name := range slices.Sorted(maps.Keys(e.Meters)) {
			if calling[name] { // of another licence: what that brings is needed no more of this one
				continue
			}
			m := e.Meters[name]
			n, again := m.Next(now, demands[name])
			if n > 0 {
				all = append(all, call{e, name, m, n})
				e.calling, calling[name] = name, true
				break // one call of a licence after the other: each shows what the last one said
			}
			if again != 0 {
				wait = min(wait, max(time.Millisecond, again-now))
			}
		}
	}
	k.mu.Unlock()
	for _, c := range all {
		k.busy.Go(func() {
			if k.do(ctx, c) {
				k.cfg.OnChange()
			}
			k.mu.Lock()
			c.e.calling = ""
			k.mu.Unlock()
			k.Nudge()
		})
	}
	return wait
}

// look asks for the demand of every meter, and returns it with the meters of which calls are under way. k.mu is held.
func (k *Keeper) look(now time.Duration) (demands map[string]Demand, calling map[string]bool) {
	demands, calling = map[string]Demand{}, map[string]bool{}
	for _, e := range k.of {
		if e.calling != "" {
			calling[e.calling] = true
		}
		for name, m := range e.Meters {
			if !e.set || m.total <= 0 {
				continue
			}
			d, ok := demands[name]
			if !ok {
				d = k.cfg.Demand(name)
				d.Taken = 0
			}
			if d.Taken += min(m.Taken, m.total); m.Pending != nil {
				d.Taken += m.Pending.N
			}
			demands[name] = d
		}
	}
	for _, e := range k.of {
		for name, m := range e.Meters {
			if d, ok := demands[name]; ok && e.set {
				m.look(now, d)
			}
		}
	}
	return demands, calling
}

// do makes one call, and reports whether there is more to hand out. Its token is on the disk before, and what it took
// is before anything of it is handed out.
func (k *Keeper) do(ctx context.Context, c call) bool {
	k.mu.Lock()
	l, m := c.e.licence, c.m
	again := m.Pending != nil
	if !again {
		m.Pending = &Pending{rand.Text(), c.n}
		if !k.keep() {
			m.Pending = nil // it was not made, so nothing need be asked again
			m.notBefore = k.up() + longestWait
			k.mu.Unlock()
			return false
		}
	}
	pending, state := *m.Pending, c.e.State
	k.mu.Unlock()
	r := k.cfg.Request(l.License, l.Document)
	r.State, r.Nonce = state, make([]byte, 32)
	rand.Read(r.Nonce) // never fails: see crypto/rand
	ctx, cancel := context.WithTimeout(ctx, k.cfg.CallWithin)
	defer cancel()
	got, err := l.Upstream.Draw(ctx,
		&plugin.Draw{Request: r, Meter: c.name, N: pending.N, Token: pending.Token, Again: again})
	if err == nil {
		err = got.Check(c.name, pending.N)
	}
	failed := failure(err)
	result := "ok"
	if failed != nil {
		result = string(failed.Class)
	}
	k.cfg.Called("draw", result)
	k.mu.Lock()
	defer k.mu.Unlock()
	if failed != nil {
		k.failed(c, failed)
		return false
	}
	was, before := *m, c.e.State
	m.Taken, m.Pending, c.e.State = m.Taken+got.N, nil, got.State
	if !k.keep() { // it is asked again, and brings the same
		*m, c.e.State = was, before
		m.notBefore = k.up() + longestWait
		return false
	}
	c.e.fault = ""
	m.most, m.tries, m.notBefore = 0, 0, 0
	return true
}

// failed takes what a call failed with. k.mu is held.
func (k *Keeper) failed(c call, err *plugin.Error) {
	full := err.SystemCode == plugin.SystemFull
	if fault := string(err.Class) + err.SystemCode + err.Reason; c.e.fault != fault {
		c.e.fault = fault
		k.cfg.Log.Warn("draws are not had, and tried for again", "licence", c.e.licence.ID, "meter", c.name, "class",
			err.Class, "reason", err.Reason, "hint", err.Hint)
	}
	c.m.failed(k.up(), err.Class == plugin.Transient, full, err.RetryAfter, k.cfg.Jitter())
	k.keep() // where it cannot be, the call is asked again after a restart, and its token takes nothing twice
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

// keep writes the record, and reports whether it could. k.mu is held.
func (k *Keeper) keep() bool {
	err := k.save()
	if err != nil && !k.unkept {
		k.cfg.Log.Error("draws could not be recorded, and none are taken until they can be", "error",
			fmt.Errorf("%s: %w", k.cfg.File, err))
	}
	k.unkept = err != nil
	return err == nil
}
