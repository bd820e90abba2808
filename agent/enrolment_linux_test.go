package agent_test

import (
	"net/http"
	"net/http/httptest"
	"os"
	"testing"

	"github.com/usher-agent/usher/client/wire"
	"github.com/usher-agent/usher/plugin/usher"
	"github.com/usher-agent/usher/plugin/usher/registry"
)

// An upstream that admits new hosts by tokens alone admits an agent once its token lies in upstream.enrolment_file,
// which is read again for each call.
func TestEnrolmentFile(t *testing.T) {
	t.Parallel()
	var g *registry.Registry
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		g.Handler().ServeHTTP(w, r)
	}))
	t.Cleanup(server.Close)
	file := t.TempDir() + "/enrolment"
	h := open(t, "upstream: {url: "+server.URL+", enrolment_file: "+file+"}\n")
	var err error
	if g, err = registry.Open(registry.Config{Dir: t.TempDir(), Signer: h.signer, RequireEnrolment: true}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { g.Close() })
	doc := h.sign("L1", 2, func(c *usher.Claims) { c.Activation = &usher.Activation{} })
	if _, err := g.Add(doc, 0); err != nil {
		t.Fatal(err)
	}
	h.drop("a.lic", doc)
	h.until("a word of the missing token", func(l *wire.License) bool {
		return l.Code == "HEARTBEAT_NOT_STARTED" && l.Upstream != nil && l.Upstream.State == "misconfigured"
	})
	text, _, err := g.NewToken("L1", 1, registry.MaxTokenTime, "", nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte("# of rack 4\n\n"+text+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := h.UpstreamCall(t.Context()); err != nil {
		t.Fatal(err)
	}
	h.until("enrolled", inForce("L1"))
}

// An agent that loses what the upstream said begins anew by itself as often as the licence allows, and stops then until
// the upstream's operator forgives it.
func TestStateLostAgainAndAgain(t *testing.T) {
	t.Parallel()
	o := openOnline(t)
	o.drop("a.lic", o.sign("L1", 2, func(c *usher.Claims) {
		c.Activation, c.CheckIn, c.Reactivations = &usher.Activation{}, &usher.CheckIn{Every: 3600},
			&usher.Reactivations{Max: 2, Within: 3600}
	}))
	o.until("activated", inForce("L1"))
	for i := range 3 {
		o.stop()
		o.remove("state/upstream.json", "state/state.seal") // the seal keeps a copy
		o.start()
		if i < 2 {
			o.until("activated again", inForce("L1"))
		}
	}
	o.until("too often", code("AGENT_KEY_MISMATCH"))
	if n, err := o.registry.Forgive("L1", ""); err != nil || n != 1 {
		t.Fatalf("%d, %v", n, err)
	}
	if err := o.UpstreamCall(t.Context()); err != nil {
		t.Fatal(err)
	}
	o.until("forgiven", inForce("L1"))
}
