package agent_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"testing"

	"github.com/usher-agent/usher/client/wire"
	"github.com/usher-agent/usher/plugin/usher"
)

const (
	tokenOne = "0123456789abcdef-one"
	tokenTwo = "0123456789abcdef-two"
)

// caller speaks to one listener as one caller.
type caller struct {
	t       testing.TB
	address string // of the listener, as the agent says it
	header  http.Header
	host    string // what is sent as Host; empty: the address, or localhost
	http    *http.Client
}

func callerOf(t testing.TB, address string, header ...string) *caller {
	c := &caller{t: t, address: address, header: http.Header{}}
	for i := 0; i+1 < len(header); i += 2 {
		c.header.Add(header[i], header[i+1])
	}
	tr := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		var d net.Dialer
		if path, ok := strings.CutPrefix(address, "unix:"); ok {
			return d.DialContext(ctx, "unix", path)
		}
		return d.DialContext(ctx, "tcp", address)
	}}
	c.http = &http.Client{Transport: tr}
	t.Cleanup(tr.CloseIdleConnections)
	return c
}

func bearer(t string) []string { return []string{"Authorization", "Bearer " + t} }

// send sends a request as it stands.
func (c *caller) send(method, target string, body []byte) (*http.Response, []byte) {
	c.t.Helper()
	host := c.address
	if strings.HasPrefix(host, "unix:") {
		host = "localhost"
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience) // the answer may need an RSA key to be made
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, method, "http://"+host+target, bytes.NewReader(body))
	if err != nil {
		c.t.Fatal(err)
	}
	r.Header = c.header.Clone()
	if r.Host = host; c.host != "" {
		r.Host = c.host
	}
	res, err := c.http.Do(r)
	if err != nil {
		c.t.Fatal(err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		c.t.Fatal(err)
	}
	return res, b
}

// do has a toy do something.
func (c *caller) do(method, target string, in toyRequest) toyReply {
	c.t.Helper()
	b, err := json.Marshal(in)
	if err != nil {
		c.t.Fatal(err)
	}
	res, answer := c.send(method, target, b)
	var out toyReply
	if err := json.Unmarshal(answer, &out); err != nil || res.StatusCode != http.StatusOK {
		c.t.Fatalf("%s %s: %s %s", method, target, res.Status, answer)
	}
	return out
}

// ok is do, which must succeed.
func (c *caller) ok(method, target string, in toyRequest) toyReply {
	c.t.Helper()
	out := c.do(method, target, in)
	if out.Code != "" || out.Error != "" {
		c.t.Fatalf("%s %s %+v: %+v", method, target, in, out)
	}
	return out
}

// refused is do, which must be refused with a code.
func (c *caller) refused(code, method, target string, in toyRequest) {
	c.t.Helper()
	if out := c.do(method, target, in); string(out.Code) != code {
		c.t.Errorf("%s %s %+v: %+v, and it must be refused with %s", method, target, in, out, code)
	}
}

// withMeters gives a licence meters, a second pool, and borrowing.
func withMeters(c *usher.Claims) {
	five := int64(5)
	c.Meters = map[string]usher.Meter{"uses": {Max: &five, Scope: "host", Adjustable: true},
		"fixed": {Max: &five, Scope: "host"}}
	c.MaxBorrow = 24 * 3600
}

// listening returns where dialects are spoken, in the order of the configuration.
func (h *house) listening() []wire.Listener {
	h.t.Helper()
	health, err := h.Health(context.Background())
	if err != nil {
		h.t.Fatal(err)
	}
	return health.Listeners
}

const toyListeners = `listeners:
  - {address: "unix:%[1]s", dialect: toy}
  - {address: "127.0.0.1:0", dialect: toy, token_file: %[2]s}
  - {address: "[::1]:0", dialect: other, insecure_loopback: true}
  - {address: "127.0.0.1:0", dialect: keys, credentials_file: %[4]s}
  - {address: "%[3]s", dialect: other}
`

// withToys makes a house whose agent speaks toys: by a Unix socket, over TCP with tokens, over TCP with nothing, over
// TCP with keys, and another toy by a Unix socket.
func withToys(t *testing.T, limit int64) (*house, []wire.Listener) {
	dir, err := os.MkdirTemp(tempDir(), "u")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.WriteFile(dir+"/tokens", []byte("\n"+tokenOne+"\n  "+tokenTwo+" \n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(dir+"/keys", []byte("a\nb\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	h := open(t, fmt.Sprintf(toyListeners, dir+"/toy", dir+"/tokens", dir+"/other", dir+"/keys"))
	h.drop("a.lic", h.sign("a", limit, withMeters))
	h.until("dropped", inForce("a"))
	return h, h.listening()
}
