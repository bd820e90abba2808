package agent_test

import (
	"bufio"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
)

// waitsIn runs usher acquire, which waits for slots, with attributes of its own. What it says of its place comes in
// lines.
func (c *crashing) waitsIn(attr *syscall.SysProcAttr, args ...string) (lines *bufio.Scanner, end func() error) {
	c.t.Helper()
	cmd := exec.Command(c.bin, append([]string{"acquire", "--pool", "streams", "--socket", c.Socket(), "--wait", "2m"},
		args...)...)
	cmd.SysProcAttr = attr
	out, err := cmd.StderrPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		c.t.Fatal(err)
	}
	c.t.Cleanup(func() { cmd.Process.Kill() })
	return bufio.NewScanner(out), cmd.Wait
}

// Who waits in a PID namespace that is not the agent's hears its own place, and not that of others: also where the
// agent sees none of its callers. The list of those who wait has them all.
func TestPlaceInAnotherNamespace(t *testing.T) {
	t.Parallel()
	for _, sees := range []bool{true, false} {
		t.Run(map[bool]string{true: "the agent sees it", false: "the agent does not"}[sees], func(t *testing.T) {
			c := openCrashing(t, 3, nil)
			other := &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWPID}
			if !sees {
				c.kill()
				c.own()
				c.run()
			} else if err := (&exec.Cmd{Path: "/bin/true", SysProcAttr: other}).Run(); err != nil {
				lacks(t, "this sandbox does not give a PID namespace: %v", err)
			}
			code, id := c.tool("acquire", "--pool", "streams", "--n", "3", "--ttl", "1h")
			if code != 0 {
				t.Fatal(id)
			}
			var reading sync.WaitGroup
			var ends []func() error
			for i, n := range []string{"2", "1"} {
				lines, end := c.waitsIn(other, "--n", n)
				ends = append(ends, end)
				want := "waiting for streams: position " + string(rune('1'+i))
				if !lines.Scan() || !strings.HasPrefix(lines.Text(), want) {
					t.Fatalf("waiter %d hears %q, want %q", i+1, lines.Text(), want)
				}
				reading.Go(func() { // nobody hears another's place
					for lines.Scan() {
						if !strings.Contains(lines.Text(), want) {
							t.Errorf("waiter %d hears %q", i+1, lines.Text())
						}
					}
				})
			}
			if code, out := c.tool("leases", "--waiting"); code != 0 || strings.Count(out, "streams=") != 2 {
				t.Errorf("%d %s", code, out)
			}
			if code, out := c.tool("release", strings.TrimSpace(id)); code != 0 {
				t.Fatalf("%d %s", code, out)
			}
			reading.Wait()
			for i, end := range ends {
				if err := end(); err != nil {
					t.Errorf("waiter %d: %v", i+1, err)
				}
			}
		})
	}
}
