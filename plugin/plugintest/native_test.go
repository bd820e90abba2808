package plugintest_test

import (
	"crypto/ed25519"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/usher-agent/usher/plugin"
	"github.com/usher-agent/usher/plugin/plugintest"
	"github.com/usher-agent/usher/plugin/usher"
	"github.com/usher-agent/usher/plugin/usher/issue"
	"github.com/usher-agent/usher/plugin/usher/online"
	"github.com/usher-agent/usher/plugin/usher/registry"
)

// nativeSide is the native system's server with a licence that is good and one that is suspended, and a server that
// never answers.
type nativeSide struct {
	t              *testing.T
	signer         *issue.Signer
	office         *registry.Registry
	server, silent *httptest.Server
	good, bad      []byte
}

func newNativeSide(t *testing.T) *nativeSide {
	t.Helper()
	dir := t.TempDir()
	private, _, err := issue.MakeKey(dir, "k1", "")
	if err != nil {
		t.Fatal(err)
	}
	signer, err := issue.LoadSigner(private, "")
	if err != nil {
		t.Fatal(err)
	}
	office, err := registry.Open(registry.Config{Dir: dir, Signer: signer})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { office.Close() })
	s := &nativeSide{t: t, signer: signer, office: office, server: httptest.NewServer(office.Handler())}
	t.Cleanup(s.server.Close)
	gone := make(chan struct{})
	s.silent = httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		select {
		case <-r.Context().Done():
		case <-gone:
		}
	}))
	t.Cleanup(s.silent.Close)
	t.Cleanup(func() { close(gone) })
	s.good, s.bad = s.sign("good"), s.sign("bad")
	if _, err := office.Add(s.bad, 0); err != nil {
		t.Fatal(err)
	}
	if _, err := office.SetState("bad", registry.StateSuspended, "it is not paid"); err != nil {
		t.Fatal(err)
	}
	return s
}

func (s *nativeSide) sign(id string) []byte {
	doc, err := s.signer.Sign(&usher.Claims{ID: id, Product: "acme", Issued: time.Now().Unix() - 60,
		Activation: &usher.Activation{}})
	if err != nil {
		s.t.Fatal(err)
	}
	return doc
}

func (s *nativeSide) client(url string) plugin.Upstream {
	_, key, err := ed25519.GenerateKey(nil)
	if err != nil {
		s.t.Fatal(err)
	}
	c, err := online.NewClient(online.Config{URL: url, Key: key, Anchors: func() []plugin.Anchor {
		return []plugin.Anchor{s.signer.Anchor}
	}})
	if err != nil {
		s.t.Fatal(err)
	}
	return c
}

// The native system's client keeps the promises against its server, called and over the wire.
func TestNativeUpstream(t *testing.T) {
	s := newNativeSide(t)
	request := func(id string, doc []byte) func() *plugin.Request {
		return func() *plugin.Request {
			return &plugin.Request{LicenseID: id, Document: doc, Product: "acme",
				Components: map[string][]string{"machine-id": {"ab"}}, Nonce: []byte("0123456789abcdef"),
				Emergencies: []plugin.Emergency{{Began: time.Unix(1_700_000_000, 0), Ends: time.Unix(1_700_100_000, 0),
					Reason: "a storm"}}}
		}
	}
	for where, serve := range ways(t) {
		t.Run(where, func(t *testing.T) {
			plugintest.Upstream(t, serve(s.client(s.server.URL)),
				plugintest.UpstreamSamples{Request: request("good", s.good), Refused: request("bad", s.bad),
					Away: serve(s.client(s.silent.URL))})
		})
	}
	all, err := s.office.List()
	if err != nil {
		t.Fatal(err)
	}
	hosts := 0
	for _, l := range all {
		for _, h := range l.Hosts {
			hosts++
			if l.ID != "good" || len(h.Emergencies) != 1 || h.Emergencies[0].Reason != "a storm" {
				t.Errorf("licence %s has the host %+v", l.ID, h)
			}
		}
	}
	if hosts != 2 {
		t.Errorf("there are %d hosts", hosts)
	}
}
