package registry_test

import (
	"context"
	"crypto/ed25519"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/usher-agent/usher/enforcer"
	"github.com/usher-agent/usher/plugin"
	"github.com/usher-agent/usher/plugin/usher"
	"github.com/usher-agent/usher/plugin/usher/issue"
	"github.com/usher-agent/usher/plugin/usher/online"
	"github.com/usher-agent/usher/plugin/usher/registry"
)

// stranger asks with a request of its own making, as nobody's client would.
func (o *office) stranger(call string, change func(*online.Request)) *online.Reply {
	o.t.Helper()
	_, key, err := ed25519.GenerateKey(nil)
	if err != nil {
		o.t.Fatal(err)
	}
	return o.say(key, call, change)
}

// say asks in the name of a key.
func (o *office) say(key ed25519.PrivateKey, call string, change func(*online.Request)) *online.Reply {
	o.t.Helper()
	r := &online.Request{Call: call, Issued: o.clock().Unix(),
		Nonce: base64.RawURLEncoding.EncodeToString([]byte(fmt.Sprintf("%032d", time.Now().UnixNano()))), License: "L1",
		Product: "acme"}
	if change != nil {
		change(r)
	}
	agent, err := plugin.Thumbprint(key.Public())
	if err != nil {
		o.t.Fatal(err)
	}
	a, err := o.Handle(r, agent)
	if err != nil {
		o.t.Fatal(err)
	}
	if a.Reply == nil {
		return &online.Reply{Refused: &online.Refusal{System: fmt.Sprint(a.Status), Reason: a.Detail}}
	}
	return a.Reply
}

// writes is how often the store was written to.
func (o *office) writes() int64 {
	s := o.DB().Stats()
	return s.TxStats.GetWrite()
}

func (o *office) hosts(id string) []registry.Activation {
	o.t.Helper()
	all, err := o.List()
	if err != nil {
		o.t.Fatal(err)
	}
	for _, l := range all {
		if l.ID == id {
			return l.Hosts
		}
	}
	return nil
}

// A stranger that knows only a licence's id and product gets nothing of the licence: no place, no slot, no document, no
// word of its state.
func TestStrangers(t *testing.T) {
	o := openOffice(t, func(c *registry.Config) { c.Machines = 2 })
	o.serve(t)
	doc := o.seats("L1", 50, nil)
	h := o.host(doc)
	reply, err := h.ask(h.Activate)
	must(t, reply, err)
	other := openOffice(t, nil)
	for name, change := range map[string]func(*online.Request){
		"without a document":      func(r *online.Request) { r.Dated = 1 },
		"with another's document": func(r *online.Request) { r.Document = string(other.sign("L1", nil)) },
		"with another licence's":  func(r *online.Request) { r.Document = string(o.sign("L2", nil)) },
		"with an unsigned copy":   func(r *online.Request) { r.Document = string(doc[:len(doc)-8]) + "AAAAAAA\n" },
		"with a chain":            func(r *online.Request) { r.Chain = string(h.chain) },
		"with an unknown token": func(r *online.Request) {
			r.Enrolment = []online.Enrolment{{Token: online.TokenID("x"), Proof: "AAAA"}}
		},
		"from an early clock":         func(r *online.Request) { r.Issued = 1 },
		"with much to say":            func(r *online.Request) { r.Version = strings.Repeat("v", 200_000) },
		"with the document elsewhere": func(r *online.Request) { r.Product = string(doc) },
	} {
		for _, call := range []string{online.CallActivate, online.CallCheckOut, online.CallHeartbeat,
			online.CallCheckIn, online.CallExtend} {
			got := o.stranger(call, func(r *online.Request) {
				r.Block = &online.BlockRequest{Pool: "seats", Slots: 50, AtLeast: 1, Seconds: 10, Token: "x"}
				change(r)
			})
			if got.Refused == nil || got.Document != "" || got.Chain != "" || got.Block != nil || got.Activation != "" {
				t.Errorf("%s, %s: %+v", call, name, got)
			}
		}
	}
	if n := len(o.hosts("L1")); n != 1 || len(o.OutBlocks()) != 0 {
		t.Errorf("%d hosts, %d blocks; one host asked that has the document", n, len(o.OutBlocks()))
	}
	if _, err := o.SetState("L1", registry.StateSuspended, "invoice 7 is open"); err != nil {
		t.Fatal(err)
	}
	for _, call := range online.Calls() {
		if got := o.stranger(call, nil); got.Refused != nil && strings.Contains(got.Refused.Reason, "invoice") {
			t.Errorf("%s: a stranger is told the licence's state", call)
		}
	}
	if _, err := o.SetState("L1", registry.StateActive, ""); err != nil {
		t.Fatal(err)
	}
	second := o.host(doc)
	reply, err = second.ask(second.Activate)
	must(t, reply, err)
}

// A key for test licences vouches for no production licence of the same id.
func TestStrangerWithATestKey(t *testing.T) {
	private, _, err := issue.MakeKey(t.TempDir(), "t1", "")
	if err != nil {
		t.Fatal(err)
	}
	signer, err := issue.LoadSigner(private, "")
	if err != nil {
		t.Fatal(err)
	}
	anchor := signer.Anchor
	anchor.Environment = enforcer.Test
	o := openOffice(t, func(c *registry.Config) { c.Anchors = []plugin.Anchor{anchor} })
	if _, err := o.Add(o.sign("L1", nil), 0); err != nil {
		t.Fatal(err)
	}
	forged, err := signer.Sign(&usher.Claims{ID: "L1", Product: "acme", Issued: o.clock().Unix() - 200})
	if err != nil {
		t.Fatal(err)
	}
	got := o.stranger(online.CallActivate, func(r *online.Request) { r.Document, r.Dated = string(forged), 1 })
	if got.Refused == nil || got.Document != "" {
		t.Errorf("%+v", got)
	}
}

// Nothing is written for a caller that is refused, and what is written of one that is admitted is bounded.
func TestStoreIsBounded(t *testing.T) {
	o := openOffice(t, nil)
	doc := o.sign("L1", nil)
	if _, err := o.Add(doc, 0); err != nil {
		t.Fatal(err)
	}
	written := func() int64 {
		fi, err := os.Stat(filepath.Join(o.dir, "registry.db"))
		if err != nil {
			t.Fatal(err)
		}
		return fi.Size()
	}
	pages := func() int { return int(o.writes()) }
	big := func(r *online.Request) {
		r.Version, r.Chain, r.Attempt = strings.Repeat("v", 100_000), strings.Repeat("c", 100_000),
			strings.Repeat("a", 60)
		r.Components = map[string][]string{}
		for i := range 1300 {
			r.Components[fmt.Sprint("c", i)] = []string{strings.Repeat("a", 100)}
			r.Usage = append(r.Usage, online.Usage{Pool: fmt.Sprint("p", i, strings.Repeat("x", 300))})
			r.Emergencies = append(r.Emergencies, online.Emergency{Began: int64(i), Reason: strings.Repeat("r", 300)})
		}
	}
	before, were := written(), pages()
	for range 20 {
		for _, call := range online.Calls() {
			o.stranger(call, big)
			o.stranger(call, func(r *online.Request) { big(r); r.License = "nobody's" })
		}
	}
	if written() != before || pages() != were {
		t.Errorf("requests of strangers have grown the store from %d to %d bytes, in %d writes", before, written(),
			pages()-were)
	}
	for range 20 {
		if got := o.stranger(online.CallActivate, func(r *online.Request) {
			big(r)
			r.Document = string(doc)
		}); got.Refused != nil {
			t.Fatalf("%+v", got.Refused)
		}
	}
	for _, h := range o.hosts("L1") {
		b, err := json.Marshal(h)
		if err != nil || len(b) > 96<<10 || len(h.Components) == 0 {
			t.Errorf("of one host %d bytes are kept (%v)", len(b), err)
		}
	}
}

// A document is sent to none but a key that has shown an earlier issue of it. A host of a former store, which was not
// asked to, shows it by itself.
func TestDocumentNeedsItsPredecessor(t *testing.T) {
	o := openOffice(t, nil)
	doc := o.sign("L1", nil)
	if _, err := o.Add(doc, 0); err != nil {
		t.Fatal(err)
	}
	text, _, err := o.NewToken("L1", 1, time.Hour, "", nil)
	if err != nil {
		t.Fatal(err)
	}
	h := o.host(doc)
	h.enrol(text)
	if _, err := o.Renew("L1", o.clock().Add(time.Hour)); err != nil {
		t.Fatal(err)
	}
	// By the token, and without the document.
	got := o.say(h.key, online.CallActivate, func(r *online.Request) { h.prove(r, text); r.Dated = 1 })
	if got.Refused != nil || got.Document != "" {
		t.Fatalf("by a token: %+v", got)
	}
	got = o.say(h.key, online.CallCheckIn, func(r *online.Request) { r.Chain, r.Dated = got.Chain, 1 })
	if got.Refused == nil || got.Refused.System != online.SystemNotActivated || got.Document != "" {
		t.Errorf("a check-in of a key that has shown nothing: %+v", got)
	}
	// The agent's own client answers that by showing what it has.
	h.chain = []byte(o.hosts("L1")[0].Chain)
	o.pass(time.Second)
	reply, err := h.ask(h.CheckIn)
	if must(t, reply, err).Document == nil {
		t.Error("the agent has not shown its document, or was not sent the renewed one")
	}
}

func TestTokensOutOfBounds(t *testing.T) {
	o := openOffice(t, nil)
	if _, _, err := o.NewToken("L1", 1, time.Hour, "", nil); err == nil {
		t.Error("a token of a licence that is not known")
	}
	if _, err := o.Add(o.sign("L1", nil), 0); err != nil {
		t.Fatal(err)
	}
	for _, bad := range []struct {
		uses  int64
		lasts time.Duration
	}{{0, time.Hour}, {-1, time.Hour}, {registry.MaxTokenUses + 1, time.Hour}, {1, 0},
		{1, registry.MaxTokenTime + time.Hour}} {
		if _, _, err := o.NewToken("L1", bad.uses, bad.lasts, "", nil); err == nil {
			t.Errorf("a token of %d uses for %v", bad.uses, bad.lasts)
		}
	}
}

// The way for hosts under --require-enrolment.
func TestEnrolment(t *testing.T) {
	o := openOffice(t, func(c *registry.Config) { c.RequireEnrolment = true })
	doc := o.sign("L1", nil)
	if _, err := o.Add(doc, 0); err != nil {
		t.Fatal(err)
	}
	text, token, err := o.NewToken("L1", 2, time.Hour, "rack 4", nil)
	if err != nil {
		t.Fatal(err)
	}
	a := o.host(doc)
	_, err = a.ask(a.Activate)
	o.refused(err, plugin.Misconfigured, "", online.SystemEnrolment)
	a.enrol(text)
	for range 2 { // the same key is admitted once
		reply, err := a.ask(a.Activate)
		must(t, reply, err)
		reply, err = a.ask(a.Deactivate)
		must(t, reply, err)
		o.pass(time.Second)
	}
	b, c := o.host(doc), o.host(doc)
	b.enrol("usher-enrol-wrong", text)
	c.enrol(text)
	reply, err := b.ask(b.Activate)
	must(t, reply, err)
	_, err = c.ask(c.Activate)
	o.refused(err, plugin.Misconfigured, "", "has admitted that many")
	if all, err := o.Tokens("L1"); err != nil || len(all) != 1 || len(all[0].Keys) != 2 || all[0].Note != "rack 4" {
		t.Errorf("%+v, %v", all, err)
	}
	// At rest there is nothing that admits anybody.
	if raw, err := os.ReadFile(filepath.Join(o.dir, "registry.db")); err != nil || strings.Contains(string(raw), text) {
		t.Errorf("the store has the token itself (%v)", err)
	}
	// A proof that was seen on the way is of no use to another key.
	var seen []online.Enrolment
	o.mangle = func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			body, _ := io.ReadAll(r.Body)
			if q, _, err := online.OpenRequest(string(body)); err == nil {
				seen = q.Enrolment
			}
			r.Body = io.NopCloser(strings.NewReader(string(body)))
			next.ServeHTTP(w, r)
		})
	}
	other, _, err := o.NewToken("L1", 9, time.Hour, "", nil)
	if err != nil {
		t.Fatal(err)
	}
	c.enrol(other)
	reply, err = c.ask(c.Activate)
	must(t, reply, err)
	o.mangle = nil
	if got := o.stranger(online.CallActivate, func(r *online.Request) {
		r.Document, r.Enrolment = string(doc), seen
	}); len(seen) != 1 || got.Refused == nil {
		t.Errorf("%d proofs seen; a stranger with one: %+v", len(seen), got)
	}
	d := o.host(doc)
	d.enrol(other)
	o.pass(2 * time.Hour)
	_, err = d.ask(d.Activate)
	o.refused(err, plugin.Misconfigured, "", "expired")
	if _, err := o.RevokeToken(token.ID[:12]); err != nil {
		t.Fatal(err)
	}
	e := o.host(doc)
	e.enrol(text)
	_, err = e.ask(e.Activate)
	o.refused(err, plugin.Misconfigured, "", "was revoked")
	// Those that are admitted go on.
	reply, err = b.ask(b.Heartbeat)
	must(t, reply, err)
}

// enrol has a host show tokens.
func (h *host) enrol(tokens ...string) {
	h.o.t.Helper()
	h.tokens = tokens
}

// lose makes an activation whose answer is lost.
func (h *host) lose() (*plugin.Reply, error) {
	h.o.mangle = func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			next.ServeHTTP(httptest.NewRecorder(), r)
			w.WriteHeader(http.StatusBadGateway)
		})
	}
	defer func() { h.o.mangle = nil }()
	return h.ask(h.Activate)
}

// prove adds to a request the proof of a token that a host's client would.
func (h *host) prove(r *online.Request, token string) {
	h.o.t.Helper()
	was := h.o.mangle
	defer func() { h.o.mangle = was }()
	h.enrol(token)
	h.o.mangle = func(http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
			body, _ := io.ReadAll(req.Body)
			if q, _, err := online.OpenRequest(string(body)); err == nil {
				r.Nonce, r.Enrolment = q.Nonce, q.Enrolment
			}
			w.WriteHeader(http.StatusServiceUnavailable)
		})
	}
	h.ask(h.Activate)
}

// The agents' listener says nothing of licences; metrics have one of their own.
func TestNoMetricsForAgents(t *testing.T) {
	o := openOffice(t, nil)
	if _, err := o.Add(o.sign("secret-licence", nil), 0); err != nil {
		t.Fatal(err)
	}
	w := httptest.NewRecorder()
	o.Handler().ServeHTTP(w, httptest.NewRequestWithContext(context.Background(), http.MethodGet, "/metrics", nil))
	if body := w.Body.String(); strings.Contains(body, "secret") || strings.Contains(body, "usher_upstream") ||
		!strings.Contains(body, "--metrics-listen") {
		t.Errorf("%d %s", w.Code, body)
	}
}
