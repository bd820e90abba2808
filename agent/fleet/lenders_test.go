package fleet

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/usher-agent/usher/plugin"
)

// lending is site servers that have their slots from one fleet, and agents that have them from those: simulated, with
// the rules of a site server reduced to what the fleet rests on.
type lending struct {
	t       *testing.T
	rig     *rig
	rng     *rand.Rand
	lenders []*server
	agents  []*borrower
	limit   int64 // that holds
	next    int64 // the licence's that the servers have
	lowered time.Time
	moved   int // parts that another server took over
	wrong   string
}

// server is one site server.
type server struct {
	of     *lending
	id     string
	epoch  string
	limit  int64 // of its licence
	record []byte
	way    *hooked
	mu     sync.Mutex       // guards loans, of which the fleet takes some away
	loans  map[string]*loan // on its disk
	fleet  *Fleet           // nil: it does not run
	bound  *Bound
	has    int64
	until  time.Duration
	stop   func()
}

// loan is a part of a server's slots that an agent has.
type loan struct {
	n     int64
	until time.Duration
}

// borrower is one agent: it may hand out n slots until then.
type borrower struct {
	id    string
	from  *server
	part  string
	n     int64
	until time.Duration
	asked time.Duration
}

// loanTime is how long a part is lent, as of servers that renew their place every third of ten seconds.
const loanTime = time.Minute

func (l *lending) now() time.Duration { return time.Hour + time.Since(l.rig.begin) }

func (s *server) start() {
	s.fleet, s.way = s.of.rig.agent(s.id, &s.record)
	s.fleet.cfg.Epoch, s.fleet.cfg.Keep, s.fleet.cfg.Lends = s.epoch, loanTime+loanTime/15+2*time.Second, true
	s.fleet.cfg.OnMoved = func(_ string, parts []string) error {
		s.mu.Lock()
		defer s.mu.Unlock()
		for _, id := range parts {
			delete(s.loans, id)
		}
		return nil
	}
	s.bound, s.has, s.until = s.of.rig.bound(s.fleet, s.limit), 0, 0
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { s.fleet.Run(ctx) })
	s.stop = func() { cancel(); running.Wait() }
}

func (s *server) die() {
	if s.fleet != nil {
		s.stop()
		s.fleet = nil
	}
}

// out is how many slots the agents of a server may have.
func (s *server) out() (n int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, x := range s.loans {
		if x.until > s.of.now() {
			n += x.n
		}
	}
	return n
}

// note writes down what an agent has.
func (s *server) note(id string, x *loan) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.loans[id] = x
}

// pass has a server's slots fit what its agents have.
func (s *server) pass() {
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Second)
	defer cancel()
	var got *plugin.Block
	var err error
	sent, want := s.of.now(), s.out()+2
	if part := s.bound.Part("streams", s.has); part < s.has {
		want = max(s.out(), part)
	}
	if s.has == 0 {
		got, err = s.bound.CheckOut(ctx, &plugin.CheckOut{Pool: "streams", Slots: want, AtLeast: 1, For: time.Hour,
			Token: "broker"})
	} else {
		got, err = s.bound.Extend(ctx, &plugin.Extend{Block: BlockID("broker"), Slots: want, For: time.Hour})
	}
	if got != nil {
		s.has, s.until = got.Slots, sent+got.For
	} else if isLapsed(err) {
		s.has, s.until = 0, 0
	}
}

// lend gives an agent a part of n slots, or one that it has more time; false: it does not.
func (s *server) lend(a *borrower, id string, n int64) bool {
	now := s.of.now()
	if s.fleet == nil || now >= s.until {
		return false
	}
	s.mu.Lock()
	x := s.loans[id]
	s.mu.Unlock()
	others, all := s.out(), min(s.has, s.bound.Part("streams", s.has))
	if x != nil && x.until > now {
		others -= x.n
	}
	if others+n > all && x != nil { // the limit has shrunk: each agent keeps its part
		n = n * all / (others + n)
	}
	if n <= 0 || x == nil && others+n > all {
		return false
	}
	s.note(id, &loan{n, now + loanTime})
	a.from, a.part, a.n, a.until, a.asked = s, id, n, now+loanTime-loanTime/16, now
	return true
}

// ask has an agent ask for more time, of another server where its own does not answer, or for a part.
func (l *lending) ask(a *borrower) {
	now := l.now()
	if a.n > 0 && now >= a.until {
		a.n = 0
	}
	other := l.lenders[l.rng.IntN(len(l.lenders))]
	switch {
	case a.n == 0:
		other.lend(a, fmt.Sprint(a.id, now), 1+l.rng.Int64N(4))
	case now-a.asked < loanTime/6 || a.from.lend(a, a.part, a.n):
	case other != a.from && other.fleet != nil && now < other.until:
		ctx, cancel := context.WithTimeout(context.Background(), 3*time.Second)
		defer cancel()
		got, err := other.bound.Adopt(ctx, a.from.id, "streams", a.part, BlockID("broker"), a.n)
		if isLapsed(err) {
			a.n = 0
		} else if err == nil {
			l.moved++
			other.has, other.until = got.Slots, now+got.For
			other.note(a.part, &loan{a.n, l.now() + loanTime})
			a.from, a.until, a.asked = other, l.now()+loanTime-loanTime/16, l.now()
		}
	}
	l.check()
}

// check adds up what all agents may hand out.
func (l *lending) check() {
	if !l.lowered.IsZero() && time.Since(l.lowered) > 2*loanTime {
		l.limit, l.lowered = l.next, time.Time{}
	}
	sum := int64(0)
	for _, a := range l.agents {
		if l.now() < a.until {
			sum += a.n
		}
	}
	if sum > l.limit && l.wrong == "" {
		l.wrong = fmt.Sprintf("after %s agents may hand out %d of %d slots", time.Since(l.rig.begin), sum, l.limit)
	}
}

// trouble makes one of what befalls servers.
func (l *lending) trouble() {
	s := l.lenders[l.rng.IntN(len(l.lenders))]
	switch l.rng.IntN(7) {
	case 0, 1:
		s.die()
	case 2: // it is back, on another start of its host now and then
		if s.fleet == nil {
			if l.rng.IntN(3) == 0 {
				s.epoch += "'"
			}
			s.start()
		}
	case 3: // it is replaced for good
		if s.fleet == nil && len(l.lenders) < 8 {
			n := l.add()
			l.lenders = slices.DeleteFunc(l.lenders, func(o *server) bool { return o == s })
			n.start()
		}
	case 4:
		if s.fleet != nil {
			way := s.way
			way.set(true, nil, nil)
			time.AfterFunc(time.Duration(l.rng.Int64N(int64(40*time.Second))), func() { way.set(false, nil, nil) })
		}
	case 5:
		if l.rig.sim.elect(); l.rng.IntN(2) == 0 {
			l.rig.sim.revoke(s.id) // though its time is not over
		}
	default:
		if l.lowered.IsZero() && l.next > 6 { // also where a server is away
			l.next, l.lowered = 6+l.rng.Int64N(l.next-6), time.Now()
			for _, s := range l.lenders {
				if s.limit = l.next; s.fleet != nil {
					s.bound = l.rig.bound(s.fleet, s.limit)
				}
			}
		}
	}
}

func (l *lending) add() *server {
	s := &server{of: l, id: fmt.Sprint("server", l.rng.Int64()), epoch: "boot", limit: l.next,
		loans: map[string]*loan{}}
	l.lenders = append(l.lenders, s)
	return s
}

// lend plays one history.
func lend(t *testing.T, seed uint64) (moved int) {
	l := &lending{t: t, rig: newRig(t), rng: rand.New(rand.NewPCG(seed, 5)), limit: 20, next: 20}
	for range 3 {
		l.add().start()
	}
	for i := range 6 {
		l.agents = append(l.agents, &borrower{id: fmt.Sprint("agent", i)})
	}
	time.Sleep(2 * time.Minute) // the new store's quarantine
	for step := range 600 {
		time.Sleep(time.Second)
		for _, s := range l.lenders {
			if s.fleet != nil {
				s.pass()
			}
		}
		for _, a := range l.agents {
			l.ask(a)
		}
		if step%12 == 0 {
			l.trouble()
		}
	}
	for _, s := range l.lenders {
		if s.fleet == nil {
			s.start()
		}
		s.way.set(false, nil, nil)
	}
	for range 4 * 60 { // what nobody has any more comes free
		time.Sleep(time.Second)
		for _, s := range l.lenders {
			s.pass()
		}
		for _, a := range l.agents {
			l.ask(a)
		}
	}
	for _, a := range l.agents {
		if l.limit >= 12 && a.n == 0 {
			t.Errorf("seed %d: %s has no slots, of %d", seed, a.id, l.limit)
		}
	}
	if out, sum := l.rig.sums(); out != sum || out > 20 {
		t.Errorf("seed %d: the total is %d, the blocks have %d", seed, out, sum)
	}
	if l.wrong != "" {
		t.Errorf("seed %d: %s", seed, l.wrong)
	}
	for _, s := range l.lenders {
		s.die()
	}
	return l.moved
}

// Site servers that lend their slots on, die, come back on the same or another start of their host, are replaced, lose
// etcd, and get a licence with fewer slots while some are away, never have agents hand out more together than the
// licence grants; agents move with what they have.
func TestCrowdOfServers(t *testing.T) {
	moved := 0
	for seed := range uint64(max(3, *seeds/10)) {
		synctest.Test(t, func(t *testing.T) { moved += lend(t, seed) })
	}
	if t.Logf("%d parts were taken over", moved); moved == 0 {
		t.Error("no part was taken over")
	}
}
