package agent_test

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/usher-agent/usher/client"
	"github.com/usher-agent/usher/client/wire"
)

// tool runs the command line with the agent's socket, and returns its exit code and what it says.
func (c *crashing) tool(args ...string) (int, string) {
	c.t.Helper()
	cmd := exec.Command(c.bin, append(args, "--socket", c.Socket())...)
	out, err := cmd.CombinedOutput()
	if exit := (*exec.ExitError)(nil); err != nil && !errors.As(err, &exit) {
		c.t.Fatal(err)
	}
	return cmd.ProcessState.ExitCode(), string(out)
}

// The holder of a lease that an operator has released with --hold-off does not take the slots back, not when the agent
// is killed in between either, until the time is over or the hold-off is lifted; another user has them at once.
func TestOustedHolderIsHeldOff(t *testing.T) {
	t.Parallel()
	if os.Getuid() != 0 {
		lacks(t, "only root can call as another user")
	}
	if _, err := exec.LookPath("curl"); err != nil {
		lacks(t, "there is no curl")
	}
	c := openCrashing(t, 2, nil)
	c.openFolders(t)
	const acquire = `{"jsonrpc":"2.0","id":1,"method":"lease.acquire","params":{"pool":"streams","n":2%s}}`
	hog := lease(t, lineOf(t, c.dialAs(somebody)).ask(fmt.Sprintf(acquire, "")))
	waiter := lineOf(t, c.dialAs(somebody))
	waiter.say(fmt.Sprintf(acquire, `,"wait_seconds":600`))
	c.eventually("a process of the holder's waits", func() bool {
		p, err := c.Pool(t.Context(), "streams")
		return err == nil && p.Waiting == 2
	})
	if code, out := c.tool("release", hog.ID, "--hold-off", "10m"); code != 64 {
		t.Errorf("without --force: %d %s", code, out)
	}
	for _, bad := range []string{"", "x", "-1", "NaN", "1e300", "0.5", "604801"} {
		expect(t, c.as(0, "DELETE", "/v1/leases/"+hog.ID+"?force=true&hold_off_seconds="+bad, ""), "400 ",
			`"field":"hold_off_seconds"`)
	}
	expect(t, c.as(0, "DELETE", "/v1/leases/"+hog.ID+"?hold_off_seconds=60", ""), "400 ", "goes with force")
	expect(t, c.as(somebody, "DELETE", "/v1/leases/"+hog.ID+"?force=true&hold_off_seconds=60", ""), "403 ")
	if code, out := c.tool("release", hog.ID, "--force", "--hold-off", "10m"); code != 0 {
		t.Fatalf("%d %s", code, out)
	}
	expect(t, waiter.hear(), "held_off", "uid 4711 is held off until", hog.ID)
	const ask, wait = `{"pool":"streams"}`, `{"pool":"streams","wait_seconds":60}`
	barred := []string{"409 ", "held_off", "uid 4711 is held off until", hog.ID, "retry_after_seconds", "--hold-off 0"}
	expect(t, c.as(somebody, "POST", "/v1/leases", ask), barred...)
	expect(t, c.as(somebody, "POST", "/v1/leases", wait), barred...)
	mine, err := c.Acquire(t.Context(), wire.AcquireRequest{Pool: "streams", Lifetime: "held"})
	if err != nil {
		t.Fatalf("another user: %v", err)
	}
	holdOff := func() wire.HoldOff {
		t.Helper()
		p, err := c.Pool(t.Context(), "streams")
		if err != nil || len(p.HoldOffs) != 1 {
			t.Fatalf("listed are %+v, %v", p, err)
		}
		return p.HoldOffs[0]
	}
	before := holdOff()
	c.kill()
	c.run()
	c.openFolders(t)
	if after := holdOff(); after.Lease != hog.ID || after.UID != somebody || !after.Until.Equal(before.Until) {
		t.Errorf("after a crash it is %+v, and was %+v", after, before)
	}
	expect(t, c.as(somebody, "POST", "/v1/leases", ask), barred...)
	expect(t, c.as(somebody, "GET", "/v1/pools/streams", ""), "hold_offs", hog.ID)
	if got := c.as(somebody+1, "GET", "/v1/pools", ""); strings.Contains(got, "hold_offs") {
		t.Errorf("a third user sees %s", got)
	}
	for _, line := range []string{`usher_hold_offs{pool="streams"} 1`,
		`usher_denials_total{code="held_off",pool="streams"} 1`} {
		if !c.metric(line) {
			t.Errorf("the metrics have no line %s", line)
		}
	}
	_, out := c.tool("pools")
	expect(t, out, "streams: uid 4711 is held off until "+before.Until.Format(time.RFC3339), hog.ID)
	if code, out := c.tool("release", hog.ID, "--force", "--hold-off", "0"); code != 0 {
		t.Fatalf("%d %s", code, out)
	}
	expect(t, c.as(somebody, "POST", "/v1/leases", ask), "201 ")
	c.comesBackInTime(mine)
	c.terminate()
	if held, lifted := c.noted("holder.held_off"), c.noted("hold_off.lifted"); held != 2 || lifted != 1 {
		t.Errorf("the event log has %d and %d events", held, lifted)
	}
	c.run()
}

// comesBackInTime releases a lease with a short hold-off, and wants the holder to have slots when that is over.
func (c *crashing) comesBackInTime(mine *wire.Lease) {
	c.t.Helper()
	python := c.python(`
import sys; sys.path.insert(0, "../client/python")
import usher
with usher.open(sys.argv[1]) as s:
    s.release(sys.argv[2], force=True, hold_off_seconds=3)
    print(s.pools()["streams"]["hold_offs"][0]["until"])
`, c.Socket(), mine.ID)
	if !python.Scan() {
		c.t.Fatal("the script says nothing")
	}
	until, err := time.Parse(time.RFC3339, python.Text())
	if err != nil {
		c.t.Fatal(err)
	}
	if time.Until(until) > time.Second { // or this machine is too slow to tell
		if code, out := c.tool("acquire", "--pool", "streams"); code != 75 || !strings.Contains(out, "held off") {
			c.t.Errorf("held off: %d %s", code, out)
		}
	}
	c.eventually("the holder comes back", func() bool {
		_, err := c.Acquire(c.t.Context(), wire.AcquireRequest{Pool: "streams"})
		if err == nil && time.Now().Before(until) {
			c.t.Errorf("it is granted %v too early", time.Until(until))
		}
		if err != nil && !errors.Is(err, client.ErrHeldOff) {
			c.t.Error(err)
		}
		return err == nil
	})
}

// A hold-off stands whatever becomes of the journal that tells of it.
func TestHoldOffOutlivesItsJournal(t *testing.T) {
	t.Parallel()
	h := open(t, "")
	h.drop("a.lic", h.sign("a", 4, nil))
	h.until("dropped", inForce("a"))
	l, err := h.Acquire(t.Context(), wire.AcquireRequest{Pool: "streams"})
	if err != nil {
		t.Fatal(err)
	}
	if err := h.HoldOff(t.Context(), l.ID, time.Hour); err != nil {
		t.Fatal(err)
	}
	for _, do := range []func(){func() { h.remove("state/durable.journal") },
		func() { h.change("state/durable.journal", empty) }} {
		h.meddle(do)
		h.until("started", inForce("a"))
		if _, err := h.Acquire(t.Context(), wire.AcquireRequest{Pool: "streams"}); !errors.Is(err, client.ErrHeldOff) {
			t.Errorf("the holder gets %v", err)
		}
	}
}
