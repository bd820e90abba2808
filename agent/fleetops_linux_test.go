package agent_test

import (
	"errors"
	"fmt"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/usher-agent/usher/client"
	"github.com/usher-agent/usher/client/wire"
)

// mustTake takes slots of the fleet's pool, and returns the lease's id.
func mustTake(t *testing.T, c *crashing, n int64) string {
	t.Helper()
	l, err := c.Acquire(t.Context(), wire.AcquireRequest{Pool: "streams", N: &n, TTLSeconds: 600, WaitSeconds: 60})
	if err != nil {
		t.Fatal(err)
	}
	return l.ID
}

// fleetUntil asks an agent for the fleet until it is as it should be.
func fleetUntil(t *testing.T, c *crashing, what string, ok func(*wire.Fleet) bool) *wire.Fleet {
	t.Helper()
	for until := time.Now().Add(time.Minute); ; <-time.After(50 * time.Millisecond) {
		f, err := c.Fleet(t.Context())
		if err != nil {
			t.Fatal(what, err)
		}
		if ok(f) {
			return f
		}
		if time.Now().After(until) {
			t.Fatalf("%s: not so after a minute: %+v", what, f)
		}
	}
}

// shareOf returns what a host has of the only pool.
func shareOf(f *wire.Fleet, name string) (s wire.FleetShare) {
	for _, p := range f.Pools {
		for _, x := range p.Agents {
			if x.Name == name {
				s = x
			}
		}
	}
	return s
}

// An operator sees who has how many slots, has a host drain and end that, puts one out, which frees its slots once its
// fence is over, and lets it join again. A name that the fleet does not have is answered with those that it has.
func TestFleetOperated(t *testing.T) {
	t.Parallel()
	_, all := openFleet(t, 10, 3)
	a, b, c := all[0], all[1], all[2]
	mustTake(t, a, 2)
	freed := mustTake(t, b, 3)
	mustTake(t, c, 4)
	f := fleetUntil(t, a, "all are seen", func(f *wire.Fleet) bool {
		s := shareOf(f, "host2")
		return len(f.Agents) == 3 && s.InUse != nil && *s.InUse == 4 && s.Slots >= 4 && s.Since != nil && f.Current &&
			len(f.Pools) == 1 && f.Pools[0].Limit == 10 && f.Pools[0].Out >= 9 && f.State == "member"
	})
	if s := shareOf(f, "host0"); s.Limit != 10 || s.Document == "" || s.Document != f.Pools[0].Document {
		t.Errorf("its terms: %+v of %+v", s, f.Pools[0])
	}
	for _, x := range f.Agents {
		if !x.Alive || x.FenceSeconds == nil || *x.FenceSeconds > 4 || x.TTLSeconds != 5 {
			t.Errorf("%+v", x)
		}
	}
	code, out := a.tool("fleet", "status")
	for _, want := range []string{"This host, host0 (", ": member", "host2", "Pool streams: ",
		"of 10 slots are with hosts",
		"IN USE"} {
		if !strings.Contains(out, want) || code != 0 {
			t.Errorf("fleet status lacks %q (%d):\n%s", want, code, out)
		}
	}
	if _, again := a.tool("status", "--fleet"); !strings.Contains(again, "Pool streams: ") {
		t.Errorf("status --fleet says\n%s", again)
	}
	if code, out := a.tool("fleet", "evict", "host9"); code != 1 || !strings.Contains(out, "known: host0 (") {
		t.Errorf("an unknown host (%d): %s", code, out)
	}
	drains(t, a, b, freed)
	evicts(t, a, c)
}

// drains has a host drain, at the word of another, and ends that.
func drains(t *testing.T, a, b *crashing, freed string) {
	if code, out := a.tool("fleet", "drain", "host1"); code != 0 {
		t.Fatal(out)
	}
	untilShare(t, b, "the idle slots are back", func(p *wire.Pool) bool { return *p.Budget == 3 })
	if err := b.Release(t.Context(), freed, false); err != nil {
		t.Fatal(err)
	}
	untilShare(t, b, "what was released is back", func(p *wire.Pool) bool { return *p.Budget == 0 })
	one := int64(1)
	_, err := b.Acquire(t.Context(), wire.AcquireRequest{Pool: "streams", N: &one, TTLSeconds: 60, WaitSeconds: 1})
	if !errors.Is(err, client.ErrNoSlots) {
		t.Errorf("a host that drains grants: %v", err)
	}
	saysUndo(t, b, err)
	f := fleetUntil(t, b, "it says so", func(f *wire.Fleet) bool { return f.State == "draining" })
	for _, x := range f.Agents {
		if (x.Draining != nil) != (x.Name == "host1") {
			t.Errorf("%+v", x)
		}
	}
	b.kill()
	b.run() // it drains after a restart, too
	fleetUntil(t, b, "it drains still", func(f *wire.Fleet) bool { return f.State == "draining" })
	_, err = b.Acquire(t.Context(), wire.AcquireRequest{Pool: "streams", N: &one, TTLSeconds: 60})
	saysUndo(t, b, err)
	if code, out := a.tool("fleet", "drain", "--undo", "host1"); code != 0 {
		t.Fatal(out)
	}
	mustTake(t, b, 1)
}

// saysUndo looks that a denial on a host that drains does not have its user wait, and names the command that ends it.
func saysUndo(t *testing.T, c *crashing, err error) {
	t.Helper()
	f, asked := c.Fleet(t.Context())
	if asked != nil {
		t.Fatal(asked)
	}
	var problem *client.Error
	if !errors.As(err, &problem) || !strings.Contains(problem.Detail, "an operator has this host give") ||
		!strings.Contains(problem.Hint, "usher fleet drain --undo "+f.Agent[:12]) ||
		strings.Contains(problem.Hint, "wait (") {
		t.Errorf("a host that drains says %v", err)
	}
}

// evicts has one host put another out that holds four slots, and lets it join again. The bounds of a second only tell a
// wait from none: the fence lies 3.7 s after the last renewal, which was up to 1.8 s before the eviction, and on a busy
// machine before that. That the slots are free not an instant before the fence, and within a second after it, is
// agent/fleet.TestEvictWaitsOutTheFence.
func evicts(t *testing.T, a, c *crashing) {
	began := time.Now()
	var graced time.Duration
	granted := make(chan error, 1)
	go func() { // what it held is another's, once its fence is over
		n := int64(4)
		_, err := a.Acquire(t.Context(), wire.AcquireRequest{Pool: "streams", N: &n, TTLSeconds: 600, WaitSeconds: 60})
		graced = time.Since(began)
		granted <- err
	}()
	code, out := a.tool("fleet", "evict", "host2", "--wait", "0s")
	if code != 1 || !strings.Contains(out, "its fence is not over") {
		t.Errorf("without waiting (%d): %s", code, out)
	}
	done, err := a.EvictHost(t.Context(), "host2", time.Minute)
	if err != nil || !done.Done || done.Name != "host2" {
		t.Fatalf("%+v, %v", done, err)
	}
	if took := time.Since(began); took < time.Second {
		t.Errorf("it is done after %v", took)
	}
	if err := <-granted; err != nil || graced < time.Second {
		t.Errorf("the slots come free after %v: %v", graced, err)
	}
	untilShare(t, c, "it hands out none", func(p *wire.Pool) bool { return *p.Budget == 0 })
	f := fleetUntil(t, c, "it says so", func(f *wire.Fleet) bool { return f.State == "evicted" })
	if !strings.Contains(f.Reason, "host0") || !strings.Contains(f.Hint, "evict --undo") {
		t.Errorf("%s; %s", f.Reason, f.Hint)
	}
	c.kill()
	c.run()
	fleetUntil(t, c, "a restart does not help", func(f *wire.Fleet) bool { return f.State == "evicted" })
	if code, out := a.tool("fleet", "evict", "--undo", "host2"); code != 0 {
		t.Fatal(out)
	}
	fleetUntil(t, c, "it joins again", func(f *wire.Fleet) bool { return f.State == "member" })
}

// While etcd does not answer, the agent says so, why, and what it knew last; its metrics, too. It grants from its block
// until its fence, says that that is over, and recovers by itself.
func TestFleetTells(t *testing.T) {
	t.Parallel()
	e, all := openFleet(t, 10, 1)
	a := all[0]
	mustTake(t, a, 2)
	fleetUntil(t, a, "it is a member", func(f *wire.Fleet) bool { return f.Current && f.State == "member" })
	if err := e.cmd.Process.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	defer e.cmd.Process.Signal(syscall.SIGCONT)
	f := fleetUntil(t, a, "it is fenced", func(f *wire.Fleet) bool { return f.State == "fenced" && len(f.Store) > 0 })
	if f.Current || f.AgeSeconds == nil || f.Error == "" || len(f.Pools) != 1 || f.FenceSeconds != 0 ||
		f.Store[0].Fault != "silent" || f.Store[0].Hint == "" {
		t.Errorf("%+v", f)
	}
	_, out := a.tool("fleet", "status")
	for _, want := range []string{"fenced", e.url + " (silent)", "What follows is what etcd said", "Pool streams: "} {
		if !strings.Contains(out, want) {
			t.Errorf("fleet status lacks %q:\n%s", want, out)
		}
	}
	scraped := a.scraped(t)
	for _, want := range []string{`usher_fleet_state{state="fenced"} 1`, "usher_fleet_partitioned 1",
		"usher_fleet_fence_seconds 0", `usher_fleet_slots_limit{pool="streams"} 10`, "usher_fleet_members 1"} {
		if !strings.Contains(scraped, want) {
			t.Errorf("the metrics lack %s", want)
		}
	}
	if strings.Contains(scraped, `usher_fleet_errors_total{fault="silent"} 0`+"\n") {
		t.Error("no failure was counted")
	}
	if err := e.cmd.Process.Signal(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	fleetUntil(t, a, "it is back", func(f *wire.Fleet) bool { return f.State == "member" && len(f.Store) == 0 })
	e.cmd.Process.Kill()
	e.cmd.Wait()
	fleetUntil(t, a, "etcd is gone", func(f *wire.Fleet) bool {
		return len(f.Store) == 1 && f.Store[0].Fault == "refused"
	})
}

// scraped returns what the agent's metrics say.
func (c *crashing) scraped(t *testing.T) string {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), "curl", "-sS", "--unix-socket", c.path("s"),
		"http://usher/metrics").Output()
	if err != nil {
		t.Fatal(fmt.Errorf("curl: %w", err))
	}
	return string(out)
}
