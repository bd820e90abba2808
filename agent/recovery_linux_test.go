package agent_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/usher-agent/usher/agent/liveness/oldkernel"
	"github.com/usher-agent/usher/client"
	"github.com/usher-agent/usher/client/wire"
	"github.com/usher-agent/usher/plugin/usher"
)

// crashing is a house whose agent is a process of its own, which can be killed.
type crashing struct {
	*house
	bin     string
	cmd     *exec.Cmd
	through []string        // what enters the namespaces that the agent runs in; nil: ours
	prepare func(*exec.Cmd) // what a service manager gives the agent; nil: there is none
	kernel  string          // the older kernel that the agent is to see; empty: this one
	log     *os.File        // nil: errors, among the test's own
	meddled bool            // the test has changed the state
}

// buildOnce builds the program as make does, but for its entry. The race detector looks at the agents within this
// process. Agents that are killed under its eyes, and end with their first race, are those of soak.
var buildOnce = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "usher-bin")
	if err != nil {
		return "", err
	}
	bin := filepath.Join(dir, "usher")
	cmd := exec.Command("go", "build", "-trimpath", "-ldflags", "-s -w", "-o", bin, "../cmd/usher")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("%w: %s", err, out)
	}
	return bin, nil
})

func openCrashing(t *testing.T, limit int64, change func(*usher.Claims)) *crashing {
	t.Helper()
	bin, err := buildOnce()
	if err != nil {
		t.Fatal(err)
	}
	h := open(t, "")
	h.drop("a.lic", h.sign("a", limit, change))
	h.until("dropped", inForce("a"))
	h.stop()
	if err := os.WriteFile(h.path("usher.yaml"), []byte(h.config), 0o600); err != nil {
		t.Fatal(err)
	}
	c := &crashing{house: h, bin: bin}
	c.run()
	t.Cleanup(func() {
		c.kill()
		h.Close()
	})
	return c
}

// run starts the agent and returns when it is ready.
func (c *crashing) run() {
	c.t.Helper()
	args := []string{c.bin, "agent", "--config", c.path("usher.yaml"), "--log-level", "error"}
	if c.kernel != "" {
		exe, err := os.Executable()
		if err != nil {
			c.t.Fatal(err)
		}
		args = append([]string{exe}, args...)
	}
	args = append([]string{"sh", "-c", `LISTEN_PID=$$ exec "$0" "$@"`}, args...)
	args = append(slices.Clip(c.through), args...)
	c.cmd = exec.Command(args[0], args[1:]...)
	if c.cmd.Stderr = os.Stderr; c.log != nil {
		c.cmd.Args[len(c.cmd.Args)-1], c.cmd.Stderr = "warn", c.log
	}
	c.cmd.Env = os.Environ()
	if c.prepare != nil {
		c.prepare(c.cmd)
		defer func() {
			for _, f := range c.cmd.ExtraFiles {
				f.Close()
			}
		}()
	}
	if c.kernel != "" {
		c.cmd.Env = append(c.cmd.Env, oldkernel.Env+"="+c.kernel)
	}
	if err := c.cmd.Start(); err != nil {
		c.t.Fatal(err)
	}
	deadline, rest := time.Now().Add(patience), pause()
	for {
		if l, err := c.License(context.Background()); err == nil && l.State == "valid" {
			if f := c.tampered(); len(f) > 0 && !c.meddled { // however the last agent ended, that was no tampering
				c.t.Errorf("the state is not as the agent left it: %+v", f)
			}
			return
		}
		if time.Now().After(deadline) {
			c.t.Fatal("the agent is not ready after two minutes")
		}
		rest()
	}
}

func (c *crashing) kill() { c.signal(syscall.SIGKILL) }

// terminate has the agent stop in its own time.
func (c *crashing) terminate() { c.signal(syscall.SIGTERM) }

// signal ends the agent, whoever it was started through.
func (c *crashing) signal(s syscall.Signal) {
	pid := c.cmd.Process.Pid
	if c.cmd.ProcessState == nil && c.through != nil { // the agent is the child of what entered, which ends with it
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%[1]d/children", pid))
		if err == nil {
			fmt.Sscan(string(b), &pid)
		}
	}
	if c.cmd.ProcessState == nil {
		syscall.Kill(pid, s)
		c.cmd.Wait()
	}
}

// The agent is killed: every lease that it acknowledged is found again, those of dead holders end, draws stay drawn.
func TestCrash(t *testing.T) {
	t.Parallel()
	c := openCrashing(t, 10, func(u *usher.Claims) {
		u.Meters = map[string]usher.Meter{"renders": {Max: new(int64(100)), Scope: "host"}}
	})
	ttl, err := c.Acquire(t.Context(), wire.AcquireRequest{Pool: "streams", TTLSeconds: 60, ClientToken: "t"})
	if err != nil {
		t.Fatal(err)
	}
	held := c.acquire(1)
	l := c.dial()
	process := lease(t, l.ask(`{"jsonrpc":"2.0","id":1,"method":"lease.acquire","params":{"pool":"streams"}}`))
	connection := lease(t, l.ask(
		`{"jsonrpc":"2.0","id":1,"method":"lease.acquire","params":{"pool":"streams","lifetime":"connection"}}`))
	cmd, dying, _ := c.holder(`{"pool":"streams"}`)
	released := c.acquire(1)
	c.release(released)
	if _, err := c.Acquire(t.Context(),
		wire.AcquireRequest{Pool: "renders", N: new(int64(7)), ClientToken: "d"}); err != nil {
		t.Fatal(err)
	}
	c.kill()
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	cmd.Wait()
	c.run()
	state := func(id string) string {
		got, err := c.Lease(t.Context(), id)
		if err != nil {
			return err.Error()
		}
		return got.State
	}
	want := map[string]string{ttl.ID: "held", held.ID: "held", process.ID: "held", connection.ID: "unconfirmed"}
	if process.Liveness == "connection" {
		want[process.ID] = "unconfirmed"
	}
	for id, s := range want {
		if got := state(id); got != s {
			t.Errorf("lease %s is %s, want %s", id, got, s)
		}
	}
	if process.Liveness != "connection" {
		if got := state(dying.ID); got == "held" || got == "unconfirmed" {
			t.Errorf("the dead holder's lease is %s", got)
		}
		c.inUse(4)
	}
	if got := state(released.ID); got == "held" {
		t.Error("a released lease is held again")
	}
	p, err := c.Pool(t.Context(), "renders")
	if err != nil || p.InUse != 7 || *p.Available != 93 {
		t.Errorf("the meter: %+v, %v", p, err)
	}
	// A client token is remembered, of leases and of draws.
	if again, err := c.Acquire(t.Context(),
		wire.AcquireRequest{Pool: "streams", TTLSeconds: 60, ClientToken: "t"}); err != nil || again.ID != ttl.ID {
		t.Errorf("the token's lease: %+v, %v", again, err)
	}
	if _, err := c.Acquire(t.Context(),
		wire.AcquireRequest{Pool: "renders", N: new(int64(7)), ClientToken: "d"}); err != nil {
		t.Error(err)
	}
	if p, err := c.Pool(t.Context(), "renders"); err != nil || p.InUse != 7 {
		t.Errorf("a draw that was asked for again is drawn again: %+v, %v", p, err)
	}
	// The connection's holder shows itself.
	l = c.dial()
	got := lease(t, l.ask(`{"jsonrpc":"2.0","id":1,"method":"lease.attach","params":{"id":"`+connection.ID+`"}}`))
	if got.State != "held" {
		t.Errorf("attached: %+v", got)
	}
	l.conn.Close()
	c.untilGone(connection.ID)
}

// Clients hammer an agent that is killed again and again: never is more held than the licence grants, and no lease that
// was acknowledged is lost.
func TestCrashUnderLoad(t *testing.T) {
	t.Parallel()
	const limit = 4
	kills := 10
	if testing.Short() {
		kills = 3
	}
	c := openCrashing(t, limit, nil)
	ctx, cancel := context.WithCancel(t.Context())
	// surely is what is held for sure: counted when the grant is known, and no longer when the release is asked for.
	var surely, grants, lost atomic.Int64
	var clients sync.WaitGroup
	for i := range 8 {
		clients.Go(func() {
			random := rand.New(rand.NewPCG(uint64(i), 11))
			cl := client.New(c.Socket())
			defer cl.Close()
			for ctx.Err() == nil {
				n := 1 + random.Int64N(2)
				lifetime := []string{"ttl", "held"}[random.IntN(2)]
				l, err := cl.Acquire(context.Background(), wire.AcquireRequest{Pool: "streams", N: &n,
					Lifetime: lifetime, ClientToken: fmt.Sprint(i, " ", random.Uint64())})
				if err != nil {
					if !errors.Is(err, client.ErrNoSlots) && !errors.Is(err, client.ErrAgentAway) &&
						!errors.Is(err, client.ErrLicenseMissing) && !errors.Is(err, client.ErrDraining) {
						t.Errorf("acquire: %v", err)
					}
					if errors.Is(err, client.ErrAgentAway) {
						<-time.After(5 * time.Millisecond)
					}
					continue
				}
				grants.Add(1)
				if now := surely.Add(n); now > limit {
					t.Errorf("%d slots are held for sure, and the licence grants %d", now, limit)
				}
				for range random.IntN(3) { // it is held, whatever happens to the agent
					if got, err := cl.Lease(context.Background(), l.ID); errors.Is(err, client.ErrLeaseUnknown) {
						lost.Add(1)
						t.Errorf("lease %s (%s) is lost: %v", l.ID, lifetime, err)
					} else if err == nil && got.N != n {
						t.Errorf("lease %s has changed: %+v", l.ID, got)
					}
				}
				surely.Add(-n)
				for ctx.Err() == nil {
					err := cl.Release(context.Background(), l.ID, false)
					if err == nil || errors.Is(err, client.ErrLeaseUnknown) { // asked for twice, around a crash
						break
					}
					<-time.After(5 * time.Millisecond)
				}
			}
		})
	}
	for range kills {
		before := grants.Load()
		for grants.Load() < before+30 && !t.Failed() {
			<-time.After(time.Millisecond)
		}
		c.kill()
		c.run()
	}
	cancel()
	clients.Wait()
	t.Logf("%d kills, %d grants, %d leases lost", kills, grants.Load(), lost.Load())
}
