package agent_test

import (
	"context"
	"encoding/pem"
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/usher-agent/usher/client"
	"github.com/usher-agent/usher/client/wire"
	"github.com/usher-agent/usher/plugin/keygen"
	"github.com/usher-agent/usher/plugin/keygen/keygentest"
)

// keygenHouse is a stopped agent that has a licence file of a Keygen account, which is behind a CA of its own, and the
// key that opens it. With the configuration that comes with it the agent is served by the account.
func keygenHouse(t *testing.T, l keygentest.License) (h *house, account *keygentest.Cloud, with string) {
	t.Helper()
	account = keygentest.New(time.Now)
	server := httptest.NewTLSServer(account)
	t.Cleanup(server.Close)
	account.Put(l)
	h = open(t, "host: {fingerprint: host-1}\n")
	h.stop()
	ca := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw})
	for name, data := range map[string][]byte{"account.pub": []byte(account.PublicKey()), "ca.pem": ca} {
		if err := os.WriteFile(h.path(name), data, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	h.config = strings.Replace(h.config, "  trust:\n",
		"  trust:\n    - {system: keygen, kid: account, key_file: "+h.path("account.pub")+"}\n", 1)
	h.drop("acme.lic", account.LicenseFile(l.ID, "aes-256-gcm+ed25519", 30*24*time.Hour))
	h.drop("acme.key", []byte(l.Key+"\n"))
	return h, account, "upstream: {ca_file: " + h.path("ca.pem") + ", keygen: {account: " + account.Account +
		", url: " + server.URL + "}}\n"
}

// A floating licence of a Keygen account: the file alone hands out nothing, for others may have it too. The account
// makes this host a machine of it, and its machine file does; through an outage and a restart too. What the account
// says counts.
func TestKeygenAccount(t *testing.T) {
	t.Parallel()
	l := keygentest.License{ID: "lic-1", Key: "SECRET-KEY-1", Product: "acme", Entitlements: []string{"EXPORT"},
		HeartbeatDuration: 10 * time.Minute,
		Attributes: keygen.Attributes{Name: new("Example"), Floating: true, RequireHeartbeat: true,
			MaxMachines: new(int64(5)), MaxProcesses: new(int64(3))}}
	h, account, with := keygenHouse(t, l)
	h.start()
	h.until("owing the first heartbeat, which nobody can send", code("VALID_IN_GRACE"))
	h.stop()
	h.config += with
	h.start()
	activated := func(l *wire.License) bool {
		return inForce("lic-1")(l) && l.Licenses[0].Document != "acme.lic" && l.Upstream != nil &&
			l.Upstream.State == "ok"
	}
	got := h.until("activated", activated)
	if !got.Features["EXPORT"].Enabled || got.Host.Match != "ok" {
		t.Errorf("the licence says %+v, %+v", got.Features, got.Host)
	}
	if m := account.Machines(); len(m) != 1 || m[0].Fingerprint != "host-1" || m[0].LastHeartbeat.IsZero() {
		t.Errorf("the account has %+v", m)
	}
	var leases []*wire.Lease
	for range 3 {
		lease, err := h.Acquire(t.Context(), wire.AcquireRequest{Pool: "processes"})
		if err != nil {
			t.Fatal(err)
		}
		leases = append(leases, lease)
	}
	if _, err := h.Acquire(t.Context(), wire.AcquireRequest{Pool: "processes"}); !errors.Is(err, client.ErrNoSlots) {
		t.Errorf("a fourth process: %v", err)
	}
	for _, lease := range leases {
		if err := h.Release(t.Context(), lease.ID, false); err != nil {
			t.Fatal(err)
		}
	}

	// An outage, and a restart within it: the freshest proof lies in the folder.
	account.Fail(func(*http.Request) (int, http.Header) { return http.StatusServiceUnavailable, nil })
	h.stop()
	h.start()
	h.until("good through an outage", inForce("lic-1"))
	account.Fail(nil)
	account.Change("lic-1", func(l *keygentest.License) { l.Attributes.Suspended = true })
	if err := h.UpstreamCall(t.Context()); err != nil {
		t.Fatal(err)
	}
	h.until("suspended", code("SUSPENDED"))
	account.Change("lic-1", func(l *keygentest.License) { l.Attributes.Suspended = false })
	if err := h.UpstreamCall(t.Context()); err != nil {
		t.Fatal(err)
	}
	h.until("good again", activated)
	if got, err := h.ReleaseHost(t.Context(), "lic-1"); err != nil || len(got) != 1 || !got[0].Released ||
		len(account.Machines()) != 0 {
		t.Errorf("released: %+v, %v; the account has %+v", got, err, account.Machines())
	}
}

// Processes that all machines of a licence share are had from the account in blocks, each slot a process there.
func TestKeygenProcesses(t *testing.T) {
	t.Parallel()
	l := keygentest.License{ID: "lic-1", Key: "SECRET-KEY-1", Product: "acme", HeartbeatDuration: 10 * time.Minute,
		MayReadPolicy: true, Policy: keygen.Policy{ProcessLeasing: "PER_LICENSE"},
		Attributes: keygen.Attributes{Name: new("Example"), Floating: true, MaxMachines: new(int64(5)),
			MaxProcesses: new(int64(3))}}
	h, account, with := keygenHouse(t, l)
	h.config += with
	h.start()
	h.until("activated", func(l *wire.License) bool {
		return inForce("lic-1")(l) && l.Licenses[0].Document != "acme.lic"
	})
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	defer cancel()
	lease, err := h.Acquire(ctx, wire.AcquireRequest{Pool: "processes", WaitSeconds: 60})
	if err != nil {
		t.Fatal(err)
	}
	if n := len(account.Processes()); n < 1 || n > 3 {
		t.Errorf("there are %d processes", n)
	}
	if _, err := h.Acquire(ctx, wire.AcquireRequest{Pool: "processes", N: new(int64(4))}); !errors.Is(err,
		client.ErrNoSlots) {
		t.Errorf("more than there are: %v", err)
	}
	if err := h.Release(ctx, lease.ID, false); err != nil {
		t.Fatal(err)
	}
}

// Uses are counted by the account, through a restart too: what another machine has used is not to be had here, and each
// draw is one of the account's.
func TestKeygenUses(t *testing.T) {
	t.Parallel()
	l := keygentest.License{ID: "lic-1", Key: "SECRET-KEY-1", Product: "acme",
		Attributes: keygen.Attributes{Name: new("Example"), Floating: true, MaxMachines: new(int64(5)),
			MaxUses: new(int64(10)), Uses: 2}}
	h, account, with := keygenHouse(t, l)
	h.config += with
	h.start()
	h.until("activated", func(l *wire.License) bool {
		return inForce("lic-1")(l) && l.Licenses[0].Document != "acme.lic"
	})
	for i := range 8 {
		if i == 4 {
			h.stop()
			h.start()
		}
		if _, err := h.Acquire(t.Context(), wire.AcquireRequest{Pool: "uses", WaitSeconds: 60}); err != nil {
			t.Fatalf("draw %d: %v", i, err)
		}
	}
	if _, err := h.Acquire(t.Context(), wire.AcquireRequest{Pool: "uses"}); !errors.Is(err, client.ErrMeterEmpty) {
		t.Errorf("a ninth draw: %v", err)
	}
	account.Change("lic-1", func(l *keygentest.License) {
		if l.Attributes.Uses != 10 {
			t.Errorf("the account has counted %d", l.Attributes.Uses)
		}
	})
}

// A draw that waits takes of the account what it was granted, and no more ahead than the documentation says; a meter
// that nobody has asked for takes nothing.
func TestDrawIsTakenOnce(t *testing.T) {
	t.Parallel()
	l := keygentest.License{ID: "lic-1", Key: "SECRET-KEY-1", Product: "acme",
		Attributes: keygen.Attributes{Name: new("Example"), Floating: true, MaxMachines: new(int64(5)),
			MaxUses: new(int64(200))}}
	h, account, with := keygenHouse(t, l)
	h.config += with
	used := func() (n int64) {
		account.Change("lic-1", func(l *keygentest.License) { n = l.Attributes.Uses })
		return n
	}
	h.start()
	h.until("activated", func(l *wire.License) bool {
		return inForce("lic-1")(l) && l.Licenses[0].Document != "acme.lic"
	})
	h.stop() // what was under way is done
	if n := used(); n != 0 {
		t.Errorf("%d uses were taken of a meter that nobody has asked for", n)
	}
	h.start()
	if _, err := h.Acquire(t.Context(), wire.AcquireRequest{Pool: "uses", N: new(int64(20)), WaitSeconds: 60}); err !=
		nil {
		t.Fatal(err)
	}
	h.stop()
	if n := used(); n < 20 || n > 32 { // a sixteenth of 200 is 12
		t.Errorf("%d uses were taken for a draw of 20", n)
	}
}
