package agent_test

import (
	"errors"
	"fmt"
	"os"
	"testing"
	"time"

	"github.com/usher-agent/usher/client"
	"github.com/usher-agent/usher/client/wire"
)

// openBrokers starts an etcd and n site servers with one key that have the slots of one licence from there.
func openBrokers(t *testing.T, limit int64, n int) (e *etcd, all []*siteServer, servers string) {
	t.Helper()
	e = openEtcd(t)
	flags := func(i int) []string {
		return []string{"--fleet-endpoint", e.url, "--fleet-ttl", "5s", "--fleet-name", fmt.Sprint("broker", i)}
	}
	all = []*siteServer{openSiteServerAs(t, limit, 30*time.Second, true, flags(0)...)}
	for i := 1; i < n; i++ {
		s := *all[0]
		dir, err := os.MkdirTemp(tempDir(), "u")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { os.RemoveAll(dir) })
		s.dir, s.address, s.more, s.cmd = dir, freeAddress(t), flags(i), nil
		if err := os.MkdirAll(s.path("data"), 0o700); err != nil {
			t.Fatal(err)
		}
		for _, name := range []string{"data/site.key", "data/site.pub", "site.lic"} {
			b, err := os.ReadFile(all[0].path(name))
			if err == nil {
				err = os.WriteFile(s.path(name), b, 0o600)
			}
			if err != nil {
				t.Fatal(err)
			}
		}
		t.Cleanup(s.kill)
		s.run()
		all = append(all, &s)
	}
	for _, s := range all {
		if servers != "" {
			servers += ", "
		}
		servers += "'http://" + s.address + "'"
	}
	return e, all, "pools_urls: [" + servers + "]"
}

// Two site servers have the ten slots of a licence from etcd and give them to three agents: never more than ten are
// held in all. One is killed: its agents go on with the other.
func TestBrokers(t *testing.T) {
	t.Parallel()
	_, brokers, servers := openBrokers(t, 10, 2)
	agents := brokers[0].agentsOf(3, servers)
	held := func() (n int64) {
		for _, a := range agents {
			n += a.share().InUse
		}
		return n
	}
	for i, n := range []int64{4, 3, 3} { // the new store's quarantine is as long as slots may be in use
		if _, err := agents[i].Acquire(t.Context(), wire.AcquireRequest{Pool: "streams", N: &n, TTLSeconds: 600,
			WaitSeconds: 120}); err != nil {
			t.Fatal(err)
		}
	}
	one := int64(1)
	for _, a := range agents {
		if _, err := a.Acquire(t.Context(), wire.AcquireRequest{Pool: "streams", N: &one, WaitSeconds: 1}); !errors.Is(
			err, client.ErrNoSlots) {
			t.Fatalf("an eleventh of ten slots: %v", err)
		}
	}
	brokers[0].kill()
	for began := time.Now(); time.Since(began) < 50*time.Second; <-time.After(100 * time.Millisecond) {
		budgets := int64(0)
		for _, a := range agents {
			budgets += *a.share().Budget
		}
		if budgets != 10 || held() != 10 {
			t.Fatalf("%s after a site server was killed, the agents may hand out %d of ten slots, and hold %d",
				time.Since(began), budgets, held())
		}
	}
}
