package brainframe_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"strings"
	"testing"

	"github.com/usher-agent/usher/enforcer"
	"github.com/usher-agent/usher/plugin"
	"github.com/usher-agent/usher/plugin/brainframe"
	"github.com/usher-agent/usher/plugin/plugintest"
	"github.com/usher-agent/usher/plugin/usher"
)

// bare are terms without a signature, in the forms of the API.
var bare = []string{
	`{"online_checkin":false,"max_streams":4,"journal_max_allowed_age":86400.0,"expiration_date":"2027-01-31"}`,
	`{"state":"valid","terms":{"online_checkin":false,"max_streams":999,"journal_max_allowed_age":1.0,` +
		`"expiration_date":null}}`,
}

// The format keeps what every format keeps: byte flips, cuts, other keys, foreign documents.
func TestFormatKeepsThePromises(t *testing.T) {
	t.Parallel()
	doc := signed(t, vendorKey, nil)
	stranger := ed25519.NewKeyFromSeed([]byte(strings.Repeat("s", ed25519.SeedSize)))
	plugintest.Format(t, format(), plugintest.FormatSamples{
		Good: [][]byte{wrap(doc), wrap(usher.Armour(doc))}, Anchors: anchors(), Foreign: [][]byte{doc},
		Broken: [][]byte{wrap(signed(t, stranger, nil)), wrap([]byte(bare[0])), wrap([]byte(bare[1])), wrap(wrap(doc)),
			wrap([]byte(`{"terms":null}`)), wrap([]byte("no licence"))}})
}

// What editors, mail and other encoders do to base64 is forgiven.
func TestSpellings(t *testing.T) {
	t.Parallel()
	doc := signed(t, vendorKey, func(c *usher.Claims) { c.Licensee = "Ünïcode ¿?>~ Ltd" })
	text := string(wrap(doc))
	var broken strings.Builder
	for i := 0; i < len(text); i += 76 {
		broken.WriteString("> " + text[i:min(i+76, len(text))] + "\r\n")
	}
	for name, spelling := range map[string]string{"plain": text, "line feed": text + "\n", "mail": broken.String(),
		"a byte order mark": "\xef\xbb\xbf " + text, "without padding": strings.TrimRight(text, "="),
		"URL alphabet": base64.URLEncoding.EncodeToString(doc), "raw URL": base64.RawURLEncoding.EncodeToString(doc)} {
		if l, p := format().Verify([]byte(spelling), anchors()); p != nil || l.ID != "L1" ||
			!format().Recognise([]byte(spelling)) {
			t.Errorf("%s: %+v", name, p)
		}
	}
	for name, spelling := range map[string]string{"cut off": text[:len(text)-5], "a hole": text[:40] + "!" + text[41:],
		"too much padding": strings.TrimRight(text, "=") + "===", "two keys": text + "=\n" + text, "empty": " \n",
		"two alphabets": text[:8] + "-_+/" + text[12:]} {
		if _, p := format().Verify([]byte(spelling), anchors()); p == nil {
			t.Errorf("%s: it verifies", name)
		}
	}
}

// The licence has the terms of what it wraps, and this system's name.
func TestTermsOfAKey(t *testing.T) {
	t.Parallel()
	l := licence(t, func(c *usher.Claims) { c.CheckIn = &usher.CheckIn{Every: 86400} })
	if l.System != brainframe.System || l.KeyID != keyID || l.Pools["streams"].Max != 4 || !l.CheckIn.Stated() ||
		l.Expires.Format("2006-01-02") != "2027-01-31" || l.Features["journal_max_allowed_age"].Number != 86400 ||
		l.Terms["jti"] != "L1" {
		t.Errorf("the licence is %+v", l)
	}
}

// Terms that nobody has signed are recognised, and license nothing, with whatever keys are in trust.
func TestUnsignedTermsLicenseNothing(t *testing.T) {
	t.Parallel()
	for _, text := range bare {
		for _, all := range [][]plugin.Anchor{nil, anchors()} {
			l, p := format().Verify(wrap([]byte(text)), all)
			if l != nil || p == nil || p.Code != enforcer.UntrustedKey || p.Hint == "" {
				t.Errorf("%s: %+v, %+v", text, l, p)
			}
		}
		if !format().Recognise(wrap([]byte(text))) {
			t.Errorf("%s is not recognised", text)
		}
	}
}

// A key verifies by keys in trust for this system alone, and never by one that is in trust for what it wraps as well:
// the licence could count twice.
func TestKeysAreApart(t *testing.T) {
	t.Parallel()
	doc := key(t, nil)
	for name, all := range map[string][]plugin.Anchor{
		"of the other system": {anchorOf(usher.System, vendorKey)},
		"of both":             {anchorOf(usher.System, vendorKey), anchorOf(brainframe.System, vendorKey)},
		"another one": {anchorOf(brainframe.System,
			ed25519.NewKeyFromSeed([]byte(strings.Repeat("x", ed25519.SeedSize))))},
	} {
		if _, p := format().Verify(doc, all); p == nil || p.System != brainframe.System ||
			p.Code != enforcer.UntrustedKey && p.Code != enforcer.BadSignature {
			t.Errorf("%s: %+v", name, p)
		}
	}
	other := anchorOf(usher.System, ed25519.NewKeyFromSeed([]byte(strings.Repeat("x", ed25519.SeedSize))))
	if _, p := format().Verify(doc, append(anchors(), other)); p != nil {
		t.Errorf("another key of the other system: %+v", p)
	}
}

func TestNewAnchor(t *testing.T) {
	t.Parallel()
	encode := func(key any) []byte {
		der, err := x509.MarshalPKIXPublicKey(key)
		if err != nil {
			t.Fatal(err)
		}
		return pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})
	}
	p256, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	p384, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	private, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		key       any
		alg, want string
	}{{vendorKey.Public(), "", "EdDSA"}, {&p256.PublicKey, "", "ES256"}, {&private.PublicKey, "", "PS256"},
		{&private.PublicKey, "RS256", "RS256"}, {&private.PublicKey, "rsa-sha256", "rsa-sha256"},
		{vendorKey.Public(), "ed25519", "ed25519"}, {vendorKey.Public(), "rsa-sha256", ""},
		{vendorKey.Public(), "RS256", ""}, {&p384.PublicKey, "", ""}} {
		a, err := brainframe.NewAnchor(keyID, encode(c.key), c.alg)
		if (err == nil) != (c.want != "") || a.Algorithm != c.want {
			t.Errorf("%T, %q: %+v, %v", c.key, c.alg, a, err)
		}
	}
	for _, bad := range []string{"", "no key", "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n",
		string(encode(vendorKey.Public())) + "more"} {
		if _, err := brainframe.NewAnchor(keyID, []byte(bad), ""); err == nil {
			t.Errorf("%q is an anchor", bad)
		}
	}
	if _, err := brainframe.NewAnchor("", encode(vendorKey.Public()), ""); err == nil {
		t.Error("an anchor has no name")
	}
}

// FuzzVerify fuzzes keys as they are, and wrapped: whatever verifies is a licence that was signed.
func FuzzVerify(f *testing.F) {
	good := key(f, nil)
	f.Add(good)
	f.Add(signed(f, vendorKey, nil))
	f.Add([]byte(bare[0]))
	f.Add([]byte("> \xef\xbb\xbf=-_"))
	f.Fuzz(func(t *testing.T, doc []byte) {
		for _, d := range [][]byte{doc, wrap(doc)} {
			format().Recognise(d)
			l, p := format().Verify(d, anchors())
			if _, safe := plugin.CheckVerified(brainframe.System, anchors(), l, p); p != nil && safe.Code != p.Code {
				t.Errorf("%+v", safe)
			}
			if p == nil && (l.ID != "L1" || l.Pools["streams"].Max != 4) {
				t.Errorf("%+v verifies", l)
			}
			if d, err := brainframe.Unwrap(d); err == nil && len(d) > len(doc) && !bytes.Equal(d, doc) {
				t.Error("what is inside is larger than the key")
			}
		}
	})
}
