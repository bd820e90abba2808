package agent_test

import (
	"crypto"
	"crypto/ed25519"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/usher-agent/usher/client"
	"github.com/usher-agent/usher/client/wire"
	"github.com/usher-agent/usher/plugin/usher"
)

func (o *onlineHouse) hosts() int {
	o.t.Helper()
	all, err := o.registry.List()
	if err != nil || len(all) != 1 {
		o.t.Fatalf("the registry has %+v, %v", all, err)
	}
	return len(all[0].Hosts)
}

// A host is drained and given up: nothing new is granted, what is held is waited for, and only then its place is given
// back, which outlives a restart. A person takes it again.
func TestDrain(t *testing.T) {
	t.Parallel()
	o := openOnline(t)
	ctx := t.Context()
	o.drop("a.lic", o.sign("L1", 2, func(c *usher.Claims) {
		c.Activation, c.Heartbeat = &usher.Activation{}, &usher.Period{Every: 3600}
		c.MaxBorrow = 86400
	}))
	o.until("activated", inForce("L1"))
	l, err := o.Acquire(ctx, wire.AcquireRequest{Pool: "streams", Lifetime: "held"})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := o.Acquire(ctx, wire.AcquireRequest{Pool: "streams", Until: new(time.Now().Add(time.Hour))}); err !=
		nil {
		t.Fatal(err)
	}
	d, err := o.Drain(ctx, wire.DrainRequest{Release: true})
	if err != nil || !d.Draining || d.Leases != 1 || d.Borrowed != 1 || len(d.Licenses) > 0 || o.hosts() != 1 {
		t.Fatalf("with a lease held: %+v, %v, %d hosts", d, err, o.hosts())
	}
	if _, err := o.Acquire(ctx, wire.AcquireRequest{Pool: "streams"}); !errors.Is(err, client.ErrDraining) {
		t.Errorf("an acquire: %v", err)
	}
	if ready, err := o.Ready(ctx); ready || err != nil {
		t.Errorf("ready: %v, %v", ready, err)
	}
	if d, err := o.Undrain(ctx); err != nil || d.Draining {
		t.Errorf("undone: %+v, %v", d, err)
	}
	if ready, err := o.Ready(ctx); !ready || err != nil {
		t.Errorf("ready, when undone: %v, %v", ready, err)
	}

	type answer struct {
		*wire.Drain
		error
	}
	drained := make(chan answer, 1)
	go func() {
		d, err := o.Drain(ctx, wire.DrainRequest{WaitSeconds: 600, Release: true})
		drained <- answer{d, err}
	}()
	o.until("draining", func(*wire.License) bool {
		h, err := o.Health(ctx)
		return err == nil && h.Status == "draining"
	})
	select {
	case a := <-drained:
		t.Fatalf("it does not wait: %+v", a)
	default:
	}
	if err := o.Release(ctx, l.ID, false); err != nil {
		t.Fatal(err)
	}
	a := <-drained
	if a.error != nil || a.Leases != 0 || len(a.Licenses) != 1 || !a.Licenses[0].Released || o.hosts() != 0 {
		t.Fatalf("drained: %+v, %d hosts", a, o.hosts())
	}
	released := func(l *wire.License) bool {
		return l.Code == "HEARTBEAT_NOT_STARTED" && l.Upstream != nil && l.Upstream.State == "released"
	}
	o.until("released", released)
	o.stop()
	o.start()
	o.until("released, after a restart", released)
	if o.hosts() != 0 {
		t.Error("a restart takes a place again")
	}
	if err := o.UpstreamCall(ctx); err != nil {
		t.Fatal(err)
	}
	o.until("a place again", inForce("L1"))
	if o.hosts() != 1 {
		t.Errorf("%d hosts", o.hosts())
	}
}

// A place is given back when a licence is returned, if the upstream can be reached; the return does not hang on it.
func TestPlaceOfWhatIsReturned(t *testing.T) {
	t.Parallel()
	o := openOnline(t)
	ctx := t.Context()
	sign := func(id string) []byte {
		return o.sign(id, 2, func(c *usher.Claims) { c.Activation = &usher.Activation{} })
	}
	o.drop("a.lic", sign("L1"))
	o.until("activated", inForce("L1"))
	if got, err := o.ReleaseHost(ctx, ""); err != nil || len(got) != 1 ||
		got[0] != (wire.Released{License: "L1", Released: true}) || o.hosts() != 0 {
		t.Fatalf("released: %+v, %v", got, err)
	}
	if got, err := o.ReleaseHost(ctx, ""); err != nil || len(got) != 0 {
		t.Errorf("released again: %+v, %v", got, err)
	}
	if _, err := o.ReleaseHost(ctx, "L1"); err == nil {
		t.Error("a place that is not there is given back by name")
	}
	if err := o.UpstreamCall(ctx); err != nil {
		t.Fatal(err)
	}
	o.until("a place again", inForce("L1"))
	o.away.Store(true)
	if got, err := o.ReleaseHost(ctx, "L1"); err != nil || len(got) != 1 || got[0].Released || got[0].Reason == "" {
		t.Errorf("the upstream is away: %+v, %v", got, err)
	}
	o.until("and nothing has changed", func(l *wire.License) bool { return l.State == "valid" })
	o.away.Store(false)
	r, err := o.Return(ctx, "L1")
	if err != nil || r.Place == nil || !r.Place.Released || r.Receipt == "" || o.hosts() != 0 {
		t.Errorf("returned: %+v, %v", r, err)
	}
	if again, err := o.Return(ctx, "L1"); err != nil || again.Receipt != r.Receipt || again.Place != nil {
		t.Errorf("returned again: %+v, %v", again, err)
	}
}

// Where the licence names no agent's key, the upstream's activation proves the agent true, over restarts and until the
// place is given back; another's activation, or another thing that the vendor has signed, proves nothing.
func TestProofByActivation(t *testing.T) {
	t.Parallel()
	o := openOnline(t)
	ctx := t.Context()
	o.drop("a.lic", o.sign("L1", 2, func(c *usher.Claims) { c.Activation = &usher.Activation{} }))
	o.until("activated", inForce("L1"))
	vendor := client.Vendor{Product: "acme", Keys: map[string]crypto.PublicKey{"k1": o.signer.Anchor.Key}}
	prove := func(v client.Vendor) error {
		s, err := client.Open(ctx, client.WithSocket(o.Socket()), client.WithVendor(v))
		if err != nil {
			return err
		}
		defer s.Close()
		if s.Proven() != client.ProvenLicense {
			t.Errorf("the agent is proven: %s", s.Proven())
		}
		return nil
	}
	if err := prove(vendor); err != nil || len(o.chain()) != 1 {
		t.Fatalf("after the activation: %v; the chain is %q", err, o.chain())
	}
	o.away.Store(true)
	o.stop()
	o.start()
	o.until("after a restart", inForce("L1"))
	if err := prove(vendor); err != nil {
		t.Errorf("after a restart: %v", err)
	}
	refused := func(v client.Vendor, want string) {
		t.Helper()
		if err := prove(v); !errors.Is(err, client.ErrNotProven) || !strings.Contains(err.Error(), want) {
			t.Errorf("want %q: %v", want, err)
		}
	}
	other, _, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	refused(client.Vendor{Product: "acme", Keys: map[string]crypto.PublicKey{"k1": other}},
		"the activation: its signature does not match")
	refused(client.Vendor{Product: "acme", Keys: map[string]crypto.PublicKey{"k2": other}},
		`the activation is signed by key "k1"`)
	refused(client.Vendor{Product: "other", Keys: vendor.Keys}, `the activation is for product "acme"`)
	f, err := o.Fingerprint(ctx, "")
	if err != nil {
		t.Fatal(err)
	}
	o.stop()
	for _, row := range []struct{ typ, product, key, want string }{
		{"usher-activation+jwt", "acme", "AAAA", "names another agent's key"},
		{"usher-reply+jwt", "acme", f.AgentKey, `vouches for no agent`},
		{"usher-activation+jwt", "other", f.AgentKey, `is for product "other"`},
	} {
		word, err := o.signer.SignAs(row.typ,
			fmt.Appendf(nil, `{"license":"L1","product":%q,"iat":1,"cnf":{"jkt":%q}}`, row.product, row.key))
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(o.path("state/activations.json"), fmt.Appendf(nil, `{"L1":%q}`, word), 0o600); err !=
			nil {
			t.Fatal(err)
		}
		o.start()
		o.until("another word", inForce("L1"))
		refused(vendor, row.want)
		o.stop()
	}
	o.start()
	o.away.Store(false)
	o.until("in force", inForce("L1"))
	if got, err := o.ReleaseHost(ctx, ""); err != nil || len(got) != 1 || !got[0].Released {
		t.Fatalf("released: %+v, %v", got, err)
	}
	if b, err := os.ReadFile(o.path("state/activations.json")); err != nil || string(b) != "{}" || len(o.chain()) > 0 {
		t.Errorf("the place is given back, and the word is kept: %s, %v, %q", b, err, o.chain())
	}
}
