package agent_test

import (
	"bufio"
	"context"
	"crypto"
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
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/usher-agent/usher/agent/api"
	"github.com/usher-agent/usher/client"
	"github.com/usher-agent/usher/client/wire"
	"github.com/usher-agent/usher/plugin/usher"
)

// bound drops a licence that names the agent's key.
func (h *house) bound() client.Vendor {
	h.t.Helper()
	f, err := h.Fingerprint(context.Background(), "")
	if err != nil {
		h.t.Fatal(err)
	}
	h.drop("a.lic", usher.Armour(h.sign("a", 3, func(c *usher.Claims) {
		c.Confirmation = &usher.Confirmation{Thumbprint: f.AgentKey}
	})))
	h.until("dropped", inForce("a"))
	return client.Vendor{Product: "acme", Keys: map[string]crypto.PublicKey{"k1": h.signer.Anchor.Key}}
}

// notProved opens sessions that trust another vendor or product. The agent is not proved to them.
func notProved(t *testing.T, h *house, vendor client.Vendor) {
	t.Helper()
	other, _, _ := ed25519.GenerateKey(nil)
	for name, test := range map[string]struct {
		vendor client.Vendor
		want   string
	}{
		"another vendor's key": {client.Vendor{Product: "acme", Keys: map[string]crypto.PublicKey{"k1": other}},
			"its signature does not match"},
		"an unknown key": {client.Vendor{Product: "acme", Keys: map[string]crypto.PublicKey{"k2": other}},
			`signed by key "k1", which this product does not know`},
		"another product": {client.Vendor{Product: "other", Keys: vendor.Keys}, `the licence is for product "acme"`},
	} {
		for _, options := range [][]client.Option{{}, {client.AllowUnproven()}} {
			_, err := client.Open(t.Context(),
				append(options, client.WithSocket(h.Socket()), client.WithVendor(test.vendor))...)
			if !errors.Is(err, client.ErrNotProven) || !strings.Contains(err.Error(), test.want) {
				t.Errorf("%s: %v", name, err)
			}
		}
	}
}

// A product that embeds the vendor's key can tell the true agent, and a true lease; a stock JOSE library can, too.
func TestProof(t *testing.T) {
	t.Parallel()
	h := open(t, "")
	vendor := h.bound()
	s, err := client.Open(t.Context(), client.WithSocket(h.Socket()), client.WithVendor(vendor))
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if s.Proven() != client.ProvenLicense {
		t.Errorf("the agent is proven: %s", s.Proven())
	}
	l, err := s.Acquire(t.Context(),
		wire.AcquireRequest{Pool: "streams", N: new(int64(2)), Nonce: "0123456789abcdef0123"})
	if err != nil {
		t.Fatal(err)
	}
	if l.Proven() != client.ProvenLease {
		t.Errorf("the lease is proven: %s", l.Proven())
	}
	key := h.key()
	jws, err := jose.ParseSignedCompact(l.Info().Token, []jose.SignatureAlgorithm{jose.EdDSA})
	if err != nil {
		t.Fatal(err)
	}
	b, err := jws.Verify(key)
	var claims map[string]any
	if err != nil || json.Unmarshal(b, &claims) != nil || claims["jti"] != l.Info().ID || claims["product"] != "acme" {
		t.Errorf("a stock library reads %v, %v", claims, err)
	}
	notProved(t, h, vendor)
	h.inUse(2)

	// The agent proves itself again after a restart, whatever has become of the licence: its key is known.
	h.drop("a.lic", h.sign("a", 3, nil)) // names no agent
	h.until("unbound", func(l *wire.License) bool { return l.State == "valid" && len(h.chain()) == 0 })
	h.stop()
	h.start()
	deadline := time.Now().Add(60 * time.Second)
	for s.Stats().Reconnects == 0 {
		if time.Now().After(deadline) {
			t.Fatal("the session does not find the agent again")
		}
		<-time.After(time.Millisecond)
	}
	if s.Proven() != client.ProvenLicense || l.Err() != nil {
		t.Errorf("after a restart: %s, %v", s.Proven(), l.Err())
	}
	// A new session cannot tell it from an impostor, and takes it only when told to.
	if _, err := client.Open(t.Context(), client.WithSocket(h.Socket()),
		client.WithVendor(vendor)); !errors.Is(err, client.ErrNotProven) ||
		!strings.Contains(err.Error(), "names an agent's key") {
		t.Errorf("a licence that names no agent: %v", err)
	}
	u, err := client.Open(t.Context(), client.WithSocket(h.Socket()), client.WithVendor(vendor), client.AllowUnproven())
	if err != nil {
		t.Fatal(err)
	}
	defer u.Close()
	if u.Proven() != client.ProvenNone {
		t.Errorf("what names no agent is proven: %s", u.Proven())
	}
}

func (h *house) keys() (out struct {
	Keys  []jose.JSONWebKey `json:"keys"`
	Chain []string          `json:"chain"`
}) {
	h.t.Helper()
	_, text, _ := newChecked(h.t.(*testing.T), h.Socket()).call(true, "GET", "/v1/keys", "", nil)
	if err := json.Unmarshal([]byte(text), &out); err != nil || len(out.Keys) != 1 {
		h.t.Fatalf("a stock library reads the keys as %+v, %v", out, err)
	}
	return out
}

func (h *house) key() ed25519.PublicKey { return h.keys().Keys[0].Key.(ed25519.PublicKey) }
func (h *house) chain() []string        { return h.keys().Chain }

// An impostor has the licence, which is no secret, but not the agent's key.
func TestImpostor(t *testing.T) {
	t.Parallel()
	h := open(t, "")
	vendor := h.bound()
	chain, err := json.Marshal(h.chain())
	if err != nil {
		t.Fatal(err)
	}
	_, key, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(nil, tmpl, tmpl, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(h.dir, "i")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	var all sync.WaitGroup
	defer all.Wait()
	defer l.Close()
	all.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			all.Go(func() {
				defer c.Close()
				in := bufio.NewReader(c)
				if b, err := in.Peek(1); err == nil && b[0] == 'G' {
					fmt.Fprintf(c,
						"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: "+
							"close\r\n\r\n{\"keys\":[],\"chain\":%s}", chain)
					return
				}
				tls.Server(&peeked{c, in},
					&tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}}).Read(
					make([]byte, 4096))
			})
		}
	})
	_, err = client.Open(t.Context(), client.WithSocket(path), client.WithVendor(vendor), client.AllowUnproven())
	if !errors.Is(err, client.ErrNotProven) || !strings.Contains(err.Error(), "another agent's key") {
		t.Errorf("an impostor: %v", err)
	}
	// Failing open is for an absent agent, not for a false one.
	if s, err := client.Open(t.Context(), client.WithSocket(path), client.WithVendor(vendor), client.AllowUnproven(),
		client.FailOpen()); err == nil {
		defer s.Close()
		t.Error("an impostor opens a session that fails open")
	}
}

type peeked struct {
	net.Conn
	in *bufio.Reader
}

func (p *peeked) Read(b []byte) (int, error) { return p.in.Read(b) }

// A relay is seen through: the agent sees the relay's process, not this one.
func TestRelayIsSeenThrough(t *testing.T) {
	t.Parallel()
	h := open(t, "")
	vendor := h.bound()
	path := filepath.Join(h.dir, "r")
	cmd := h.python(`import socket, sys, threading
l = socket.socket(socket.AF_UNIX); l.bind(sys.argv[2]); l.listen(); print("ready", flush=True)
def pump(a, b):
    while d := a.recv(65536): b.sendall(d)
    b.shutdown(socket.SHUT_WR)
while True:
    c, _ = l.accept(); s = socket.socket(socket.AF_UNIX); s.connect(sys.argv[1])
    for x in ((c, s), (s, c)): threading.Thread(target=pump, args=x, daemon=True).start()
`, h.Socket(), path)
	if !cmd.Scan() {
		t.Fatal("the relay does not start")
	}
	_, err := client.Open(t.Context(), client.WithSocket(path), client.WithVendor(vendor))
	if !errors.Is(err, client.ErrNotProven) || !strings.Contains(err.Error(), "another process is between") {
		t.Errorf("through a relay: %v", err)
	}
}

// TLS on the same socket, with the agent's key: a session and HTTP inside it.
func TestTLS(t *testing.T) {
	t.Parallel()
	h := open(t, "")
	h.bound()
	f, err := h.Fingerprint(t.Context(), "")
	if err != nil {
		t.Fatal(err)
	}
	dial := func() (*tls.Conn, error) {
		raw, err := net.Dial("unix", h.Socket())
		if err != nil {
			return nil, err
		}
		c := tls.Client(raw, &tls.Config{InsecureSkipVerify: true,
			MinVersion: tls.VersionTLS13})
		if err := c.Handshake(); err != nil {
			return nil, err
		}
		key, ok := c.ConnectionState().PeerCertificates[0].PublicKey.(ed25519.PublicKey)
		if !ok || agentThumbprint(key) != f.AgentKey {
			return nil, errors.New("the certificate's key is not the agent's")
		}
		return c, nil
	}
	c, err := dial()
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	fmt.Fprintln(c, `{"jsonrpc":"2.0","id":1,"method":"lease.acquire","params":{"pool":"streams"}}`)
	in := bufio.NewScanner(c)
	if !in.Scan() || !strings.Contains(in.Text(), `"lifetime":"process"`) {
		t.Fatalf("a session inside TLS: %q, %v", in.Text(), in.Err())
	}
	hc := &http.Client{Transport: &http.Transport{DialContext: func(context.Context, string, string) (net.Conn, error) {
		return dial()
	}}}
	defer hc.CloseIdleConnections()
	res, err := hc.Get("http://usher/v1/pools")
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if b, err := io.ReadAll(res.Body); err != nil || !strings.Contains(string(b), `"in_use":1`) {
		t.Errorf("HTTP inside TLS: %s, %v", b, err)
	}
	// TLS inside TLS is not spoken.
	d, err := dial()
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	d.Write([]byte{0x16})
	d.SetReadDeadline(time.Now().Add(60 * time.Second))
	if n, err := d.Read(make([]byte, 1)); err == nil {
		t.Errorf("TLS inside TLS: %d bytes", n)
	}
}

// docs/wire.md has every method, and no other.
func TestMethodsDocumented(t *testing.T) {
	t.Parallel()
	var documented []string
	for _, m := range tableRow.FindAllStringSubmatch(read(t, "../docs/wire.md"), -1) {
		documented = append(documented, m[1])
	}
	there := api.Methods()
	slices.Sort(documented)
	slices.Sort(there)
	if !slices.Equal(documented, there) {
		t.Errorf("documented are\n%v\nand there are\n%v", documented, there)
	}
}
