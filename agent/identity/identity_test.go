package identity

import (
	"bytes"
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/go-jose/go-jose/v4"
)

// Only Load makes the key, and only once. The mark that it has sealed state changes nothing of it.
func TestKeyIsMadeOnceAndMarked(t *testing.T) {
	t.Parallel()
	f := File{Path: filepath.Join(t.TempDir(), "agent.key")}
	if _, err := f.Existing(); !errors.Is(err, fs.ErrNotExist) || f.Public() != nil || f.Sealed() {
		t.Fatalf("there is a key before one was made: %v", err)
	}
	key, err := f.Load()
	if err != nil || f.Sealed() {
		t.Fatalf("sealed %v, %v", f.Sealed(), err)
	}
	if fi, err := os.Stat(f.Path); err != nil || fi.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", fi.Mode(), err)
	}
	if err := f.MarkSealed(); err != nil || !f.Sealed() {
		t.Errorf("sealed %v, %v", f.Sealed(), err)
	}
	if again, err := f.Load(); err != nil || !again.Equal(key) || !f.Public().Equal(key.Public()) {
		t.Errorf("another key, or none: %v", err)
	}
	configured := File{Path: f.Path, Read: func(path string, _ int64) ([]byte, error) { return os.ReadFile(path) }}
	before, err := os.ReadFile(f.Path)
	if err != nil {
		t.Fatal(err)
	}
	if err := configured.MarkSealed(); err != nil {
		t.Error(err)
	}
	if after, err := os.ReadFile(f.Path); err != nil || !bytes.Equal(before, after) {
		t.Errorf("a configured key's file was written: %v", err)
	}
}

// The error for a file that holds no such key names the file and the mend. The file stays as it is.
func TestKeyThatCannotBeRead(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"nonsense": "not a PEM file with a PRIVATE KEY; move it away",
		"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n": "not a PKCS #8 key; move it away",
	} {
		f := File{Path: filepath.Join(t.TempDir(), "agent.key")}
		if err := os.WriteFile(f.Path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := f.Load(); err == nil || !strings.Contains(err.Error(), f.Path) ||
			!strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", text, err, want)
		}
		if b, err := os.ReadFile(f.Path); err != nil || string(b) != text {
			t.Errorf("the file is %q now, %v", b, err)
		}
	}
}

// The signed part of a proof says its type and its subject, so that a product takes no proof for another.
func TestProofsSayTheirTypes(t *testing.T) {
	t.Parallel()
	public, key, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	lease, err := LeaseToken(key, LeaseClaims{Nonce: "n", Items: []Item{{Pool: "streams", N: 2}}})
	if err != nil {
		t.Fatal(err)
	}
	session, err := SessionProof(key, SessionClaims{Nonce: "n", Holder: Holder{PID: 7}})
	if err != nil {
		t.Fatal(err)
	}
	for token, want := range map[string][2]string{
		lease:   {"usher-lease+jwt", `"items":[{"pool":"streams","n":2}]`},
		session: {"usher-session+jwt", `"holder":{"uid":0,"pid":7}`},
	} {
		jws, err := jose.ParseSignedCompact(token, []jose.SignatureAlgorithm{jose.EdDSA})
		if err != nil {
			t.Fatal(err)
		}
		payload, err := jws.Verify(public)
		if err != nil || !json.Valid(payload) || !strings.Contains(string(payload), want[1]) {
			t.Errorf("%s, %v; want %s", payload, err, want[1])
		}
		if h := jws.Signatures[0].Protected; h.ExtraHeaders[jose.HeaderType] != want[0] ||
			h.KeyID != Thumbprint(public) {
			t.Errorf("the header is %+v, want the type %s", h, want[0])
		}
	}
}

// Attestations outlive the process, are forgotten when they are empty, and are bounded. An attestation that could not
// be written does not count.
func TestAttestations(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "activations.json")
	a, err := OpenAttestations(path)
	if err != nil {
		t.Fatal(err)
	}
	for i := range maxAttestations {
		a.by[strings.Repeat("x", i+1)] = "word"
	}
	if err := a.Set("one more", "word"); err == nil || a.For("one more") != "" {
		t.Errorf("%v", err)
	}
	if err := a.Set("x", ""); err != nil {
		t.Error(err)
	}
	if err := a.Set("one more", "word"); err != nil {
		t.Error(err)
	}
	again, err := OpenAttestations(path)
	if err != nil || again.For("x") != "" || again.For("one more") != "word" || len(again.by) != maxAttestations {
		t.Errorf("%d are kept, %v", len(again.by), err)
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(path, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := a.Set("one more", "another"); err == nil || a.For("one more") != "word" {
		t.Errorf("%q is believed, %v", a.For("one more"), err)
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte("nonsense"), 0o600); err != nil {
		t.Fatal(err)
	}
	var cause *json.SyntaxError
	if _, err := OpenAttestations(path); !errors.As(err, &cause) || !strings.Contains(err.Error(), "move the file") {
		t.Error(err)
	}
	if err := os.WriteFile(path, []byte("null"), 0o600); err != nil {
		t.Fatal(err)
	}
	if a, err = OpenAttestations(path); err != nil || a.Set("x", "word") != nil || a.For("x") != "word" {
		t.Errorf("of a file that says null: %v", err)
	}
}
