package agent_test

import (
	"context"
	"os"
	"strings"
	"testing"
	"time"

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

// A trial begins with its first use and not before, ends however often the agent is started, and does not begin anew when the
// record of it is taken away.
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
	if l := h.until("the trial without its record", inForce("u")); l.TerminatesAt.After(*second.TerminatesAt) {
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
