package agent_test

import (
	"context"
	"crypto/ed25519"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/usher-agent/usher/agent/audit"
	"github.com/usher-agent/usher/agent/eventlog"
	"github.com/usher-agent/usher/agent/identity"
	"github.com/usher-agent/usher/client/wire"
	"github.com/usher-agent/usher/plugin/usher"
)

func (h *house) agentKey() string {
	h.t.Helper()
	f, err := h.Fingerprint(context.Background(), "")
	if err != nil {
		h.t.Fatal(err)
	}
	return f.AgentKey
}

// A trial begins with its first use and not before, ends however often the agent is started, and does not begin anew
// when the record of it is taken away.
func TestTrial(t *testing.T) {
	t.Parallel()
	h := open(t, "")
	key := h.agentKey()
	began := time.Now()
	h.drop("t.lic", h.sign("t", 3, func(c *usher.Claims) {
		c.Issued = began.Add(-48 * time.Hour).Unix()
		c.Trial, c.AgentKeys = 72*3600, []string{key}
	}))
	first := h.until("the trial", inForce("t"))
	if first.TerminatesAt == nil || first.TerminatesAt.After(began.Add(25*time.Hour)) {
		t.Errorf("a trial that is older than the record ends at %v", first.TerminatesAt)
	}
	h.drop("u.lic", h.sign("u", 3, func(c *usher.Claims) {
		c.Issued = time.Now().Add(time.Second).Unix()
		c.Trial, c.AgentKeys = 72*3600, []string{key}
	}))
	second := h.until("the second trial", inForce("u"))
	if second.TerminatesAt == nil || second.TerminatesAt.Before(began.Add(71*time.Hour)) {
		t.Errorf("a trial that is younger than the record ends at %v", second.TerminatesAt)
	}
	again := func() *wire.License {
		h.stop()
		h.start()
		return h.until("the trial after a start", inForce("u"))
	}
	if l := again(); !l.TerminatesAt.Equal(*second.TerminatesAt) {
		t.Errorf("after a start it ends at %v, not %v", l.TerminatesAt, second.TerminatesAt)
	}
	h.stop()
	if err := os.Remove(h.path("state/history.json")); err != nil {
		t.Fatal(err)
	}
	h.start()
	if l := h.until("the trial without its record", inForce("u")); l.TerminatesAt.After(second.TerminatesAt.Add(5 *
		time.Second)) { // both were issued within the second
		t.Errorf("without its record it ends at %v, later than %v", l.TerminatesAt, second.TerminatesAt)
	}
}

// An activation that may be owed for a while is, from the first use.
func TestActivationGrace(t *testing.T) {
	t.Parallel()
	h := open(t, "")
	h.drop("a.lic", h.sign("a", 3, func(c *usher.Claims) { c.Activation = &usher.Activation{Grace: 3600} }))
	l := h.until("activation owed", inForce("a"))
	if l.Code != "VALID_IN_GRACE" || l.GraceEndsAt == nil || !strings.Contains(l.Reason, "activated") {
		t.Errorf("%s until %v: %s", l.Code, l.GraceEndsAt, l.Reason)
	}
}

// verified verifies the event log, and returns the types of its events and the last event of each.
func (h *house) verified() (types []string, by map[string]eventlog.Event) {
	h.t.Helper()
	dir, key, err := h.eventLog()
	if err != nil {
		h.t.Fatal(err)
	}
	by = map[string]eventlog.Event{}
	if _, err := eventlog.Verify(dir, key, func(e eventlog.Event) {
		types, by[e.Type] = append(types, e.Type), e
	}); err != nil {
		h.t.Error(err)
	}
	return types, by
}

// The event log says what happened, by whom as privacy says, and is put aside whole when the agent has another key.
func TestEventLog(t *testing.T) {
	t.Parallel()
	h := open(t, "privacy: {users: plain}\n")
	doc := func(n int64) []byte {
		return h.sign("a", n, func(c *usher.Claims) {
			c.Issued = time.Now().Unix() + n
			c.Meters = map[string]usher.Meter{"renders": {Max: new(int64(9)), Scope: "host"}}
		})
	}
	h.drop("a.lic", doc(1))
	h.until("dropped", inForce("a"))
	h.drop("a.lic", doc(2))
	h.until("replaced", func(l *wire.License) bool { n := l.Limits["streams"]; return n != nil && *n == 2 })
	lease, err := h.Acquire(t.Context(), wire.AcquireRequest{Pool: "streams", Lifetime: "held"})
	if err != nil {
		t.Fatal(err)
	}
	if err := h.Release(t.Context(), lease.ID, true); err != nil {
		t.Fatal(err)
	}
	if _, err := h.Adjust(t.Context(), "renders", 5); err != nil {
		t.Fatal(err)
	}
	if _, err := h.Reload(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := h.Remove(t.Context(), "a.lic"); err != nil {
		t.Fatal(err)
	}
	h.stop()
	types, by := h.verified()
	for _, want := range []string{"agent.started", "document.added", "document.changed", "license.changed",
		"lease.forced", "meter.adjusted", "config.reloaded", "document.removed", "agent.stopped"} {
		if !slices.Contains(types, want) {
			t.Errorf("%s is missing among %v", want, types)
		}
	}
	if types[0] != "agent.started" && types[0] != "history.begun" || types[len(types)-1] != "agent.stopped" {
		t.Errorf("the order is %v", types)
	}
	forced := by["lease.forced"]
	if forced.Actor == "" || forced.Fields["holder"] != forced.Actor || forced.Fields["items"] != "streams=1" ||
		len(forced.Subject) != 8 || !strings.HasPrefix(lease.ID, forced.Subject) {
		t.Errorf("%+v", forced)
	}
	if a := by["meter.adjusted"]; a.Actor != forced.Actor || a.Subject != "renders" || a.Fields["drawn"] != "5" {
		t.Errorf("%+v", a)
	}
	// By default nobody is named.
	h.config = strings.Replace(h.config, "plain", "omit", 1)
	if err := os.Remove(h.path("state/agent.key")); err != nil {
		t.Fatal(err)
	}
	h.start()
	h.drop("a.lic", doc(3))
	h.until("dropped", inForce("a"))
	if _, err := h.Adjust(t.Context(), "renders", 6); err != nil {
		t.Fatal(err)
	}
	h.stop()
	types, by = h.verified()
	if slices.Contains(types, "document.changed") || by["meter.adjusted"].Actor != "" ||
		by["meter.adjusted"].Fields["drawn"] != "6" {
		t.Errorf("after another key: %v, %+v", types, by["meter.adjusted"])
	}
	if aside, err := filepath.Glob(h.path("state/events-*")); err != nil || len(aside) != 1 {
		t.Errorf("put aside: %v, %v", aside, err)
	}
}

// eventLog is where the event log lies, and the key that signs it.
func (h *house) eventLog() (dir string, key ed25519.PublicKey, err error) {
	cfg, err := h.load()
	if err != nil {
		return "", nil, err
	}
	private, err := identity.FileAt(cfg.Agent.KeyFile, cfg.State.Dir, cfg.ReadFile).Existing()
	if err != nil {
		return "", nil, err
	}
	return filepath.Join(cfg.State.Dir, audit.Folder), private.Public().(ed25519.PublicKey), nil
}
