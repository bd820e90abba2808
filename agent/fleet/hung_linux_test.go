package fleet

import (
	"context"
	"fmt"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/usher-agent/usher/agent/clock"
	"github.com/usher-agent/usher/plugin"
)

// hangs has a member of etcd stop, and go on after some time.
func (c *cluster) hangs(m *etcdMember, d time.Duration) {
	m.cmd.Process.Signal(syscall.SIGSTOP)
	defer m.cmd.Process.Signal(syscall.SIGCONT)
	<-time.After(d)
}

// turns takes slots and gives them back, again and again, until ctx ends, and returns the longest time that took, and
// how often it was done.
func (g *guest) turns(ctx context.Context, id string) (longest time.Duration, n int) {
	for ; ctx.Err() == nil; <-time.After(50 * time.Millisecond) {
		began := clock.Fence()
		token := fmt.Sprint(id, began)
		g.c.until("slots are taken and given back", func(ctx context.Context) error {
			got, err := g.CheckOut(ctx, &plugin.CheckOut{Pool: "streams", Slots: 2, AtLeast: 2, For: time.Hour,
				Token: token})
			if err != nil {
				return err
			}
			return g.Return(ctx, &plugin.Return{Block: got.ID})
		})
		longest, n = max(longest, clock.Fence()-began), n+1
	}
	return longest, n
}

// A member of etcd that hangs, but takes connections, keeps no agent of a short lease from its place, and none from
// slots for long: neither a follower, nor the leader. gRPC would leave such a member after 15 s.
func TestMemberThatHangs(t *testing.T) {
	t.Parallel()
	const hangs, ttl, most = 13 * time.Second, 10 * time.Second, 9 * time.Second
	c := openCluster(t, 3)
	c.ready()
	var all []*guest
	for i := range 4 {
		all = append(all, c.guestFor(fmt.Sprint("agent-", i), nil, ttl))
	}
	for i, g := range all {
		g.gives(g.untilTakes(fmt.Sprint("first ", i), 1).ID)
	}
	for _, what := range []string{"a follower", "the leader"} {
		t.Run(what, func(t *testing.T) {
			leads, other := c.leader()
			if what == "a follower" {
				leads = other
			}
			ctx, cancel := context.WithCancel(t.Context())
			var running sync.WaitGroup
			for i, g := range all {
				running.Go(func() {
					if longest, n := g.turns(ctx, fmt.Sprint(what, i)); longest > most {
						t.Errorf("an agent got slots after %v at last (%d times)", longest, n)
					} else {
						t.Logf("an agent got slots %d times, after %v at the latest", n, longest)
					}
				})
				running.Go(func() {
					least := ttl
					for ; ctx.Err() == nil; <-time.After(10 * time.Millisecond) {
						least = min(least, g.fleet.Until()-clock.Fence())
					}
					if t.Logf("the fence was %v away at least", least); least <= 0 {
						t.Errorf("an agent reached its fence while %s hung", what)
					}
				})
			}
			c.hangs(leads, hangs)
			cancel()
			running.Wait()
		})
	}
	c.adds()
}
