package brainframe_test

import (
	"crypto/ed25519"
	"encoding/base64"
	"strings"
	"testing"
	"time"

	"github.com/usher-agent/usher/enforcer"
	"github.com/usher-agent/usher/plugin"
	"github.com/usher-agent/usher/plugin/brainframe"
	"github.com/usher-agent/usher/plugin/usher"
)

// vendorKey signs the licences of the tests.
var vendorKey = ed25519.NewKeyFromSeed([]byte(strings.Repeat("b", ed25519.SeedSize)))

const keyID = "2026-a"

func anchorOf(system string, key ed25519.PrivateKey) plugin.Anchor {
	return plugin.Anchor{System: system, KeyID: keyID, Algorithm: "EdDSA", Key: key.Public()}
}

func anchors() []plugin.Anchor { return []plugin.Anchor{anchorOf(brainframe.System, vendorKey)} }

var issued = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// claims returns a licence for four streams, until 2027-01-31 00:00 UTC.
func claims(change func(*usher.Claims)) *usher.Claims {
	c := &usher.Claims{ID: "L1", Product: "brainframe", Issued: issued.Unix(),
		Expires: time.Date(2027, 1, 31, 0, 0, 0, 0, time.UTC).Unix(),
		Pools:   map[string]usher.Pool{"streams": {Max: new(int64(4)), Scope: "host"}},
		Features: map[string]usher.Feature{"journal_max_allowed_age": {
			Value: enforcer.Value{Kind: enforcer.KindNumber, Number: 86400}}}}
	if change != nil {
		change(c)
	}
	return c
}

func signed(t testing.TB, key ed25519.PrivateKey, change func(*usher.Claims)) []byte {
	t.Helper()
	doc, err := usher.Sign(claims(change), keyID, "EdDSA", func(input []byte) ([]byte, error) {
		return ed25519.Sign(key, input), nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return doc
}

func wrap(doc []byte) []byte { return []byte(base64.StdEncoding.EncodeToString(doc)) }

// key returns a licence key.
func key(t testing.TB, change func(*usher.Claims)) []byte {
	t.Helper()
	return wrap(signed(t, vendorKey, change))
}

// format is the format with what its keys may hold.
func format() plugin.Format { return brainframe.Format{}.Within([]plugin.Format{usher.Format{}}) }

func licence(t testing.TB, change func(*usher.Claims)) *enforcer.License {
	t.Helper()
	l, p := format().Verify(key(t, change), anchors())
	if p != nil {
		t.Fatal(p.Reason)
	}
	return l
}

// otherKey is in trust for what keys hold, and strangerKey is in trust for nothing.
var (
	otherKey    = ed25519.NewKeyFromSeed([]byte(strings.Repeat("o", ed25519.SeedSize)))
	strangerKey = ed25519.NewKeyFromSeed([]byte(strings.Repeat("s", ed25519.SeedSize)))
)
