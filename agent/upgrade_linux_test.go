package agent_test

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/usher-agent/usher/client"
	"github.com/usher-agent/usher/client/wire"
)

// The licence of testdata/unsealed, and what it says of a lease that is held there.
const (
	unsealedHeld = "37da3ad196d3ad4c7ffaf0adf6346d0f"
	unsealedSeen = `"seen":"2026-11-28T20:29:`
)

// openUnsealed makes a house of what an agent left that sealed nothing; no upstream answers.
func openUnsealed(t *testing.T) *house {
	t.Helper()
	h := open(t, "")
	h.stop()
	for _, name := range []string{"state", "run", "l", "k1.pub", "k1.key"} {
		if err := os.RemoveAll(h.path(name)); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.CopyFS(h.dir, os.DirFS("testdata/unsealed")); err != nil {
		t.Fatal(err)
	}
	for _, change := range []error{os.Mkdir(h.path("run"), 0o700),
		os.Rename(h.path("state/leases.journal"), h.path("run/leases.journal")), os.Chmod(h.path("state"), 0o700),
		os.Chmod(h.path("state/agent.key"), 0o600)} {
		if change != nil {
			t.Fatal(change)
		}
	}
	h.config = fmt.Sprintf(
		"product: acme\nsocket: {path: %s}\nstate: {dir: %s, runtime_dir: %s}\nupstream: {url: "+
			"\"http://127.0.0.1:1\"}\nlicense:\n  path: %s\n  trust:\n    - kid: k1\n      key_file: %s\n",
		h.path("s"), h.path("state"), h.path("run"), h.path("l"), h.path("k1.pub"))
	return h
}

// asItWas looks that leases, draws, duties and the trial are kept.
func (h *house) asItWas() {
	h.t.Helper()
	h.until("the activation and the check-in count", code("VALID"))
	if p, err := h.Pool(h.t.Context(), "renders"); err != nil || p.InUse != 7 {
		h.t.Errorf("the meter stands at %+v, %v, want 7", p, err)
	}
	if l, err := h.Lease(h.t.Context(), unsealedHeld); err != nil || l.Items[0].N != 3 {
		h.t.Errorf("the held lease is %+v, %v", l, err)
	}
	if b, err := os.ReadFile(h.path("state/history.json")); err != nil || !strings.Contains(string(b), unsealedSeen) {
		h.t.Errorf("the trial's first use is not kept: %s, %v", b, err)
	}
	if got := h.tampered(); len(got) != 0 {
		h.t.Errorf("an upgrade is taken for tampering: %v", got)
	}
}

// What an earlier version left is taken over whole at the first start, and sealed from then on.
func TestUpgradeIsTakenOver(t *testing.T) {
	t.Parallel()
	h := openUnsealed(t)
	h.start()
	h.asItWas()
	if _, err := h.Acquire(t.Context(), wire.AcquireRequest{Pool: "renders", N: new(int64(2))}); err != nil {
		t.Fatal(err)
	}
	h.meddle(func() { h.remove("state/durable.journal") })
	h.until("started", code("VALID"))
	if p, err := h.Pool(t.Context(), "renders"); err != nil || p.InUse != 9 {
		t.Errorf("the meter stands at %+v, %v, want 9", p, err)
	}
}

// A start that is cut short anywhere in the take-over is followed by one that finds nothing wrong: here before the key
// is marked.
func TestUpgradeIsCutShort(t *testing.T) {
	t.Parallel()
	h := openUnsealed(t)
	key, err := os.ReadFile(h.path("state/agent.key"))
	if err != nil {
		t.Fatal(err)
	}
	h.start()
	h.until("started", code("VALID"))
	h.stop()
	if err := os.WriteFile(h.path("state/agent.key"), key, 0o600); err != nil {
		t.Fatal(err)
	}
	h.start()
	h.asItWas()
}

// Who removes the seals and puts back an earlier version's files does not have them taken over again.
func TestUpgradeIsTakenOverOnce(t *testing.T) {
	t.Parallel()
	h := openUnsealed(t)
	old, err := os.ReadFile(h.path("state/durable.journal"))
	if err != nil {
		t.Fatal(err)
	}
	upstream, err := os.ReadFile(h.path("state/upstream.json"))
	if err != nil {
		t.Fatal(err)
	}
	h.start()
	h.asItWas()
	if _, err := h.Acquire(t.Context(), wire.AcquireRequest{Pool: "renders", N: new(int64(3))}); err != nil {
		t.Fatal(err)
	}
	h.meddle(func() {
		h.remove("state/state.seal")
		h.change("state/durable.journal", func([]byte) []byte { return old })
		if err := os.WriteFile(h.path("state/upstream.json"), upstream, 0o600); err != nil {
			t.Fatal(err)
		}
	})
	h.until("nothing counts as said", code("HEARTBEAT_NOT_STARTED"))
	_, err = h.Acquire(t.Context(), wire.AcquireRequest{Pool: "renders", WaitSeconds: 1})
	var e *client.Error
	if !errors.As(err, &e) {
		t.Errorf("a draw that was made is made again: %v", err)
	}
	if got := h.tampered(); got["state.seal"] != "missing" {
		t.Errorf("found %v", got)
	}
}
