package agent_test

import (
	"context"
	"crypto/ed25519"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/usher-agent/usher/client/wire"
	"github.com/usher-agent/usher/plugin"
	"github.com/usher-agent/usher/plugin/usher"
)

// useDesk does all that a dialect's desk offers to one caller. The agent's own user is an admin.
func useDesk(t *testing.T, h *house, c *caller, admin bool) {
	t.Helper()
	until := time.Now().Add(time.Hour).UTC().Truncate(time.Second)
	ttl := c.ok("POST", "/lease", toyRequest{Pool: "streams", N: 1, TTL: 30, Token: "t", Data: "one"})
	held := c.ok("POST", "/lease", toyRequest{Pool: "streams", N: 2, Lifetime: "held", Data: "two"})
	borrow := c.ok("POST", "/lease", toyRequest{Pool: "streams", N: 1, Lifetime: "borrow", Until: until})
	if ttl.Data != "one" || held.Data != "two" || held.N != 2 || borrow.Data != "" || !borrow.Expires.Equal(until) {
		t.Fatalf("%+v, %+v, %+v", ttl, held, borrow)
	}
	c.refused("no_slots", "POST", "/lease", toyRequest{Pool: "streams", N: 1})
	c.refused("no_slots", "POST", "/lease", toyRequest{Pool: "streams", N: 1, Wait: 0.01})
	c.refused("pool_unknown", "POST", "/lease", toyRequest{Pool: "rivers", N: 1})
	c.refused("bad_request", "POST", "/lease", toyRequest{Pool: "streams", N: 1, Lifetime: "process"})
	c.refused("token_reused", "POST", "/lease", toyRequest{Pool: "streams", N: 2, TTL: 30, Token: "t"})
	if again := c.ok("POST", "/lease", toyRequest{Pool: "streams", N: 1, TTL: 30, Token: "t",
		Data: "another"}); !again.Replayed || again.ID != ttl.ID || again.Data != "one" {
		t.Errorf("a retry: %+v", again)
	}
	if more := c.ok("PUT", "/lease/"+ttl.ID, toyRequest{TTL: 3600}); !more.Expires.After(ttl.Expires) ||
		more.Data != "one" {
		t.Errorf("a renewal: %+v of %+v", more, ttl)
	}
	c.refused("bad_request", "PUT", "/lease/"+held.ID, toyRequest{})
	c.ok("PATCH", "/lease/"+held.ID, toyRequest{Data: "three"})
	c.refused("too_large", "PATCH", "/lease/"+held.ID, toyRequest{Data: strings.Repeat("x", plugin.MaxLeaseData+1)})
	c.refused("too_large", "POST", "/lease",
		toyRequest{Pool: "streams", N: 1, Data: strings.Repeat("x", plugin.MaxLeaseData+1)})
	if got := c.ok("GET", "/lease/"+held.ID, toyRequest{}); !got.Found || got.Data != "three" {
		t.Errorf("the lease is %+v", got)
	}
	var ids []string
	for _, l := range c.ok("GET", "/leases", toyRequest{}).Leases {
		ids = append(ids, l.ID)
	}
	if want := []string{ttl.ID, held.ID, borrow.ID}; !slices.Equal(ids, want) {
		t.Errorf("the leases are %v, and were acquired as %v", ids, want)
	}

	for _, draw := range []toyRequest{{Pool: "uses", N: 2, Lifetime: "draw", Token: "d", Data: "drawn"},
		{Pool: "uses", N: 2, Lifetime: "draw", Token: "d", Data: "again"}} {
		if l := c.ok("POST", "/lease", draw); l.Data != "drawn" {
			t.Errorf("a draw: %+v", l)
		}
	}
	if got := c.ok("POST", "/adjust", toyRequest{Pool: "uses", By: -1}); got.Drawn != 1 {
		t.Errorf("one taken back: %+v", got)
	}
	c.refused("bad_request", "POST", "/adjust", toyRequest{Pool: "uses", By: -2})
	c.refused("meter_empty", "POST", "/adjust", toyRequest{Pool: "uses", By: 5})
	c.ok("POST", "/adjust", toyRequest{Pool: "uses", By: -1})
	if admin {
		c.ok("POST", "/adjust", toyRequest{Pool: "fixed", By: 1})
	} else {
		c.refused("forbidden", "POST", "/adjust", toyRequest{Pool: "fixed", By: -1})
		c.refused("forbidden", "PUT", "/document", toyRequest{Text: "x"})
		c.refused("forbidden", "DELETE", "/document/a.lic", toyRequest{})
	}

	c.ok("DELETE", "/lease/"+ttl.ID, toyRequest{})
	c.ok("DELETE", "/lease/"+held.ID, toyRequest{})
	// not before its time, whatever cause the dialect gives
	c.refused("forbidden", "DELETE", "/lease/"+borrow.ID, toyRequest{})
	if err := h.Release(context.Background(), borrow.ID, true); err != nil {
		t.Fatal(err)
	}
	c.refused("lease_unknown", "DELETE", "/lease/"+held.ID, toyRequest{})
	if left := c.ok("GET", "/leases", toyRequest{}).Leases; len(left) > 0 {
		t.Errorf("left over: %+v", left)
	}
}

// A dialect does on a Unix socket and over TCP all that its desk offers.
func TestDialectDesk(t *testing.T) {
	t.Parallel()
	h, at := withToys(t, 4)
	for i, c := range []*caller{callerOf(t, at[0].Address), callerOf(t, at[1].Address, bearer(tokenOne)...)} {
		useDesk(t, h, c, i == 0)
	}
	c := callerOf(t, at[0].Address)
	doc := h.sign("b", 9, func(c *usher.Claims) { withMeters(c); c.Issued++ })
	c.refused("document_refused", "PUT", "/document", toyRequest{Text: "no licence"})
	c.ok("PUT", "/document", toyRequest{Text: string(doc)})
	if got := c.ok("GET", "/document", toyRequest{}); got.Value != string(doc) {
		t.Errorf("the document in force is %q", got.Value)
	}
	c.ok("DELETE", "/document/b.lic", toyRequest{})
	h.until("removed", inForce("a"))
	// What was adjusted is in the event log; what was refused is not.
	h.stop()
	files, err := filepath.Glob(h.path("state/events/*"))
	if err != nil {
		t.Fatal(err)
	}
	var events string
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		events += string(b)
	}
	if n := strings.Count(events, `"meter.adjusted"`); n != 5 || strings.Count(events, `"dialect":"toy"`) != 5 {
		t.Errorf("%d adjustments in the event log:\n%s", n, events)
	}
}

// Leases of other callers, of other dialects, and of the local API are not to be seen, renewed or released; their
// tokens are theirs.
func TestDialectsAreApart(t *testing.T) {
	t.Parallel()
	h, at := withToys(t, 20)
	all := map[string]*caller{
		"kernel": callerOf(t, at[0].Address), "token one": callerOf(t, at[1].Address, bearer(tokenOne)...),
		"token two": callerOf(t, at[1].Address, bearer(tokenTwo)...),
		"insecure":  callerOf(t, at[2].Address), "key a": callerOf(t, at[3].Address, "Toy-Key", "a"),
		"key b":              callerOf(t, at[3].Address, "Toy-Key", "b"),
		"the kernel's other": callerOf(t, at[4].Address),
	}
	mine := map[string]string{}
	for name, c := range all {
		mine[name] = c.ok("POST", "/lease",
			toyRequest{Pool: "streams", N: 1, TTL: 600, Token: "the same", Data: name}).ID
	}
	native, err := h.Acquire(context.Background(),
		wire.AcquireRequest{Pool: "streams", TTLSeconds: 600, ClientToken: "the same"})
	if err != nil {
		t.Fatal(err)
	}
	mine["native"] = native.ID
	for name, c := range all {
		if l := c.ok("GET", "/leases", toyRequest{}).Leases; len(l) != 1 || l[0].Data != name {
			t.Errorf("%s sees %+v", name, l)
		}
		for other, id := range mine {
			if other == name {
				continue
			}
			if c.ok("GET", "/lease/"+id, toyRequest{}).Found {
				t.Errorf("%s sees the lease of %s", name, other)
			}
			c.refused("not_holder", "PUT", "/lease/"+id, toyRequest{})
			c.refused("not_holder", "PATCH", "/lease/"+id, toyRequest{Data: "stolen"})
			c.refused("not_holder", "DELETE", "/lease/"+id, toyRequest{})
		}
	}
	if err := h.Release(context.Background(), mine["kernel"], false); err == nil {
		t.Error("a dialect's lease is given back through the local API")
	}
	if p, err := h.Pool(context.Background(), "streams"); err != nil || p.InUse != 8 {
		t.Errorf("%+v, %v; 8 leases are held", p, err)
	}
	leases, err := h.Leases(context.Background(), "")
	if err != nil {
		t.Fatal(err)
	}
	known := map[string]bool{}
	for _, l := range leases {
		known[l.Holder.Credential] = true
		if l.Holder.Credential != "" && l.Holder.UID != 65534 || strings.Contains(l.Holder.Credential, tokenOne) {
			t.Errorf("holder %+v", l.Holder)
		}
	}
	if len(known) != 6 { // the kernel's, two tokens, the loopback, two keys
		t.Errorf("the holders are %v", known)
	}
	storesAndKeysAreApart(t, h, all)
}

// storesAndKeysAreApart: each dialect has a store, a key and its answer about the host.
func storesAndKeysAreApart(t *testing.T, h *house, all map[string]*caller) {
	t.Helper()
	all["kernel"].ok("POST", "/store", toyRequest{Changes: []plugin.Change{{Key: "k", Value: []byte("v")}}})
	if !all["token one"].ok("GET", "/store/k", toyRequest{}).Found ||
		all["insecure"].ok("GET", "/store/k", toyRequest{}).Found {
		t.Error("a store is its dialect's, on all its listeners and no other's")
	}
	keys, err := h.Keys(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	for _, k := range keys.Keys {
		x, err := base64.RawURLEncoding.DecodeString(k.X)
		if err != nil || seen[k.X] {
			t.Fatalf("%+v, %v", keys, err)
		}
		seen[k.X] = true
		for name, c := range map[string]*caller{"toy": all["kernel"], "other": all["insecure"]} {
			signed := c.ok("POST", "/sign", toyRequest{Text: "text"}).Signed
			if ed25519.Verify(x, []byte("text"), signed) != (k.Dialect == name) {
				t.Errorf("what %s signs is verified by the key of %q", name, k.Dialect)
			}
		}
	}
	if len(keys.Keys) != 4 || keys.Keys[0].Dialect != "" {
		t.Errorf("the keys are %+v", keys.Keys)
	}
	host := all["kernel"].ok("GET", "/host", toyRequest{}).Host
	f, err := h.Fingerprint(context.Background(), "")
	if err != nil || host.Product != "acme" || host.Cores.Logical != int64(f.Cores.Logical) ||
		host.AgentKey != keys.Keys[0].KeyID {
		t.Errorf("the host is %+v, %v", host, err)
	}
	if other := all["kernel"].ok("GET", "/host", toyRequest{Pool: "another"}).Host; other.Product != "another" {
		t.Errorf("the host for another product is %+v", other)
	}
}

// listenerRule is a request to a listener, and its status.
type listenerRule struct {
	name, address, host string
	header              []string
	want                int
	credential          string // how it begins
}

func listenerRules(at []wire.Listener) []listenerRule {
	unix, tcp, open6, keys := at[0].Address, at[1].Address, at[2].Address, at[3].Address
	port := tcp[strings.LastIndexByte(tcp, ':'):]
	return []listenerRule{
		{"kernel", unix, "", nil, 200, ""},
		{"kernel, any host", unix, "api.example.com", nil, 200, ""},
		{"kernel, from a page", unix, "", []string{"Origin", "http://localhost"}, 403, ""},
		{"kernel, from a page without a name", unix, "", []string{"Origin", "null"}, 403, ""},
		{"kernel, an origin that is empty", unix, "", []string{"Origin", ""}, 403, ""},
		{"kernel, cross-site", unix, "", []string{"Sec-Fetch-Site", "cross-site"}, 403, ""},
		{"kernel, same site", unix, "", []string{"Sec-Fetch-Site", "same-site"}, 403, ""},
		{"kernel, by hand", unix, "", []string{"Sec-Fetch-Site", "none"}, 200, ""},
		{"token", tcp, "", bearer(tokenOne), 200, "token:"},
		{"the other token", tcp, "", bearer(tokenTwo), 200, "token:"},
		{"token, small letters", tcp, "", []string{"Authorization", "bearer " + tokenOne}, 200, "token:"},
		{"token as password", tcp, "", []string{"Authorization",
			"Basic " + base64.StdEncoding.EncodeToString([]byte("me:"+tokenOne))}, 200, "token:"},
		{"no token", tcp, "", nil, 401, ""},
		{"wrong token", tcp, "", bearer(tokenOne + "x"), 401, ""},
		{"part of a token", tcp, "", bearer(tokenOne[:len(tokenOne)-1]), 401, ""},
		{"empty token", tcp, "", bearer(""), 401, ""},
		{"token as another scheme", tcp, "", []string{"Authorization", "License " + tokenOne}, 401, ""},
		{"token from a page", tcp, "", append(bearer(tokenOne), "Origin", "https://example.com"), 403, ""},
		{"token, cross-site", tcp, "", append(bearer(tokenOne), "Sec-Fetch-Site", "cross-site"), 403, ""},
		{"localhost", tcp, "localhost" + port, bearer(tokenOne), 200, "token:"},
		{"localhost without port", tcp, "LocalHost", bearer(tokenOne), 200, "token:"},
		{"the other loopback", tcp, "[::1]" + port, bearer(tokenOne), 200, "token:"},
		{"another host", tcp, "example.com", bearer(tokenOne), 403, ""},
		{"a name that ends so", tcp, "evil.localhost" + port, bearer(tokenOne), 403, ""},
		{"another address", tcp, "192.0.2.1" + port, bearer(tokenOne), 403, ""},
		{"insecure", open6, "", nil, 200, "loopback"},
		{"insecure, another host", open6, "rebound.example.com", nil, 403, ""},
		{"insecure, from a page", open6, "", []string{"Origin", "http://evil.example.com"}, 403, ""},
		{"key", keys, "", []string{"Toy-Key", "a"}, 200, "keys:"},
		{"no key", keys, "", nil, 200, ""},
		{"another key, which the dialect refuses", keys, "", []string{"Toy-Key", "c"}, -403, ""},
	}
}

// What comes to a dialect comes as it was sent, whatever the method and the path; what may not come is refused in a
// problem.
func TestListenerRules(t *testing.T) {
	t.Parallel()
	_, at := withToys(t, 4)
	for _, test := range listenerRules(at) {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			c := callerOf(t, test.address, test.header...)
			c.host = test.host
			res, body := c.send("GET", "/echo/x", nil)
			if test.want < 0 && res.StatusCode == -test.want {
				return
			}
			if res.StatusCode != test.want {
				t.Fatalf("%s: %s", res.Status, body)
			}
			if test.want != 200 {
				var p wire.Problem
				if err := json.Unmarshal(body, &p); err != nil || p.Status != test.want || p.Code == "" ||
					res.Header.Get("Content-Type") != "application/problem+json" {
					t.Errorf("%s is no problem: %v", body, err)
				}
				if (test.want == 401) != (res.Header.Get("WWW-Authenticate") != "") {
					t.Errorf("the headers are %v", res.Header)
				}
				return
			}
			var out toyReply
			if err := json.Unmarshal(body, &out); err != nil {
				t.Fatal(err)
			}
			e := out.Echo
			if strings.HasPrefix(test.address, "unix:") && (e["uid"] != strconv.Itoa(os.Getuid()) ||
				e["pid"] != strconv.Itoa(os.Getpid()) || e["credential"] != "") {
				t.Errorf("the kernel's caller is %v", e)
			}
			if !strings.HasPrefix(e["credential"], test.credential) ||
				(e["vouched"] == "true") == (test.name == "no key") || strings.Contains(e["authorization"], tokenOne) {
				t.Errorf("%v", e)
			}
		})
	}
}

func TestDialectRequests(t *testing.T) {
	t.Parallel()
	h, at := withToys(t, 4)
	for _, l := range at[:2] {
		c := callerOf(t, l.Address, bearer(tokenOne)...)
		c.host = "localhost:99"
		for _, method := range []string{"GET", "HEAD", "PUT", "PATCH", "DELETE", "POST", "OPTIONS", "PROPFIND"} {
			for _, target := range []string{"/echo//a/../b/%2e%2E/c%2Fd?x=%20&x", "/echo/."} {
				res, _ := c.send(method, target, nil)
				if res.StatusCode != 200 || res.Header.Get("Toy-Target") != target {
					t.Errorf("%s %s: %s, the dialect sees %q", method, target, res.Status, res.Header.Get("Toy-Target"))
				}
			}
		}
		if e := c.ok("GET", "/echo", toyRequest{}).Echo; e["host"] != "localhost:99" {
			t.Errorf("the dialect sees %v", e)
		}
		large := []byte(`{"text":"` + strings.Repeat("x", plugin.MaxDialectBody) + `"}`)
		if res, b := c.send("POST", "/sign", large); res.StatusCode != http.StatusRequestEntityTooLarge ||
			!strings.Contains(string(b), `"too_large"`) {
			t.Errorf("a large body: %s %s", res.Status, b)
		}
		// A lease whose answer is lost is given back.
		if res, b := c.send("GET", "/panic", nil); res.StatusCode != 500 || !strings.Contains(string(b), `"internal"`) {
			t.Errorf("a panic: %s %s", res.Status, b)
		}
		if left := c.ok("GET", "/leases", toyRequest{}).Leases; len(left) > 0 {
			t.Errorf("after a panic there is %+v", left)
		}
	}
	// So is one of a caller who has hung up while it waited.
	c := callerOf(t, at[0].Address)
	all := c.ok("POST", "/lease", toyRequest{Pool: "streams", N: 4, Lifetime: "held"})
	conn, err := net.Dial("unix", strings.TrimPrefix(at[0].Address, "unix:"))
	if err != nil {
		t.Fatal(err)
	}
	body := `{"pool":"streams","n":4,"lifetime":"held","wait":600}`
	fmt.Fprintf(conn, "POST /lease HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n%s", len(body), body)
	waiting := func(n int64) {
		t.Helper()
		deadline, rest := time.Now().Add(20*time.Second), pause()
		for {
			p, err := h.Pool(context.Background(), "streams")
			if err != nil {
				t.Fatal(err)
			}
			if p.Waiting == n {
				return
			}
			if time.Now().After(deadline) {
				t.Fatalf("%d wait, and it should be %d", p.Waiting, n)
			}
			rest()
		}
	}
	waiting(4)
	conn.Close()
	waiting(0)
	c.ok("DELETE", "/lease/"+all.ID, toyRequest{})
	if p, err := h.Pool(context.Background(), "streams"); err != nil || p.InUse != 0 {
		t.Errorf("%+v, %v", p, err)
	}
}

// Tokens are read at each call: one that is added is good at once, one that is removed no longer.
func TestTokensAreReread(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	write := func(text string) {
		if err := os.WriteFile(dir+"/tokens", []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(tokenOne)
	h := open(t, fmt.Sprintf("listeners: [{address: \"127.0.0.1:0\", dialect: toy, token_file: %s/tokens}]\n", dir))
	at := h.listening()[0].Address
	status := func(tok string) int {
		res, _ := callerOf(t, at, bearer(tok)...).send("GET", "/echo", nil)
		return res.StatusCode
	}
	if a, b := status(tokenOne), status(tokenTwo); a != 200 || b != 401 {
		t.Errorf("%d, %d", a, b)
	}
	write(tokenTwo + "\n")
	if a, b := status(tokenOne), status(tokenTwo); a != 401 || b != 200 {
		t.Errorf("%d, %d", a, b)
	}
	for _, text := range []string{"", "short\n" + tokenTwo, strings.Repeat("x", 1<<17)} {
		write(text)
		if a := status(tokenTwo); a != 401 {
			t.Errorf("%.20q: %d", text, a)
		}
	}
}

// A dialect's socket has the mode it is given, and goes with the agent.
func TestDialectSocket(t *testing.T) {
	t.Parallel()
	dir, err := os.MkdirTemp(tempDir(), "u")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	h := open(t, fmt.Sprintf("listeners: [{address: \"%s/toy\", dialect: toy, mode: \"0600\"}]\n", dir))
	if fi, err := os.Stat(dir + "/toy"); err != nil || fi.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", fi, err)
	}
	at := h.listening()[0]
	if at.Address != "unix:"+dir+"/toy" || at.Dialect != "toy" {
		t.Errorf("it listens at %+v", at)
	}
	callerOf(t, at.Address).ok("GET", "/echo", toyRequest{})
	h.stop()
	if _, err := os.Stat(dir + "/toy"); err == nil {
		t.Error("the socket is there still")
	}
}
