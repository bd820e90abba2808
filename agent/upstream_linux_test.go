package agent_test

import (
	"context"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/usher-agent/usher/client/wire"
	"github.com/usher-agent/usher/plugin/usher"
	"github.com/usher-agent/usher/plugin/usher/registry"
)

// online is a house whose licence demands an upstream, and that upstream, which can be away.
type onlineHouse struct {
	*house
	registry *registry.Registry
	away     atomic.Bool
	calls    atomic.Int64
}

func openOnline(t *testing.T) *onlineHouse {
	t.Helper()
	o := &onlineHouse{}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		o.calls.Add(1)
		if o.away.Load() {
			w.WriteHeader(http.StatusServiceUnavailable)
			return
		}
		o.registry.Handler().ServeHTTP(w, r)
	}))
	t.Cleanup(server.Close)
	o.house = open(t, "upstream: {url: "+server.URL+"}\n")
	var err error
	if o.registry, err = registry.Open(registry.Config{Dir: t.TempDir(), Signer: o.signer}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { o.registry.Close() })
	return o
}

// A licence that demands an upstream: activated, kept alive through a restart, renewed, suspended, revoked.
func TestOnline(t *testing.T) {
	t.Parallel()
	o := openOnline(t)
	o.drop("a.lic", o.sign("L1", 2, func(c *usher.Claims) {
		c.Activation, c.Heartbeat, c.CheckIn = &usher.Activation{}, &usher.Period{Every: 3, Grace: 600},
			&usher.CheckIn{Every: 6, Grace: 600}
		c.Expires = time.Now().Add(time.Hour).Unix()
		c.ReportUsage = true
	}))
	l := o.until("activated", inForce("L1"))
	if l.Upstream == nil || l.Upstream.State != "ok" || l.Heartbeat == nil || l.Heartbeat.Last == nil ||
		l.CheckIn == nil || l.CheckIn.Next == nil {
		t.Errorf("the licence says %+v, %+v, %+v", l.Upstream, l.Heartbeat, l.CheckIn)
	}
	if _, err := o.Acquire(t.Context(), wire.AcquireRequest{Pool: "streams"}); err != nil {
		t.Fatal(err)
	}
	o.until("two heartbeats, with what is in use", func(*wire.License) bool {
		all, err := o.registry.List()
		return o.calls.Load() >= 3 && err == nil && len(all) == 1 && len(all[0].Hosts) == 1 &&
			len(all[0].Hosts[0].Usage) > 0 && all[0].Hosts[0].Usage[0].InUse == 1
	})

	// A restart loses nothing: not activated anew, not taken for a copy.
	o.stop()
	o.start()
	o.until("after a restart", inForce("L1"))
	n := o.calls.Load()
	o.until("further heartbeats", func(l *wire.License) bool { return o.calls.Load() >= n+2 && l.State == "valid" })

	// A renewal arrives with a check-in and outlives a restart.
	if _, err := o.registry.Renew("L1", time.Now().Add(2*time.Hour)); err != nil {
		t.Fatal(err)
	}
	renewed := func(l *wire.License) bool {
		return l.State == "valid" && len(l.Licenses) > 0 && l.Licenses[0].ExpiresAt != nil &&
			time.Until(*l.Licenses[0].ExpiresAt) > 90*time.Minute
	}
	o.until("renewed", renewed)
	o.stop()
	o.start()
	o.until("renewed, after a restart", renewed)

	// The upstream's word counts at once, and its silence does not.
	o.away.Store(true)
	o.until("away", func(l *wire.License) bool {
		return l.Upstream != nil && l.Upstream.State == "retrying" && l.State == "valid" &&
			o.measures(`{call="heartbeat",result="transient"}`)
	})
	o.away.Store(false)
	o.until("back", func(l *wire.License) bool { return l.Upstream.State == "ok" })
	if _, err := o.registry.SetState("L1", registry.StateSuspended, "invoice 7 is open"); err != nil {
		t.Fatal(err)
	}
	if l := o.until("suspended", func(l *wire.License) bool {
		// Of a heartbeat, or of a check-in that came first.
		return code("SUSPENDED")(l) && o.measures(`result="refused"}`)
	}); !strings.Contains(l.Reason, "invoice 7 is open") {
		t.Errorf("the reason is %q", l.Reason)
	}
	if _, err := o.registry.SetState("L1", registry.StateActive, ""); err != nil {
		t.Fatal(err)
	}
	o.until("active again", code("VALID"))
	for _, want := range []string{`usher_upstream_requests_total{call="heartbeat",result="ok"}`,
		"usher_check_in_due_timestamp_seconds ", "usher_heartbeat_deadline_timestamp_seconds "} {
		if !o.measures(want) {
			t.Errorf("the metrics lack %s", want)
		}
	}
}

// measures reports whether the metrics have a text.
func (h *house) measures(text string) bool {
	m, err := h.Metrics(context.Background())
	return err == nil && strings.Contains(string(m), text)
}

// Where the licence folder cannot be written a renewed document lies in the state folder, for as long as the licence
// that it renews lies in the folder.
func TestRenewalBesideAReadOnlyFolder(t *testing.T) {
	t.Parallel()
	if os.Getuid() == 0 {
		// Root may write anywhere; a folder that is a read-only mount is what stops it.
		if err := readOnly(t); err != nil {
			t.Skipf("no folder can be made read-only for root here: %v", err)
		}
	}
	o := openOnline(t)
	o.drop("a.lic", o.sign("L1", 2, func(c *usher.Claims) {
		c.CheckIn, c.Expires = &usher.CheckIn{Every: 4, Grace: 600}, time.Now().Add(time.Hour).Unix()
	}))
	o.until("activated", func(l *wire.License) bool { return l.Upstream != nil && l.Upstream.State == "ok" })
	thaw := freeze(t, o.path("l"))
	if _, err := o.registry.Renew("L1", time.Now().Add(2*time.Hour)); err != nil {
		t.Fatal(err)
	}
	renewed := func(l *wire.License) bool {
		return len(l.Licenses) > 0 && l.Licenses[0].InForce && strings.HasPrefix(l.Licenses[0].Document, "renewed-")
	}
	o.until("renewed", renewed)
	o.stop()
	o.start()
	o.until("renewed, after a restart", renewed)
	thaw()
	if err := os.Remove(o.path("l") + "/a.lic"); err != nil {
		t.Fatal(err)
	}
	o.until("taken out", code("NOT_FOUND"))
}
