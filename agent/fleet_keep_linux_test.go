package agent_test

import (
	"errors"
	"syscall"
	"testing"
	"time"

	"github.com/usher-agent/usher/client"
	"github.com/usher-agent/usher/client/wire"
)

// With on_partition: keep_held an agent that cannot reach etcd grants nothing, and what is held runs on; once the time
// of keep_held is over it is revoked, although the licence says drain.
func TestFleetKeepsWhatIsHeld(t *testing.T) {
	t.Parallel()
	e, all := openFleet(t, 10, 1, ", on_partition: keep_held, keep_held: 4s")
	a, n := all[0], int64(4)
	if _, err := a.Acquire(t.Context(), wire.AcquireRequest{Pool: "streams", N: &n, TTLSeconds: 600,
		WaitSeconds: 60}); err != nil {
		t.Fatal(err)
	}
	untilShare(t, a, "there are idle slots", func(p *wire.Pool) bool { return *p.Budget > 4 })
	if err := e.cmd.Process.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	defer e.cmd.Process.Signal(syscall.SIGCONT)
	untilShare(t, a, "the fence is over", func(p *wire.Pool) bool { return *p.Budget == 0 })
	over, one := time.Now(), int64(1)
	if _, err := a.Acquire(t.Context(), wire.AcquireRequest{Pool: "streams", N: &one}); !errors.Is(err,
		client.ErrNoSlots) {
		t.Errorf("an idle slot in a partition: %v", err)
	}
	untilShare(t, a, "what is held is revoked", func(p *wire.Pool) bool { return p.InUse == 0 })
	if ran := time.Since(over); ran < 10*time.Second {
		t.Errorf("what was held was revoked after %s; there are 10 s from the end of its time", ran)
	}
	if err := e.cmd.Process.Signal(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	untilShare(t, a, "etcd is back", func(p *wire.Pool) bool { return *p.Budget >= 1 })
}
