package catalog

import (
	"context"
	"errors"
	"os"
	"strings"
	"testing"

	"github.com/usher-agent/usher/enforcer"
	"github.com/usher-agent/usher/plugin"
	"github.com/usher-agent/usher/plugin/external"
	"github.com/usher-agent/usher/plugin/plugintest"
	"github.com/usher-agent/usher/plugin/remote"
	"github.com/usher-agent/usher/plugin/sdk"
	"github.com/usher-agent/usher/plugin/usher"
)

// TestMain makes this binary a plugin: of the system that the first argument names, for documents that hold its name.
func TestMain(m *testing.M) {
	if os.Getenv(remote.Handshake.MagicCookieKey) != "" {
		sdk.Serve(sdk.System{Format: claims(os.Args[1])})
		return
	}
	os.Exit(m.Run())
}

type claims string

func (c claims) System() string { return string(c) }

func (c claims) Recognise(d []byte) bool { return strings.Contains(string(d), string(c)) }

func (c claims) Verify(d []byte, _ []plugin.Anchor) (*enforcer.License, *enforcer.Problem) {
	if strings.Contains(string(d), "crash") {
		os.Exit(1)
	}
	return nil, &enforcer.Problem{Code: enforcer.BadSignature, Reason: string(c) + " has seen it"}
}

func start(t *testing.T, system string) *external.Process {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return plugintest.Start(t, system, self, system)
}

// One system must claim a document. Two plugins that do are an error that names both; a built-in system's claim is not
// asked about; and where a plugin is away, what nobody else claims is not known.
func TestWhoClaims(t *testing.T) {
	native := string(usher.Armour([]byte("x.y.z")))
	c, err := New(start(t, "one"), start(t, "two"))
	if err != nil {
		t.Fatal(err)
	}
	for doc, want := range map[string]string{"one": "one has seen it", "two": "two has seen it",
		"one and two": "two systems claim this document: one and two",
		"three":       "(" + strings.Join(c.Systems(), ", ") + ")"} {
		l, p := c.Verify([]byte(doc), nil, plugin.Secrets{})
		if l != nil || p == nil || !strings.Contains(p.Reason, want) {
			t.Errorf("%s: %+v, want %q", doc, p, want)
		}
		if _, _, ok := c.VerifyQuickly([]byte(doc), nil, plugin.Secrets{}); ok {
			t.Errorf("%s: a plugin need not be asked", doc)
		}
	}
	if _, p, ok := c.VerifyQuickly([]byte(native+"one two"), nil, plugin.Secrets{}); !ok || p == nil ||
		p.System == "one" || p.Code == enforcer.Unavailable {
		t.Errorf("a native document is %+v, %t", p, ok)
	}
	if _, err := c.Recognise([]byte("one two")); !errors.Is(err, ErrAmbiguous) {
		t.Error(err)
	}
	for _, s := range []string{"one", "two"} {
		if u, err := c.Upstream(&enforcer.License{ID: "a", System: s}); err != nil || u.System() != s ||
			!c.IsPlugin(s) {
			t.Errorf("%s: its upstream is %v, %v", s, u, err)
		}
	}
	_, err = c.Upstream(&enforcer.License{ID: "a", System: "usher"})
	refused(t, err, "licence a", "usher has no upstream")

	gone, err := external.New(external.Config{Name: "gone", Path: "/nowhere"})
	if err != nil {
		t.Fatal(err)
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if err := gone.Run(ended); err != nil { // it has had its time
		t.Fatal(err)
	}
	if c, err = New(start(t, "one"), gone); err != nil {
		t.Fatal(err)
	}
	if _, p := c.Verify([]byte("one"), nil, plugin.Secrets{}); p == nil ||
		!strings.Contains(p.Reason, "one has seen it") {
		t.Errorf("one, beside a plugin that is away: %+v", p)
	}
	if _, p := c.Verify([]byte("three"), nil, plugin.Secrets{}); p == nil || p.Code != enforcer.Unavailable ||
		!strings.Contains(p.Reason, "the gone plugin cannot be asked") {
		t.Errorf("three, beside a plugin that is away: %+v", p)
	}
}

// Names are one system's alone.
func TestNames(t *testing.T) {
	plug := func(name string) *external.Process {
		p, err := external.New(external.Config{Name: name, Path: "/nowhere"})
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	_, err := New(plug("usher"))
	refused(t, err, "plugin usher", "already")
	_, err = New(plug("a"), plug("a"))
	refused(t, err, "plugin a", "already")
}

func TestPluginAnchor(t *testing.T) {
	a, err := PluginAnchor("acme", "k", []byte(publicKey(t)), "")
	if err != nil || a.System != "acme" || a.Algorithm != "EdDSA" {
		t.Errorf("%+v, %v", a, err)
	}
	if a, err = PluginAnchor("acme", "k", []byte(publicKey(t)), "acme-1"); err != nil || a.Algorithm != "acme-1" {
		t.Errorf("%+v, %v", a, err)
	}
	for _, key := range []string{"", "x", publicKey(t) + publicKey(t), strings.Replace(publicKey(t), "MC", "MD", 1)} {
		_, err := PluginAnchor("acme", "k", []byte(key), "")
		refused(t, err, `key "k" of system acme`, "BEGIN PUBLIC KEY")
	}
}
