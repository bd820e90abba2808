package agent_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/usher-agent/usher/agent/clock"
	"github.com/usher-agent/usher/agent/fleet"
	"github.com/usher-agent/usher/client"
	"github.com/usher-agent/usher/client/wire"
)

// openBrokers starts an etcd and n site servers with one key that have the slots of one licence from there.
func openBrokers(t *testing.T, limit int64, n int) (e *etcd, all []*siteServer, servers string) {
	t.Helper()
	e = openEtcd(t)
	all, servers = openBrokersOn(t, e, limit, n)
	return e, all, servers
}

// openBrokersOn is openBrokers with an etcd that runs.
func openBrokersOn(t *testing.T, e *etcd, limit int64, n int) (all []*siteServer, servers string) {
	t.Helper()
	metrics := make([]string, n)
	flags := func(i int) []string {
		metrics[i] = freeAddress(t)
		return []string{"--metrics-listen", metrics[i], "--fleet-endpoint", e.url, "--fleet-ttl", "5s",
			"--fleet-name", fmt.Sprint("broker", i)}
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
	for i, s := range all {
		s.metrics = metrics[i]
		if servers != "" {
			servers += ", "
		}
		servers += "'http://" + s.address + "'"
	}
	return all, "pools_urls: [" + servers + "]"
}

// Two site servers have the ten slots of a licence from etcd and give them to three agents: never more than ten are
// held in all. One is killed: its agents go on with the other.
func TestBrokers(t *testing.T) {
	t.Parallel()
	e, brokers, servers := openBrokers(t, 10, 2)
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
	e.seenBy(t, brokers)
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
	e.cmd.Process.Kill()
	e.cmd.Wait()
	polled(t, "its doctor names the cause", func() bool {
		out, err := brokers[1].tool("doctor")
		return err != nil && strings.Contains(out, "bad     FLEET_CONNECT etcd "+e.url)
	})
}

// polled waits until something is so.
func polled(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for until := time.Now().Add(2 * time.Minute); !ok(); <-time.After(200 * time.Millisecond) {
		if time.Now().After(until) {
			t.Fatalf("not so after two minutes: %s", what)
		}
	}
}

// tool runs a command of a site server's operator.
func (s *siteServer) tool(args ...string) (string, error) {
	args = append([]string{"upstream", "--data", s.path("data")}, args...)
	out, err := exec.Command(s.bin, args...).CombinedOutput()
	return string(out), err
}

// seenBy looks at site servers as operators do: their place in the fleet, what their agents have, metrics, a drain.
func (e *etcd) seenBy(t *testing.T, brokers []*siteServer) {
	t.Helper()
	one := brokers[1]
	polled(t, "the report has what the agents of all site servers have", func() bool {
		var f wire.Fleet
		out, err := one.tool("fleet", "--json")
		if err != nil || json.Unmarshal([]byte(out), &f) != nil {
			t.Fatalf("%v: %s", err, out)
		}
		use := int64(0)
		for _, p := range f.Pools {
			for _, s := range p.Agents {
				if s.InUse != nil {
					use += *s.InUse
				}
			}
		}
		return f.State == "member" && len(f.Agents) == 2 && f.Agents[0].Version != "" && use == 10
	})
	if out, err := one.tool("doctor"); err != nil || !strings.Contains(out, "broker1 is a member of the fleet") {
		t.Errorf("the doctor of a member: %v: %s", err, out)
	}
	store := fleet.Dial([]string{e.url}, "", "", nil)
	defer store.Close()
	operator := &fleet.Operator{Store: store, Prefix: "/usher/", Now: clock.Fence, Time: time.Now}
	for _, undo := range []bool{false, true} {
		if _, err := operator.Drain(t.Context(), "broker1", undo); err != nil {
			t.Fatal(err)
		}
		state := map[bool]string{false: "draining", true: "member"}[undo]
		polled(t, "it is "+state, func() bool {
			res, err := http.Get("http://" + one.metrics + "/metrics")
			if err != nil {
				t.Fatal(err)
			}
			defer res.Body.Close()
			b, _ := io.ReadAll(res.Body)
			return strings.Contains(string(b), `usher_fleet_state{state="`+state+`"} 1`) &&
				strings.Contains(string(b), `usher_fleet_transactions_total{kind="heartbeat",outcome="done"}`)
		})
	}
}
