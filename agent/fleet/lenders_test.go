package fleet

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/usher-agent/usher/agent/bubble"
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
	most    int64 // that an agent asks for
	next    int64 // the licence's that the servers have
	lowered time.Time
	moved   int // parts that another server took over
	soon    int // of those, parts of a server that had stopped
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
	left   bool // it has stopped lending
	drains bool // an operator has it stop
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
	s.bound, s.has, s.until, s.left = s.of.rig.bound(s.fleet, s.limit), 0, 0, false
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

// leave has a server stop lending, and say so; false: it could not say it.
func (s *server) leave() bool {
	s.left = true
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Second)
	defer cancel()
	lent := map[string]int64{}
	s.mu.Lock()
	for id, x := range s.loans {
		if x.until > s.of.now() {
			lent[id] = x.n
		}
	}
	s.mu.Unlock()
	return s.bound.Leave(ctx, "streams", BlockID("broker"), lent) == nil
}

// drain has a server stop lending, and go on later.
func (s *server) drain(on bool) {
	if s.drains = on; !on && s.left {
		s.fleet.Stay()
		s.has, s.until, s.left = 0, 0, false
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
	if s.drains {
		s.leave()
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Second)
	defer cancel()
	var got *plugin.Block
	var err error
	sent, want := s.of.now(), s.out()+2
	if part := s.bound.Part("streams", s.has); part < s.has {
		want = max(s.out(), part)
	}
	if had := s.has; had == 0 {
		got, err = s.bound.CheckOut(ctx, &plugin.CheckOut{Pool: "streams", Slots: want, AtLeast: 1, For: time.Hour,
			Token: "broker"})
	} else {
		s.has = min(had, max(want, 1)) // what is given back may be another's before the answer comes, or without one
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
	if s.fleet == nil || s.left || now >= s.until {
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
		other.lend(a, fmt.Sprint(a.id, now), 1+l.rng.Int64N(l.most))
	case l.most > 1 && l.rng.IntN(40) == 0 || l.most == 1 && a.n > 1: // it gives back what it has
		a.n = 0
		if a.from.fleet != nil {
			a.from.mu.Lock()
			delete(a.from.loans, a.part)
			a.from.mu.Unlock()
		}
	case now-a.asked < loanTime/6 || a.from.lend(a, a.part, a.n):
	case other != a.from && other.fleet != nil && !other.left && now < other.until:
		l.move(a, other)
	}
	l.check()
}

// move has a server take over what an agent has of its own one, for which the server keeps the slots before.
func (l *lending) move(a *borrower, to *server) {
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Second)
	defer cancel()
	sent, fresh := l.now(), false
	reserve := func(n int64) (bool, error) {
		to.mu.Lock()
		x := to.loans[a.part]
		first := x == nil || x.until <= l.now()
		fresh = fresh || first
		to.mu.Unlock()
		to.note(a.part, &loan{n, l.now() + loanTime})
		return first, nil
	}
	got, n, err := to.bound.Adopt(ctx, a.from.id, "streams", a.part, BlockID("broker"), a.n, reserve)
	var unsure *UnsureError
	if err != nil && fresh && !errors.As(err, &unsure) {
		to.mu.Lock()
		delete(to.loans, a.part)
		to.mu.Unlock()
	}
	switch {
	case isLapsed(err):
		a.n = 0
	case err == nil && l.now() < a.until:
		if l.moved++; a.from.left {
			l.soon++
		}
		to.has, to.until = got.Slots, sent+got.For
		to.note(a.part, &loan{n, l.now() + loanTime})
		a.from, a.n, a.until, a.asked = to, min(a.n, n), sent+loanTime-loanTime/16, l.now()
	}
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
	for _, s := range l.lenders {
		if why := s.broken(); why != "" && l.wrong == "" {
			l.wrong = fmt.Sprintf("after %s %s: %s", time.Since(l.rig.begin), s.id, why)
		}
	}
}

// broken says which rule a server breaks, long before more might be handed out than there is.
func (s *server) broken() string {
	kv, there := s.of.rig.sim.key("/u/p/" + streams + "/g/" + s.id)
	h, _ := read[held](kv, there)
	lends := s.fleet != nil && !s.left && s.has > 0 && s.of.now() < s.until
	if lends && (h.Left != nil || len(h.Moved) > 0) {
		return "it lends what others may have: " + kv.Value
	}
	for part, m := range h.Moved {
		to := slices.IndexFunc(s.of.lenders, func(o *server) bool { return o.id == m.To })
		has := slices.ContainsFunc(s.of.agents, func(a *borrower) bool {
			return a.from == s && a.part == part && a.n > 0 && s.of.now() < a.until
		})
		if has && to >= 0 {
			to := s.of.lenders[to]
			to.mu.Lock()
			x := to.loans[part]
			to.mu.Unlock()
			if x == nil {
				return "who took " + part + " over does not keep its slots for the agent that has it"
			}
		}
	}
	return ""
}

// trouble makes one of what befalls servers.
func (l *lending) trouble() {
	s := l.lenders[l.rng.IntN(len(l.lenders))]
	switch l.rng.IntN(12) {
	case 0, 1:
		s.die()
	case 7, 8: // it is stopped, and may be killed before it knows that it has said so
		if s.fleet != nil {
			s.leave()
			s.die()
		}
	case 9, 10:
		if s.fleet != nil {
			s.drain(!s.drains)
		}
	case 11: // answers are late, or lost after the call was made
		if s.fleet != nil {
			way, rng, mu := s.way, rand.New(rand.NewPCG(l.rng.Uint64(), 6)), sync.Mutex{}
			upTo := func(n int64) int64 {
				mu.Lock()
				defer mu.Unlock()
				return rng.Int64N(n)
			}
			way.set(false, func(string) bool { return upTo(4) == 0 },
				func(string) time.Duration { return time.Duration(upTo(int64(time.Second))) })
			time.AfterFunc(time.Duration(l.rng.Int64N(int64(30*time.Second))), func() { way.set(false, nil, nil) })
		}
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
func lend(t *testing.T, seed uint64) (moved, soon int) {
	l := &lending{t: t, rig: newRig(t), rng: rand.New(rand.NewPCG(seed, 5)), limit: 20, next: 20,
		most: 5}
	for range 3 {
		l.add().start()
	}
	for i := range 9 {
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
		s.drain(false)
	}
	l.most = 1
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
	return l.moved, l.soon
}

// Site servers that lend their slots on, are stopped and drained, die, come back on the same or another start of their
// host, are replaced, lose etcd or its answers, and get a licence with fewer slots while some are away, never have
// agents hand out more together than the licence grants; agents move with what they have.
func TestCrowdOfServers(t *testing.T) {
	moved, soon := 0, 0
	for i := range max(3, *seeds/10) {
		seed := uint64(*from + i)
		bubble.Test(t, func(t *testing.T) {
			m, s := lend(t, seed)
			moved, soon = moved+m, soon+s
		})
	}
	t.Logf("%d parts were taken over, %d of those of servers that had stopped", moved, soon)
	if moved == soon || soon == 0 {
		t.Error("no part was taken over of a server that died, or of one that had stopped")
	}
}
