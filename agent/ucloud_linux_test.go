package agent_test

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"github.com/usher-agent/usher/agent/upstreams"
	"github.com/usher-agent/usher/plugin"
	"github.com/usher-agent/usher/plugin/catalog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/usher-agent/usher/client/wire"
	"github.com/usher-agent/usher/plugin/ucloud"
)

// ucloudVendor signs companion documents.
type ucloudVendor struct {
	t   testing.TB
	key ed25519.PrivateKey
}

// ucloudHouse makes a house whose agent trusts a vendor of companion documents.
func ucloudHouse(t *testing.T, more string) (*house, *ucloudVendor) {
	t.Helper()
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKIXPublicKey(public)
	if err != nil {
		t.Fatal(err)
	}
	key := filepath.Join(t.TempDir(), "v.pub")
	if err := os.WriteFile(key, pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
	return open(t, fmt.Sprintf("    - {system: ucloud, kid: v, key_file: %s}\n%s", key, more)),
		&ucloudVendor{t, private}
}

// sign makes a document for slots of the pool abaqus. life is until its end; 0: it has none.
func (v *ucloudVendor) sign(id string, slots int64, life time.Duration) []byte {
	v.t.Helper()
	now := time.Now()
	c := &ucloud.Claims{ID: id, Product: "acme", Issued: now.Unix() - 10,
		Resource: ucloud.ProductRef{ID: "abaqus", Category: "abaqus", Provider: "example"},
		Pools:    map[string]ucloud.PoolClaim{"abaqus": {Max: &slots, Scope: "host"}}}
	if life > 0 {
		c.Expires = now.Add(life).Unix()
	}
	doc, err := ucloud.Sign(c, "v", v.key)
	if err != nil {
		v.t.Fatal(err)
	}
	return doc
}

// ucloudProduct is a product that speaks UCloud's API and nothing else.
type ucloudProduct struct {
	*toyProcess
	vendor *ucloudVendor
	api    *caller
	id     string // of its licence
}

// newUCloudProduct starts an agent in a process of its own, with a licence for two slots.
func newUCloudProduct(t *testing.T) *ucloudProduct {
	dir, err := os.MkdirTemp(tempDir(), "u")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	h, v := ucloudHouse(t, fmt.Sprintf("listeners:\n  - {address: \"unix:%s/u\", dialect: ucloud}\n"+
		"upstream: {ucloud: {provider: example, products: [{pool: abaqus, free_to_use: true, tags: [fem]}]}}\n", dir))
	h.drop("a.lic", v.sign("a", 2, 0))
	h.until("dropped", inForce("a"))
	h.stop()
	if err := os.WriteFile(h.path("usher.yaml"), []byte(h.config), 0o600); err != nil {
		t.Fatal(err)
	}
	p := &ucloudProduct{toyProcess: &toyProcess{house: h}, vendor: v, api: callerOf(t, "unix:"+dir+"/u")}
	p.run()
	t.Cleanup(p.kill)
	return p
}

// call sends a request, which must be answered with a status.
func (p *ucloudProduct) call(status int, method, path, body string) (out struct {
	Why       string      `json:"why"`
	ErrorCode string      `json:"errorCode"`
	Responses []ucloud.ID `json:"responses"`
	ucloud.License
}) {
	p.t.Helper()
	res, b := p.api.send(method, path, []byte(body))
	if err := json.Unmarshal(b, &out); err != nil || res.StatusCode != status {
		p.t.Fatalf("%s %s %.200s: %s %.2000s (%v)", method, path, body, res.Status, b, err)
	}
	return out
}

// bind binds a job, or unbinds it, and returns what a refusal says.
func (p *ucloudProduct) bind(status int, kind string, job int) (why, code string) {
	p.t.Helper()
	out := p.call(status, "POST", "/api/licenses/control/update", fmt.Sprintf(
		`{"items":[{"id":%q,"update":{"timestamp":0,"binding":{"kind":%q,"job":"%d"}}}]}`, p.id, kind, job))
	return out.Why, out.ErrorCode
}

// show checks that all who tell of the licence and its slots tell the same.
func (p *ucloudProduct) show(limit int64, jobs ...string) {
	p.t.Helper()
	got := p.call(200, "GET", "/api/licenses/retrieve?id="+p.id, "")
	if s := got.Status; fmt.Sprint(s.BoundTo) != fmt.Sprint(jobs) || s.State != "READY" {
		p.t.Errorf("the licence is %+v, and not bound to %v", s, jobs)
	}
	pool, err := p.Pool(context.Background(), "abaqus")
	if err != nil || pool.Limit == nil || *pool.Limit != limit || pool.InUse != int64(len(jobs)) {
		p.t.Errorf("the pool is %+v (%v), and not %d of %d", pool, err, len(jobs), limit)
	}
	p.statusSays("valid", "VALID", "abaqus", int64(len(jobs)), limit)
	p.metric(fmt.Sprintf(`usher_slots_limit{pool="abaqus"} %d`, limit))
	p.metric(fmt.Sprintf(`usher_slots_in_use{pool="abaqus"} %d`, len(jobs)))
}

func (p *ucloudProduct) metric(line string) {
	p.t.Helper()
	m, err := p.Metrics(context.Background())
	if err != nil || !strings.Contains(string(m), line+"\n") {
		p.t.Errorf("the metrics do not say %s (%v)", line, err)
	}
}

// bulk makes and deletes as many licences as a request may name, which is more than the store takes at once.
func (p *ucloudProduct) bulk() {
	p.t.Helper()
	item := `{"product":{"id":"abaqus","category":"abaqus","provider":"example"},"labels":{"note":"` +
		strings.Repeat("n", 100) + `"}},`
	made := p.call(200, "POST", "/api/licenses",
		`{"items":[`+strings.TrimSuffix(strings.Repeat(item, 999), ",")+`]}`).Responses
	var list []string
	for _, r := range made {
		list = append(list, fmt.Sprintf(`{"id":%q}`, r.ID))
	}
	if out := p.call(200, "DELETE", "/api/licenses", `{"items":[`+strings.Join(list, ",")+`]}`); len(made) != 999 ||
		len(out.Responses) != 999 {
		p.t.Errorf("%d licences are made, and %d deleted", len(made), len(out.Responses))
	}
}

const ucloudItem = `{"items":[{"product":{"id":"abaqus","category":"abaqus","provider":"example"}}]}`

// A product that speaks only UCloud's API moves to an agent. It makes a licence, binds jobs up to the limit, is refused
// in the API's own words, and lets jobs go. All outlasts a kill of the agent and a swap of the licence, and everybody
// tells the same of the end.
func TestUCloudProductMoves(t *testing.T) {
	t.Parallel()
	p := newUCloudProduct(t)
	p.id = p.call(200, "POST", "/api/licenses", ucloudItem).Responses[0].ID
	p.bind(200, "BIND", 1)
	p.bind(200, "BIND", 2)
	if why, code := p.bind(402, "BIND", 3); code != ucloud.ErrorNoCredits ||
		!strings.Contains(why, "You do not have enough license credits") {
		t.Errorf("the refusal at the limit is %q, %s", why, code)
	}
	p.show(2, "1", "2")
	p.kill()
	p.run()
	p.show(2, "1", "2")
	p.bind(200, "BIND", 2) // a retry
	p.bind(402, "BIND", 3)

	p.drop("a.lic", p.vendor.sign("b", 3, 0))
	p.until("swapped", inForce("b"))
	p.bind(200, "BIND", 3)
	p.show(3, "1", "2", "3")
	p.bind(200, "UNBIND", 1)
	p.show(3, "2", "3")

	// A program of the house that speaks the local API holds a job's slot, too.
	job := wire.AcquireRequest{Pool: "abaqus", Lifetime: "held", Labels: map[string]string{"job": "77"}}
	l, err := p.Acquire(t.Context(), job)
	if err != nil {
		t.Fatal(err)
	}
	p.show(3, "2", "3", "77")
	p.kill()
	p.run()
	p.show(3, "2", "3", "77")
	p.bind(402, "BIND", 4)
	if err := p.Release(t.Context(), l.ID, false); err != nil {
		t.Error(err)
	}
	p.show(3, "2", "3")

	p.bulk()

	p.drop("a.lic", p.vendor.sign("c", 3, 2*time.Second))
	p.until("ended", code("EXPIRED"))
	if s := p.call(200, "GET", "/api/licenses/retrieve?id="+p.id, "").Status; s.State != "UNAVAILABLE" ||
		fmt.Sprint(s.BoundTo) != "[2 3]" {
		t.Errorf("after the end the licence is %+v", s)
	}
	if why, _ := p.bind(400, "BIND", 4); !strings.Contains(why, "abaqus with ID '1' is not ready: ") {
		t.Errorf("after the end: %q", why)
	}
	p.metric(`usher_license_state{state="expired"} 1`)
	p.statusSays("expired", "EXPIRED", "abaqus", 2, 0)
	p.bind(200, "UNBIND", 2)
	p.call(200, "DELETE", "/api/licenses", fmt.Sprintf(`{"items":[{"id":%q}]}`, p.id))
	p.call(404, "GET", "/api/licenses/retrieve?id="+p.id, "")
	if pool, err := p.Pool(context.Background(), "abaqus"); err == nil && pool.InUse != 0 {
		t.Errorf("all is given back: %+v", pool)
	}
}

// An agent follows its licence at a UCloud. What is not available, or refused without a proof that it has been taken
// away, keeps its last verdict, hands out no slots and heals. An outage changes nothing. What a whole list lacks is
// revoked.
func TestUCloudFollowsTheResource(t *testing.T) {
	t.Parallel()
	var state atomic.Value
	var answers atomic.Int64
	state.Store("READY")
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		item := fmt.Sprintf(`{"id":"7","specification":{"product":{"id":"abaqus","category":"abaqus",`+
			`"provider":"example"}},"status":{"state":%q}}`, state.Load())
		switch state.Load() {
		case "AWAY":
			w.WriteHeader(http.StatusBadGateway)
		case "FORBIDDEN":
			w.WriteHeader(http.StatusForbidden)
		case "DELETED":
			item = ""
		}
		fmt.Fprintf(w, `{"itemsPerPage":250,"items":[%s],"next":null}`, item)
		answers.Add(1)
	}))
	t.Cleanup(server.Close)
	secret := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(secret, []byte("uc1-secret\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	h, v := ucloudHouse(t, fmt.Sprintf("upstream: {ucloud: {url: %q, token_file: %s}}\n", server.URL, secret))
	h.drop("a.lic", v.sign("a", 2, 0))
	h.until("dropped", inForce("a"))
	held := wire.AcquireRequest{Pool: "abaqus", Lifetime: "held"}
	if _, err := h.Acquire(t.Context(), held); err != nil {
		t.Fatal(err)
	}
	for _, x := range [][2]string{{"READY", "VALID"}, {"UNAVAILABLE", "VALID_IN_GRACE"}, {"READY", "VALID"},
		{"AWAY", "VALID"},
		{"PREPARING", "PREPARING"}, {"UNAVAILABLE", "UNAVAILABLE"}, {"READY", "VALID"}, {"FORBIDDEN", "VALID_IN_GRACE"},
		{"READY", "VALID"}, {"DELETED", "REVOKED"}, {"READY", "VALID"}} {
		state.Store(x[0])
		before := answers.Load()
		if err := h.UpstreamCall(t.Context()); err != nil {
			t.Fatal(err)
		}
		for deadline := time.Now().Add(time.Minute); answers.Load() == before; <-time.After(time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatal("UCloud is not asked")
			}
		}
		h.until(x[0], code(x[1]))
		// Held slots stand throughout. A new one is granted where the licence is good.
		if pool, err := h.Pool(t.Context(), "abaqus"); err != nil || pool.InUse != 1 {
			t.Errorf("%s: the pool is %+v, %v", x[0], pool, err)
		}
		l, err := h.Acquire(t.Context(), held)
		if good := x[1] == "VALID"; good != (err == nil) {
			t.Errorf("%s: %+v, %v", x[0], l, err)
		}
		if err == nil {
			if err := h.Release(t.Context(), l.ID, false); err != nil {
				t.Error(err)
			}
		}
	}
}

func init() {
	askers["upstream.ucloud.provider_token_file"] = asker{
		"ucloud: {url: '%[1]s', token_file: %[2]s, provider_token_file: %[2]s}",
		func(*testing.T, *upstreams.Opener, *recorder) func(context.Context, plugin.Upstream) error {
			return func(ctx context.Context, u plugin.Upstream) error { // a licence that is here no more
				_, err := u.(plugin.Reporter).Report(ctx, &plugin.Report{State: []byte(`{"id":"7","state":"READY"}`)})
				return err
			}
		}}
	askers["upstream.ucloud.token_file"] = asker{"ucloud: {url: '%[1]s', token_file: %[2]s}",
		func(t *testing.T, o *upstreams.Opener, _ *recorder) func(context.Context, plugin.Upstream) error {
			public, private, err := ed25519.GenerateKey(rand.Reader)
			if err != nil {
				t.Fatal(err)
			}
			der, err := x509.MarshalPKIXPublicKey(public)
			if err != nil {
				t.Fatal(err)
			}
			a, err := catalog.Anchor("ucloud", "v", pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}), "")
			if err != nil {
				t.Fatal(err)
			}
			o.Anchors = func() []plugin.Anchor { return []plugin.Anchor{a} }
			return checksIn((&ucloudVendor{t, private}).sign("u", 1, 0))
		}}
}
