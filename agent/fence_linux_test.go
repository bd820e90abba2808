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

// An agent is stopped at any moment while four sessions take its slots and give them back, until the server has given all of them to
// another agent, whose holder has them. When it goes on, it decides no acquire for a slot, and withdraws what it had decided. An answer
// that was looked at last before the stop, and not yet written, cannot be taken back: at most one in twenty rounds, and never two in
// one. In each round slots were at stake: the agent was granting when it was stopped, and the other has what it had.
func TestStoppedBeyondTheFence(t *testing.T) {
	const limit = 4
	s := openSiteServer(t, limit, time.Second)
	both := s.agents(2)
	a, b := both[0], both[1]
	ctx, cancel := context.WithCancel(t.Context())
	var hammers sync.WaitGroup
	defer hammers.Wait()
	defer cancel()
	var granted, denied atomic.Int64
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
				l.Close() //nolint:errcheck // the test ends
			}
		})
	}
	until := func(what string, n *atomic.Int64) {
		t.Helper()
		deadline := time.Now().Add(60 * time.Second)
		for was := n.Load(); n.Load() < was+5; <-time.After(time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatalf("in a minute no more are %s", what)
			}
		}
	}
	all, most, late := int64(limit), 0, 0
	for round := range *stops {
		until("granted", &granted)
		<-time.After(time.Duration(mathrand.Int64N(int64(2 * time.Millisecond))))
		goOn := a.pause()
		asked, end := context.WithTimeout(ctx, 60*time.Second)
		l, err := b.Acquire(asked, wire.AcquireRequest{Pool: "streams", N: &all, Lifetime: "held", WaitSeconds: 50})
		end()
		if err != nil {
			goOn()
			t.Fatalf("round %d: the other agent has not what the stopped one had: %v", round, err)
		}
		before := granted.Load()
		goOn()
		until("denied", &denied)
		switch n := granted.Load() - before; {
		case n == 1:
			late++
			t.Logf("round %d: an answer was under way when the agent was stopped", round)
		case n > 1:
			t.Errorf("round %d: %d slots were granted by an agent that was stopped beyond the end of its block, while another's holder has all %d", round, n, limit)
		}
		if most++; t.Failed() {
			break
		}
		if err := b.Release(ctx, l.ID, false); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("%d stops, slots at stake in each; %d answers were under way; %d grants in all", most, late, granted.Load())
	if late > 1+most/20 {
		t.Errorf("%d late answers in %d rounds", late, most)
	}
}
