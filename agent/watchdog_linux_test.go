package agent

import (
	"context"
	"log/slog"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/usher-agent/usher/agent/bubble"
	"github.com/usher-agent/usher/agent/desk"
	"github.com/usher-agent/usher/agent/systemd"
	"github.com/usher-agent/usher/agent/vitals"
)

// verdicts goes round when it is asked to, unless it stands still.
type verdicts struct {
	still  atomic.Bool
	rounds atomic.Uint64
}

func (v *verdicts) Rounds() uint64 { return v.rounds.Load() }
func (v *verdicts) Look() {
	if !v.still.Load() {
		v.rounds.Add(1)
	}
}

// The service manager's watchdog hangs on what decides alone: where only that stands still, and the agent could say how
// it is, the watchdog is fed no more, and it is again once that moves.
func TestWatchdogHangsOnWhatDecides(t *testing.T) {
	manager, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(manager)
	at := t.TempDir() + "/n"
	if err := unix.Bind(manager, &unix.SockaddrUnix{Name: at}); err != nil {
		t.Fatal(err)
	}
	t.Setenv("NOTIFY_SOCKET", at)
	t.Setenv("WATCHDOG_USEC", "20000000")
	// fed counts what has come for the watchdog since it was called last.
	fed := func() (n int) {
		b := make([]byte, 4096)
		for {
			size, _, err := unix.Recvfrom(manager, b, unix.MSG_DONTWAIT)
			if err != nil {
				return n
			}
			n += strings.Count(string(b[:size]), "WATCHDOG=1")
		}
	}
	bubble.Test(t, func(t *testing.T) {
		decides := &verdicts{}
		a := &Agent{log: slog.New(slog.DiscardHandler)}
		a.desk = &desk.Desk{}
		a.vitals = vitals.New(vitals.Config{Now: time.Now, Log: a.log,
			Movers: map[string]vitals.Mover{"verdict": decides}})
		m, err := systemd.NewManager()
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 2)
		go func() { done <- a.vitals.Run(ctx) }()
		go func() { done <- a.tell(ctx, m) }()
		time.Sleep(35 * time.Second)
		if fed() == 0 {
			t.Error("the watchdog of an agent that decides is not fed")
		}
		decides.still.Store(true)
		time.Sleep(vitals.StillAfter + 5*time.Second)
		fed() // what came before it was noticed
		time.Sleep(time.Minute)
		if n := fed(); n > 0 {
			t.Errorf("the watchdog of an agent that decides nothing is fed %d times", n)
		}
		decides.still.Store(false)
		time.Sleep(35 * time.Second)
		if fed() == 0 {
			t.Error("the watchdog is not fed when the agent decides again")
		}
		cancel()
		for range 2 {
			if err := <-done; err != nil {
				t.Error(err)
			}
		}
	})
}
