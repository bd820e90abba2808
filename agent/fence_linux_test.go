package agent_test

import (
	"context"
	"flag"
	mathrand "math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/usher-agent/usher/client"
	"github.com/usher-agent/usher/client/wire"
)

var stops = flag.Int("agent.stops", 2, "how often TestStoppedBeyondTheFence stops an agent that grants")

// untilMore waits until a count has grown by five.
func untilMore(t *testing.T, what string, n *atomic.Int64) {
	t.Helper()
	deadline := time.Now().Add(60 * time.Second)
	for was := n.Load(); n.Load() < was+5; <-time.After(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("in a minute no more are %s", what)
		}
	}
}

// An agent is stopped at any moment while four sessions take its slots and give them back, until the server has given
// all of them to another agent, whose holder has them. When it goes on, it decides no acquire for a slot, and withdraws
// what it had decided. An answer that was looked at last before the stop, and written after it, cannot be held back:
// its lease is over at once, and its holder is told; at most one in twenty rounds. In each round slots were at stake:
// the agent was granting when it was stopped, and the other has what it had.
func TestStoppedBeyondTheFence(t *testing.T) {
	t.Parallel()
	const limit = 4
	s := openSiteServer(t, limit, time.Second)
	both := s.agents(2)
	a, b := both[0], both[1]
	ctx, cancel := context.WithCancel(t.Context())
	var hammers sync.WaitGroup
	defer hammers.Wait()
	defer cancel()
	var granted, denied, late, stand atomic.Int64
	var away atomic.Bool // the other has all slots
	for range 4 {
		session, err := client.Open(ctx, client.WithSocket(a.Socket()))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { session.Close() })
		hammers.Go(func() {
			for ctx.Err() == nil {
				l, err := session.Acquire(ctx, wire.AcquireRequest{Pool: "streams"})
				if err != nil {
					denied.Add(1)
					<-time.After(5 * time.Millisecond)
					continue
				}
				granted.Add(1)
				if away.Load() {
					late.Add(1)
					select {
					case <-l.Done():
					case <-time.After(60 * time.Second):
						stand.Add(1)
					case <-ctx.Done():
					}
				}
				l.Close()
			}
		})
	}
	all, most := int64(limit), 0
	for round := range *stops {
		untilMore(t, "granted", &granted)
		<-time.After(time.Duration(mathrand.Int64N(int64(2 * time.Millisecond))))
		goOn := a.pause()
		asked, end := context.WithTimeout(ctx, 60*time.Second)
		l, err := b.Acquire(asked, wire.AcquireRequest{Pool: "streams", N: &all, Lifetime: "held", WaitSeconds: 50})
		end()
		if err != nil {
			goOn()
			t.Fatalf("round %d: the other agent has not what the stopped one had: %v", round, err)
		}
		before := late.Load()
		away.Store(true)
		goOn()
		untilMore(t, "denied", &denied)
		if n := late.Load() - before; n > 0 {
			t.Logf("round %d: %d answers were between the last look and the write when the agent was stopped", round, n)
		}
		if most++; stand.Load() > 0 {
			t.Fatalf(
				"round %d: an agent that was stopped beyond the end of its block has granted a slot, and does not "+
					"tell that it is over, while another's holder has all %d", round, limit)
		}
		away.Store(false)
		if err := b.Release(ctx, l.ID, false); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("%d stops, slots at stake in each; %d answers were late, and over at once; %d grants in all", most,
		late.Load(), granted.Load())
	if n := int(late.Load()); n > 1+most/20 {
		t.Errorf("%d late answers in %d rounds", n, most)
	}
}
