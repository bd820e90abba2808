package agent_test

import (
	"errors"
	"fmt"
	"syscall"
	"testing"
	"time"

	"github.com/usher-agent/usher/agent/clock"
	"github.com/usher-agent/usher/agent/fleet"
	"github.com/usher-agent/usher/client"
	"github.com/usher-agent/usher/client/wire"
)

// inUse has an etcd know a fleet: servers that join need not wait until slots that others may have are over.
func (e *etcd) inUse(t *testing.T) {
	t.Helper()
	store := fleet.Dial([]string{e.url}, "", "", nil)
	defer store.Close()
	polled(t, "etcd knows a fleet", func() bool {
		res, err := store.Txn(t.Context(), &fleet.Txn{Kind: fleet.KindRead, Then: []fleet.Op{{Get: "/usher/c"}}})
		if err != nil {
			return false
		}
		_, err = store.Txn(t.Context(), &fleet.Txn{Kind: fleet.KindOperate, Then: []fleet.Op{{Put: "/usher/c",
			Value: fmt.Sprintf(`{"epoch":"first","cluster":%d}`, res.Cluster)}}})
		return err == nil
	})
}

// A site server is stopped by SIGTERM: its agents keep what they hold, and get the rest of the twelve slots at once
// from the other server, which has all of them then. It starts again, and the other one is drained: the agents move
// back with all that they hold. At no time is a thirteenth slot to be had.
func TestStoppedBroker(t *testing.T) {
	t.Parallel()
	e := openEtcd(t)
	e.inUse(t)
	brokers, servers := openBrokersOn(t, e, 12, 2)
	agents := brokers[0].agentsOf(3, servers)
	take := func(n int64) time.Duration {
		t.Helper()
		began := time.Now()
		for i, a := range agents {
			if _, err := a.Acquire(t.Context(), wire.AcquireRequest{Pool: "streams", N: &n, TTLSeconds: 600,
				WaitSeconds: 120}); err != nil {
				t.Fatalf("agent %d: %v", i, err)
			}
		}
		return time.Since(began)
	}
	lent := func(s *siteServer) int64 {
		_, sum := s.blocks()
		return sum
	}
	take(2)
	stops, stays := brokers[0], brokers[1]
	if lent(stops) == 0 { // which server an agent asks first is by its key
		stops, stays = stays, stops
	}
	if err := stops.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	took := take(2)
	t.Logf("%s after a site server was told to stop, its agents have six slots more", took)
	if took > 10*time.Second { // without its word it would be a minute
		t.Errorf("its agents got slots after %s", took)
	}
	if err := stops.cmd.Wait(); err != nil {
		t.Errorf("the server that stops: %v", err)
	}
	full := func(when string) {
		t.Helper()
		one := int64(1)
		for _, a := range agents {
			if s := a.share(); s.InUse != 4 || *s.Budget != 4 {
				t.Errorf("%s: an agent holds %d slots of %d; it has taken 4", when, s.InUse, *s.Budget)
			}
			if _, err := a.Acquire(t.Context(), wire.AcquireRequest{Pool: "streams", N: &one}); !errors.Is(err,
				client.ErrNoSlots) {
				t.Errorf("%s: a thirteenth of twelve slots: %v", when, err)
			}
		}
	}
	full("after the stop")
	polled(t, "all that the agents hold is of the server that stays", func() bool { return lent(stays) == 12 })
	stops.run()
	store := fleet.Dial([]string{e.url}, "", "", nil)
	defer store.Close()
	operator := &fleet.Operator{Store: store, Prefix: "/usher/", Now: clock.Fence, Time: time.Now}
	name := map[*siteServer]string{brokers[0]: "broker0", brokers[1]: "broker1"}[stays]
	began := time.Now()
	if _, err := operator.Drain(t.Context(), name, false); err != nil {
		t.Fatal(err)
	}
	polled(t, "all agents have moved back", func() bool { return lent(stops) == 12 })
	t.Logf("%s after a site server was drained, its agents have moved", time.Since(began))
	full("after the drain")
}
