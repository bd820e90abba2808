package agent_test

import (
	"bytes"
	"io"
	"net"
	"os"
	"os/exec"
	"strings"
	"sync/atomic"
	"testing"
)

// A command that takes or gives back slots rides out a restart of the agent; with --agent-wait 0 it fails at once.
func TestCommandsRideOutARestart(t *testing.T) {
	t.Parallel()
	c := openCrashing(t, 3, nil)
	tool := func(args ...string) *exec.Cmd {
		cmd := exec.Command(c.bin, append([]string{"--socket", c.Socket()}, args...)...)
		cmd.Stderr = os.Stderr
		return cmd
	}
	out, err := tool("acquire", "--pool", "streams", "--ttl", "1h").Output()
	if err != nil {
		t.Fatal(err)
	}
	id := strings.TrimSpace(string(out))
	c.terminate()
	// One with patience says that it waits.
	hasty, said := tool("run", "--agent-wait", "0", "--pool", "streams", "--", "true"), &strings.Builder{}
	hasty.Stderr = said
	if err := hasty.Run(); exitCode(err) != 69 || strings.Contains(said.String(), "waiting for it") {
		t.Errorf("without patience: %v: %s", err, said)
	}
	var waiting []*exec.Cmd
	for _, args := range [][]string{{"run", "--agent-wait", "60s", "--pool", "streams", "--", "sh", "-c", "exit 7"},
		{"acquire", "--agent-wait", "60s", "--pool", "streams", "--held"}, {"renew", "--agent-wait", "60s", id},
		{"release", "--agent-wait", "60s", id}} {
		cmd := tool(args...)
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		waiting = append(waiting, cmd)
		if args[0] == "renew" { // before the release
			c.run()
			err := cmd.Wait()
			if err != nil {
				t.Errorf("renew: %v", err)
			}
			c.terminate()
		}
	}
	c.run()
	for i, want := range map[int]int{0: 7, 1: 0, 3: 0} {
		if err := waiting[i].Wait(); exitCode(err) != want {
			t.Errorf("%v: %v, want exit code %d", waiting[i].Args, err, want)
		}
	}
	c.inUse(1) // what was acquired meanwhile
}

func exitCode(err error) int {
	if e, ok := err.(*exec.ExitError); ok {
		return e.ExitCode()
	}
	if err != nil {
		return -1
	}
	return 0
}

// The agent goes away after it has granted and before it has answered: the command gives back what it was granted, and
// holds what it asked for once. What the process has held before stays.
func TestLostGrantIsNotHeldTwice(t *testing.T) {
	t.Parallel()
	c := openCrashing(t, 5, nil)
	before := c.dial() // the agent sees this process at both ends
	held := lease(t, before.ask(`{"jsonrpc":"2.0","id":1,"method":"lease.acquire","params":{"pool":"streams"}}`))
	l, err := net.Listen("unix", c.path("p"))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	var swallowed atomic.Bool
	go func() {
		for {
			from, err := l.Accept()
			if err != nil {
				return
			}
			to, err := net.Dial("unix", c.Socket())
			if err != nil {
				t.Error(err)
				return
			}
			go func() { io.Copy(to, from); to.Close() }()
			go func() {
				defer from.Close()
				b := make([]byte, 1<<16)
				for {
					n, err := to.Read(b)
					if err != nil {
						return
					}
					if bytes.Contains(b[:n], []byte(`"lifetime":"process"`)) && bytes.HasPrefix(b, []byte("{")) &&
						swallowed.CompareAndSwap(false, true) {
						return // the grant is lost
					}
					from.Write(b[:n])
				}
			}()
		}
	}()
	cmd := exec.Command(c.bin, "--socket", c.path("p"), "run", "--agent-wait", "60s", "--pool", "streams", "--", "cat")
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer cmd.Wait()
	defer in.Close()
	io.WriteString(in, "x")
	if _, err := out.Read(make([]byte, 1)); err != nil {
		t.Fatalf("the program does not run: %v", err)
	}
	if !swallowed.Load() {
		t.Error("no grant was lost")
	}
	c.inUse(2) // that of before, and one
	if s := c.state(held.ID); s != "held" {
		t.Errorf("the lease of before is %s", s)
	}
}
