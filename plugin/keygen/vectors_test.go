package keygen_test

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/usher-agent/usher/enforcer"
	"github.com/usher-agent/usher/plugin"
	"github.com/usher-agent/usher/plugin/keygen"
	"github.com/usher-agent/usher/plugin/plugintest"
)

// vector is one file of testdata, which has one document or many.
type vector struct {
	ID         string
	Kind       string
	PublicKey  struct{ Type, Hex, PEM string }
	PublicKeys struct{ Ed25519Hex, RSAPem, ECDSAP256Pem string }

	LicenseKey  string
	Fingerprint string
	File        string
	Scheme      string
	Dataset     string
	Expect      expectation

	Files []vector
	Keys  []vector

	anchors []plugin.Anchor
}

type expectation struct {
	Signature, Decrypt, PlaintextSha256, Error, Dataset string
	Data                                                struct{ Type, ID string }
	Attributes                                          map[string]any
	Entitlements                                        []string
	Meta                                                struct{ Issued, Expiry *time.Time }
}

func anchor(t testing.TB, kid, key, alg string) plugin.Anchor {
	t.Helper()
	a, err := keygen.NewAnchor(kid, []byte(key), alg)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// vectors returns every document of testdata, with what it takes to open it.
func vectors(t testing.TB) (out []vector) {
	t.Helper()
	paths, err := filepath.Glob("testdata/*.json")
	if err != nil || len(paths) == 0 {
		t.Fatal("there are no vectors", err)
	}
	for _, file := range paths {
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		var v vector
		if err := json.Unmarshal(b, &v); err != nil {
			t.Fatal(file, err)
		}
		v.ID = strings.TrimSuffix(filepath.Base(file), ".json")
		switch k := v.PublicKey; k.Type {
		case "ed25519":
			v.anchors = append(v.anchors, anchor(t, "account", k.Hex, ""))
		case "rsa":
			v.anchors = append(v.anchors, anchor(t, "account-pss", k.PEM, "rsa-pss-sha256"),
				anchor(t, "account-rsa", k.PEM, "rsa-sha256"))
		}
		if k := v.PublicKeys; k.Ed25519Hex != "" {
			v.anchors = []plugin.Anchor{anchor(t, "ed25519", k.Ed25519Hex, ""), anchor(t, "pss", k.RSAPem, ""),
				anchor(t, "rsa", k.RSAPem, "rsa-sha256"), anchor(t, "ecdsa", k.ECDSAP256Pem, "")}
		}
		many := slices.Concat(v.Files, v.Keys)
		for _, m := range many {
			m.ID, m.anchors = v.ID+"/"+m.ID+m.Scheme, v.anchors
			if m.LicenseKey == "" {
				m.LicenseKey = v.LicenseKey
			}
			if m.Fingerprint == "" {
				m.Fingerprint = v.Fingerprint
			}
			if m.File == "" {
				m.Kind = "signed-key"
				if v.Kind != "" {
					m.Kind = v.Kind
				}
			}
			out = append(out, m)
		}
		if len(many) == 0 {
			out = append(out, v)
		}
	}
	return out
}

func (v *vector) document() []byte {
	if v.File != "" {
		return []byte(v.File)
	}
	return []byte(v.LicenseKey)
}

func (v *vector) secrets() plugin.Secrets {
	return plugin.Secrets{Keys: []string{"not-the-key", v.LicenseKey}, Fingerprint: v.Fingerprint}
}

func TestVectors(t *testing.T) {
	seen := map[string]int{}
	for _, v := range vectors(t) {
		if v.Kind == "response-signature" {
			continue
		}
		t.Run(v.ID, func(t *testing.T) {
			if got, want := (keygen.Format{}).Recognise(v.document()), v.Expect.Error != "malformed"; got != want {
				t.Errorf("recognised: %v, want %v", got, want)
			}
			l, p := keygen.Format{}.Open(v.document(), v.anchors, v.secrets())
			code := enforcer.Valid
			if p != nil {
				code = p.Code
			}
			want := enforcer.Valid
			switch e := v.Expect; {
			case v.Kind == "signed-key-format":
				want = enforcer.UntrustedKey
			case e.Error != "":
				want = enforcer.Malformed
			case strings.HasPrefix(e.Signature, "invalid"):
				want = enforcer.BadSignature
			case strings.HasPrefix(e.Decrypt, "key not published"), strings.HasPrefix(e.Decrypt, "fails"):
				want = enforcer.Unavailable
			}
			seen[string(want)]++
			if code != want {
				t.Fatalf("got %s (%+v), want %s", code, p, want)
			}
			if want != enforcer.Valid {
				return
			}
			if l == nil || l.System != "keygen" {
				t.Fatalf("got %+v", l)
			}
			if v.Kind == "signed-key" {
				if got := keygen.Plaintext(v.document(), v.anchors, v.secrets()); string(got) != v.Expect.Dataset {
					t.Errorf("got dataset %q, want %q", got, v.Expect.Dataset)
				}
				return
			}
			if sum := sha256.Sum256(keygen.Plaintext(v.document(), v.anchors,
				v.secrets())); hex.EncodeToString(sum[:]) != v.Expect.PlaintextSha256 {
				t.Error("the dataset is another than was signed")
			}
			v.expectTerms(t, l)
		})
	}
	if seen["VALID"] < 30 || seen["BAD_SIGNATURE"] < 4 || seen["UNAVAILABLE"] < 5 {
		t.Errorf("too few vectors: %v", seen)
	}
}

// expectTerms compares a licence with the terms in its vector.
func (v *vector) expectTerms(t *testing.T, l *enforcer.License) {
	t.Helper()
	if issued := v.Expect.Meta.Issued; issued != nil && !l.Issued.Equal(*issued) {
		t.Errorf("issued %v, want %v", l.Issued, issued)
	}
	a := v.Expect.Attributes
	if v.Expect.Data.Type == "licenses" {
		if l.ID != v.Expect.Data.ID {
			t.Errorf("id %s, want %s", l.ID, v.Expect.Data.ID)
		}
		wantExpiry := time.Time{}
		if s, ok := a["expiry"].(string); ok {
			wantExpiry, _ = time.Parse(time.RFC3339, s)
		}
		if at := v.Expect.Meta.Expiry; at != nil && (wantExpiry.IsZero() || at.Before(wantExpiry)) {
			wantExpiry = *at
		}
		if !l.Expires.Equal(wantExpiry) {
			t.Errorf("expires %v, want %v", l.Expires, wantExpiry)
		}
		for pool, attribute := range map[string]string{"machines": "maxMachines", "processes": "maxProcesses",
			"users": "maxUsers"} {
			want := enforcer.Unlimited
			if n, ok := a[attribute].(float64); ok {
				want = enforcer.Limit(n)
			}
			if n, ok := a["maxMachines"].(float64); ok && pool == "processes" && a["floating"] == true && want >= 0 {
				want *= enforcer.Limit(n) // each machine has its own
			}
			if got := l.Pools[pool].Max; got != want {
				t.Errorf("%s is %d, want %d", pool, got, want)
			}
		}
		for _, code := range v.Expect.Entitlements {
			if !l.Features[code].Bool {
				t.Errorf("entitlement %s is no feature: %v", code, l.Features)
			}
		}
		if scope := l.Pools["machines"].Scope; (scope == enforcer.ScopeSite) != a["floating"].(bool) {
			t.Errorf("scope %s, floating %v", scope, a["floating"])
		}
	}
	all, err := json.Marshal(l)
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(all), v.LicenseKey) {
		t.Error("the licence key stands in the licence")
	}
}

// TestConformance runs the suite for formats on encrypted files too: the format gets its secrets beforehand.
func TestConformance(t *testing.T) {
	for _, v := range vectors(t) {
		switch name := path.Base(v.ID); name {
		case "license-base64-ed25519", "machine-aes-256-gcm-ecdsa-p256", "license-aes-256-gcm-rsa-sha256",
			"license-aes-ed25519-js-nottl", "key-ed25519-csharp",
			"RSA_2048_PKCS1_ENCRYPT", "RSA_2048_JWT_RS256":
		default:
			continue
		}
		if v.Kind == "signed-key-format" {
			continue
		}
		t.Run(v.ID, func(t *testing.T) {
			t.Parallel()
			plugintest.Format(t, opened{secrets: v.secrets()},
				plugintest.FormatSamples{Good: [][]byte{v.document()}, Anchors: v.anchors,
					Foreign: [][]byte{[]byte("-----BEGIN USHER LICENSE-----\nabc\n-----END USHER LICENSE-----\n"),
						[]byte("eyJhbGciOiJSUzI1NiIsImtpZCI6IjEifQ.e30.AAAA"), []byte("a.b"), []byte("key")}})
		})
	}
}

// opened is the format with secrets.
type opened struct {
	keygen.Format
	secrets plugin.Secrets
}

func (o opened) Verify(document []byte, anchors []plugin.Anchor) (*enforcer.License, *enforcer.Problem) {
	return o.Open(document, anchors, o.secrets)
}

// TestEveryByte flips each byte of the signed text and the signature, and some of the armour's.
func TestEveryByte(t *testing.T) {
	for _, v := range vectors(t) {
		if v.Expect.Signature != "valid" || v.Kind == "response-signature" {
			continue
		}
		t.Run(v.ID, func(t *testing.T) {
			t.Parallel()
			good, _ := keygen.Format{}.Open(v.document(), v.anchors, v.secrets())
			try := func(what string, doc []byte) {
				l, p := keygen.Format{}.Open(doc, v.anchors, v.secrets())
				if p == nil && (good == nil || l == nil || l.ID != good.ID || !l.Expires.Equal(good.Expires)) {
					t.Fatalf("%s: it verifies", what)
				}
			}
			refused := func(what string, doc []byte) {
				if _, p := (keygen.Format{}).Open(doc, v.anchors, v.secrets()); p == nil ||
					p.Code == enforcer.Unavailable {
					t.Fatalf("%s: it is not refused: %+v", what, p)
				}
			}
			if v.File == "" {
				for i := range v.LicenseKey {
					doc := []byte(v.LicenseKey)
					doc[i] ^= 1
					refused("key", doc)
				}
				return
			}
			for i := 0; i < len(v.File); i += 67 {
				doc := []byte(v.File)
				doc[i] ^= 0x04
				try("armour", doc)
			}
			lines := strings.Split(strings.TrimSpace(v.File), "\n")
			body, err := base64.StdEncoding.DecodeString(strings.Join(lines[1:len(lines)-1], ""))
			if err != nil {
				t.Fatal(err)
			}
			// Every byte of the signature and of all around it; of what a file says every one too for one of each
			// encoding, else every forty-first.
			enc := len(body)
			if _, name, _ := strings.Cut(v.ID,
				"/"); !slices.Contains([]string{"license-base64-ed25519", "machine-aes-256-gcm-rsa-sha256"}, name) {
				enc = strings.Index(string(body), `"sig"`)
			}
			step := func(i int) int {
				if enc < len(body) && i > 100 && i < enc-100 {
					return 41
				}
				return 1
			}
			for i := 0; i < len(body); i += step(i) {
				flipped := slices.Clone(body)
				flipped[i] ^= 1
				refused("byte",
					[]byte(lines[0]+"\n"+base64.StdEncoding.EncodeToString(flipped)+"\n"+lines[len(lines)-1]+"\n"))
			}
		})
	}
}
