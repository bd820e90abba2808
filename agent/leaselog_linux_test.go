package agent_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/usher-agent/usher/agent/eventlog"
	"github.com/usher-agent/usher/agent/leaselog"
	"github.com/usher-agent/usher/client/wire"
)

// loggedLeases returns what the log of leases, which must verify, has.
func (h *house) loggedLeases() (out []string) {
	h.t.Helper()
	_, key, err := h.eventLog()
	if err != nil {
		h.t.Fatal(err)
	}
	dir := h.path(filepath.Join("state", leaselog.Folder))
	if _, err := eventlog.Verify(dir, key, nil); err != nil {
		h.t.Error(err)
	}
	if err := leaselog.Read(dir, func(e leaselog.Entry) {
		text := e.Text()
		if e.Held > 0 {
			before, after, _ := strings.Cut(text, "held=")
			_, after, _ = strings.Cut(after, ", ")
			text = before + after
		}
		out = append(out, text)
	}); err != nil {
		h.t.Error(err)
	}
	return out
}

// Each grant and each end of a lease is in a log of its own where the site asks for that, with the reason of the end
// and with the holder as privacy.users says. A disk that takes nothing of it keeps nobody from a slot.
func TestLeasesAreLogged(t *testing.T) {
	t.Parallel()
	h := open(t, "privacy: {users: pseudonym}\nevents: {leases: true}\n")
	ctx := t.Context()
	h.drop("a.lic", h.sign("L1", 2, nil))
	h.until("valid", inForce("L1"))
	acquire := func() *wire.Lease {
		t.Helper()
		l, err := h.Acquire(ctx, wire.AcquireRequest{Pool: "streams", Lifetime: "held"})
		if err != nil {
			t.Fatal(err)
		}
		return l
	}
	released, forced := acquire(), acquire()
	if err := errors.Join(h.Release(ctx, released.ID, false), h.Release(ctx, forced.ID, true)); err != nil {
		t.Fatal(err)
	}
	h.stop()
	got := h.loggedLeases()
	want := []string{"lease.granted " + released.ID[:8] + " streams=1 (holder=p-",
		"lease.granted " + forced.ID[:8] + " streams=1 (holder=p-",
		"lease.ended " + released.ID[:8] + " streams=1: released after ",
		"lease.ended " + forced.ID[:8] + " streams=1: forced after "}
	if len(got) != len(want) {
		t.Fatalf("the log has %q", got)
	}
	for i := range want {
		if !strings.HasPrefix(got[i], want[i]) || !strings.Contains(got[i], "(holder=p-") {
			t.Errorf("line %d of the log is %q rather than %q", i+1, got[i], want[i])
		}
	}
	h.namesNobody(filepath.Join("state", leaselog.Folder), released.ID, forced.ID)

	dir := h.path(filepath.Join("state", leaselog.Folder))
	if err := errors.Join(os.RemoveAll(dir), os.WriteFile(dir, nil, 0o600)); err != nil { // no folder can be there
		t.Fatal(err)
	}
	h.start()
	h.until("valid", inForce("L1"))
	one := acquire()
	polled(t, "what the disk does not take is counted", func() bool {
		return h.metric(`usher_lease_log_entries_total{result="dropped"} 1`)
	})
	if err := errors.Join(h.Release(ctx, one.ID, false), os.Remove(dir)); err != nil {
		t.Fatal(err)
	}
	h.stop()
	if got = h.loggedLeases(); len(got) != 3 || !strings.HasPrefix(got[0], "log.cut: ") ||
		!strings.HasPrefix(got[1], "log.gap: 1 events could not be written") ||
		!strings.HasPrefix(got[2], "lease.ended "+one.ID[:8]) {
		t.Errorf("when the disk takes something again, the log has %q", got)
	}
}

// The newest lines of the log of leases cannot be cut off unnoticed: the state's findings, the event log, the metrics
// and the log itself say so. The same folder without a fault has no finding.
func TestLeaseLogsEndIsSealed(t *testing.T) {
	t.Parallel()
	h := open(t, "events: {leases: true}\n")
	ctx := t.Context()
	h.drop("a.lic", h.sign("L1", 2, nil))
	h.until("valid", inForce("L1"))
	for range 2 { // a line each
		l, err := h.Acquire(ctx, wire.AcquireRequest{Pool: "streams", Lifetime: "held"})
		if err == nil {
			err = h.Release(ctx, l.ID, false)
		}
		if err != nil {
			t.Fatal(err)
		}
		h.meddle(func() {})
	}
	if got := h.tampered(); len(got) != 0 {
		t.Errorf("without a fault %v is found", got)
	}
	h.meddle(func() { h.cutLog(leaselog.Folder) })
	polled(t, "the cut end is missed", func() bool {
		return h.tampered()[leaselog.Folder] == "missing" && h.metric(`usher_state_tampered{file="lease-log"} 1`)
	})
	h.stop()
	got := h.loggedLeases()
	if len(got) != 3 || !strings.HasPrefix(got[2], "log.cut: 1 lines that stood here are gone") {
		t.Errorf("the log has %q", got)
	}
	dir, key, err := h.eventLog()
	if err != nil {
		t.Fatal(err)
	}
	said := 0
	if _, err := eventlog.Verify(dir, key, func(e eventlog.Event) {
		if e.Type == "state.tampered" && e.Subject == leaselog.Folder {
			said++
		}
	}); err != nil || said != 1 {
		t.Errorf("the event log says so %d times (%v)", said, err)
	}
}
