package online_test

import (
	"context"
	"crypto/ed25519"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/usher-agent/usher/enforcer"
	"github.com/usher-agent/usher/plugin"
	"github.com/usher-agent/usher/plugin/usher"
	"github.com/usher-agent/usher/plugin/usher/issue"
	"github.com/usher-agent/usher/plugin/usher/online"
)

type side struct {
	signer *issue.Signer
	key    ed25519.PrivateKey
}

func newSide(t testing.TB) side {
	t.Helper()
	private, _, err := issue.MakeKey(t.TempDir(), "v1", "")
	if err != nil {
		t.Fatal(err)
	}
	signer, err := issue.LoadSigner(private, "")
	if err != nil {
		t.Fatal(err)
	}
	_, key, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	return side{signer, key}
}

func (s side) client(t testing.TB, url string, h *http.Client) *online.Client {
	t.Helper()
	c, err := online.NewClient(online.Config{URL: url, Key: s.key, HTTP: h, Anchors: func() []plugin.Anchor {
		return []plugin.Anchor{s.signer.Anchor}
	}})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

var nonce = []byte("0123456789abcdef")

func heartbeat(c *online.Client, within time.Duration) (*plugin.Reply, error) {
	ctx, cancel := context.WithTimeout(context.Background(), within)
	defer cancel()
	return c.Heartbeat(ctx, &plugin.Request{LicenseID: "L1", Product: "acme", Nonce: nonce})
}

// truth answers as a good server does, with what change makes of it.
func (s side) truth(change func(*online.Reply), by *issue.Signer, typ string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		q, agent, err := online.OpenRequest(string(b))
		if err != nil {
			http.Error(w, err.Error(), 400)
			return
		}
		reply := &online.Reply{Call: q.Call, Issued: time.Now().Unix(), Nonce: q.Nonce, License: q.License,
			AgentKey: agent, Chain: "c1"}
		if change != nil {
			change(reply)
		}
		payload, _ := json.Marshal(reply)
		token, err := by.SignAs(typ, payload)
		if err != nil {
			http.Error(w, err.Error(), 500)
			return
		}
		if reply.Refused != nil {
			w.WriteHeader(http.StatusForbidden)
		}
		io.WriteString(w, token)
	}
}

// fault is a server that answers in some way, and what the client makes of it.
type fault struct {
	name    string
	handler http.HandlerFunc
	class   plugin.Class // empty: it succeeds
	words   string
	after   time.Duration
}

// status answers with a status and headers.
func status(code int, headers ...string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		for i := 0; i < len(headers); i += 2 {
			w.Header().Set(headers[i], headers[i+1])
		}
		w.WriteHeader(code)
		io.WriteString(w, "<h1>no</h1>")
	}
}

// answerFaults are of answers that a server has signed, or a liar.
func (s side) answerFaults(liar side) []fault {
	var old string
	return []fault{
		{"good", s.truth(nil, s.signer, online.ReplyType), "", "", 0},
		{"refused", s.truth(func(r *online.Reply) {
			r.Refused = &online.Refusal{Code: "SUSPENDED", Reason: "invoice 7 is open"}
		}, s.signer, online.ReplyType), plugin.Refused, "invoice 7", 0},
		{"refused with a code of its own", s.truth(func(r *online.Reply) {
			r.Refused = &online.Refusal{Code: "VALID", Reason: "a trick"}
		}, s.signer, online.ReplyType), plugin.Misconfigured, "a trick", 0},
		{"refused by a liar", s.truth(func(r *online.Reply) {
			r.Refused = &online.Refusal{Code: "REVOKED"}
		}, liar.signer, online.ReplyType), plugin.Misconfigured, "403", 0},
		{"signed by a liar", s.truth(nil, liar.signer, online.ReplyType), plugin.Transient, "is not the vendor's", 0},
		{"of another type", s.truth(nil, s.signer, online.ActivationType), plugin.Transient, "is not the vendor's", 0},
		{"for another nonce", s.truth(func(r *online.Reply) {
			r.Nonce = "AAAAAAAAAAAAAAAAAAAAAA"
		}, s.signer, online.ReplyType), plugin.Transient, "an old one", 0},
		{"for another agent", s.truth(func(r *online.Reply) {
			r.AgentKey = "x"
		}, s.signer, online.ReplyType), plugin.Transient, "another agent's", 0},
		{"for another licence", s.truth(func(r *online.Reply) {
			r.License = "L2"
		}, s.signer, online.ReplyType), plugin.Transient, "another request", 0},
		{"replayed", func(w http.ResponseWriter, r *http.Request) {
			if old == "" {
				rec := httptest.NewRecorder()
				s.truth(func(r *online.Reply) { r.Nonce = "b2xkIG9sZCBvbGQgb2xk" }, s.signer, online.ReplyType)(rec, r)
				old = rec.Body.String()
			}
			io.WriteString(w, old)
		}, plugin.Transient, "an old one", 0},
	}
}

// transportFaults are of answers of gateways, of broken connections and of garbage.
func transportFaults() []fault {
	return []fault{
		{"500", status(500), plugin.Transient, "500", 0},
		{"503 with a date", status(503, "Retry-After", time.Now().Add(time.Hour).UTC().Format(http.TimeFormat)),
			plugin.Transient, "503", 5 * time.Minute},
		{"429", status(429, "Retry-After", "7"), plugin.Transient, "429", 7 * time.Second},
		{"429 with nonsense", status(429, "Retry-After", "-5"), plugin.Transient, "429", 0},
		{"404", status(404), plugin.Misconfigured, "404", 0},
		{"401", status(401), plugin.Misconfigured, "401", 0},
		{"a redirect", status(302, "Location", "/v1/heartbeat"), plugin.Misconfigured, "302", 0},
		{"garbage", status(200), plugin.Transient, "is not the vendor's", 0},
		{"nothing", func(http.ResponseWriter, *http.Request) {}, plugin.Transient, "is not the vendor's", 0},
		{"a huge body", func(w http.ResponseWriter, _ *http.Request) {
			chunk := []byte(strings.Repeat("A", 1<<20))
			for range 100 {
				if _, err := w.Write(chunk); err != nil {
					return
				}
			}
		}, plugin.Transient, "larger than", 0},
		{"cut off", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "1000")
			io.WriteString(w, "e30")
		}, plugin.Transient, "broke off", 0},
		{"a reset", func(w http.ResponseWriter, _ *http.Request) {
			c, _, err := w.(http.Hijacker).Hijack()
			if err == nil {
				c.(*net.TCPConn).SetLinger(0)
				c.Close()
			}
		}, plugin.Transient, "", 0},
	}
}

func (f fault) check(t *testing.T, s side) {
	server := httptest.NewServer(f.handler)
	defer server.Close()
	reply, err := heartbeat(s.client(t, server.URL, nil), 20*time.Second)
	if f.class == "" {
		if err != nil || string(reply.State) != "c1" || reply.Time.IsZero() {
			t.Fatalf("%+v, %v", reply, err)
		}
		return
	}
	var e *plugin.Error
	if !errors.As(err, &e) || e.Class != f.class || !strings.Contains(e.Reason, f.words) ||
		e.RetryAfter < f.after || e.RetryAfter > f.after+2*time.Minute {
		t.Errorf("got %+v (%v)", e, err)
	}
	if (e.Code != "") != (f.class == plugin.Refused) {
		t.Errorf("the code is %q", e.Code)
	}
}

// Whatever a server, a gateway or a liar on the way answers, only the vendor's own signed refusal is one.
func TestFaults(t *testing.T) {
	s, liar := newSide(t), newSide(t)
	for _, f := range slices.Concat(s.answerFaults(liar), transportFaults()) {
		t.Run(f.name, func(t *testing.T) { f.check(t, s) })
	}
}

func TestStalls(t *testing.T) {
	s := newSide(t)
	release := make(chan struct{})
	server := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { <-release }))
	defer server.Close()
	defer close(release)
	_, err := heartbeat(s.client(t, server.URL, nil), 50*time.Millisecond)
	var e *plugin.Error
	if !errors.As(err, &e) || e.Class != plugin.Transient || !strings.Contains(e.Reason, "no answer in time") {
		t.Errorf("got %v", err)
	}
	_, err = heartbeat(s.client(t, "http://127.0.0.1:1", nil), time.Minute)
	if !errors.As(err, &e) || e.Class != plugin.Transient {
		t.Errorf("nobody listens: %v", err)
	}
}

func TestCertificates(t *testing.T) {
	s := newSide(t)
	expired := func() tls.Certificate {
		tmpl := &x509.Certificate{SerialNumber: big.NewInt(1), DNSNames: []string{"example.com"},
			IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
			NotBefore:   time.Now().Add(-2 * time.Hour), NotAfter: time.Now().Add(-time.Hour)}
		der, err := x509.CreateCertificate(nil, tmpl, tmpl, s.key.Public(), s.key)
		if err != nil {
			t.Fatal(err)
		}
		return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: s.key}
	}()
	leaf, err := x509.ParseCertificate(expired.Certificate[0])
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewUnstartedServer(s.truth(nil, s.signer, online.ReplyType))
	server.Config.ErrorLog = nil
	server.TLS = &tls.Config{Certificates: []tls.Certificate{expired}}
	server.StartTLS()
	defer server.Close()
	pool := x509.NewCertPool()
	pool.AddCert(leaf)
	for name, h := range map[string]*http.Client{
		"expired":    {Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}}},
		"unknown CA": {Transport: &http.Transport{}},
	} {
		_, err := heartbeat(s.client(t, server.URL, h), 20*time.Second)
		var e *plugin.Error
		if !errors.As(err, &e) || e.Class != plugin.Misconfigured || !strings.Contains(e.Hint, "upstream.ca_file") {
			t.Errorf("%s: got %+v (%v)", name, e, err)
		}
	}
}

func TestAddresses(t *testing.T) {
	s := newSide(t)
	for _, url := range []string{"", "licences.example.com", "ftp://x", "https://", "https://user:secret@host",
		"https://host?x=1"} {
		_, err := online.NewClient(online.Config{URL: url, Key: s.key})
		if err == nil || strings.Contains(err.Error(), "secret") {
			t.Errorf("%q: %v", url, err)
		}
	}
}

// A server reads messages from anybody: it never panics, and believes nothing that is not signed by the key it carries.
func FuzzOpenRequest(f *testing.F) {
	s := newSide(f)
	var good string
	server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		good = string(b)
	}))
	defer server.Close()
	heartbeat(s.client(f, server.URL, nil), time.Minute)
	f.Add(good)
	f.Add("a.b.c")
	f.Add("eyJhbGciOiJub25lIn0..")
	want, _ := plugin.Thumbprint(s.key.Public())
	f.Fuzz(func(t *testing.T, token string) {
		r, agent, err := online.OpenRequest(token)
		if err == nil && agent == want && r.License != "L1" {
			t.Errorf("a forged request is believed: %+v", r)
		}
	})
}

// An agent reads messages from anybody.
func FuzzReply(f *testing.F) {
	s := newSide(f)
	good, err := s.signer.SignAs(online.ReplyType, []byte(`{"call":"heartbeat","nonce":"x","license":"L1"}`))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Add("")
	f.Add(strings.Repeat("A", 100) + "." + strings.Repeat("B", 100) + ".C")
	f.Fuzz(func(t *testing.T, token string) {
		payload, _, p := usher.Open(token, online.ReplyType, []plugin.Anchor{s.signer.Anchor})
		if p == nil && fmt.Sprint(string(payload)) != `{"call":"heartbeat","nonce":"x","license":"L1"}` {
			t.Errorf("a forged reply is believed: %s", payload)
		}
		if p != nil && p.Code == enforcer.Valid {
			t.Error("a problem that is none")
		}
	})
}

// A test key, and a key out of its time, sign no answer about a production licence: neither that it is good nor that it
// is not.
func TestKeysThatMayNotAnswer(t *testing.T) {
	s := newSide(t)
	refuse := func(r *online.Reply) { r.Refused = &online.Refusal{Code: "REVOKED", Reason: "by the wrong key"} }
	back := func(r *online.Reply) { r.Issued = time.Now().AddDate(-3, 0, 0).Unix() }
	past := func(a *plugin.Anchor) { a.NotAfter = time.Now().AddDate(-1, 0, 0) }
	forTests := func(a *plugin.Anchor) { a.Environment = enforcer.Test }
	for _, test := range []struct {
		name   string
		anchor func(*plugin.Anchor)
		reply  func(*online.Reply)
		test   bool // it is a test licence
		words  string
	}{
		{"a test key", forTests, nil, false, "is for tests"},
		{"a test key that refuses", forTests, refuse, false, "is for tests"},
		{"a test key, of a test licence", forTests, nil, true, ""},
		{"a key past its end", past, nil, false, "signed only until"},
		{"a key past its end that refuses", past, refuse, true, "signed only until"},
		{"a key past its end that dates back", past, back, false, "signed only until"},
		{"a key that begins later", func(a *plugin.Anchor) {
			a.NotBefore = time.Now().AddDate(1, 0, 0)
		}, nil, false, "signs only from"},
		{"a revoked key", func(a *plugin.Anchor) { a.Revoked = true }, nil, false, "is revoked"},
	} {
		anchor := s.signer.Anchor
		test.anchor(&anchor)
		server := httptest.NewServer(s.truth(test.reply, s.signer, online.ReplyType))
		anchors := []plugin.Anchor{anchor}
		c, err := online.NewClient(online.Config{URL: server.URL, Key: s.key, Anchors: func() []plugin.Anchor {
			return anchors
		}})
		if err != nil {
			t.Fatal(err)
		}
		claims := &usher.Claims{ID: "L1", Product: "acme", Licensee: "Blue Cinema",
			Issued: time.Now().AddDate(-2, 0, 0).Unix()}
		if test.test {
			claims.Environment = "test"
		}
		vendor := newSide(t) // of production, by another key
		vendor.signer.Anchor.KeyID = "v2"
		doc, err := vendor.signer.Sign(claims)
		if err != nil {
			t.Fatal(err)
		}
		anchors = append(anchors, vendor.signer.Anchor)
		_, err = c.Heartbeat(t.Context(),
			&plugin.Request{LicenseID: "L1", Product: "acme", Nonce: nonce, Document: doc})
		server.Close()
		var e *plugin.Error
		switch {
		case test.words == "" && err != nil:
			t.Errorf("%s: %v", test.name, err)
		case test.words != "" &&
			(!errors.As(err, &e) || e.Class == plugin.Refused || !strings.Contains(e.Reason, test.words)):
			t.Errorf("%s: %v", test.name, err)
		}
	}
}
