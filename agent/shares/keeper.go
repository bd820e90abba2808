// Package shares keeps this agent's part of what belongs to a whole site: blocks of slots, which an upstream (a site
// server, a floating upstream) lends for a while, and draws of meters, which it gives for good. The agent asks ahead of
// need, so nothing here is on the way of an acquire.
//
// Of blocks it promises that the agent asks for more time long before a block ends, gives back what lies idle, and
// hands out nothing of a block from before the upstream may give its slots to others. Of draws it promises that few are
// taken ahead of need, and none of a meter that nobody asks for; and that each is taken once: every call is on the disk
// before it is made, and what a crash or a lost answer leaves open is asked again with the same token.
//
// Start reading at [Pool.Next] and [Meter.Next], the plans: they say what is due and are pure. [Keeper.Run] does it.
// What both have in common is in the ledger.
//
// Locks are taken in this order: a ledger's writing, the keeper's mu, that of Wants. Fill and See take mu under their
// caller's lock, and Config's Pool, Meter and Time may take their own under mu. Wants waits for none of those.
package shares

import (
	"context"
	"log/slog"
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
	// At the least, between two looks at a demand that changes all the time, and where leases come and go and no more
	// is in use than before. A look costs some 15 µs, and ten times as much in all that it wakes and displaces.
	restBetween, restInUse = 5 * time.Millisecond, 25 * time.Millisecond
	// closeWithin bounds the end. A block that is not given back by then ends with its time, and a draw that is cut off
	// is asked again after the restart.
	closeWithin = 5 * time.Second
)

// Config is what a Keeper needs. All but those marked are required.
type Config struct {
	// Blocks is the record of blocks. It may be lost with a start of the host, after which it means nothing.
	Blocks File
	// Draws is the record of draws. It must outlive the host's crash: its Write returns when it is on the disk.
	Draws File
	// BootID names this start of the host, from which Now counts. Empty: a record of blocks of another process is
	// ignored.
	BootID string
	// Offset says that this process is in a time namespace whose clock is not the host's. Records of blocks of former
	// versions, which counted by that clock, are ignored.
	Offset     bool
	CallWithin time.Duration        // of one call; zero: 30 seconds
	Now        func() time.Duration // since boot, suspension included: the clock of blocks
	Time       func() time.Time     // the licence time as far as it is proved, by which meters reset
	// Upstreams are those that are configured, by system. A [plugin.Budgeter] that says so gives blocks, and a
	// [plugin.Drawer] draws.
	Upstreams map[string]plugin.Upstream
	// SiteServer gives the blocks of its system, in the place of the system's upstream, and draws if it is a
	// [plugin.Drawer]; optional.
	SiteServer plugin.Budgeter
	// Fleet returns what gives a licence's blocks and draws where agents share some of them in a fleet, given what
	// gives all others, or nil; optional.
	Fleet func(l *enforcer.License, document []byte, b plugin.Budgeter,
		d plugin.Drawer) (plugin.Budgeter, plugin.Drawer)
	// Giver names for people who gives the share of a pool or meter: "the fleet"; empty: it is the upstream or the site
	// server. A failure at one says nothing of another. nil: there is no other.
	Giver func(pool string) string
	// Request makes what leaves the host with a call, but for nonce and state.
	Request func(*enforcer.License, []byte) plugin.Request
	// Pool says what is asked of a pool, and Meter what is asked of a meter. The keeper may hold its lock meanwhile, as
	// for Now and Time.
	Pool  func(name string) PoolDemand
	Meter func(name string) MeterDemand
	// Wants is told when that changes; optional.
	Wants *Wants
	// OnChange is told that Fill says something new. When it returns, nothing is handed out any more that Fill does
	// not say. The keeper holds no lock meanwhile.
	OnChange func()
	Stopping func()                    // told, when Run is to end, that nothing must be handed out any more; optional
	Called   func(call, result string) // told of each call; optional
	Log      *slog.Logger              // optional
	Jitter   func() float64            // from 0 to 1; optional
}

// File is where one of the two records is.
type File struct {
	Path string
	// Read reads it; its error is fs.ErrNotExist where there is none. nil: os.ReadFile.
	Read func(path string) ([]byte, error)
	// Write replaces it, whole or not at all.
	Write func(path string, data []byte) error
}

// withDefaults returns c with its optional parts filled in.
func (c Config) withDefaults() Config {
	if c.CallWithin == 0 {
		c.CallWithin = defaultCallWithin
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if c.Jitter == nil {
		c.Jitter = mathrand.Float64
	}
	if c.Called == nil {
		c.Called = func(string, string) {}
	}
	if c.Giver == nil {
		c.Giver = func(string) string { return "" }
	}
	if c.Wants == nil {
		c.Wants = NewWants()
	}
	if c.Stopping == nil {
		c.Stopping = func() {}
	}
	for _, f := range []*File{&c.Blocks, &c.Draws} {
		if f.Read == nil {
			f.Read = os.ReadFile
		}
	}
	return c
}

// Licence is one licence in force, as it was installed, with the upstreams that give shares of it. One that is nil
// gives none.
type Licence struct {
	*enforcer.License
	Document []byte
	Budgeter plugin.Budgeter
	Drawer   plugin.Drawer
}

// Keeper keeps this agent's shares of the licences that Set names.
type Keeper struct {
	cfg  Config
	busy sync.WaitGroup

	mu     sync.Mutex // guards both ledgers; the demands are asked under it, nothing is told, nothing written
	blocks blocks
	draws  draws
}

// New reads the records. It starts nothing.
func New(cfg Config) (*Keeper, error) {
	cfg = cfg.withDefaults()
	k := &Keeper{cfg: cfg}
	if err := k.blocks.open(&k.cfg, &k.mu); err != nil {
		return nil, err
	}
	if err := k.draws.open(&k.cfg, &k.mu); err != nil {
		return nil, err
	}
	return k, nil
}

// See takes from a verdict which licences are in force, and reports whether Fill names a pool or meter since that it
// did not name before: then the verdict knew too little. document returns the bytes of a document by its name.
func (k *Keeper) See(_ *enforcer.Facts, v *enforcer.Verdict, document func(name string) []byte) (changed bool) {
	var all []Licence
	for _, j := range v.Licenses {
		if !j.InForce { // of a document that cannot be read there is no licence
			continue
		}
		l := Licence{License: j.License, Budgeter: k.budgeter(j.License.System), Drawer: k.drawer(j.License.System)}
		if l.Budgeter == nil && l.Drawer == nil && k.cfg.Fleet == nil {
			continue
		}
		l.Document = document(j.Document)
		if k.cfg.Fleet != nil {
			l.Budgeter, l.Drawer = k.cfg.Fleet(j.License, l.Document, l.Budgeter, l.Drawer)
		}
		if l.Budgeter != nil || l.Drawer != nil {
			all = append(all, l)
		}
	}
	return k.Set(all)
}

// budgeter returns the upstream that gives the blocks of a system's licences; nil: there is none.
func (k *Keeper) budgeter(system string) plugin.Budgeter {
	if s := k.cfg.SiteServer; s != nil && s.System() == system {
		return s
	}
	if b, ok := k.cfg.Upstreams[system].(plugin.Budgeter); ok && b.Capabilities().Budget {
		return b
	}
	return nil
}

// drawer returns what gives the draws of a system's licences; nil: nothing does.
func (k *Keeper) drawer(system string) plugin.Drawer {
	if d, ok := k.cfg.SiteServer.(plugin.Drawer); ok && d.System() == system {
		return d
	}
	d, _ := k.cfg.Upstreams[system].(plugin.Drawer)
	return d
}

// Set says which licences are in force, and reports as See does. A licence that is no longer in force gives its
// blocks back after a moment; its draws stay taken, and count again when it is back in force.
func (k *Keeper) Set(licences []Licence) (changed bool) {
	k.mu.Lock()
	blocks := k.blocks.set(licences, k.cfg.Now())
	draws := k.draws.set(licences, k.draws.up())
	k.cfg.Wants.heard.Store(len(k.blocks.entries)+len(k.draws.entries) > 0)
	k.mu.Unlock()
	k.Nudge()
	return blocks || draws
}

// Nudge has the keeper look at the demand. It never waits.
func (k *Keeper) Nudge() { k.cfg.Wants.Changed() }

// Budgets returns what may be handed out of site pools now, and until when that holds on the clock Config.Now; zero:
// until something changes. A pool whose upstream serves no slots is not named.
func (k *Keeper) Budgets() (budgets map[enforcer.Share]enforcer.Limit, fence time.Duration) {
	k.mu.Lock()
	defer k.mu.Unlock()
	budgets, _, fence = k.blocks.budgets(k.cfg.Now())
	return budgets, fence
}

// Kept returns what may stay held beside Budgets, as [enforcer.Facts] has it.
func (k *Keeper) Kept() map[enforcer.Share]enforcer.Limit {
	k.mu.Lock()
	defer k.mu.Unlock()
	_, kept, _ := k.blocks.budgets(k.cfg.Now())
	return kept
}

// Taken returns what was taken of site meters, each in its present period: that and no more may be drawn here.
func (k *Keeper) Taken() map[enforcer.Share]enforcer.Taken {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.draws.roll()
	return k.draws.taken()
}

// Shared reports whether a licence in force has shares from somebody.
func (k *Keeper) Shared() bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.blocks.shared() || k.draws.shared()
}

// Failing returns the pools and meters of licences in force of which shares cannot be asked for, and why.
func (k *Keeper) Failing() map[enforcer.Share]enforcer.Failing {
	k.mu.Lock()
	defer k.mu.Unlock()
	out := map[enforcer.Share]enforcer.Failing{}
	k.draws.faults(out)
	k.blocks.faults(out)
	return out
}

// Fill states in the facts what Budgets, Taken and Failing say, and returns the fence of the budgets.
func (k *Keeper) Fill(f *enforcer.Facts, _ time.Time) (fence time.Duration) {
	f.SharesFailing = k.Failing()
	k.mu.Lock()
	f.Budgets, f.Kept, fence = k.blocks.budgets(k.cfg.Now())
	k.mu.Unlock()
	f.Draws = k.Taken()
	return fence
}

// Preview returns what would leave the host with the next call for blocks of each licence, but for nonce, pool and
// number of slots.
func (k *Keeper) Preview() (out []plugin.Request) {
	k.mu.Lock()
	var all []Licence
	var states [][]byte
	for _, ref := range k.blocks.refs() {
		if e := k.blocks.entries[ref]; e.inForce() {
			all, states = append(all, e.licence), append(states, e.state)
		}
	}
	k.mu.Unlock()
	for i, l := range all {
		r := k.cfg.Request(l.License, l.Document)
		r.State = states[i]
		out = append(out, r)
	}
	return out
}

// Run keeps the shares until ctx ends, and then gives back the blocks that are not in use.
func (k *Keeper) Run(ctx context.Context) error {
	// A call that is under way is not cut off at once: the block that it brings would be lost until its time is over,
	// and the draws until they are asked for again.
	calls, cut := context.WithCancel(context.WithoutCancel(ctx))
	defer cut()
	timer := time.NewTimer(0)
	defer timer.Stop()
	var last, next time.Time // the last look, and the next one
	for {
		var rest time.Duration
		soon := notSoon
		select {
		case <-ctx.Done():
			k.cfg.Stopping()
			end := time.AfterFunc(closeWithin, cut)
			defer end.Stop()
			k.busy.Wait()
			k.blocks.close(calls)
			return nil
		case <-k.cfg.Wants.pressing:
			rest, soon = restBetween, within5ms
		case <-k.cfg.Wants.used:
			rest, soon = restInUse, within25ms
		case <-timer.C:
		}
		at := last.Add(rest)
		if wait := time.Until(at); soon != notSoon && wait > 0 {
			k.cfg.Wants.rests.Store(max(soon, k.cfg.Wants.rests.Load()))
			if at.Before(next) {
				timer.Reset(wait)
				next = at
			}
			continue
		}
		k.cfg.Wants.looks()
		last = time.Now()
		wait := k.pass(calls, ctx)
		timer.Reset(wait)
		next = time.Now().Add(wait)
	}
}

// pass begins what is due, and returns how long to wait for more. Watches end with their own context: they bring
// nothing that could be lost.
func (k *Keeper) pass(ctx, watching context.Context) time.Duration {
	k.mu.Lock()
	lapsed, rolled := k.blocks.lapse(k.cfg.Now()), k.draws.roll()
	k.mu.Unlock()
	if lapsed || rolled {
		k.cfg.OnChange() // the demand for draws is that of the old period until then
	}
	k.mu.Lock()
	for name, n := range k.cfg.Wants.take() {
		k.blocks.miss(name, k.cfg.Now(), n)
		k.draws.miss(name, k.draws.up(), n)
	}
	blocks, blocksWait := k.blocks.due(k.cfg.Now())
	draws, drawsWait := k.draws.due(k.draws.up())
	watches, watchesWait := k.blocks.watches(k.cfg.Now())
	k.mu.Unlock()
	if lapsed {
		k.busy.Go(func() { k.blocks.save(nil) })
	}
	for _, call := range slices.Concat(blocks, draws) {
		k.busy.Go(func() {
			call(ctx)
			k.Nudge()
		})
	}
	for _, watch := range watches {
		k.busy.Go(func() {
			watch(watching)
			k.Nudge()
		})
	}
	return min(blocksWait, drawsWait, watchesWait)
}
