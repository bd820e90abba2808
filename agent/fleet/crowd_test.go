package fleet

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/usher-agent/usher/agent/bubble"
	"github.com/usher-agent/usher/agent/shares"
	"github.com/usher-agent/usher/enforcer"
	"github.com/usher-agent/usher/plugin"
)

var (
	seeds = flag.Int("fleet.seeds", 15, "how many histories TestCrowd plays")
	from  = flag.Int("fleet.from", 0, "the number of the first history that TestCrowd, its servers and its rules play")
)

// crowd is agents with their keepers on one simulated store, and what they may hand out together.
type crowd struct {
	t     testing.TB
	sim   *sim
	rng   *rand.Rand
	begin time.Time

	observer Observer // of all agents' calls; nil: nobody counts them

	mu     sync.Mutex // guards all below and the agents' states
	agents []*host
	twins  []*host // copies of hosts
	limit  int64   // the lowest that a licence in force on a living agent grants
	wrong  string  // the first instant at which more might be handed out
	served int64
	sparse bool        // what may be handed out is added up now and then, not after each change
	rules  *crowdRules // nil: there are none
}

// host is one host: its agent may die and be started again.
type host struct {
	c      *crowd
	id     string
	way    *way
	drift  float64
	epoch  string
	chance *chance

	blocks, record []byte // what is on its disk

	// The crowd's mu guards what follows.
	alive   bool
	stop    func()
	keeper  *shares.Keeper
	fleet   *Fleet
	inUse   int64
	waiting int64
	since   time.Time
	cap     int64
	fence   time.Duration
	longest time.Duration // that somebody waited
	keep    time.Duration // for how long leases run on in a partition
	kept    int64         // slots that may stay held beside those that may be handed out
	stopped int           // how often it died
	licence *enforcer.License
	spread  spread
	keeping keeping
	labels  map[string]string
}

func site(n int64) *enforcer.License {
	return &enforcer.License{ID: "L1", System: "usher", Product: "acme",
		Pools: map[string]enforcer.PoolTerm{"streams": {Max: enforcer.Limit(n)}}}
}

func newCrowd(t testing.TB, seed uint64, hosts int, limit int64) *crowd {
	c := &crowd{t: t, sim: newSim(), rng: rand.New(rand.NewPCG(seed, 1)), begin: time.Now(), limit: limit}
	c.sim.passed = newPassings()
	for i := range hosts {
		h := &host{c: c, id: fmt.Sprint("agent", i), epoch: "boot",
			drift: 1 + (c.rng.Float64()*2-1)/32, licence: site(limit)}
		h.chance = &chance{seed: seed, host: h.id, begin: c.begin}
		h.way = &way{sim: c.sim, chance: h.chance}
		c.agents = append(c.agents, h)
	}
	return c
}

func (h *host) now() time.Duration {
	return time.Hour + time.Duration(float64(time.Since(h.c.begin))*h.drift)
}

// start starts the host's agent.
func (h *host) start() {
	f, err := New(Config{Store: h.way, Agent: h.id, Prefix: "/u/", TTL: 10 * time.Second, Now: h.now, Epoch: h.epoch,
		Keep: h.keep, spread: h.spread, keeping: h.keeping, Member: Member{Labels: h.labels}, Observer: h.c.observer,
		Load: func() ([]byte, error) { return h.record, nil },
		Save: func(b []byte) error { h.record = b; return nil },
		Time: h.chance.wall, Jitter: h.chance.of("fleet")})
	if err != nil {
		h.c.t.Fatal(err)
	}
	k, err := shares.New(shares.Config{
		Blocks: shares.File{Path: "blocks", Read: func(string) ([]byte, error) {
			if h.blocks == nil {
				return nil, fs.ErrNotExist
			}
			return h.blocks, nil
		}, Write: func(_ string, b []byte) error { h.blocks = b; return nil }},
		Draws:  shares.File{Read: func(string) ([]byte, error) { return nil, fs.ErrNotExist }},
		BootID: h.epoch, Now: h.now, Time: h.chance.wall, CallWithin: 8 * time.Second, Jitter: h.chance.of("keeper"),
		Request: func(l *enforcer.License, doc []byte) plugin.Request {
			return plugin.Request{LicenseID: l.ID, Product: l.Product, Document: doc}
		},
		Pool: func(string) shares.PoolDemand {
			h.c.mu.Lock()
			defer h.c.mu.Unlock()
			return shares.PoolDemand{InUse: h.inUse, Waiting: h.waiting, Capacity: h.cap}
		},
		OnChange: h.changed})
	if err != nil {
		h.c.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	h.c.mu.Lock()
	h.alive, h.keeper, h.fleet, h.inUse, h.waiting, h.cap = true, k, f, 0, 0, 0
	h.stop = func() { cancel(); running.Wait() }
	h.c.mu.Unlock()
	h.reload(h.licence)
	running.Go(func() { f.Run(ctx) })
	running.Go(func() {
		time.Sleep(time.Microsecond) // the agent's two parts do not begin in one instant, which has no order
		k.Run(ctx)
	})
}

// reload has a licence in force.
func (h *host) reload(l *enforcer.License) {
	doc, _ := json.Marshal(l)
	h.keeper.Set([]shares.Licence{{License: l, Document: doc,
		Budgeter: h.fleet.For(l, doc, nil, func(string) bool { return true })}})
	h.changed()
}

// die is a kill -9, with all that the agent's slots are for.
func (h *host) die() {
	h.way.set(true, nil, nil)
	h.c.mu.Lock()
	h.alive, h.inUse, h.waiting, h.cap = false, 0, 0, 0
	h.stopped++
	h.c.mu.Unlock()
	h.stop()
	h.way.set(false, nil, nil)
}

// changed puts the keeper's budget in force, as a verdict does.
func (h *host) changed() {
	var facts enforcer.Facts
	fence := h.keeper.Fill(&facts, time.Time{})
	budgets := facts.Budgets
	kept, bounded := facts.Kept[enforcer.Share{License: "usher/L1", Pool: "streams"}]
	h.c.mu.Lock()
	defer h.c.mu.Unlock()
	if !h.alive {
		return
	}
	h.cap, h.fence = int64(budgets[enforcer.Share{License: "usher/L1", Pool: "streams"}]), fence
	h.keptOn(int64(kept), bounded)
	if free := max(0, min(h.waiting, h.grantable()-h.inUse)); free > 0 {
		h.inUse, h.waiting, h.c.served = h.inUse+free, h.waiting-free, h.c.served+free
		if h.waiting == 0 {
			h.longest = max(h.longest, time.Since(h.since))
		}
	}
	if !h.c.sparse {
		h.c.check()
	}
}

// usable is what the agent may hand out at this instant. mu is held.
func (h *host) usable() int64 {
	if !h.alive || h.fence != 0 && h.now() >= h.fence {
		return h.stillHeld(0)
	}
	return h.stillHeld(h.cap)
}

// check adds up what all might hand out. mu is held.
func (c *crowd) check() {
	var sum int64
	all := append(slices.Clone(c.agents), c.twins...)
	for _, h := range all {
		sum += h.usable()
	}
	c.checkRules(all)
	if sum > c.limit && c.wrong == "" {
		c.wrong = fmt.Sprintf("after %s %d slots might be handed out; the limit is %d:", time.Since(c.begin), sum,
			c.limit)
		for _, h := range all {
			c.wrong += fmt.Sprintf(" %s %d until %s (now %s)", h.id, h.usable(), h.fence, h.now())
		}
	}
}

// act gives some slots back, or has somebody wait for more.
func (h *host) act(n int64, back bool) {
	h.c.mu.Lock()
	if h.alive {
		if h.inUse > 0 && back {
			h.inUse -= min(h.inUse, n)
		} else if h.waiting == 0 {
			h.waiting, h.since = n, time.Now()
		}
	}
	k := h.keeper
	h.c.mu.Unlock()
	if k != nil {
		k.Nudge()
		h.changed()
	}
}

// sum returns the total in the store, without what is free in its shares, and the sum of the blocks.
func (c *crowd) sum() (out, blocks int64) {
	res, err := c.sim.txn(&Txn{Then: []Op{{List: "/u/p/"}}})
	if err != nil {
		c.t.Fatal(err)
	}
	for _, kv := range res.Got[0] {
		if v, err := read[held](kv, true); err == nil {
			blocks += v.sum()
		}
		if v, err := read[total](kv, true); err == nil {
			out += v.Out
		}
		if v, err := read[share](kv, true); err == nil {
			out -= v.Free // of a share of the total
		}
	}
	return out, blocks
}

// fault is a fault of something, and when it ends.
type fault struct {
	of any
	at time.Time
}

// history is one history of faults and want.
type history struct {
	*crowd
	rng     *rand.Rand
	ends    map[any]func() // what ends each fault
	faults  []fault        // those, the first that began first
	backup  *sim
	lowered time.Time // when a licence with fewer slots came; zero: none is on its way
	next    int64     // its limit
	raised  bool
	cutFor  time.Duration // the longest that an agent is cut off
	// calmness is how many acts there are, on the average, between two troubles of a kind
	calmness int
	grab     bool   // little is given back
	looks    func() // now and then; nil: nothing more is looked at
}

// fault begins a fault of something that has none, for a random time up to most.
func (y *history) fault(of any, most time.Duration, begin, end func()) {
	if y.ends[of] == nil {
		begin()
		y.ends[of] = end
		y.faults = append(y.faults, fault{of, time.Now().Add(time.Duration(y.rng.Int64N(int64(most))))})
	}
}

// end ends the faults that are over.
func (y *history) end(over func(fault) bool) {
	y.faults = slices.DeleteFunc(y.faults, func(f fault) bool {
		if !over(f) {
			return false
		}
		y.ends[f.of]()
		delete(y.ends, f.of)
		return true
	})
}

// play plays one history, ends with calm, and looks that all are served.
func play(t testing.TB, seed uint64, keeps ...time.Duration) {
	playAs(t, seed, func(*history) {}, keeps...)
}

// playAs is play of a crowd that was prepared.
func playAs(t testing.TB, seed uint64, prepare func(*history), keeps ...time.Duration) {
	y := &history{crowd: newCrowd(t, seed, 3+int(seed%6), 10+int64(seed%20)), rng: rand.New(rand.NewPCG(seed, 3)),
		ends: map[any]func(){}}
	y.calmness = 60
	y.inShares(seed)
	prepare(y)
	first := 12 * time.Second // the new store's quarantine
	for i, h := range y.agents {
		if y.grab = len(keeps) > 0; y.grab {
			y.calmness = 30
			h.keep = keeps[i%len(keeps)]
			first = max(first, 12*time.Second+h.keep+windDown)
		}
	}
	for _, h := range y.agents {
		h.start()
	}
	y.cutFor = first + 5*time.Second
	time.Sleep(first)
	for range 300 {
		time.Sleep(time.Duration(y.rng.Int64N(int64(500 * time.Millisecond))))
		y.end(func(f fault) bool { return !time.Now().Before(f.at) })
		y.mu.Lock()
		if !y.lowered.IsZero() && time.Since(y.lowered) > 50*time.Second+first {
			y.limit, y.lowered = y.next, time.Time{} // all have heard of it, or reached their fence
		}
		y.mu.Unlock()
		h := y.agents[y.rng.IntN(len(y.agents))]
		if !y.trouble(h, y.rng.IntN(y.calmness)) {
			h.act(1+y.rng.Int64N(4), y.rng.IntN(2) == 0 && (!y.grab || y.rng.IntN(4) == 0))
		}
		y.overdue()
		if y.looks != nil {
			y.looks()
		}
		y.mu.Lock()
		y.check()
		y.mu.Unlock()
	}
	y.end(func(fault) bool { return true })
	y.calm()
}

// trouble makes one kind of trouble; false: what is no kind.
func (y *history) trouble(h *host, what int) bool {
	switch what {
	case 0, 1:
		y.fault(h, 20*time.Second, h.die, h.start)
	case 2:
		y.fault(h.way, y.cutFor, func() { h.way.set(true, nil, nil) }, func() { h.way.set(false, nil, nil) })
	case 3, 4:
		y.fault(h.way, 10*time.Second, func() {
			h.way.belated(what == 4, h.chance)
			h.way.set(false, func(call string) bool { return h.chance.float("lose "+call)*4 < 1 },
				func(call string) time.Duration {
					return time.Duration(h.chance.float("delay "+call) * float64(2*time.Second))
				})
		}, func() { h.way.set(false, nil, nil) })
	case 5:
		y.sim.elect()
	case 6:
		y.fault(y.sim, 8*time.Second, func() { y.sim.quorum(false) }, func() { y.sim.quorum(true) })
	case 7:
		if y.ends[h] == nil {
			h.die()
			h.epoch += "'" // the host is started again
			h.start()
		}
	case 8:
		if y.backup == nil {
			y.backup = y.sim.snapshot()
		} else {
			y.sim.restore(y.backup)
			y.backup = nil
		}
	case 9, 10:
		y.renew(what == 9)
	default:
		return y.worse(h, what)
	}
	return true
}

// renew has a licence with fewer slots, or once with more, come to the hosts.
func (y *history) renew(fewer bool) {
	least := int64(len(y.agents))
	y.mu.Lock()
	limit := y.limit
	y.mu.Unlock()
	switch {
	case !y.lowered.IsZero() || y.raised:
	case fewer && limit > least:
		y.next, y.lowered = least+y.rng.Int64N(limit-least), time.Now()
		for _, h := range y.agents {
			h.take(site(y.next))
		}
	case !fewer: // it comes to them one after the other
		y.raised = true
		more := site(limit + 5)
		y.mu.Lock()
		y.limit += 5 // while no block of the former licence is there
		y.mu.Unlock()
		for _, h := range y.agents[1:] {
			h.take(more)
		}
		y.fault(y, 30*time.Second, func() {}, func() { y.agents[0].take(more) })
	}
}

// take has a licence in force on a host, also after its agent's death.
func (h *host) take(l *enforcer.License) {
	h.c.mu.Lock()
	h.licence = l
	alive := h.alive
	h.c.mu.Unlock()
	if alive {
		h.reload(l)
	}
}

// calm ends all faults, has each agent want one slot, and waits until all have one.
func (c *crowd) calm() {
	c.sim.quorum(true)
	for _, h := range c.agents {
		h.way.set(false, nil, nil)
		c.mu.Lock()
		alive := h.alive
		c.mu.Unlock()
		if !alive {
			h.start()
		}
	}
	for _, h := range c.agents {
		c.mu.Lock()
		h.inUse, h.waiting, h.since = 0, 1, time.Now()
		c.mu.Unlock()
		h.changed()
		h.keeper.Nudge()
	}
	// The key of a host that was started again or copied ends, and the agent sees that it has; what it had before is
	// free after as long again, by its own clock; and idle slots move. docs/fleet.md promises as much.
	const ttl = 10 * time.Second
	within := 2*(ttl+ttl/32) + ttl/8 + 2*time.Second
	if c.agents[0].keep > 0 || c.rules != nil {
		within = 2 * time.Minute
	}
	begin := time.Now()
	for _, h := range c.agents {
		for {
			c.mu.Lock()
			ok := h.inUse > 0
			c.mu.Unlock()
			if ok {
				break
			}
			if time.Since(begin) > within {
				c.t.Errorf("%s waits for its slot still after %s", h.id, within)
				break
			}
			time.Sleep(50 * time.Millisecond)
		}
	}
	if out, blocks := c.sum(); out != blocks || out > c.limit {
		c.t.Errorf("the total is %d, the blocks have %d; the limit is %d", out, blocks, c.limit)
	}
	writes := int64(c.sim.wrote())
	c.mu.Lock()
	served := c.served
	c.mu.Unlock()
	c.t.Logf("all served after %s; %d writes, %d slots served", time.Since(begin), writes, served)
	if most := 200 + 10*served; writes > most {
		c.t.Errorf("%d writes to the store for %d slots that were served; at most %d are well", writes, served, most)
	}
	c.end()
	if c.wrong != "" {
		c.t.Error(c.wrong)
	}
	if c.sim.passed.worst != "" {
		c.t.Error(c.sim.passed.worst)
	}
}

// Agents that die, are cut off, whose clocks go wrong, and whose store loses its leader or its quorum never hand out
// more together than the licence grants, and when all is well again everybody is served.
func TestCrowd(t *testing.T) {
	for i := range *seeds {
		seed := *from + i
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			bubble.Test(t, func(t *testing.T) { play(t, uint64(seed)) })
		})
		if t.Failed() {
			return
		}
	}
}
