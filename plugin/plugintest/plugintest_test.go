package plugintest_test

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/usher-agent/usher/enforcer"
	"github.com/usher-agent/usher/plugin"
	"github.com/usher-agent/usher/plugin/plugintest"
	"github.com/usher-agent/usher/plugin/remote"
	"github.com/usher-agent/usher/plugin/usher"
	"github.com/usher-agent/usher/plugin/usher/issue"
)

// native makes samples of the native format.
func native(t *testing.T) plugintest.FormatSamples {
	t.Helper()
	dir := t.TempDir()
	private, public, err := issue.MakeKey(dir, "k1", "")
	if err != nil {
		t.Fatal(err)
	}
	signer, err := issue.LoadSigner(private, "")
	if err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(public)
	if err != nil {
		t.Fatal(err)
	}
	anchor, err := usher.NewAnchor("k1", b, "")
	if err != nil {
		t.Fatal(err)
	}
	n := int64(8)
	doc, err := signer.Sign(&usher.Claims{ID: "a", Product: "acme", Issued: time.Now().Unix(),
		Pools: map[string]usher.Pool{"streams": {Max: &n}, "seats": {}}})
	if err != nil {
		t.Fatal(err)
	}
	thumb := strings.Repeat("A", 43)
	statement := fmt.Appendf(nil,
		`{"jti": "a", "product": "acme", "iat": 1790000000, "nbf": 1790000600, "exp": 1890000000,
		"pools": {"streams": {"max": 8, "scope": "host", "overage": 1}}, "meters": {"m": {"max": 5, "scope": "host"}},
		"cnf": {"jkt": "%[1]s"}, "agent_keys": ["%[1]s"], "hosts": [{"components": {"mac": ["%[2]s"]}}],
		"versions": ">=4 <6", "released_before": 1890000000, "cores": {"max": 4, "count": "logical"},
		"heartbeat": {"every_seconds": 600}, "check_in": {"every_seconds": 86400}, "trial_seconds": 86400,
		"clock": "strict", "clock_tolerance_seconds": 60, "agent_away_seconds": 60, "site_server": {"jkt": "%[1]s"}}`,
		thumb,
		strings.Repeat("ab", 32))
	return plugintest.FormatSamples{Good: [][]byte{doc, usher.Armour(doc)}, Anchors: []plugin.Anchor{anchor},
		Statement: statement, Absent: []string{"pools.streams.max=<nil>", "meters.m.max=<nil>"},
		Sign: func(statement []byte) ([]byte, error) {
			text, err := signer.SignAs(usher.Type, statement)
			return []byte(text), err
		},
		Broken: [][]byte{doc[:len(doc)/2]}, Foreign: [][]byte{[]byte("ACME1.a.b")}}
}

// acme makes samples of the worked example's format, and the functions that a bad one needs.
func acme(t *testing.T) (s plugintest.FormatSamples, pub ed25519.PublicKey) {
	t.Helper()
	pub, key, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	b, err := json.Marshal(map[string]any{"ID": "a", "Product": "acme", "Key": "a1", "Seats": 5,
		"Issued": time.Now().UTC()})
	if err != nil {
		t.Fatal(err)
	}
	payload := base64.RawURLEncoding.EncodeToString(b)
	doc := fmt.Appendf(nil, "ACME1.%s.%s\n", payload,
		base64.RawURLEncoding.EncodeToString(ed25519.Sign(key, []byte(payload))))
	return plugintest.FormatSamples{Good: [][]byte{doc},
			Broken:  [][]byte{[]byte("ACME1.x"), []byte("ACME1.!.!"), []byte("ACME1.e30.e30")},
			Anchors: []plugin.Anchor{{System: "acme", KeyID: "a1", Algorithm: "EdDSA", Key: pub}},
			Foreign: native(t).Good},
		pub
}

// Built-in systems keep the promises, called and over the wire.
func TestBuiltIn(t *testing.T) {
	t.Run("called", func(t *testing.T) { plugintest.Format(t, usher.Format{}, native(t)) })
	t.Run("over the wire", func(t *testing.T) {
		plugintest.Format(t, plugintest.Serve(t, remote.System{Format: usher.Format{}}).Format(), native(t))
	})
}

// The worked example keeps them as a process of its own.
func TestExample(t *testing.T) {
	bin := filepath.Join(t.TempDir(), "acme-format")
	cmd := exec.Command("go", "build", "-trimpath", "-ldflags", "-s -w", "-o", bin, ".") // as make compiles the program
	cmd.Dir, cmd.Env = "../../docs/examples/acme-format", append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	s, _ := acme(t)
	plugintest.Format(t, plugintest.Start(t, "acme", bin).Format(), s)
}

// bad is a format with one fault.
type bad struct {
	how   string
	calls *int
	mu    *sync.Mutex
}

func (bad) System() string { return "acme" }

func (b bad) Recognise(d []byte) bool {
	return b.how == "greedy" || bytes.HasPrefix(d, []byte("ACME1."))
}

func (b bad) Verify(d []byte, anchors []plugin.Anchor) (*enforcer.License, *enforcer.Problem) {
	b.mu.Lock()
	defer b.mu.Unlock()
	*b.calls++
	problem := func(code enforcer.Code, reason string) (*enforcer.License, *enforcer.Problem) {
		return nil, &enforcer.Problem{Code: code, Reason: reason}
	}
	parts := strings.Split(strings.TrimSpace(string(d)), ".")
	if len(parts) != 3 {
		switch b.how {
		case "panics":
			return problem(enforcer.Malformed, parts[2])
		case "quotes":
			return problem(enforcer.Malformed, fmt.Sprintf("what is %s?", d))
		case "silent":
			return problem(enforcer.Malformed, "")
		case "made-up code":
			return problem("ODD", "it is odd")
		case "terminal":
			return problem(enforcer.Malformed, "\x1b[31mbad")
		}
		return problem(enforcer.Malformed, "it has not three parts")
	}
	payload, err := base64.RawURLEncoding.DecodeString(parts[1])
	signature, _ := base64.RawURLEncoding.DecodeString(parts[2])
	var t struct {
		ID, Product, Key string
		Issued           time.Time
		Seats            enforcer.Limit
	}
	if err != nil || json.Unmarshal(payload, &t) != nil {
		return problem(enforcer.Malformed, "it cannot be read")
	}
	l := &enforcer.License{ID: t.ID, System: "acme", Product: t.Product, Issued: t.Issued, KeyID: t.Key,
		Pools: map[string]enforcer.PoolTerm{"seats": {Max: t.Seats}}, Terms: map[string]any{"seats": float64(t.Seats)}}
	switch b.how {
	case "negative":
		l.Pools["seats"] = enforcer.PoolTerm{Max: -5}
	case "foreign licence":
		l.System = "usher"
	case "drops terms":
		l.Terms = nil
	case "fickle":
		l.Licensee = fmt.Sprint(*b.calls)
	case "scribbles":
		d[0] = 'X'
	}
	for _, a := range anchors {
		if a.System != "acme" || a.KeyID != t.Key {
			continue
		}
		if a.Revoked && b.how != "forgiving" {
			return problem(enforcer.UntrustedKey, "the key is revoked")
		}
		if !ed25519.Verify(a.Key.(ed25519.PublicKey), []byte(parts[1]), signature) && b.how != "credulous" {
			return problem(enforcer.BadSignature, "it has been changed")
		}
		return l, nil
	}
	if b.how == "anchorless" {
		return l, nil
	}
	return problem(enforcer.UntrustedKey, "its key is not in trust")
}

// The suite catches a format with any fault, however it is called.
func TestBadFormats(t *testing.T) {
	s, _ := acme(t)
	for how, want := range map[string]string{"": "", "greedy": "it is recognised", "panics": "it panics",
		"quotes": "quotes the document", "silent": "the reason is empty",
		"made-up code": "no document can have this code", "terminal": "not one line", "negative": "max of seats is -5",
		"foreign licence": "of another system", "drops terms": "no terms",
		"fickle": "says two things", "scribbles": "bytes were changed", "forgiving": "with revoked keys: it verifies",
		"credulous": "with another key of the same name: it verifies", "anchorless": "with no key: it verifies"} {
		f := bad{how, new(int), new(sync.Mutex)}
		local := s
		local.Good = [][]byte{slices.Clone(s.Good[0])}
		check := map[string]plugin.Format{"called": f}
		// over the wire the first ends the process, and the second is harmless
		if how != "panics" && how != "scribbles" {
			check["over the wire"] = plugintest.Serve(t, remote.System{Format: f}).Format()
		}
		for _, where := range slices.Sorted(maps.Keys(check)) {
			var text []string
			for _, err := range plugintest.CheckFormat(check[where], local) {
				text = append(text, err.Error())
			}
			all := strings.Join(text, "\n")
			if (want == "") != (all == "") || !strings.Contains(all, want) {
				t.Errorf("%q, %s: want %q; the faults are\n%s", how, where, want, all)
			}
		}
	}
}

// vendorSide is an upstream with its remote side in memory; how names its one fault.
type vendorSide struct {
	how    string
	mu     sync.Mutex
	hosts  map[string]bool
	blocks map[string]*plugin.Block
	n      int
	chain  []string      // the states that are good
	left   bool          // somebody has given a place up
	away   bool          // nothing is answered
	gone   chan struct{} // closed when the test ends
}

func newVendorSide(how string) *vendorSide {
	return &vendorSide{how: how, hosts: map[string]bool{}, blocks: map[string]*plugin.Block{}}
}

func (v *vendorSide) System() string {
	if v.how == "nameless" {
		return "Acme Licences"
	}
	return "acme"
}

func (v *vendorSide) Capabilities() plugin.Capabilities {
	return plugin.Capabilities{Activate: true, Heartbeat: true, CheckIn: true, Deactivate: true, Budget: true}
}

func (v *vendorSide) known(ctx context.Context, r *plugin.Request) error {
	if err := ctx.Err(); err != nil && v.how != "deaf" {
		return plugin.Transiently("the call was given up: %v", err)
	}
	if v.away {
		if v.how == "waits" {
			ctx = context.Background()
		}
		select {
		case <-ctx.Done():
		case <-v.gone:
		}
		if v.how == "gives up" {
			return &plugin.Error{Class: plugin.Refused, Code: enforcer.Suspended, Reason: "no answer"}
		}
		return plugin.Transiently("no answer")
	}
	if r.LicenseID == "suspended" {
		switch v.how {
		case "lenient":
			return nil
		case "untyped":
			return fmt.Errorf("suspended")
		case "vague":
			return &plugin.Error{Class: plugin.Refused, Code: "NO", Reason: "no"}
		}
		return &plugin.Error{Class: plugin.Refused, Code: enforcer.Suspended, Reason: "it is not paid"}
	}
	if v.how == "writes" {
		r.Product = "mine"
	}
	return nil
}

func (v *vendorSide) Activate(ctx context.Context, r *plugin.Request) (*plugin.Reply, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if err := v.known(ctx, r); err != nil {
		return nil, err
	}
	if v.how == "once" && v.hosts[r.AgentKey] {
		return nil, &plugin.Error{Class: plugin.Refused, Code: enforcer.FingerprintMismatch,
			Reason: "it is activated already"}
	}
	if v.how == "for good" && v.left {
		return nil, &plugin.Error{Class: plugin.Refused, Code: enforcer.FingerprintMismatch, Reason: "it was given up"}
	}
	v.hosts[r.AgentKey] = true
	switch v.how {
	case "hoards":
		return &plugin.Reply{State: make([]byte, plugin.MaxState+1)}, nil
	case "chained", "strict":
		if len(v.chain) > 0 && !slices.Contains(v.chain, string(r.State)) {
			return nil, &plugin.Error{Class: plugin.Refused, Code: enforcer.AgentKeyMismatch, Reason: "it is a copy"}
		}
		v.n++
		next := fmt.Sprint("s", v.n)
		if v.chain = []string{string(r.State), next}; v.how == "strict" {
			v.chain = v.chain[1:]
		}
		return &plugin.Reply{State: []byte(next)}, nil
	}
	return &plugin.Reply{State: []byte("s")}, nil
}

func (v *vendorSide) Heartbeat(ctx context.Context, r *plugin.Request) (*plugin.Reply, error) {
	if err := v.known(ctx, r); err != nil {
		return nil, err
	}
	if v.how == "far" {
		return &plugin.Reply{NextHeartbeat: time.Now().AddDate(500, 0, 0)}, nil
	}
	return &plugin.Reply{}, nil
}

func (v *vendorSide) CheckIn(ctx context.Context, r *plugin.Request) (*plugin.Reply, error) {
	if err := v.known(ctx, r); err != nil {
		return nil, err
	}
	reply := &plugin.Reply{NextCheckIn: time.Now().Add(time.Hour), Time: time.Now()}
	switch {
	case v.how == "silent":
		return nil, nil
	case v.how == "believes":
	case v.how == "replayed":
		reply.Time = time.Now().AddDate(0, -1, 0)
	case len(r.Nonce) == 0:
		reply.Time = time.Time{}
	}
	return reply, nil
}

func (v *vendorSide) Deactivate(ctx context.Context, r *plugin.Request) (*plugin.Reply, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if err := v.known(ctx, r); err != nil {
		return nil, err
	}
	if v.how == "misses" && !v.hosts[r.AgentKey] {
		return nil, &plugin.Error{Class: plugin.Refused, Code: enforcer.NotFound, Reason: "it has no place"}
	}
	v.left = true
	delete(v.hosts, r.AgentKey)
	return &plugin.Reply{}, nil
}

func (v *vendorSide) CheckOut(_ context.Context, r *plugin.CheckOut) (*plugin.Block, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if b := v.blocks[r.Token]; b != nil && v.how != "spends" {
		return b, nil
	}
	if r.Slots > 100 && v.how != "generous" {
		return nil, &plugin.Error{Class: plugin.Transient, Reason: "there are no more slots"}
	}
	v.n++
	b := &plugin.Block{ID: fmt.Sprint("b", v.n), Pool: r.Pool, Slots: r.Slots, For: r.For}
	v.blocks[r.Token] = b
	return b, nil
}

func (v *vendorSide) Extend(_ context.Context, r *plugin.Extend) (*plugin.Block, error) {
	b := &plugin.Block{ID: r.Block, Pool: "seats", Slots: 1, For: r.For}
	if v.how == "for ever" {
		b.For *= 1000
	}
	return b, nil
}

func (v *vendorSide) Return(context.Context, *plugin.Return) error { return nil }

// ways are the two ways to an upstream.
func ways(t *testing.T) map[string]func(plugin.Upstream) plugin.Upstream {
	return map[string]func(plugin.Upstream) plugin.Upstream{
		"called": func(u plugin.Upstream) plugin.Upstream { return u },
		"over the wire": func(u plugin.Upstream) plugin.Upstream {
			return plugintest.Serve(t, remote.System{Upstream: u}).Upstream()
		},
	}
}

func TestUpstreams(t *testing.T) {
	request := func(id string) func() *plugin.Request {
		return func() *plugin.Request {
			return &plugin.Request{LicenseID: id, Document: []byte("d"), Product: "acme", AgentKey: "k",
				Components: map[string][]string{"machine-id": {"ab"}},
				Cores:      plugin.Cores{Physical: 2, Effective: 1.5}, Usage: []plugin.Usage{{Pool: "seats", InUse: 1}},
				Nonce: []byte("0123456789abcdef"), State: []byte("s")}
		}
	}
	gone := make(chan struct{})
	defer close(gone)
	for how, want := range map[string]string{"": "", "lenient": "what is to be refused succeeds",
		"untyped": "the refusal", "vague": "code or text is impossible", "once": "activate, again",
		"far":  "which is impossible",
		"deaf": "though its context has ended", "writes": "the request was changed",
		"spends": "again with the same token", "generous": "more slots than there can be", "for ever": "extend",
		"chained": "", "strict": "activate, again", "hoards": "the state has", "silent": "there is no reply",
		"replayed": "its time is off", "believes": "a request without a nonce", "misses": "deactivate, again",
		"for good": "activate, after deactivate", "gives up": "though nobody has spoken", "nameless": "its name"} {
		for where, serve := range ways(t) {
			if where == "over the wire" && slices.Contains([]string{"writes", "deaf", "silent", "nameless", "gives up"},
				how) { // the wire mends these
				continue
			}
			away := newVendorSide(how)
			away.away, away.gone = true, gone
			s := plugintest.UpstreamSamples{Request: request("a"), Refused: request("suspended"), Pool: "seats",
				Away: serve(away)}
			if how == "chained" || how == "strict" {
				s.Refused = nil // what is refused has no state of its own here
			}
			var text []string
			for _, err := range plugintest.CheckUpstream(serve(newVendorSide(how)), s) {
				text = append(text, err.Error())
			}
			all := strings.Join(text, "\n")
			if (want == "") != (all == "") || !strings.Contains(all, want) {
				t.Errorf("%q, %s: want %q; the faults are\n%s", how, where, want, all)
			}
		}
	}
}
