package agent_test

import (
	"errors"
	"os/exec"
	"testing"
	"time"

	"github.com/usher-agent/usher/agent"
	"github.com/usher-agent/usher/client"
	"github.com/usher-agent/usher/client/wire"
)

// An agent that is started in another time namespace, whose clock since boot is behind or ahead, goes on by the host's:
// it hands out no block that is over and another's, keeps the blocks that are its own, and takes no time for passed
// that has not.
func TestTimeNamespace(t *testing.T) {
	t.Parallel()
	const back, on = "-60", "864000"
	if agent.SinceBoot() < 2*time.Minute {
		t.Skip("the host has not been up for long enough for a clock that is behind")
	}
	enter := func(seconds string) []string {
		return []string{"unshare", "--time", "--monotonic", seconds, "--boottime", seconds}
	}
	if out, err := exec.Command("unshare", append(enter(back)[1:], "true")...).CombinedOutput(); err != nil {
		lacks(t, "no time namespace can be made here: %v: %s", err, out)
	}
	const ttl = 12 * time.Second
	s := openSiteServer(t, 6, ttl)
	all := s.agents(2)
	a, b := all[0], all[1]
	a.take(2)
	b.take(2)
	// Killed, and back when another has its blocks.
	a.kill()
	b.take(4)
	a.through = enter(back)
	a.run()
	if _, err := a.Acquire(t.Context(), wire.AcquireRequest{Pool: "streams"}); !errors.Is(err, client.ErrNoSlots) {
		t.Errorf("an agent whose clock since boot is behind hands out a slot of another's: %v", err)
	}
	a.timeIsRight()
	// In time, and by a clock that is far ahead: nothing is over that is not.
	for try := 0; ; try++ {
		b.kill()
		killed := time.Now()
		b.through = enter(on)
		b.run()
		p := b.share()
		if p.InUse > *p.Budget {
			t.Errorf("an agent whose clock since boot is ahead has %d, and %d held", *p.Budget, p.InUse)
		}
		if *p.Budget > 0 {
			break
		}
		// On a busy machine it may be back too late, and its block is over rightly.
		if took := time.Since(killed); took < ttl/2 || try == 3 {
			t.Fatalf("an agent whose clock since boot is ahead has nothing %s after it was killed", took)
		}
		b.take(4)
	}
	b.timeIsRight()
}

// timeIsRight holds the licence time against this process's clock.
func (c *crashing) timeIsRight() {
	c.t.Helper()
	k, err := c.Clock(c.t.Context())
	if err != nil {
		c.t.Fatal(err)
	}
	if off := time.Until(k.Time); off.Abs() > time.Hour {
		c.t.Errorf("the licence time is off by %v: %+v", off, k)
	}
}
