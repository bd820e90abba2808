package agent_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/usher-agent/usher/client"
	"github.com/usher-agent/usher/client/wire"
	"github.com/usher-agent/usher/plugin/usher"
)

// becomes waits until something is so.
func becomes(t *testing.T, what string, so func() bool) {
	t.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for until := time.Now().Add(60 * time.Second); !so(); <-tick.C {
		if time.Now().After(until) {
			t.Fatalf("it does not come to be: %s", what)
		}
	}
}

// metered drops a licence of 9 streams and 100 renders.
func (h *house) metered() {
	h.t.Helper()
	h.drop("a.lic", h.sign("a", 9, func(c *usher.Claims) {
		c.Meters = map[string]usher.Meter{"renders": {Max: new(int64(100)), Scope: "host"}}
	}))
	h.until("dropped", inForce("a"))
}

// take takes a held slot and draws once.
func (h *house) take() error {
	_, err := h.Acquire(h.t.Context(), wire.AcquireRequest{Pool: "streams", Lifetime: "held"})
	_, drawn := h.Acquire(h.t.Context(), wire.AcquireRequest{Pool: "renders"})
	return errors.Join(err, drawn)
}

func (h *house) counts() string {
	streams, err := h.Pool(h.t.Context(), "streams")
	renders, err2 := h.Pool(h.t.Context(), "renders")
	if err := errors.Join(err, err2); err != nil {
		h.t.Fatal(err)
	}
	return fmt.Sprint(streams.InUse, renders.InUse)
}

// Whatever of the agent's two folders is deleted beneath it comes back within seconds, and the next start knows all
// that was held and drawn before, meanwhile and after.
func TestStateIsDeletedBeneathTheAgent(t *testing.T) {
	t.Parallel()
	for _, gone := range []string{"state", "run", "state and run", "state/durable.journal", "run/leases.journal",
		"state/state.seal", "state/agent.key", "state/history.json", "run/runtime.seal", "state/agent.lock"} {
		t.Run(gone, func(t *testing.T) {
			h := open(t, "")
			h.metered()
			if err := h.take(); err != nil {
				t.Fatal(err)
			}
			key, err := os.ReadFile(h.path("state/agent.key"))
			if err != nil {
				t.Fatal(err)
			}
			var names []string
			for name := range strings.SplitSeq(gone, " and ") {
				names = append(names, name)
				if err := os.RemoveAll(h.path(name)); err != nil {
					t.Fatal(err)
				}
			}
			for _, name := range names {
				becomes(t, name+" is there", func() bool { _, err := os.Lstat(h.path(name)); return err == nil })
			}
			becomes(t, "a slot and a draw are to be had", func() bool { return h.take() == nil })
			becomes(t, "the agent is ready", func() bool {
				s, err := h.Client.Health(t.Context())
				return err == nil && s.Status == "ok" && len(s.Unready) == 0
			})
			want := h.counts()
			h.stop()
			h.start()
			if got := h.counts(); got != want {
				t.Errorf("after a restart %s are in use, want %s", got, want)
			}
			if again, err := os.ReadFile(h.path("state/agent.key")); err != nil || len(key) != len(again) {
				t.Errorf("the agent's key is another: %v", err)
			}
			if s, err := h.Client.Health(t.Context()); err != nil || len(s.State) > 0 {
				t.Errorf("the next start finds fault with the state: %+v, %v", s, err)
			}
		})
	}
}

// A folder that cannot be made again: what must last is denied, the agent is unready and says why on every surface, and
// it heals when it can.
func TestStateCannotBeMadeAgain(t *testing.T) {
	t.Parallel()
	h := open(t, "ops: {listen: 127.0.0.1:0}\n")
	h.metered()
	if err := h.take(); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(os.RemoveAll(h.path("state")), os.WriteFile(h.path("state"), nil, 0o600)); err != nil {
		t.Fatal(err)
	}
	becomes(t, "what must last is denied", func() bool { return errors.Is(h.take(), client.ErrStorage) })
	becomes(t, "the agent says so", func() bool {
		s, err := h.Client.Health(t.Context())
		return err == nil && s.Status == "unready" && strings.Contains(fmt.Sprint(s.Unready), h.path("state"))
	})
	if _, err := h.Acquire(t.Context(), wire.AcquireRequest{Pool: "streams"}); err != nil {
		t.Errorf("what need not last: %v", err)
	}
	if m := h.metrics(); !strings.Contains(m, `usher_vital_fault{part="state"} 1`) {
		t.Error("the metrics do not say so")
	}
	if err := os.Remove(h.path("state")); err != nil {
		t.Fatal(err)
	}
	becomes(t, "it heals", func() bool { return h.take() == nil })
	becomes(t, "it is ready", func() bool {
		s, err := h.Client.Health(t.Context())
		return err == nil && s.Status == "ok"
	})
}

// metrics reads the metrics over the local API.
func (h *house) metrics() string {
	h.t.Helper()
	b, err := h.Metrics(h.t.Context())
	if err != nil {
		h.t.Fatal(err)
	}
	return string(b)
}

// The socket's file is deleted: who comes later finds a new one, and who has a session keeps it.
func TestSocketIsDeletedBeneathTheAgent(t *testing.T) {
	t.Parallel()
	h := open(t, "")
	h.metered()
	s, err := client.Open(t.Context(), client.WithSocket(h.Socket()))
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	l, err := s.Acquire(t.Context(), client.Request{Pool: "streams"})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(h.path("s")); err != nil {
		t.Fatal(err)
	}
	becomes(t, "a call is answered", func() bool {
		_, err := client.New(h.path("s")).License(t.Context())
		return err == nil
	})
	if err := l.Close(); err != nil {
		t.Errorf("the session of before: %v", err)
	}
}

// The reader of the log stands still, and later is gone. The licence ends all the same, a reload and SIGTERM are
// obeyed, and what was dropped is counted.
func TestLogThatNobodyReads(t *testing.T) {
	t.Parallel()
	bin, err := buildOnce()
	if err != nil {
		t.Fatal(err)
	}
	for _, gone := range []bool{false, true} {
		h := open(t, "")
		h.stop()
		h.config += "log: {level: debug}\n"
		if err := os.WriteFile(h.path("u.yaml"), []byte(h.config), 0o600); err != nil {
			t.Fatal(err)
		}
		r, w, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		cmd := exec.Command(bin, "agent", "--config", h.path("u.yaml"))
		cmd.Stderr = w
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		exited := make(chan error, 1)
		go func() { exited <- cmd.Wait() }()
		defer cmd.Process.Kill()
		w.Close()
		if gone {
			r.Close()
		} else {
			defer r.Close()
		}
		becomes(t, "it answers", func() bool { _, err := h.License(t.Context()); return err == nil })
		h.drop("a.lic", h.sign("a", 9, func(c *usher.Claims) { c.Expires = time.Now().Add(6 * time.Second).Unix() }))
		becomes(t, "the licence is read", func() bool {
			l, err := h.License(t.Context())
			return err == nil && l.State != "missing"
		})
		dropped := func() bool {
			m := h.metrics()
			return strings.Contains(m, "usher_log_dropped_total") && !strings.Contains(m, "usher_log_dropped_total 0\n")
		}
		if gone {
			becomes(t, "lines are dropped", func() bool { h.noise(); return dropped() })
		} else {
			for range 4 { // more than a pipe holds
				h.noise()
			}
		}
		var last error
		becomes(t, "the licence ends", func() bool {
			_, last = h.Acquire(t.Context(), wire.AcquireRequest{Pool: "streams"})
			return errors.Is(last, client.ErrLicenseExpired)
		})
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		if _, err := h.Reload(ctx); err != nil {
			t.Errorf("reload: %v", err)
		}
		cancel()
		if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
			t.Fatal(err)
		}
		select {
		case err := <-exited:
			if err != nil {
				t.Errorf("the agent ended with %v", err)
			}
		case <-time.After(30 * time.Second):
			t.Error("the agent does not end")
		}
	}
}

// noise has the agent log much: broken documents that come and go.
func (h *house) noise() {
	h.t.Helper()
	for i := range 100 {
		if err := os.WriteFile(filepath.Join(h.path("l"), fmt.Sprintf("%s-%d.lic", strings.Repeat("junk", 30), i)),
			[]byte(time.Now().String()), 0o600); err != nil {
			h.t.Fatal(err)
		}
	}
}
