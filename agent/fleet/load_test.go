package fleet

import (
	"flag"
	"fmt"
	"math"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/usher-agent/usher/agent/bubble"
)

var (
	loadAgents = flag.String("fleet.load", "", "measure the simulated load of so many agents, and print it")
	loadHold   = flag.Duration("fleet.hold", 30*time.Second, "for how long a slot is held in it on the average")
	loadTrip   = flag.Duration("fleet.trip", 2*time.Millisecond, "how long a round trip to the store takes in it")
	loadAlone  = flag.Bool("fleet.alone", false, "whether it has one total for all agents, and no shares")
)

// load is callers that come at random, hold one slot each for a while, and wait so long for it.
type load struct {
	*crowd
	rng  *rand.Rand
	need float64       // slots that are needed on the average, on all hosts
	hold time.Duration // for how long a slot is held on the average
	wait time.Duration

	apart bool // hosts' callers act one host after the other, not all at one instant

	calls                  int // of the store
	acquires, denied, late int // late: served after more than two seconds
	longest                time.Duration
}

// callers is those of one host.
type callers struct {
	*host
	queue    []time.Time // when those that wait began
	releases []time.Time
}

const loadTick = 50 * time.Millisecond

// run has the load for a time, and counts from warm on. It returns the writes of the store since.
func (l *load) run(warm, span time.Duration) (writes int) {
	var all []*callers
	for _, h := range l.agents {
		all = append(all, &callers{host: h})
	}
	before, calls := 0, 0
	l.mu.Lock()
	l.sparse = true
	l.mu.Unlock()
	for at := time.Duration(0); at < warm+span; at += loadTick {
		if !l.apart {
			time.Sleep(loadTick)
		}
		l.mu.Lock()
		l.check()
		l.mu.Unlock()
		counts := at >= warm
		if at == warm {
			before, calls = l.sim.wrote(), l.sim.called()
			if c, ok := l.observer.(*tallied); ok {
				c.mark()
			}
		}
		for _, c := range all {
			if l.apart {
				time.Sleep(loadTick / time.Duration(len(all)))
			}
			l.tick(c, counts)
		}
	}
	l.calls = l.sim.called() - calls
	return l.sim.wrote() - before
}

func (s *sim) called() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.calls
}

func (s *sim) wrote() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.writes
}

// tick has callers of one host come, go, and give up.
func (l *load) tick(c *callers, counts bool) {
	now := time.Now()
	l.serve(c, now, counts)
	ended := int64(0)
	for i := 0; i < len(c.releases); i++ {
		if !c.releases[i].After(now) {
			c.releases[i] = c.releases[len(c.releases)-1]
			c.releases = c.releases[:len(c.releases)-1]
			i--
			ended++
		}
	}
	gaveUp := int64(0)
	for len(c.queue) > 0 && now.Sub(c.queue[0]) >= l.wait {
		c.queue = c.queue[1:]
		if gaveUp++; counts {
			l.denied++
		}
	}
	rate := l.need / l.hold.Seconds() / float64(len(l.agents)) * loadTick.Seconds()
	come := int64(0)
	for p := l.rng.Float64(); p > math.Exp(-rate); p *= l.rng.Float64() {
		c.queue = append(c.queue, now)
		if come++; counts {
			l.acquires++
		}
	}
	if ended+gaveUp+come == 0 {
		return
	}
	l.mu.Lock()
	c.inUse -= ended
	c.waiting += come - gaveUp
	l.mu.Unlock()
	c.changed()
	c.keeper.Nudge()
	l.serve(c, now, counts)
}

// serve finds out who was granted a slot.
func (l *load) serve(c *callers, now time.Time, counts bool) {
	l.mu.Lock()
	waiting := int(c.waiting)
	l.mu.Unlock()
	for len(c.queue) > waiting {
		took := now.Sub(c.queue[0])
		c.queue = c.queue[1:]
		c.releases = append(c.releases, now.Add(time.Duration(l.rng.ExpFloat64()*float64(l.hold))))
		if counts {
			l.longest = max(l.longest, took)
			if took > 2*time.Second {
				l.late++
			}
		}
	}
}

// measure plays a load on so many agents, and returns what came of it.
func measure(t testing.TB, agents int, limit int64, need float64, hold, wait, warm, span time.Duration,
	tune ...func(*crowd)) (l *load, writes int) {
	c := newCrowd(t, uint64(agents), agents, limit)
	c.sim.passed = nil
	for _, f := range tune {
		f(c)
	}
	for _, h := range c.agents {
		h.start()
	}
	time.Sleep(12 * time.Second)
	l = &load{crowd: c, apart: c.observer != nil, rng: rand.New(rand.NewPCG(uint64(agents), 7)), need: need, hold: hold,
		wait: wait}
	writes = l.run(warm, span)
	if c, ok := c.observer.(*tallied); ok {
		c.mark() // what comes when all die is no load
	}
	c.end()
	if c.wrong != "" {
		t.Error(c.wrong)
	}
	return l, writes
}

// end has all agents die at once: one that dies waits for seconds for calls that get no answer, and the others go on
// meanwhile.
func (c *crowd) end() {
	var all sync.WaitGroup
	for _, h := range c.agents {
		all.Go(h.die)
	}
	all.Wait()
}

// Where 100 slots stand against a mean need of 50 and callers wait for five seconds, at most one in a hundred is denied
// because other hosts have idle slots.
func TestHoarding(t *testing.T) {
	for _, agents := range []int{6, 20} {
		bubble.Test(t, func(t *testing.T) {
			l, writes := measure(t, agents, 100, 50, 10*time.Second, 5*time.Second, time.Minute, 4*time.Minute)
			t.Logf(
				"%d agents: %d acquires, %d denied, %d served after 2 s, the last after %s; %d writes, %.4f an acquire",
				agents, l.acquires, l.denied, l.late, l.longest, writes, float64(writes)/float64(l.acquires))
			if share := float64(l.denied) / float64(l.acquires); share > 0.01 {
				t.Errorf("%d agents: %.1f %% of %d acquires were denied", agents, 100*share, l.acquires)
			}
		})
	}
}

// In a steady state an acquire costs the store at most a hundredth of a write.
func TestWritesPerAcquire(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		l, writes := measure(t, 6, 600, 240, 2*time.Second, 5*time.Second, time.Minute, 3*time.Minute)
		t.Logf("%d acquires, %d denied, %d writes: %.4f an acquire", l.acquires, l.denied, writes,
			float64(writes)/float64(l.acquires))
		if share := float64(writes) / float64(l.acquires); share > 0.01 {
			t.Errorf("%d writes for %d acquires are %.4f an acquire", writes, l.acquires, share)
		}
	})
}

// TestLoad prints figures of docs/scale.md.
func TestLoad(t *testing.T) {
	if *loadAgents == "" {
		t.Skip("-fleet.load is not given")
	}
	var n int
	if _, err := fmt.Sscan(*loadAgents, &n); err != nil {
		t.Fatal(err)
	}
	bubble.Test(t, func(t *testing.T) {
		calls := &tallied{}
		l, writes := measure(t, n, int64(10*n), float64(5*n), *loadHold, 5*time.Second, 15*time.Second, 30*time.Second,
			func(c *crowd) {
				c.observer = calls
				for _, h := range c.agents {
					h.spread.none = *loadAlone
					h.way.set(false, nil, func(string) time.Duration { return *loadTrip / 2 })
				}
			})
		t.Logf(
			"%d agents: %d acquires, %d denied, the longest wait %s, %.4f writes an acquire, %d writes and %d calls "+
				"a second", n, l.acquires, l.denied, l.longest, float64(writes)/float64(l.acquires), writes/30,
			l.calls/30)
		for i, phase := range []string{"at the start", "then"} {
			n := calls.phases[i]
			done, undone, reads := n[KindChange][Done], n[KindChange][Conflict], n[KindRead][Done]
			t.Logf("%s %d changes of blocks were done, %d were undone by others: %.1f %%; %.2f round trips a change",
				phase, done, undone, 100*float64(undone)/float64(max(1, done+undone)),
				float64(reads+done+undone)/float64(max(1, done)))
		}
	})
}

// tallied counts calls to the store.
type tallied struct {
	nobody
	mu     sync.Mutex // guards all below
	all    map[Kind]map[Outcome]int
	phases []map[Kind]map[Outcome]int // until each mark
}

// mark ends a phase, and begins to count from nothing.
func (c *tallied) mark() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.phases, c.all = append(c.phases, c.all), nil
}

func (c *tallied) Called(kind Kind, outcome Outcome, _ time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.all == nil {
		c.all = map[Kind]map[Outcome]int{}
	}
	if c.all[kind] == nil {
		c.all[kind] = map[Outcome]int{}
	}
	c.all[kind][outcome]++
}
