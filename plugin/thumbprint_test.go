package plugin_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"encoding/base64"
	"os/exec"
	"strings"
	"testing"

	"github.com/go-jose/go-jose/v4"

	"github.com/usher-agent/usher/plugin"
)

// A thumbprint is the one that a JOSE library makes, for every kind of key and coordinates of any length.
func TestThumbprintIsTheStandards(t *testing.T) {
	t.Parallel()
	var keys []crypto.PublicKey
	for range 300 { // a coordinate begins with a zero byte in one key of 128
		k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		keys = append(keys, k.Public())
	}
	for _, curve := range []elliptic.Curve{elliptic.P384(), elliptic.P521()} {
		k, err := ecdsa.GenerateKey(curve, rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		keys = append(keys, k.Public())
	}
	r, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	e, _, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, key := range append(keys, r.Public(), e) {
		sum, err := (&jose.JSONWebKey{Key: key}).Thumbprint(crypto.SHA256)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := plugin.Thumbprint(key); err != nil || got != base64.RawURLEncoding.EncodeToString(sum) {
			t.Errorf("%T: %s, %v; want %x", key, got, err, sum)
		}
	}
}

// The author of a plugin needs no JOSE library: the contract and the SDK import none.
func TestContractNeedsNoJOSE(t *testing.T) {
	t.Parallel()
	out, err := exec.Command("go", "list", "-deps", ".", "./sdk").CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if strings.Contains(string(out), "go-jose") {
		t.Error("the contract imports a JOSE library")
	}
}
