package agent_test

import (
	"bufio"
	"context"
	"crypto/ed25519"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
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
	h.drop("a.lic", usher.Armour(h.sign("a", 3, func(c *usher.Claims) { c.Confirmation = &usher.Confirmation{Thumbprint: f.AgentKey} })))
	h.until("dropped", inForce("a"))
	return client.Vendor{Product: "acme", Keys: map[string]ed25519.PublicKey{"k1": h.signer.Anchor.Key.(ed25519.PublicKey)}}
}

// A product that embeds the vendor's key can tell the true agent, and a true lease; a stock JOSE library can, too.
func TestProof(t *testing.T) {
	h := open(t, "")
	vendor := h.bound()
	s, err := h.Client.Open(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	proven, key, err := s.Prove(t.Context(), vendor)
	if err != nil || proven != client.ProvenLicense {
		t.Fatalf("%s, %v", proven, err)
	}
	l, err := s.AcquireProven(t.Context(), wire.AcquireRequest{Pool: "streams", N: new(int64(2))}, key)
	if err != nil {
		t.Fatal(err)
	}
	jws, err := jose.ParseSignedCompact(l.Info().Token, []jose.SignatureAlgorithm{jose.EdDSA})
	if err != nil {
		t.Fatal(err)
	}
	b, err := jws.Verify(key)
	var claims map[string]any
	if err != nil || json.Unmarshal(b, &claims) != nil || claims["jti"] != l.Info().ID || claims["product"] != "acme" {
		t.Errorf("a stock library reads %v, %v", claims, err)
	}
	var keys struct {
		Keys []jose.JSONWebKey `json:"keys"`
	}
	c := newChecked(t, h.Socket())
	_, text, _ := c.call(true, "GET", "/v1/keys", "", nil)
	if err := json.Unmarshal([]byte(text), &keys); err != nil || len(keys.Keys) != 1 || !slices.Equal(keys.Keys[0].Key.(ed25519.PublicKey), key) {
		t.Errorf("a stock library reads the keys as %+v, %v", keys, err)
	}

	// What is not as it should be is not proved.
	other, _, _ := ed25519.GenerateKey(nil)
	for name, test := range map[string]struct {
		vendor client.Vendor
		want   string
	}{
		"another vendor's key": {client.Vendor{Product: "acme", Keys: map[string]ed25519.PublicKey{"k1": other}}, "its signature does not match"},
		"an unknown key":       {client.Vendor{Product: "acme", Keys: map[string]ed25519.PublicKey{"k2": other}}, `signed by key "k1", which this product does not know`},
		"another product":      {client.Vendor{Product: "other", Keys: vendor.Keys}, `the licence is for product "acme"`},
	} {
		if proven, _, err := s.Prove(t.Context(), test.vendor); !errors.Is(err, client.ErrNotProven) || proven != client.ProvenNone || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: %s, %v", name, proven, err)
		}
	}
	if _, err := s.AcquireProven(t.Context(), wire.AcquireRequest{Pool: "streams"}, other); !errors.Is(err, client.ErrNotProven) {
		t.Errorf("a lease that another signed: %v", err)
	}
	h.inUse(2)
}

// A relay is seen through: the agent sees the relay's process, not this one.
func TestRelayIsSeenThrough(t *testing.T) {
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
	c := client.New(path)
	defer c.Close()
	s, err := c.Open(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if proven, _, err := s.Prove(t.Context(), vendor); !errors.Is(err, client.ErrNotProven) || !strings.Contains(err.Error(), "somebody stands between") {
		t.Errorf("through a relay: %s, %v", proven, err)
	}
}

// TLS on the same socket, with the agent's key: a session and HTTP inside it.
func TestTLS(t *testing.T) {
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
		c := tls.Client(raw, &tls.Config{InsecureSkipVerify: true, MinVersion: tls.VersionTLS13}) //nolint:gosec // the key is compared
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
	hc := &http.Client{Transport: &http.Transport{DialContext: func(context.Context, string, string) (net.Conn, error) { return dial() }}}
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
	d.SetReadDeadline(time.Now().Add(10 * time.Second))
	if n, err := d.Read(make([]byte, 1)); err == nil {
		t.Errorf("TLS inside TLS: %d bytes", n)
	}
}

// docs/wire.md has every method, and no other.
func TestMethodsDocumented(t *testing.T) {
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
