package fleet

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc/balancer"
	"google.golang.org/grpc/balancer/base"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// gRPC notices that a member hangs after 15 s, and never where the member still answers pings: its disk hangs, or it
// has lost the others. Until then etcd's own client would send it its share of all calls. So the fleet chooses the
// member of each call itself: it passes over a member that has left a call without an answer, and never sends one call
// to the same member twice while there is another.

// chooser is the name of this choice, as gRPC's configuration has it.
const chooser = "usher_etcd"

// chooses is the configuration of gRPC that has it choose so.
const chooses = `{"loadBalancingConfig": [{"` + chooser + `": {}}]}`

func init() { balancer.Register(chooserOf{}) } // gRPC takes it at no other time

// Bounds of the choice.
const (
	// lateAfter is after which time without an answer a member is passed over.
	lateAfter = 400 * time.Millisecond
	// doubtFor is for how long: then one call tries it again.
	doubtFor = 30 * time.Second
)

// chooserOf makes the choice of one client.
type chooserOf struct{}

func (chooserOf) Name() string { return chooser }

func (chooserOf) Build(cc balancer.ClientConn, opts balancer.BuildOptions) balancer.Balancer {
	c := &choice{servers: map[balancer.SubConn]*etcdServer{}}
	return addressed{base.NewBalancerBuilder(chooser, c, base.Config{}).Build(cc, opts)}
}

// addressed gives each of etcd's endpoints to gRPC's base, which knows addresses alone.
type addressed struct{ balancer.Balancer }

func (a addressed) UpdateClientConnState(s balancer.ClientConnState) error {
	s.ResolverState.Addresses = nil
	for _, e := range s.ResolverState.Endpoints {
		s.ResolverState.Addresses = append(s.ResolverState.Addresses, e.Addresses...)
	}
	return a.Balancer.UpdateClientConnState(s)
}

// choice is what one client knows of etcd's members.
type choice struct {
	mu      sync.Mutex // guards all below
	servers map[balancer.SubConn]*etcdServer
	turn    int
}

// etcdServer is one member.
type etcdServer struct {
	open     map[*opened]bool
	doubted  time.Time // when it last left a call without an answer; zero: it has answered since
	answered time.Time
	watches  map[*watching]bool
}

// opened is a call that has no answer yet.
type opened struct{ at time.Time }

// watching is a watch at a member. leave is called once the member is doubted.
type watching struct{ leave context.CancelFunc }

// tried are the members to which one call was sent.
type tried struct {
	mu      sync.Mutex
	members map[balancer.SubConn]bool
}

type (
	triedKey    struct{}
	watchingKey struct{}
)

// Build returns the choice among the members that are connected.
func (c *choice) Build(info base.PickerBuildInfo) balancer.Picker {
	if len(info.ReadySCs) == 0 {
		return base.NewErrPicker(balancer.ErrNoSubConnAvailable)
	}
	type at struct {
		sc      balancer.SubConn
		address string
	}
	var all []at
	for sc, is := range info.ReadySCs {
		all = append(all, at{sc, is.Address.Addr})
	}
	slices.SortFunc(all, func(a, b at) int { return strings.Compare(a.address, b.address) })
	p := &picker{choice: c}
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, a := range all {
		if c.servers[a.sc] == nil {
			c.servers[a.sc] = &etcdServer{open: map[*opened]bool{}, watches: map[*watching]bool{}}
		}
		p.ready = append(p.ready, a.sc)
	}
	for sc, s := range c.servers { // what was said of a connection that has ended says nothing of the next one
		if !slices.Contains(p.ready, sc) {
			s.doubt(time.Now())
			delete(c.servers, sc)
		}
	}
	return p
}

// picker chooses among the members that are connected.
type picker struct {
	*choice
	ready []balancer.SubConn
}

// Pick chooses the member of one call: one to which the call was not sent, that owes no answer for long; in turn. Of
// those that do, that which last answered anything.
func (p *picker) Pick(info balancer.PickInfo) (balancer.PickResult, error) {
	sent, _ := info.Ctx.Value(triedKey{}).(*tried)
	now := time.Now()
	p.mu.Lock()
	defer p.mu.Unlock()
	p.turn++
	var best balancer.SubConn
	rank := func(sc balancer.SubConn) int {
		n := 0
		if sent.has(sc) {
			n = 2
		}
		if s := p.servers[sc]; s != nil && s.late(now) {
			n++
		}
		return n
	}
	for i := range p.ready {
		sc := p.ready[(p.turn+i)%len(p.ready)]
		if best == nil {
			best = sc
			continue
		}
		was, is := rank(best), rank(sc)
		if is < was || is == was && is%2 == 1 && p.servers[sc].answered.After(p.servers[best].answered) {
			best = sc
		}
	}
	sent.add(best)
	return balancer.PickResult{SubConn: best, Done: p.begin(best, info, now)}, nil
}

// begin takes note of a call to a member, and returns what takes note of its end. mu is held.
func (c *choice) begin(sc balancer.SubConn, info balancer.PickInfo, now time.Time) func(balancer.DoneInfo) {
	s := c.servers[sc]
	if s == nil {
		return nil // the connection has just ended
	}
	if w, ok := info.Ctx.Value(watchingKey{}).(*watching); ok {
		s.watches[w] = true
		return func(balancer.DoneInfo) {
			c.mu.Lock()
			defer c.mu.Unlock()
			delete(s.watches, w)
		}
	}
	x := &opened{now}
	s.open[x] = true
	return func(done balancer.DoneInfo) {
		c.mu.Lock()
		defer c.mu.Unlock()
		delete(s.open, x)
		s.ended(x, done.Err, time.Now())
	}
}

// ended takes note of how a call has ended.
func (s *etcdServer) ended(x *opened, err error, now time.Time) {
	switch status.Code(err) {
	case codes.Canceled, codes.DeadlineExceeded: // nobody waits for it any more
		if now.Sub(x.at) >= lateAfter {
			s.doubt(now)
		}
	case codes.Unavailable: // the way is cut, or the member has lost the others
		s.doubt(now)
	default:
		s.answered, s.doubted = now, time.Time{}
	}
}

// doubt has a member be passed over from now on, and its watches end.
func (s *etcdServer) doubt(now time.Time) {
	s.doubted = now
	for w := range s.watches {
		w.leave()
	}
	clear(s.watches)
}

// late reports whether a member is to be passed over.
func (s *etcdServer) late(now time.Time) bool {
	if !s.doubted.IsZero() && now.Sub(s.doubted) < doubtFor {
		return true
	}
	for x := range s.open {
		if now.Sub(x.at) >= lateAfter {
			return true
		}
	}
	return false
}

func (t *tried) has(sc balancer.SubConn) bool {
	if t == nil {
		return false
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.members[sc]
}

func (t *tried) add(sc balancer.SubConn) {
	if t == nil {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.members == nil {
		t.members = map[balancer.SubConn]bool{}
	}
	t.members[sc] = true
}

// patience is for how long a call waits for an answer before it is sent to another member, too: at least leastPatience,
// and else a few times what such calls take of late. So nothing is sent twice because all of etcd is slow.
type patience struct{ pace }

// Bounds of patience.
const (
	leastPatience = 500 * time.Millisecond
	mostPatience  = 5 * time.Second
	timesPace     = 4
	// mostSendings is how often one call is sent: after the leader has stopped, what its followers were asked before
	// they have elected another may get no answer for long, however well they are.
	mostSendings = 8
	restsFor     = time.Second // between two sendings, if not more
)

func (p *patience) is() time.Duration {
	return min(max(timesPace*time.Duration(p.Load()), leastPatience), mostPatience)
}

// answer is what one sending of a call came to.
type answer[T any] struct {
	out  T
	err  error
	late time.Duration // when it was sent, after the call began
}

// errUnsure is the error of a call that writes where one member says that it was not done, and another has not
// answered.
var errUnsure = fmt.Errorf("one member of etcd does not answer, and may have done what another says was not done: %w",
	context.DeadlineExceeded)

// ask makes a call, and sends it to further members while none answers: the first answer counts. late is how long after
// the call began that was sent which was answered. settles says whether an answer settles what other sendings of a call
// that writes may have done; nil: it is no such call. Where none does, the error is errUnsure.
func ask[T any](ctx context.Context, members int, p *patience, settles func(T) bool,
	send func(context.Context) (T, error)) (out T, late time.Duration, err error) {
	began := time.Now()
	ctx, cancel := context.WithCancel(context.WithValue(ctx, triedKey{}, new(tried)))
	defer cancel()
	most := 1
	if members > 1 {
		most = mostSendings
	}
	answers := make(chan answer[T], most)
	open, sent, unsure := 0, 0, 0
	next := func() {
		at := time.Since(began)
		open, sent = open+1, sent+1
		go func() {
			out, err := send(ctx)
			answers <- answer[T]{out, err, at}
		}()
	}
	next()
	wait := p.is()
	timer := time.NewTimer(wait)
	defer timer.Stop()
	for {
		select {
		case <-timer.C:
			if sent < most && unsure == 0 {
				next()
				wait = max(wait, min(2*wait, restsFor))
				timer.Reset(wait)
			}
		case a := <-answers:
			open--
			alone := settles == nil || open+unsure == 0
			switch {
			case a.err == nil && (alone || settles(a.out)):
				p.note(time.Since(began) - a.late)
				return a.out, a.late, nil
			case a.err == nil:
				return out, 0, errUnsure
			case !mayBeDone(a.err) && !alone: // the others will say the same
				return out, 0, errors.Join(a.err, errUnsure)
			case !mayBeDone(a.err), open == 0:
				return out, 0, cmp.Or(err, a.err)
			}
			unsure, err = unsure+1, cmp.Or(err, a.err)
		}
	}
}
