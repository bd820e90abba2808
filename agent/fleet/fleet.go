// Package fleet gives slots and draws that all agents of a fleet share, from a store of keys that they all reach: etcd.
//
// It promises that the blocks of all agents together never have more slots than the lowest limit that a living block
// names, and that an agent's blocks are over, by a clock that no two hosts need to agree on, before another agent may
// have their slots. No code here does consensus: each change is one transaction of the store, which compares all that
// it rests on.
//
// An agent has one leased key, and for each pool one key with its blocks that no lease ends, so that the total beside
// it is always their sum. An agent is dead once its leased key has gone. Its own fence is earlier, see [fence], and
// then whoever needs slots may take its blocks over.
//
// Start reading at [Fleet.Run], which keeps the membership, and at [Bound.CheckOut]. The keys are in keys.go.
//
// Locks are taken in this order: that of a pool's calls, beat, mu. mu is never held over a call to the store.
package fleet

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	mathrand "math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/usher-agent/usher/client/wire"
	"github.com/usher-agent/usher/enforcer"
	"github.com/usher-agent/usher/plugin"
)

// Bounds.
const (
	DefaultTTL = 30 * time.Second
	MinTTL     = 5 * time.Second // an election of etcd takes one second, and the fence lies one before the lease's end
	// electionSlack is for how long a member of the store may answer for a leader that it is no more.
	electionSlack = time.Second
	maxTries      = 24 // of a transaction that others' changes undo
	// maxIncarnations is how many of its own an agent knows: those whose blocks it may go on with.
	maxIncarnations = 32
	// windDown is how long leases that are to be revoked may live on: what the enforcer gives them, and a moment.
	windDown = enforcer.RevokeDelay + 5*time.Second
)

// Config is what a Fleet needs. All but those marked are required.
type Config struct {
	Store  Store
	Agent  string // the thumbprint of the agent's key: the agent's name in the fleet
	Prefix string // of all keys; it begins and ends with a slash
	Member Member
	TTL    time.Duration // of the agent's lease
	// Keep is how long what is held stays held, and counts, beyond the lease's time where the agent cannot reach the
	// store; zero: it does not.
	Keep time.Duration
	// Lends: blocks are lent on, so that none gets smaller than it was asked to be.
	Lends bool
	// OnMoved is told which parts of a pool's blocks others have taken over, before this agent goes on with the rest;
	// it is required with Lends.
	OnMoved func(pool string, parts []string) error
	// Revokes: leases that are over are revoked here, whatever a licence says.
	Revokes bool
	// Now is the time since boot, suspension included: the clock of the fence.
	Now func() time.Duration
	// Epoch names the zero of Now; empty: no reading of another process compares with one of this.
	Epoch string
	// Load reads what Save has written of this start of the host; nil: nothing. Save replaces it, whole or not at all.
	Load func() ([]byte, error)
	Save func([]byte) error
	// Licence time, as far as it is proved, by which meters reset.
	Time     func() time.Time
	OnChange func(error) // told when the membership is lost, regained or fails otherwise; optional
	OnDrain  func()      // told when an operator has the agent drained, or ends that; optional
	// InUse returns how many slots of a pool are held here, or draws of a meter taken; optional.
	InUse    func(pool string) int64
	Observer Observer     // optional
	Log      *slog.Logger // optional
	Jitter   func() float64

	spread  spread
	keeping keeping
}

// Member is what an agent tells the fleet of itself.
type Member struct {
	Labels  map[string]string // of its host, for rules; see [enforcer.CheckHostLabels]
	Name    string            // of the host, for people; may be empty
	Version string
}

// Fleet is this agent's membership in a fleet.
type Fleet struct {
	cfg   Config
	store Store // whose calls cfg.Store counts
	keys  keys

	beat turn // for the calls of one registration or heartbeat

	mu    sync.Mutex // guards all below
	me    membership
	pools map[string]*pool
	news  map[string]word // by pool: what came for this agent and was not taken
	rung  chan struct{}   // closed when news comes
	fault error           // why the membership fails; nil: it does not
	seen  seen
	marks []mark
	until time.Duration // the last fence that a membership of this process had
	owns  []string      // the pools that the store knows this agent to have blocks of
	// joined says that this process has joined once.
	joined bool
	leaves bool     // it has stopped lending: see [Bound.Leave]
	gaveUp bool     // it waits for nothing any more: see GiveUp
	own    []string // the incarnations of this process, the last one last
	// revokes: a licence here has leases revoked that are over, which takes a moment after the fence.
	revokes bool
	standing
	operator *Operator
	report   *wire.Fleet // the last that was read
	reportAt time.Duration

	forgets forgets
	beats   chan struct{} // capacity 1: look at once
	gathers chan struct{} // capacity 1: give shares' slots back to totals
	asks    chan struct{} // capacity 1: say how many slots are held
}

// membership is one registration of this agent.
type membership struct {
	incarnation string
	value       string // of a/AGENT
	lease       Lease
	until       time.Duration // the fence
	span        time.Duration // for how long slots may be in use after a sign of life, as the agent's key says
	held        time.Duration // the fence of what is held
	// follows are the incarnations whose blocks this one goes on with.
	follows []string
}

// seen is what shows that the store is an older copy of itself.
type seen struct {
	Epoch string  `json:"epoch"`
	Rev   int64   `json:"rev"`
	TTL   float64 `json:"ttl,omitempty"` // the longest span of any agent, in seconds
}

// New makes a Fleet. It starts nothing.
func New(c Config) (*Fleet, error) {
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if c.Jitter == nil {
		c.Jitter = mathrand.Float64
	}
	if c.OnChange == nil {
		c.OnChange = func(error) {}
	}
	if c.TTL == 0 {
		c.TTL = DefaultTTL
	}
	if c.spread.least == 0 {
		c.spread.least = shardLeast
	}
	if c.keeping.every == 0 {
		c.keeping = keeping{keptAfter, keptEvery}
	}
	if c.OnDrain == nil {
		c.OnDrain = func() {}
	}
	if c.InUse == nil {
		c.InUse = func(string) int64 { return 0 }
	}
	if c.Observer == nil {
		c.Observer = nobody{}
	}
	f := &Fleet{cfg: c, store: c.Store, keys: keys{c.Prefix}, pools: map[string]*pool{}, news: map[string]word{},
		rung: make(chan struct{}), beat: make(turn, 1), beats: make(chan struct{}, 1), asks: make(chan struct{}, 1),
		gathers: make(chan struct{}, 1)}
	f.names, f.revokes = map[string]ownPool{}, c.Revokes
	f.cfg.Store = counted{c.Store, c.Observer, &f.pace, c.Now}
	f.operator = &Operator{Store: f.cfg.Store, Prefix: c.Prefix, By: c.Member.Name, Now: c.Now, Time: c.Time}
	if c.TTL < MinTTL {
		return nil, fmt.Errorf("the agent's lease of %s is too short: it must be at least %s", enforcer.Span(c.TTL),
			enforcer.Span(MinTTL))
	}
	f.fault = errors.New("the agent has not joined the fleet yet")
	return f, nil
}

// turn is a lock that is held over calls to the store: who waits for it can give up.
type turn chan struct{}

func (t turn) take(ctx context.Context) error {
	select {
	case t <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (t turn) give() { <-t }

// fence is when an agent stops handing out what its lease vouches for: a sixteenth before the lease's end, because no
// two clocks go alike, and one election more, because a member that leads no more may have answered. sent is when the
// lease was last renewed, before the call.
func fence(sent, ttl time.Duration) time.Duration { return sent + ttl - ttl/16 - electionSlack }

// span is for how long after a sign of life of this agent its slots may be in use. mu is held.
func (f *Fleet) span() time.Duration {
	switch {
	case f.cfg.Keep > 0:
		return f.cfg.TTL + f.cfg.Keep + windDown
	case f.revokes:
		return f.cfg.TTL + windDown
	}
	return f.cfg.TTL
}

// Run keeps the membership until ctx ends. It leaves the agent's key to its lease's end: slots that are in use go on
// counting until then.
func (f *Fleet) Run(ctx context.Context) error {
	var running sync.WaitGroup
	running.Go(func() { f.listen(ctx) })
	running.Go(func() { f.tidy(ctx) })
	defer running.Wait()
	tries := 0
	for {
		_, err := f.ready(ctx, true)
		f.notice(ctx, err)
		wait := time.Duration(float64(f.cfg.TTL) / 3 * (0.9 + 0.2*f.cfg.Jitter()))
		if err != nil {
			wait = min(wait, time.Duration(f.cfg.Jitter()*float64(250*time.Millisecond<<min(tries, 8)))+
				50*time.Millisecond)
			if tries++; f.awaits() {
				wait = min(wait, f.cfg.TTL/8) // the other's place ends at any moment
			}
		} else {
			tries = 0
		}
		select {
		case <-ctx.Done():
			return nil
		case <-f.beats:
		case <-time.After(wait):
		}
	}
}

// ready returns the membership while it holds for half the lease's time at least; else, and with again, it renews it.
func (f *Fleet) ready(ctx context.Context, again bool) (membership, error) {
	fresh := func() (membership, bool) {
		f.mu.Lock()
		defer f.mu.Unlock()
		return f.me, f.fault == nil && f.me.until-f.cfg.Now() >= f.cfg.TTL/2
	}
	before := f.cfg.Now()
	if me, ok := fresh(); ok && !again {
		return me, nil
	}
	if err := f.beat.take(ctx); err != nil {
		return membership{}, f.transient(err)
	}
	defer f.beat.give()
	if me, ok := fresh(); ok && (!again || me.until-fence(before, f.cfg.TTL) >= 0) {
		return me, nil // somebody else renewed it meanwhile
	}
	f.mu.Lock()
	me, was := f.me, f.fault
	if me.span < f.span() { // the store must know of it first
		me = membership{}
	}
	f.mu.Unlock()
	ctx, cancel := context.WithTimeout(ctx, f.cfg.TTL/3)
	defer cancel()
	var err error
	if me.lease != 0 {
		me, err = f.renew(ctx, me)
	}
	if me.lease == 0 {
		me, err = f.register(ctx, me)
	}
	f.mu.Lock()
	f.me, f.fault, f.until = me, err, max(f.until, me.until, me.held)
	if err == nil {
		f.why, f.fenced = "", max(f.fenced, me.until)
	}
	f.mu.Unlock()
	if (err == nil) != (was == nil) || err != nil && was != nil && err.Error() != was.Error() {
		f.cfg.OnChange(err)
		if err == nil {
			f.askAgain()
		}
	}
	return me, err
}

// renew has the lease live on, and looks that the agent's key is there still. A membership that is lost comes back
// without its lease.
func (f *Fleet) renew(ctx context.Context, me membership) (membership, error) {
	sent := f.cfg.Now()
	ttl, late, err := f.cfg.Store.Renew(ctx, me.lease)
	sent += late
	if errors.Is(err, ErrLeaseGone) {
		return f.lost(me), nil
	}
	if err != nil {
		return me, f.transient(err)
	}
	names, gets := f.termsInUse()
	was := f.lastSeen()
	known := f.knownMods(names)
	gets = append(append([]Op{{Get: f.keys.cluster()}}, gets...), Op{Get: f.keys.drained(f.cfg.Agent)},
		Op{Get: f.keys.quarantine()})
	res, err := f.cfg.Store.Txn(ctx, &Txn{Kind: KindBeat, If: []Is{has(f.keys.agent(f.cfg.Agent), me.value)},
		Then: gets, Else: []Op{{Get: f.keys.cluster()}}})
	if err != nil {
		return me, f.transient(err)
	}
	if err := f.sane(ctx, res, was); err != nil {
		return me, err
	}
	if !res.Done {
		return f.lost(me), nil
	}
	lacks := f.beheld(res, names, known)
	f.orders(res, len(gets)-2)
	kv, _ := res.one(0)
	if err := f.complete(ctx, kv, was, lacks); err != nil {
		return me, err
	}
	me.until, me.held = fence(sent, min(ttl, f.cfg.TTL)), fence(sent, me.span)
	return me, nil
}

// lost ends a membership. The agent's blocks are its own still, until others take them over: that is not before its
// fence.
func (f *Fleet) lost(me membership) membership {
	f.cfg.Log.Warn("the agent's place in the fleet is lost; it joins again", "incarnation", me.incarnation)
	return membership{}
}

// record is what a restarted agent goes on with.
type record struct {
	Epoch string `json:"epoch"`
	// Incarnations are the latest ones that this start of the host has had, the last one last.
	Incarnations []string      `json:"incarnations"`
	Until        time.Duration `json:"until"` // a bound of the last one's fence
	Seen         seen          `json:"seen"`
}

// load reads the record; what is of another start of the host is nothing but what was seen of the store.
func (f *Fleet) load() (r record, err error) {
	b, err := f.cfg.Load()
	if err != nil || b == nil {
		return r, err
	}
	if err := json.Unmarshal(b, &r); err != nil {
		return record{}, nil // nothing is known: the agent waits until its former lease is over
	}
	if f.cfg.Epoch == "" || r.Epoch != f.cfg.Epoch {
		r.Incarnations, r.Until = nil, 0
	}
	return r, nil
}

// register joins the fleet. An agent of the same key that this one does not follow must be over first: it may be a copy
// of this host, or this host before it was started again.
func (f *Fleet) register(ctx context.Context, _ membership) (membership, error) {
	none := membership{}
	r, err := f.load()
	if err != nil {
		return none, fmt.Errorf("the record of the fleet: %w", err)
	}
	f.mu.Lock()
	first := !f.joined
	if first {
		f.seen = r.Seen
	}
	f.mu.Unlock()
	key, was := f.keys.agent(f.cfg.Agent), f.lastSeen()
	res, err := f.cfg.Store.Txn(ctx, &Txn{Kind: KindJoin, Then: []Op{{Get: f.keys.cluster()}, {Get: key},
		{Get: f.keys.evicted(f.cfg.Agent)}, {Get: f.keys.hold(f.cfg.Agent)}, {Get: f.keys.owns(f.cfg.Agent)},
		{Get: f.keys.drained(f.cfg.Agent)}, {Get: f.keys.quarantine()}, {Get: f.keys.longest()}}})
	if err != nil {
		f.stands("")
		return none, f.transient(err)
	}
	if err := f.sane(ctx, res, was); err != nil {
		return none, err
	}
	if err := f.admitted(res, r); err != nil {
		return none, err
	}
	kv, _ := res.one(1)
	kvOwns, hasOwns := res.one(4)
	owns, err := read[owned](kvOwns, hasOwns)
	if err != nil {
		return none, plugin.Transiently("%v", err)
	}
	most, err := f.longest(res)
	if err != nil {
		return none, plugin.Transiently("%v", err)
	}
	me := membership{incarnation: rand.Text()}
	f.mu.Lock()
	me.span, me.follows = f.span(), slices.Concat(r.Incarnations, f.own)
	f.own = append(f.own, me.incarnation)
	f.own = f.own[max(0, len(f.own)-maxIncarnations):]
	f.mu.Unlock()
	me.value = text(member{me.incarnation, f.cfg.Member.Name, f.cfg.Member.Version, me.span.Seconds()})
	next := record{Epoch: f.cfg.Epoch, Incarnations: append(slices.Clone(r.Incarnations), me.incarnation),
		Seen: f.lastSeen()}
	next.Incarnations = next.Incarnations[max(0, len(next.Incarnations)-maxIncarnations):]
	if err := f.save(next); err != nil { // else a restarted agent would take itself for another host
		return none, fmt.Errorf("the record of the fleet: %w", err)
	}
	sent := f.cfg.Now()
	lease, ttl, err := f.cfg.Store.Grant(ctx, f.cfg.TTL)
	if err != nil {
		return none, f.transient(err)
	}
	res, err = f.cfg.Store.Txn(ctx,
		&Txn{Kind: KindJoin, If: []Is{still(key, kv.Mod), absent(f.keys.evicted(f.cfg.Agent)),
			absent(f.keys.hold(f.cfg.Agent)), still(f.keys.owns(f.cfg.Agent), kvOwns.Mod)},
			Then: append([]Op{{Put: key, Value: me.value, Lease: lease}}, most...)})
	if err != nil {
		return none, f.transient(err) // the lease ends by itself; if the key is there, the record has its incarnation
	}
	if !res.Done {
		return none, plugin.Transiently(
			"keys of this agent changed while it joined: another has its key, or somebody puts it out or tidies up")
	}
	me.lease, me.until, me.held = lease, fence(sent, min(ttl, f.cfg.TTL)), fence(sent, me.span)
	f.entered(owns.Pools)
	return me, nil
}

// admitted says why this agent may not follow what is in the fleet with its key.
func (f *Fleet) admitted(res *Result, r record) error {
	f.orders(res, 5)
	if kv, out := res.one(2); out {
		f.stands(StateEvicted)
		return f.evicted(kv)
	}
	if _, held := res.one(3); held {
		f.stands(StateEvicted)
		return plugin.Transiently("an operator had put this agent out of the fleet; it may join in a moment")
	}
	kv, there := res.one(1)
	was, err := read[member](kv, there)
	if err != nil {
		return plugin.Transiently("%v", err)
	}
	if there && !slices.Contains(r.Incarnations, was.Incarnation) {
		e := plugin.Transiently("another host, or this one before it was started again, is in the fleet with this " +
			"agent's key; this one waits until that has gone")
		e.Hint = "where a host was copied, give the copy a key of its own: see agent.key_file"
		f.stands(StateWaiting)
		return e
	}
	f.stands("")
	return nil
}

func (f *Fleet) lastSeen() seen {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.seen
}

func (f *Fleet) save(r record) error { return f.cfg.Save([]byte(text(r))) }
