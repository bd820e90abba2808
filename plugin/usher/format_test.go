package usher_test

import (
	"bytes"
	"crypto/ed25519"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/usher-agent/usher/enforcer"
	"github.com/usher-agent/usher/plugin"
	"github.com/usher-agent/usher/plugin/usher"
	"github.com/usher-agent/usher/plugin/usher/issue"
)

var issued = time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC)

func claims() *usher.Claims {
	return &usher.Claims{ID: "acme-1", Product: "transcoder", Issuer: "Acme", Licensee: "Example Ltd",
		Issued:  issued.Unix(),
		Expires: issued.AddDate(1, 0, 0).Unix(), Pools: map[string]usher.Pool{"streams": {Max: new(int64(8))}},
		Features: map[string]usher.Feature{"hd": {Value: enforcer.Value{Kind: enforcer.KindBool, Bool: true}}}}
}

// vendor is a key pair on disk.
func vendor(t testing.TB, kid, alg string) (*issue.Signer, []plugin.Anchor) {
	t.Helper()
	private, public, err := issue.MakeKey(t.TempDir(), kid, alg)
	if err != nil {
		t.Fatal(err)
	}
	s, err := issue.LoadSigner(private, alg)
	if err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(public)
	if err != nil {
		t.Fatal(err)
	}
	a, err := usher.NewAnchor(kid, b, alg)
	if err != nil {
		t.Fatal(err)
	}
	return s, []plugin.Anchor{a}
}

func sign(t testing.TB, s *issue.Signer, c *usher.Claims) []byte {
	t.Helper()
	doc, err := s.Sign(c)
	if err != nil {
		t.Fatal(err)
	}
	return doc
}

func TestAlgorithms(t *testing.T) {
	for _, alg := range usher.Algorithms() {
		t.Run(alg, func(t *testing.T) {
			s, anchors := vendor(t, "2026-a", alg)
			l, p := usher.Format{}.Verify(sign(t, s, claims()), anchors)
			if p != nil {
				t.Fatal(p.Reason)
			}
			if l.ID != "acme-1" || l.Pools["streams"].Max != 8 || !l.Features["hd"].Bool || l.KeyID != "2026-a" ||
				l.Terms["licensee"] != "Example Ltd" {
				t.Errorf("got %+v", l)
			}
			// The algorithm is the anchor's: another's header is refused whatever the key could do.
			for _, other := range usher.Algorithms() {
				if a := anchors[0]; other != alg {
					a.Algorithm = other
					if _, p := (usher.Format{}).Verify(sign(t, s, claims()), []plugin.Anchor{a}); p == nil ||
						p.Code != enforcer.BadSignature {
						t.Errorf("anchor for %s accepts %s: %+v", other, alg, p)
					}
				}
			}
		})
	}
}

// Every single flipped bit of a good licence is refused.
// A duty whose every term is left out is a duty still.
func TestBareDuties(t *testing.T) {
	s, anchors := vendor(t, "k1", "")
	c := claims()
	c.Activation = &usher.Activation{}
	l, p := usher.Format{}.Verify(sign(t, s, c), anchors)
	if p != nil || !l.Activation.Required {
		t.Errorf("an activation without a grace: %+v, %v", l, p)
	}
}

func TestEveryFlippedByte(t *testing.T) {
	s, anchors := vendor(t, "2026-a", "")
	doc := sign(t, s, claims())
	for i := range doc {
		for bit := range 8 {
			bad := bytes.Clone(doc)
			bad[i] ^= 1 << bit
			if _, p := (usher.Format{}).Verify(bad, anchors); p == nil {
				t.Fatalf("byte %d, bit %d: %q instead of %q is accepted", i, bit, bad[i], doc[i])
			}
		}
	}
}

// A truncated licence is refused at every length, and stays recognisable from its header on.
func TestEveryTruncation(t *testing.T) {
	s, anchors := vendor(t, "2026-a", "")
	doc := sign(t, s, claims())
	for n := range doc {
		if _, p := (usher.Format{}).Verify(doc[:n], anchors); p == nil {
			t.Fatalf("%d of %d bytes are accepted", n, len(doc))
		}
	}
	if head := bytes.IndexByte(doc, '.'); !(usher.Format{}).Recognise(doc[:head+10]) {
		t.Error("a truncated licence is not recognised")
	}
}

func b64(s string) string { return base64.RawURLEncoding.EncodeToString([]byte(s)) }

// forge makes a document of a header, a body and what signs the two.
func forge(header, body string, sign func(input []byte) []byte) []byte {
	input := b64(header) + "." + b64(body)
	return []byte(input + "." + base64.RawURLEncoding.EncodeToString(sign([]byte(input))))
}

// refusal is a document that is refused, and how.
type refusal struct {
	name    string
	doc     []byte
	anchors []plugin.Anchor
	code    enforcer.Code
	reason  string
}

// forger has a vendor's key, its anchor and a good document, from which it makes bad ones.
type forger struct {
	signer     *issue.Signer
	anchors    []plugin.Anchor
	good, body string
	other      func([]byte) []byte // signs with another key
}

func newForger(t *testing.T) *forger {
	t.Helper()
	s, anchors := vendor(t, "2026-a", "")
	good := string(sign(t, s, claims()))
	body, err := base64.RawURLEncoding.DecodeString(strings.Split(good, ".")[1])
	if err != nil {
		t.Fatal(err)
	}
	_, key, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	return &forger{signer: s, anchors: anchors, good: good, body: string(body),
		other: func(in []byte) []byte { return ed25519.Sign(key, in) }}
}

// at returns the anchor with a change.
func (f *forger) at(change func(*plugin.Anchor)) []plugin.Anchor {
	a := f.anchors[0]
	change(&a)
	return []plugin.Anchor{a}
}

func head(more string) string {
	return `{"alg":"EdDSA","kid":"2026-a","typ":"usher-license+jwt"` + more + `}`
}

func hmacWith(key []byte) func([]byte) []byte {
	return func(in []byte) []byte { m := hmac.New(sha256.New, key); m.Write(in); return m.Sum(nil) }
}

// keyRefusals are of keys that are unknown, revoked or out of their time.
func (f *forger) keyRefusals() []refusal {
	good, body, anchors, other, at := f.good, f.body, f.anchors, f.other, f.at
	return []refusal{
		{"untrusted key", []byte(good), nil, enforcer.UntrustedKey,
			`signed by key "2026-a", which is not in trust (known: none); add it under license.trust`},
		{"another system's anchor of that id", []byte(good), at(func(a *plugin.Anchor) {
			a.System = "other"
		}), enforcer.UntrustedKey, "known: none"},
		{"untrusted key, others known", []byte(good), at(func(a *plugin.Anchor) {
			a.KeyID = "2027-a"
		}), enforcer.UntrustedKey, "known: 2027-a"},
		{"untrusted key, others compiled in", []byte(good), at(func(a *plugin.Anchor) {
			a.KeyID, a.Embedded = "2027-a", true
		}), enforcer.UntrustedKey, "(known: 2027-a); this agent is built for those alone"},
		{"another key of the same id", forge(head(""), body, other), anchors, enforcer.BadSignature,
			"its signature does not match"},
		{"revoked key", []byte(good), at(func(a *plugin.Anchor) {
			a.Revoked = true
		}), enforcer.UntrustedKey, `key "2026-a", which is revoked`},
		{"after the key's time", []byte(good), at(func(a *plugin.Anchor) {
			a.NotAfter = issued.Add(-time.Hour)
		}), enforcer.UntrustedKey, `issued 2026-03-01, but key "2026-a" signs only until 2026-02-28`},
		{"before the key's time", []byte(good), at(func(a *plugin.Anchor) {
			a.NotBefore = issued.Add(time.Hour * 24)
		}), enforcer.UntrustedKey, "signs only from 2026-03-02 on"},
	}
}

// algorithmRefusals are of documents that choose the algorithm themselves.
func (f *forger) algorithmRefusals(t *testing.T) []refusal {
	body, anchors, at := f.body, f.anchors, f.at
	pub := anchors[0].Key.(ed25519.PublicKey)
	der, err := x509.MarshalPKIXPublicKey(pub)
	if err != nil {
		t.Fatal(err)
	}
	none := func([]byte) []byte { return nil }
	return []refusal{
		{"alg none", forge(`{"alg":"none","kid":"2026-a","typ":"usher-license+jwt"}`, body, none), anchors,
			enforcer.BadSignature, `the algorithm "none", and key "2026-a" is for EdDSA; the key decides`},
		{"HS256 with the public key as secret", forge(`{"alg":"HS256","kid":"2026-a","typ":"usher-license+jwt"}`,
			body, hmacWith(pub)), anchors, enforcer.BadSignature, `the algorithm "HS256"`},
		{"HS256 with the public key's DER", forge(`{"alg":"HS256","kid":"2026-a","typ":"usher-license+jwt"}`,
			body, hmacWith(der)), anchors, enforcer.BadSignature, `the algorithm "HS256"`},
		{"HS256 with the public key's PEM", forge(`{"alg":"HS256","kid":"2026-a","typ":"usher-license+jwt"}`,
			body, hmacWith(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}))), anchors,
			enforcer.BadSignature, `the algorithm "HS256"`},
		{"EdDSA header, HMAC signature", forge(head(""), body, hmacWith(pub)), anchors, enforcer.BadSignature,
			"signature does not match"},
		{"an anchor that says HS256", forge(`{"alg":"HS256","kid":"2026-a","typ":"usher-license+jwt"}`, body,
			hmacWith(pub)), at(func(a *plugin.Anchor) {
			a.Algorithm, a.Key = "HS256", []byte(pub)
		}), enforcer.BadSignature, "not signed with"},
	}
}

// contentRefusals are of documents that no tool of ours would write, most of them signed with the vendor's key.
func (f *forger) contentRefusals(t *testing.T) []refusal {
	body, anchors, other := f.body, f.anchors, f.other
	truly := func(header, body string) []byte {
		return forge(header, body, func(in []byte) []byte { return rawSign(t, f.signer, in) })
	}
	return []refusal{
		{"empty", nil, anchors, enforcer.Malformed, "1 of the 3 parts"},
		{"noise", []byte{0, 1, 2, 0xff, '\n', 7}, anchors, enforcer.Malformed, "1 of the 3 parts"},
		{"too large", make([]byte, plugin.MaxDocument+1), anchors, enforcer.Malformed,
			"1048577 bytes; a licence document has at most 1048576 (1 MiB)"},
		{"wrong typ", truly(`{"alg":"EdDSA","kid":"2026-a","typ":"JWT"}`, body), anchors, enforcer.Malformed,
			`"JWT", not a "usher-license+jwt"`},
		{"crit", truly(head(`,"crit":["moon"],"moon":1`), body), anchors, enforcer.Malformed,
			`it demands "moon", which this version does not know`},
		{"empty crit", truly(head(`,"crit":[]`), body), anchors, enforcer.Malformed, "empty crit"},
		{"duplicate header key", truly(`{"alg":"none",`+head("")[1:], body), anchors, enforcer.Malformed,
			`names "alg" twice`},
		{"duplicate claim", truly(head(""),
			`{"jti":"a","product":"p","iat":1,"pools":{"s":{"max":1}},"pools":{"s":{"max":9}}}`), anchors,
			enforcer.Malformed, `it names "pools" twice`},
		{"duplicate pool", truly(head(""), `{"jti":"a","product":"p","iat":1,"pools":{"s":{"max":1},"s":{"max":9}}}`),
			anchors, enforcer.Malformed, `it names "s" twice`},
		{"wrong case", truly(head(""), `{"jti":"a","product":"p","iat":1,"EXP":5}`), anchors, enforcer.Malformed,
			`claim "EXP" is written "exp"`},
		{"bad UTF-8", truly(head(""), "{\"jti\":\"a\xff\",\"product\":\"p\",\"iat\":1}"), anchors, enforcer.Malformed,
			"it is not JSON"},
		{"body is a list", truly(head(""), `[]`), anchors, enforcer.Malformed, "not a JSON object"},
		{"no id", truly(head(""), `{"product":"p","iat":1}`), anchors, enforcer.Malformed, `claim "jti" is missing`},
		{"limit overflows", truly(head(""),
			`{"jti":"a","product":"p","iat":1,"pools":{"s":{"max":9223372036854775808}}}`), anchors, enforcer.Malformed,
			`claim "pools.s.max"`},
		{"limit negative", truly(head(""), `{"jti":"a","product":"p","iat":1,"pools":{"s":{"max":-1}}}`), anchors,
			enforcer.Malformed, "null is unlimited"},
		{"limit a fraction", truly(head(""), `{"jti":"a","product":"p","iat":1,"pools":{"s":{"max":1.5}}}`), anchors,
			enforcer.Malformed, `claim "pools.s.max"`},
		{"unsigned rubbish under a known key", forge(head(""), `{"jti":`, other), anchors, enforcer.BadSignature,
			"its signature does not match"},
	}
}

func TestRefusals(t *testing.T) {
	f := newForger(t)
	for _, test := range slices.Concat(f.keyRefusals(), f.algorithmRefusals(t), f.contentRefusals(t)) {
		t.Run(test.name, func(t *testing.T) {
			_, p := usher.Format{}.Verify(test.doc, test.anchors)
			if p == nil {
				t.Fatal("accepted")
			}
			if p.Code != test.code || !strings.Contains(p.Reason, test.reason) || p.System != usher.System {
				t.Errorf("got %s %q, want %s …%q…", p.Code, p.Reason, test.code, test.reason)
			}
		})
	}
}

// The terms of thousands of pools are kept as the text that they are, and said as before.
func TestLongTermsAreText(t *testing.T) {
	s, anchors := vendor(t, "2026-a", "")
	for pools, long := range map[int]bool{10: false, 1000: true} {
		c := claims()
		for i := range pools {
			c.Pools[fmt.Sprint("p", i)] = usher.Pool{Max: new(int64(i)), Unit: "[seat]"}
		}
		l, p := usher.Format{}.Verify(sign(t, s, c), anchors)
		if p != nil {
			t.Fatal(p.Reason)
		}
		if err := l.Validate(); err != nil {
			t.Error(err)
		}
		if text, is := l.Terms["pools"].(enforcer.Text); is != long {
			t.Errorf("%d pools are kept as %T", pools, l.Terms["pools"])
		} else if l.Terms["pools"] = nil; is && len(text) > 40*pools {
			t.Errorf("%d pools have a text of %d bytes", pools, len(text))
		}
		l, _ = usher.Format{}.Verify(sign(t, s, c), anchors)
		said, err := json.Marshal(l.Terms)
		if err != nil {
			t.Fatal(err)
		}
		var all struct{ Pools map[string]map[string]any }
		want := map[string]any{"max": 7.0, "unit": "[seat]"}
		if err := json.Unmarshal(said, &all); err != nil || len(all.Pools) != pools+1 ||
			bytes.ContainsAny(said, "\n") || !maps.Equal(all.Pools["p7"], want) {
			t.Errorf("%d pools are said as %d: %v, %v", pools, len(all.Pools), all.Pools["p7"], err)
		}
	}
}

// rawSign signs with the vendor's own key through a command, as a vendor without our tool might.
func rawSign(t *testing.T, s *issue.Signer, in []byte) []byte {
	t.Helper()
	sig, err := issue.RawSign(s, in)
	if err != nil {
		t.Fatal(err)
	}
	return sig
}

// The changes of mail clients, Windows and editors are forgiven; none of them is signed.
func TestForgiven(t *testing.T) {
	s, anchors := vendor(t, "2026-a", "")
	doc := sign(t, s, claims())
	armoured := string(usher.Armour(doc))
	lines := strings.Split(strings.TrimSpace(armoured), "\n")
	for name, d := range map[string]string{
		"compact, line end":     string(doc) + "\n",
		"compact, BOM and CRLF": "\ufeff" + string(doc) + "\r\n",
		"compact, broken":       string(doc[:50]) + "\n   " + string(doc[50:]),
		"armoured":              armoured,
		"armoured, CRLF":        "\ufeff" + strings.ReplaceAll(armoured, "\n", "\r\n"),
		"indented":              "    " + strings.Join(lines, "\n    "),
		"quoted":                "> " + strings.Join(lines, "\n> "),
		"quoted twice":          ">> " + strings.Join(lines, "\n>> "),
		"in a letter":           "Dear customer,\n\nhere is your licence:\n\n" + armoured + "\n-- \nAcme\n",
	} {
		if !(usher.Format{}).Recognise([]byte(d)) {
			t.Errorf("%s: not recognised", name)
		}
		if _, p := (usher.Format{}).Verify([]byte(d), anchors); p != nil {
			t.Errorf("%s: %s", name, p.Reason)
		}
	}
	for name, d := range map[string]string{
		"no END":     strings.Join(lines[:len(lines)-1], "\n"),
		"two in one": armoured + string(usher.Armour([]byte("e30.e30.e30"))),
		"no BEGIN":   strings.Join(lines[1:], "\n"),
	} {
		if _, p := (usher.Format{}).Verify([]byte(d), anchors); p == nil || p.Code != enforcer.Malformed {
			t.Errorf("%s: %+v", name, p)
		}
	}
}

func TestRecognise(t *testing.T) {
	for _, d := range []string{"", "{}", "eyJ", "hello", "# README\n\nDrop licences here.\n",
		"-----BEGIN LICENSE FILE-----\nabc\n-----END LICENSE FILE-----\n",
		b64(`{"alg":"RS256","typ":"JWT"}`) + ".e30.AAAA", strings.Repeat(".", 100), "\x00\x01"} {
		if (usher.Format{}).Recognise([]byte(d)) {
			t.Errorf("%q is recognised", d)
		}
	}
}

func FuzzVerify(f *testing.F) {
	s, anchors := vendor(f, "2026-a", "")
	doc := sign(f, s, claims())
	f.Add(doc)
	f.Add(usher.Armour(doc))
	f.Add(forge(`{"alg":"none","kid":"2026-a","typ":"usher-license+jwt"}`, `{}`, func([]byte) []byte { return nil }))
	f.Fuzz(func(t *testing.T, d []byte) {
		usher.Format{}.Recognise(d)
		l, p := usher.Format{}.Verify(d, anchors)
		if p == nil && l.ID != "acme-1" {
			t.Fatalf("%q is accepted as %q", d, l.ID)
		}
		if p != nil && (p.Code == "" || p.Reason == "") {
			t.Fatalf("%q: %+v", d, p)
		}
		if p == nil && !(usher.Format{}).Recognise(d) {
			t.Fatalf("%q verifies and is not recognised", d)
		}
	})
}

func FuzzParseClaims(f *testing.F) {
	f.Add(
		[]byte(
			`{"jti":"a","product":"p","iat":1,"pools":{"s":{"max":null}},"features":{"a":true,` +
				`"b":{"value":3,"unit":"x"}},"x_a":[1]}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		c, err := usher.ParseClaims(b, true)
		if err != nil {
			return
		}
		again, err := usher.ParseClaims(usher.Encode(t, c), true)
		if err != nil {
			t.Fatalf("%q does not survive writing: %v", b, err)
		}
		if !bytes.Equal(usher.Encode(t, c), usher.Encode(t, again)) {
			t.Fatalf("%q changes when written and read", b)
		}
	})
}
