package agent_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/usher-agent/usher/agent/config"
	"github.com/usher-agent/usher/agent/upstreams"
	"github.com/usher-agent/usher/enforcer"
	"github.com/usher-agent/usher/plugin"
)

// renewEnrolment reloads alone: TestEnrolmentFile sees the tokens used.
func renewEnrolment(t *testing.T, key string) {
	file := filepath.Join(t.TempDir(), "tokens")
	put(t, file, "one\n")
	h := open(t, "upstream: {url: \"http://127.0.0.1:1\", enrolment_file: "+file+"}\n")
	put(t, file, "two\n")
	h.reloads(key, file)
}

// opener is what an agent with a configuration opens its upstreams with, and what it is told of refused files.
func opener(t *testing.T, h *house) (o *upstreams.Opener, refused func(key string) error) {
	t.Helper()
	cfg, err := h.load()
	if err != nil {
		t.Fatal(err)
	}
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	told := map[string]error{}
	return &upstreams.Opener{Settings: func() *config.Config { return cfg }, Key: key, Now: time.Now, Dated: time.Now,
			Anchors: func() []plugin.Anchor { return nil }, Secrets: func() plugin.Secrets { return plugin.Secrets{} },
			Verify: func([]byte) (*enforcer.License, *enforcer.Problem) { return &enforcer.License{}, nil },
			FileRefused: func(key string, err error) {
				mu.Lock()
				defer mu.Unlock()
				told[key] = err
			}}, func(key string) error {
			mu.Lock()
			defer mu.Unlock()
			return told[key]
		}
}

// recorder is a server that keeps what requests showed. Where there is no other that answers, it refuses them.
type recorder struct {
	answers http.Handler
	mu      sync.Mutex
	shown   string
}

func (r *recorder) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	body, _ := io.ReadAll(req.Body)
	user, password, _ := req.BasicAuth()
	r.mu.Lock()
	r.shown += req.Header.Get("Authorization") + " " + user + " " + password + " " + string(body)
	if req.TLS != nil {
		for _, c := range req.TLS.PeerCertificates {
			r.shown += " certificate " + c.SerialNumber.String()
		}
	}
	r.mu.Unlock()
	if r.answers == nil {
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	req.Body = io.NopCloser(bytes.NewReader(body))
	r.answers.ServeHTTP(w, req)
}

// take returns what was shown since it was asked last.
func (r *recorder) take() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	s := r.shown
	r.shown = ""
	return s
}

// asker is a system's section of upstream, with %[1]s for the server and %[2]s for the file, and a request to it.
type asker struct {
	section string
	ask     func(t *testing.T, o *upstreams.Opener, r *recorder) func(context.Context, plugin.Upstream) error
}

func fetches(*testing.T, *upstreams.Opener, *recorder) func(context.Context, plugin.Upstream) error {
	return func(ctx context.Context, u plugin.Upstream) error {
		_, err := u.(plugin.Fetcher).Fetch(ctx, &plugin.Request{Product: "acme"})
		return err
	}
}

// checksIn asks with a document.
func checksIn(document []byte) func(context.Context, plugin.Upstream) error {
	return func(ctx context.Context, u plugin.Upstream) error {
		_, err := u.(interface {
			CheckIn(context.Context, *plugin.Request) (*plugin.Reply, error)
		}).CheckIn(ctx, &plugin.Request{Product: "acme", Fingerprint: "host-1", Document: document,
			Nonce: []byte("0123456789abcdef")})
		return err
	}
}

// askers are those of the systems, by the keys of their secrets. Each system's own test file adds its own.
var askers = map[string]asker{}

func renewSecret(t *testing.T, key string) {
	a := askers[key]
	record := &recorder{}
	server := httptest.NewServer(record)
	t.Cleanup(server.Close)
	file := filepath.Join(t.TempDir(), "secret")
	put(t, file, "uc-first-secret\n")
	h := open(t, "upstream: {"+fmt.Sprintf(a.section, server.URL, file)+"}\n")
	o, refused := opener(t, h)
	ask := a.ask(t, o, record)
	all, err := o.Open(nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, u := range all {
		shows := func(want string) {
			t.Helper()
			record.take()
			err := ask(t.Context(), u)
			if got := record.take(); !strings.Contains(got, want) {
				t.Errorf("the upstream shows %q, and not %s: %v", got, want, err)
			}
		}
		shows("uc-first-secret")
		put(t, file, "uc-second-secret\n")
		shows("uc-second-secret")
		if err := os.Rename(file, file+".away"); err != nil {
			t.Fatal(err)
		}
		shows("uc-second-secret")
		if err := refused(key); err == nil || !strings.Contains(err.Error(), file) {
			t.Errorf("of a file that is gone it tells %v", err)
		}
		put(t, file, "uc-third-secret\n")
		shows("uc-third-secret")
		if err := refused(key); err != nil {
			t.Errorf("of a file that is good again it tells %v", err)
		}
	}
	h.reloads(key, file)
}

// selfSigned makes a certificate for the loopback address, and its PEM.
func selfSigned(t *testing.T, serial int64) (cert tls.Certificate, public, private string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(serial), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour), IsCA: true,
		BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	public = string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
	private = string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER}))
	if cert, err = tls.X509KeyPair([]byte(public), []byte(private)); err != nil {
		t.Fatal(err)
	}
	return cert, public, private
}

// withTLS starts a server that shows the certificate that is set, and wants one of its callers.
func withTLS(t *testing.T, record http.Handler, cert *tls.Certificate) *httptest.Server {
	server := httptest.NewUnstartedServer(record)
	server.Config.ErrorLog = log.New(io.Discard, "", 0)
	server.TLS = &tls.Config{ClientAuth: tls.RequestClientCert,
		GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) {
			return &tls.Config{Certificates: []tls.Certificate{*cert}, ClientAuth: tls.RequestClientCert}, nil
		}}
	server.StartTLS()
	t.Cleanup(server.Close)
	return server
}

func renewCA(t *testing.T, key string) {
	record := &recorder{}
	one, public, _ := selfSigned(t, 1)
	two, second, _ := selfSigned(t, 2)
	shown := one
	server := withTLS(t, record, &shown)
	file := filepath.Join(t.TempDir(), "ca.pem")
	put(t, file, public)
	h := open(t, fmt.Sprintf("upstream: {ca_file: %s, url: %q}\n", file, server.URL))
	h.refuses(file, "no certificate")
	o, _ := opener(t, h)
	all, err := o.Open(nil)
	if err != nil {
		t.Fatal(err)
	}
	reached := func() bool {
		server.CloseClientConnections()
		record.take()
		for range 2 { // the first may meet the connection that has just been closed
			_ = checksIn(nil)(t.Context(), all["usher"])
		}
		return record.take() != ""
	}
	if !reached() {
		t.Fatal("the server is not reached")
	}
	h.stop()
	shown = two
	if reached() {
		t.Fatal("a server whose CA is not trusted is reached")
	}
	h.start()
	put(t, file, second)
	if !reached() {
		t.Error("after the renewal the server is not reached")
	}
	put(t, file, "half a certif")
	if !reached() {
		t.Error("with a bad file the former CA does not stay")
	}
	put(t, file, second)
	h.reloads(key, file)
}

func renewCertificate(t *testing.T, key string) {
	record := &recorder{}
	one, ca, _ := selfSigned(t, 1)
	server := withTLS(t, record, &one)
	dir := t.TempDir()
	cert, private := filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	_, a, b := selfSigned(t, 71)
	put(t, cert, a)
	put(t, private, b)
	put(t, dir+"/ca.pem", ca)
	h := open(t, fmt.Sprintf("upstream: {url: %q, ca_file: %s/ca.pem, client_cert_file: %s, client_key_file: %s}\n",
		server.URL, dir, cert, private))
	o, refused := opener(t, h)
	all, err := o.Open(nil)
	if err != nil {
		t.Fatal(err)
	}
	shows := func(want string) {
		t.Helper()
		record.take()
		err := checksIn(nil)(t.Context(), all["usher"])
		if got := record.take(); !strings.Contains(got, "certificate "+want) {
			t.Errorf("it shows %q, and not %s: %v", got, want, err)
		}
	}
	shows("71")
	_, a, b = selfSigned(t, 72)
	put(t, cert, a)
	shows("71") // the key is not renewed yet
	if refused("upstream.client_cert_file") == nil {
		t.Error("nobody is told of a pair that does not match")
	}
	put(t, private, b)
	shows("72")
	named := map[string]string{"upstream.client_cert_file": cert, "upstream.client_key_file": private}
	h.reloads(key, named[key])
}
