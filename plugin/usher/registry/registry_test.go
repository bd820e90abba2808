package registry_test

import (
	"context"
	"crypto/ed25519"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"math/big"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/usher-agent/usher/enforcer"
	"github.com/usher-agent/usher/plugin"
	"github.com/usher-agent/usher/plugin/usher"
	"github.com/usher-agent/usher/plugin/usher/issue"
	"github.com/usher-agent/usher/plugin/usher/online"
	"github.com/usher-agent/usher/plugin/usher/registry"
)

// office is a vendor with a registry that answers over TLS.
type office struct {
	*registry.Registry
	t      *testing.T
	signer *issue.Signer
	server *httptest.Server
	mu     sync.Mutex
	now    time.Time
	mangle func(http.Handler) http.Handler
	dir    string
}

func openOffice(t *testing.T, change func(*registry.Config)) *office {
	t.Helper()
	o := &office{t: t, now: time.Now(), dir: t.TempDir()}
	private, _, err := issue.MakeKey(t.TempDir(), "v1", "")
	if err != nil {
		t.Fatal(err)
	}
	if o.signer, err = issue.LoadSigner(private, ""); err != nil {
		t.Fatal(err)
	}
	cfg := registry.Config{Dir: o.dir, Signer: o.signer, Now: o.clock}
	if change != nil {
		change(&cfg)
	}
	if o.Registry, err = registry.Open(cfg); err != nil {
		t.Fatal(err)
	}
	o.server = httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := o.Handler()
		if o.mangle != nil {
			h = o.mangle(h)
		}
		h.ServeHTTP(w, r)
	}))
	t.Cleanup(func() {
		o.server.Close()
		o.Close()
	})
	return o
}

func (o *office) clock() time.Time {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.now
}

func (o *office) pass(d time.Duration) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.now = o.now.Add(d)
}

func (o *office) sign(id string, change func(*usher.Claims)) []byte {
	o.t.Helper()
	c := &usher.Claims{ID: id, Product: "acme", Issued: o.clock().Unix() - 100}
	if change != nil {
		change(c)
	}
	doc, err := o.signer.Sign(c)
	if err != nil {
		o.t.Fatal(err)
	}
	return doc
}

// host is one agent with its key and what it keeps.
type host struct {
	*online.Client
	o     *office
	key   ed25519.PrivateKey
	doc   []byte
	chain []byte
	said  string // the vendor's word for its key

	tokens []string      // enrolment tokens that it shows
	slow   time.Duration // by how much its clock is behind
	n      byte
}

func (o *office) host(doc []byte) *host {
	o.t.Helper()
	_, key, err := ed25519.GenerateKey(nil)
	if err != nil {
		o.t.Fatal(err)
	}
	return o.hostWith(key, doc)
}

func (o *office) hostWith(key ed25519.PrivateKey, doc []byte) *host {
	o.t.Helper()
	h := &host{o: o, key: key, doc: doc}
	c, err := online.NewClient(online.Config{URL: o.server.URL, Key: key, HTTP: o.server.Client(),
		Now: func() time.Time {
			return o.clock().Add(-h.slow)
		},
		Anchors: func() []plugin.Anchor {
			return []plugin.Anchor{o.signer.Anchor}
		}, Activated: func(_, w string) { h.said = w },
		Enrolment: func() ([]string, error) { return h.tokens, nil }})
	if err != nil {
		o.t.Fatal(err)
	}
	h.Client = c
	return h
}

// ask makes one call as the agent does, and keeps the chain.
func (h *host) ask(call func(context.Context, *plugin.Request) (*plugin.Reply, error)) (*plugin.Reply, error) {
	h.n++
	l := usher.Describe(h.doc)
	r := &plugin.Request{LicenseID: l.ID, Product: "acme", Document: h.doc, State: h.chain,
		Nonce: []byte(fmt.Sprintf("%016d%s", h.n, h.key[:8]))}
	reply, err := call(context.Background(), r)
	if err == nil {
		h.chain = reply.State
	}
	return reply, err
}

// refused checks that an error is a refusal.
func (o *office) refused(err error, class plugin.Class, code enforcer.Code, words string) {
	o.t.Helper()
	var e *plugin.Error
	if !errors.As(err, &e) {
		o.t.Fatalf("got %v, want a refusal", err)
	}
	if e.Class != class || e.Code != code || !strings.Contains(e.Reason+e.SystemCode, words) {
		o.t.Errorf("got %+v, want %s %s %q", e, class, code, words)
	}
}

func must(t *testing.T, reply *plugin.Reply, err error) *plugin.Reply {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	return reply
}

func TestLife(t *testing.T) {
	o := openOffice(t, nil)
	h := o.host(o.sign("L1", nil))
	reply, err := h.ask(h.Activate)
	must(t, reply, err)
	if len(h.chain) == 0 || reply.Time.Unix() != o.clock().Unix() || reply.Document != nil {
		t.Errorf("activated: %+v", reply)
	}
	payload, _, p := usher.Open(h.said, online.ActivationType, []plugin.Anchor{o.signer.Anchor})
	if thumb, _ := plugin.Thumbprint(h.key.Public()); p != nil || !strings.Contains(string(payload), thumb) {
		t.Errorf("the vendor's word is %s (%v)", payload, p)
	}
	for range 3 {
		o.pass(time.Minute)
		reply, err := h.ask(h.Heartbeat)
		must(t, reply, err)
	}
	if _, err := o.Renew("L1", o.clock().Add(365*24*time.Hour)); err != nil {
		t.Fatal(err)
	}
	o.pass(time.Minute)
	if reply, err = h.ask(h.Heartbeat); must(t, reply, err).Document != nil {
		t.Error("a heartbeat brings a document")
	}
	if reply, err = h.ask(h.CheckIn); must(t, reply, err).Document == nil {
		t.Fatal("the check-in brings no renewed document")
	}
	renewed, p := usher.Format{}.Verify(reply.Document, []plugin.Anchor{o.signer.Anchor})
	if p != nil || renewed.Expires.IsZero() || !renewed.Issued.After(usher.Describe(h.doc).Issued) {
		t.Errorf("renewed: %+v, %v", renewed, p)
	}
	h.doc = reply.Document
	if reply, err = h.ask(h.CheckIn); must(t, reply, err).Document != nil {
		t.Error("the document comes again")
	}
	reply, err = h.ask(h.Deactivate)
	must(t, reply, err)
	reply, err = h.ask(h.Deactivate)
	must(t, reply, err)
	all, err := o.List()
	if err != nil || len(all) != 1 || len(all[0].Hosts) != 0 {
		t.Errorf("%+v, %v", all, err)
	}
}

func TestStates(t *testing.T) {
	o := openOffice(t, nil)
	h := o.host(o.sign("L1", nil))
	reply, err := h.ask(h.Activate)
	must(t, reply, err)
	if _, err := o.SetState("L1", registry.StateSuspended, "invoice 7 is open"); err != nil {
		t.Fatal(err)
	}
	_, err = h.ask(h.Heartbeat)
	o.refused(err, plugin.Refused, enforcer.Suspended, "invoice 7 is open")
	if _, err := o.SetState("L1", registry.StateActive, ""); err != nil {
		t.Fatal(err)
	}
	reply, err = h.ask(h.Heartbeat)
	must(t, reply, err)
	if _, err := o.SetState("L1", registry.StateRevoked, ""); err != nil {
		t.Fatal(err)
	}
	_, err = h.ask(h.CheckIn)
	o.refused(err, plugin.Refused, enforcer.Revoked, "the licence is revoked")
	if _, err := o.SetState("L1", registry.StateActive, ""); err == nil {
		t.Error("a revocation is undone")
	}
	if _, err := o.SetState("L9", registry.StateActive, ""); !errors.Is(err, registry.ErrUnknown) {
		t.Errorf("got %v", err)
	}
}

// Two hosts that go on with one state and key are told apart: the host that shows a state from which another has gone
// on is refused.
func TestClone(t *testing.T) {
	o := openOffice(t, nil)
	h := o.host(o.sign("L1", nil))
	reply, err := h.ask(h.Activate)
	must(t, reply, err)
	copied := o.hostWith(h.key, h.doc)
	copied.chain, copied.n = h.chain, 100
	for range 2 {
		reply, err = h.ask(h.Heartbeat)
		must(t, reply, err)
	}
	_, err = copied.ask(copied.Heartbeat)
	o.refused(err, plugin.Refused, enforcer.AgentKeyMismatch, online.SystemCloned)
	reply, err = h.ask(h.Heartbeat)
	must(t, reply, err)
	all, _ := o.List()
	if all[0].Hosts[0].ClonedAt.IsZero() {
		t.Error("the registry says nothing of the copy")
	}
}

// A reply that was lost costs nothing: the state before it is good once more. A request that the way there has doubled
// changes nothing.
func TestLostReply(t *testing.T) {
	o := openOffice(t, nil)
	h := o.host(o.sign("L1", nil))
	reply, err := h.ask(h.Activate)
	must(t, reply, err)
	for range 3 {
		before := h.chain
		reply, err = h.ask(h.Heartbeat)
		must(t, reply, err)
		h.chain = before // it never came
		reply, err = h.ask(h.Heartbeat)
		must(t, reply, err)
	}
	before := h.chain
	reply, err = h.ask(h.Heartbeat)
	after := must(t, reply, err).State
	h.chain = before
	h.n-- // the same nonce: the same request
	reply, err = h.ask(h.Heartbeat)
	if got := must(t, reply, err).State; string(got) != string(after) {
		t.Error("a doubled request goes on with the chain")
	}
	reply, err = h.ask(h.Heartbeat)
	must(t, reply, err)
	h.n -= 2
	if _, err = h.ask(h.Heartbeat); err == nil {
		t.Error("an old request is answered")
	}
}

func TestHosts(t *testing.T) {
	o := openOffice(t, func(c *registry.Config) { c.Machines = 2 })
	doc := o.sign("L1", func(c *usher.Claims) { c.Heartbeat = &usher.Period{Every: 600, Grace: 60} })
	a, b, c := o.host(doc), o.host(doc), o.host(doc)
	for _, h := range []*host{a, b, a} {
		reply, err := h.ask(h.Activate)
		must(t, reply, err)
	}
	_, err := c.ask(c.Activate)
	o.refused(err, plugin.Refused, enforcer.TooManyMachines, "for 2 hosts")
	reply, err := b.ask(b.Deactivate)
	must(t, reply, err)
	reply, err = c.ask(c.Activate)
	must(t, reply, err)
	_, err = b.ask(b.Activate)
	o.refused(err, plugin.Refused, enforcer.TooManyMachines, "for 2 hosts")
	o.pass(700 * time.Second) // the heartbeats of both have stopped
	reply, err = b.ask(b.Activate)
	must(t, reply, err)
	if n, err := o.Forget("L1", ""); err != nil || n != 3 {
		t.Errorf("forgot %d, %v", n, err)
	}
	// A host that was forgotten finds its place again by itself.
	o.pass(time.Second)
	reply, err = c.ask(c.Heartbeat)
	must(t, reply, err)
}

// A host that comes back to a server without its store is activated again, not thrown out.
func TestStoreLost(t *testing.T) {
	o := openOffice(t, nil)
	h := o.host(o.sign("L1", nil))
	reply, err := h.ask(h.Activate)
	must(t, reply, err)
	o.Close()
	if o.Registry, err = registry.Open(registry.Config{Dir: t.TempDir(), Signer: o.signer, Now: o.clock}); err != nil {
		t.Fatal(err)
	}
	reply, err = h.ask(h.Heartbeat)
	must(t, reply, err)
	if _, err := registry.Open(registry.Config{Dir: o.dir, Signer: o.signer}); err != nil {
		t.Errorf("the first store: %v", err)
	}
}

func TestOneProcess(t *testing.T) {
	o := openOffice(t, nil)
	if _, err := registry.Open(registry.Config{Dir: o.dir, Signer: o.signer}); err == nil ||
		!strings.Contains(err.Error(), "another process is using it") {
		t.Errorf("got %v", err)
	}
}

func TestForeign(t *testing.T) {
	o := openOffice(t, nil)
	other := openOffice(t, nil)
	h := o.host(other.sign("L1", nil))
	_, err := h.ask(h.Activate)
	o.refused(err, plugin.Misconfigured, "", "signature does not match")
	_, key, _ := ed25519.GenerateKey(nil)
	thumb, _ := plugin.Thumbprint(key.Public())
	bound := o.host(o.sign("L2", func(c *usher.Claims) { c.AgentKeys = []string{thumb} }))
	_, err = bound.ask(bound.Activate)
	o.refused(err, plugin.Refused, enforcer.AgentKeyMismatch, "names another agent's key")
	product := o.host(o.sign("L3", func(c *usher.Claims) { c.Product = "other" }))
	_, err = product.ask(product.Activate)
	o.refused(err, plugin.Refused, enforcer.ProductMismatch, "other")
	if _, err := o.Add(other.sign("L4", nil), 0); !errors.Is(err, registry.ErrRefused) {
		t.Errorf("got %v", err)
	}
}

// An end that has passed renews nothing, and the end of 1970 is no licence for ever.
func TestRenewForThePast(t *testing.T) {
	o := openOffice(t, nil)
	if _, err := o.Add(o.sign("L1", nil), 5); err != nil {
		t.Fatal(err)
	}
	for _, at := range []time.Time{time.Unix(0, 0), time.Unix(-1, 0), time.Time{}.Add(1), o.clock().Add(-time.Hour)} {
		if l, err := o.Renew("L1", at); err == nil || !strings.Contains(err.Error(), "has passed; give a later one") {
			t.Errorf("until %v: %+v, %v", at, l, err)
		}
	}
}

func TestAdd(t *testing.T) {
	o := openOffice(t, nil)
	doc := o.sign("L1", nil)
	if _, err := o.Add(doc, 5); err != nil {
		t.Fatal(err)
	}
	if _, err := o.Renew("L1", time.Time{}); err != nil {
		t.Fatal(err)
	}
	if _, err := o.Add(doc, 5); err == nil || !strings.Contains(err.Error(), "later issue") {
		t.Errorf("an older issue replaces a later one: %v", err)
	}
	if l, err := o.SetMachines("L1", 7); err != nil || l.Machines != 7 {
		t.Errorf("%+v, %v", l, err)
	}
}

// A later issue, and one whose number of hosts is not stated, keeps the number that there was, else the server's own;
// no zero makes it any number.
func TestMachinesAreKept(t *testing.T) {
	o := openOffice(t, func(c *registry.Config) { c.Machines = 3 })
	add := func(id string, stated, want int64) {
		t.Helper()
		o.pass(time.Minute)
		if l, err := o.Add(o.sign(id, nil), stated); err != nil || l.Machines != want {
			t.Errorf("%s for %d: %+v, %v", id, stated, l, err)
		}
	}
	add("L1", 0, 3)
	add("L1", 5, 5)
	add("L1", 0, 5)
	add("L1", registry.AnyNumber, 0)
	add("L1", 0, 0)
	add("L2", registry.AnyNumber, 0)
	for _, n := range []int64{0, -2} {
		if l, err := o.SetMachines("L1", n); err == nil || !strings.Contains(err.Error(), "at least 1") {
			t.Errorf("%d: %+v, %v", n, l, err)
		}
	}
	if l, err := o.SetMachines("L1", registry.AnyNumber); err != nil || l.Machines != 0 {
		t.Errorf("%+v, %v", l, err)
	}
}

// Over mutual TLS the client certificate and the request are of one key.
func TestMutualTLS(t *testing.T) {
	o := openOffice(t, nil)
	o.server.Close()
	o.server = httptest.NewUnstartedServer(o.Handler())
	o.server.TLS = &tls.Config{ClientAuth: tls.RequireAnyClientCert}
	o.server.StartTLS()
	h := o.host(o.sign("L1", nil))
	cert := func(key ed25519.PrivateKey) tls.Certificate {
		der, err := x509.CreateCertificate(nil, &x509.Certificate{SerialNumber: big.NewInt(1)},
			&x509.Certificate{SerialNumber: big.NewInt(1)}, key.Public(), key)
		if err != nil {
			t.Fatal(err)
		}
		return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
	}
	transport := o.server.Client().Transport.(*http.Transport)
	transport.TLSClientConfig.Certificates = []tls.Certificate{cert(h.key)}
	reply, err := h.ask(h.Activate)
	must(t, reply, err)
	other := o.host(h.doc)
	_, err = other.ask(other.Activate)
	o.refused(err, plugin.Misconfigured, "", "400")
}

// An emergency that a host's operator has begun is told with each call, and kept once.
func TestEmergenciesAreTold(t *testing.T) {
	o := openOffice(t, nil)
	h := o.host(o.sign("a", nil))
	began := o.clock().Add(-time.Hour).Truncate(time.Second)
	told := []plugin.Emergency{{Began: began, Ends: began.Add(72 * time.Hour), Reason: "the line is cut"}}
	call := func(do func(context.Context, *plugin.Request) (*plugin.Reply, error)) {
		t.Helper()
		_, err := h.ask(func(ctx context.Context, r *plugin.Request) (*plugin.Reply, error) {
			r.Emergencies = told
			return do(ctx, r)
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	call(h.Activate)
	o.pass(time.Minute)
	call(h.Heartbeat)
	all, err := o.List()
	if err != nil {
		t.Fatal(err)
	}
	got := all[0].Hosts[0].Emergencies
	if len(got) != 1 || got[0] !=
		(online.Emergency{Began: began.Unix(), Ends: began.Add(72 * time.Hour).Unix(), Reason: "the line is cut"}) {
		t.Errorf("%+v", got)
	}
}
