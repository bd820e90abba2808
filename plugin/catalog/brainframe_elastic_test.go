package catalog_test

import (
	"crypto/ed25519"
	"encoding/base64"
	"errors"
	"slices"
	"testing"

	"github.com/usher-agent/usher/plugin"
	"github.com/usher-agent/usher/plugin/brainframe"
	"github.com/usher-agent/usher/plugin/catalog"
	"github.com/usher-agent/usher/plugin/elastic/elastictest"
	"github.com/usher-agent/usher/plugin/usher"
)

// The catalog lends a format that wraps others the formats of all built-in systems but itself: a key verifies, belongs
// to one system, and is no wrapper of a wrapper.
func TestWrapped(t *testing.T) {
	t.Parallel()
	public, private, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	doc, err := usher.Sign(&usher.Claims{ID: "L1", Product: "p", Issued: 1_800_000_000}, "k", "EdDSA",
		func(input []byte) ([]byte, error) { return ed25519.Sign(private, input), nil })
	if err != nil {
		t.Fatal(err)
	}
	anchors := []plugin.Anchor{{System: brainframe.System, KeyID: "k", Algorithm: "EdDSA", Key: public}}
	wrap := func(b []byte) []byte { return []byte(base64.StdEncoding.EncodeToString(b)) }
	c := catalog.BuiltIn()
	if f, err := c.Recognise(wrap(doc)); err != nil || f.System() != brainframe.System {
		t.Fatalf("%v, %v", f, err)
	}
	if l, p := c.Verify(wrap(doc), anchors, plugin.Secrets{}); p != nil || l.System != brainframe.System ||
		string(c.Signed(brainframe.System, wrap(doc))) != string(doc) {
		t.Errorf("%+v, %+v", l, p)
	}
	if f, err := c.Recognise(doc); err != nil || f.System() != usher.System {
		t.Errorf("as it is: %v, %v", f, err)
	}
	if _, err := c.Recognise(wrap(wrap(doc))); !errors.Is(err, catalog.ErrUnknown) {
		t.Errorf("twice: %v", err)
	}
}

// Settings that configure a dialect do so; without them each system has its own.
func TestConfiguredDialects(t *testing.T) {
	t.Parallel()
	c := catalog.BuiltIn()
	inclusive := func(settings map[string]plugin.Settings) bool {
		return slices.Contains(c.Dialects(settings), plugin.Dialect(brainframe.Dialect{Inclusive: true}))
	}
	set := map[string]plugin.Settings{brainframe.System: &brainframe.Settings{ExpirationDay: brainframe.Inclusive}}
	if inclusive(nil) || !inclusive(set) || len(c.Dialects(nil)) != len(c.Dialects(set)) {
		t.Errorf("the dialects are %v, and with settings %v", c.Dialects(nil), c.Dialects(set))
	}
}

// A key may hold a document of any other system, whose words its anchor's algorithm is in.
func TestWrappedOfAnotherSystem(t *testing.T) {
	t.Parallel()
	s := elastictest.Shared()
	doc := s.Orchestration(elastictest.License{UID: "e", Units: 3})
	key := []byte(base64.StdEncoding.EncodeToString(doc))
	a, err := catalog.Anchor(brainframe.System, "ece", s.PEM(), "RS512")
	if err != nil {
		t.Fatal(err)
	}
	l, p := catalog.BuiltIn().Verify(key, []plugin.Anchor{a}, plugin.Secrets{})
	if p != nil || l.System != brainframe.System || l.Pools["resource_units"].Max != 3 {
		t.Errorf("%+v, %+v", l, p)
	}
	if _, p := catalog.BuiltIn().Verify(key, nil, plugin.Secrets{}); p == nil || p.System != brainframe.System {
		t.Errorf("without a key: %+v", p)
	}
}
