package registry_test

import (
	"crypto/ed25519"
	"strings"
	"testing"
	"time"

	"github.com/usher-agent/usher/enforcer"
	"github.com/usher-agent/usher/plugin"
	"github.com/usher-agent/usher/plugin/usher/registry"
)

// A host has the labels that a token or an operator has bound to its key, and keeps them when it leaves and comes back.
// What it has counts by them, also after a restart of the server. Rules come into force at once, and stay.
func TestBoundLabels(t *testing.T) {
	run := t.TempDir()
	o := openOffice(t, func(c *registry.Config) { c.RunDir, c.BootID = run, "boot" })
	o.serve(t)
	doc := o.seats("L1", 8, nil)
	if _, err := o.Add(doc, 0); err != nil {
		t.Fatal(err)
	}
	berlin := map[string]string{"site": "berlin"}
	text, _, err := o.NewToken("L1", 9, time.Hour, "", berlin)
	if err != nil {
		t.Fatal(err)
	}
	rules := enforcer.SiteRules{{Name: "berlin", Match: enforcer.SiteMatch{Labels: berlin}, Max: 3},
		{Name: "for-rome", Match: enforcer.SiteMatch{Labels: map[string]string{"site": "rome"}}, Reserve: 2}}
	if _, err := o.SetRules(rules); err != nil {
		t.Fatal(err)
	}
	a, b, c := o.host(doc), o.host(doc), o.host(doc)
	a.enrol(text)
	b.enrol(text)
	x, err := a.checkOut(8)
	if err != nil || x.Slots != 3 {
		t.Fatalf("the first of Berlin: %+v, %v", x, err)
	}
	full := func(h *host, rule string) {
		t.Helper()
		_, err := h.checkOut(1)
		o.refused(err, plugin.Misconfigured, "", plugin.SystemFull)
		if e, ok := err.(*plugin.Error); !ok || e.Elsewhere == nil || e.Elsewhere.Rule != rule ||
			!strings.Contains(e.Reason, rule) {
			t.Errorf("the refusal names another rule than %s: %+v", rule, err)
		}
	}
	full(b, "berlin")
	if got, err := c.checkOut(8); err != nil || got.Slots != 3 {
		t.Fatalf("a host without labels has %+v of the 3 that nobody has and nobody is to have (%v)", got, err)
	}
	full(c, "for-rome")
	// Leave, and come back by the document alone.
	reply, err := b.ask(b.Deactivate)
	must(t, reply, err)
	o.pass(time.Second)
	b.enrol()
	full(b, "berlin")

	if err := o.Registry.Close(); err != nil {
		t.Fatal(err)
	}
	if o.Registry, err = registry.Open(registry.Config{Dir: o.dir, Signer: o.signer, Now: o.clock, RunDir: run,
		BootID: "boot"}); err != nil {
		t.Fatal(err)
	}
	o.serve(t)
	full(b, "berlin")
	if n, err := o.SetLabels("L1", thumbprint(c), map[string]string{"site": "rome"}); n != 1 || err != nil {
		t.Fatalf("%d hosts have other labels: %v", n, err)
	}
	got, err := o.Rules()
	if err != nil || len(got.Rules) != 2 || len(got.Uses) != 2 || got.Uses[0].Slots != 3 || got.Uses[1].Slots != 3 {
		t.Fatalf("the rules and what they have: %+v, %v", got, err)
	}
	// Of Rome's reserve c has its part now, so that two more are free for anybody but Berlin.
	if got, err := c.checkOut(2); err != nil || got.Slots != 2 {
		t.Fatalf("%+v, %v", got, err)
	}
	if _, err := o.SetRules(nil); err != nil {
		t.Fatal(err)
	}
	_, err = b.checkOut(1)
	o.refused(err, plugin.Misconfigured, "", plugin.SystemFull) // all 8 are out
}

func TestRulesOfSiteRefused(t *testing.T) {
	o := openOffice(t, nil)
	good := enforcer.SiteRule{Name: "r", Max: 1}
	if _, err := o.SetRules(enforcer.SiteRules{good}); err == nil || !strings.Contains(err.Error(), "--serve-pools") {
		t.Errorf("a server without pools takes rules: %v", err)
	}
	o.serve(t)
	for _, bad := range []enforcer.SiteRules{{good, good}, {{Name: "r"}}, {{Name: "r", Reserve: 1}},
		{{Name: "r", Max: -1}}, {{Name: "r", Max: 1, Match: enforcer.SiteMatch{Host: []string{"a*"}}}},
		{{Name: "r", Max: 1, Pools: []string{""}}}} {
		if _, err := o.SetRules(bad); err == nil {
			t.Errorf("%+v is taken", bad)
		}
	}
	if _, _, err := o.NewToken("L1", 1, time.Hour, "", map[string]string{"a b": "c"}); err == nil {
		t.Error("a token binds a label with a space")
	}
}

func thumbprint(h *host) string {
	s, _ := plugin.Thumbprint(h.key.Public().(ed25519.PublicKey))
	return s
}
