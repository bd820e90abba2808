package keygen_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"math/big"
	"slices"
	"strings"
	"testing"

	"github.com/usher-agent/usher/enforcer"
	"github.com/usher-agent/usher/plugin"
	"github.com/usher-agent/usher/plugin/keygen"
)

// keys are an account's keys with their signers, by algorithm.
type keys struct {
	rsa     *rsa.PrivateKey
	sign    map[string]func(message []byte) []byte
	anchors []plugin.Anchor
}

func newKeys(t *testing.T) *keys {
	t.Helper()
	_, ed, err1 := ed25519.GenerateKey(rand.Reader)
	ec, err2 := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	r, err3 := rsa.GenerateKey(rand.Reader, 2048)
	if err1 != nil || err2 != nil || err3 != nil {
		t.Fatal(err1, err2, err3)
	}
	k := &keys{rsa: r}
	sum := func(m []byte) []byte { s := sha256.Sum256(m); return s[:] }
	must := func(b []byte, err error) []byte {
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	k.sign = map[string]func([]byte) []byte{
		"ed25519":    func(m []byte) []byte { return ed25519.Sign(ed, m) },
		"ecdsa-p256": func(m []byte) []byte { return must(ecdsa.SignASN1(rand.Reader, ec, sum(m))) },
		"rsa-pss-sha256": func(m []byte) []byte {
			return must(rsa.SignPSS(rand.Reader, r, crypto.SHA256, sum(m),
				&rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthAuto}))
		},
		"rsa-sha256": func(m []byte) []byte { return must(rsa.SignPKCS1v15(nil, r, crypto.SHA256, sum(m))) },
	}
	for alg, pub := range map[string]any{"ed25519": ed.Public(), "ecdsa-p256": ec.Public(),
		"rsa-pss-sha256": r.Public(), "rsa-sha256": r.Public()} {
		der, err := x509.MarshalPKIXPublicKey(pub)
		if err != nil {
			t.Fatal(err)
		}
		k.anchors = append(k.anchors,
			anchor(t, alg, string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})), alg))
	}
	return k
}

// encrypt is the private key's operation on a dataset (RFC 8017 §5.2.1, with padding of block type 1).
func (k *keys) encrypt(data []byte) []byte {
	em := slices.Concat([]byte{0, 1}, []byte(strings.Repeat("\xff", 256-3-len(data))), []byte{0}, data)
	return new(big.Int).Exp(new(big.Int).SetBytes(em), k.rsa.D, k.rsa.N).FillBytes(make([]byte, 256))
}

// made is a document that Keygen signed, with its scheme.
type made struct {
	scheme, alg  string
	message, sig []byte
	document     string // as Keygen writes it; empty: it is no document
}

var url64 = base64.URLEncoding.EncodeToString

func fileText(kind, enc, alg string, sig []byte) string {
	body, _ := json.Marshal(object{"enc": enc, "sig": base64.StdEncoding.EncodeToString(sig), "alg": "base64+" + alg})
	kind = strings.ToUpper(kind)
	return fmt.Sprintf("-----BEGIN %s FILE-----\n%s\n-----END %s FILE-----\n", kind,
		base64.StdEncoding.EncodeToString(body), kind)
}

// everything returns a document of every scheme, and the other texts that Keygen signs with the account's keys.
func (k *keys) everything() (out []made) {
	dataset := []byte(`{"license":{"id":"lic-1","created":"2025-01-01T00:00:00Z","expiry":"2025-02-01T00:00:00Z"}}`)
	put := func(scheme, alg string, message []byte, document func(sig []byte) string) {
		m := made{scheme: scheme, alg: alg, message: message, sig: k.sign[alg](message)}
		if document != nil {
			m.document = document(m.sig)
		}
		out = append(out, m)
	}
	l, _ := json.Marshal(licence(nil, nil))
	mac, _ := json.Marshal(machineOf(licence(nil, nil), nil))
	for alg, signed := range map[string]string{"ed25519": "ED25519_SIGN", "ecdsa-p256": "ECDSA_P256_SIGN",
		"rsa-pss-sha256": "RSA_2048_PKCS1_PSS_SIGN_V2", "rsa-sha256": "RSA_2048_PKCS1_SIGN_V2"} {
		for kind, data := range map[string][]byte{"license": l, "machine": mac} {
			enc := base64.StdEncoding.EncodeToString(data)
			put("FILE "+kind+" "+alg, alg, []byte(kind+"/"+enc), func(sig []byte) string {
				return fileText(kind, enc, alg, sig)
			})
		}
		put(signed, alg, []byte("key/"+url64(dataset)), func(sig []byte) string {
			return "key/" + url64(dataset) + "." + url64(sig)
		})
		put("answer "+alg, alg,
			[]byte(
				"(request-target): get /v1/accounts/a/me\nhost: api.keygen.sh\ndate: Wed, 09 Jun 2027 16:08:15 "+
					"GMT\ndigest: sha-256=x"), nil)
		put("old answer "+alg, alg, l, nil)
	}
	put("RSA_2048_PKCS1_PSS_SIGN", "rsa-pss-sha256", dataset, func(sig []byte) string {
		return url64(dataset) + "." + url64(sig)
	})
	put("RSA_2048_PKCS1_SIGN", "rsa-sha256", dataset, func(sig []byte) string {
		return url64(dataset) + "." + url64(sig)
	})
	raw := base64.RawURLEncoding.EncodeToString
	text := raw([]byte(`{"alg":"RS256"}`)) + "." + raw([]byte(`{"sub":"lic-1","iat":1700000000,"exp":1700000100}`))
	put("RSA_2048_JWT_RS256", "rsa-sha256", []byte(text), func(sig []byte) string { return text + "." + raw(sig) })
	sig := k.encrypt(dataset)
	return append(out, made{"RSA_2048_PKCS1_ENCRYPT", "rsa-sha256", dataset, sig, url64(sig)})
}

// recasts returns a signature of one scheme in the forms of another.
func (m made) recasts(as made) (out []string) {
	text := string(m.message)
	_, rest, _ := strings.Cut(text, "/")
	plain, err := base64.StdEncoding.DecodeString(rest)
	bodies := []string{text, rest, url64(m.message), url64(plain), base64.StdEncoding.EncodeToString(m.message)}
	if err != nil {
		bodies = bodies[:3]
	}
	raw := base64.RawURLEncoding.EncodeToString
	for _, body := range bodies {
		switch {
		case strings.HasPrefix(as.scheme, "FILE"):
			_, kind, _ := strings.Cut(as.scheme, " ")
			kind, alg, _ := strings.Cut(kind, " ")
			out = append(out, fileText(kind, body, alg, m.sig), fileText(kind, body, m.alg, m.sig))
		case strings.HasPrefix(string(as.document), "key/"):
			out = append(out, "key/"+body+"."+url64(m.sig))
		case as.scheme == "RSA_2048_JWT_RS256":
			out = append(out, body+"."+raw(m.sig), raw([]byte(`{"alg":"RS256"}`))+"."+body+"."+raw(m.sig))
		case as.scheme == "RSA_2048_PKCS1_ENCRYPT":
			out = append(out, url64(m.sig), raw(m.sig))
		case as.document != "":
			out = append(out, body+"."+url64(m.sig))
		}
	}
	return out
}

// TestSchemesAreApart presents the signature of each scheme in the form of every other: none is accepted.
func TestSchemesAreApart(t *testing.T) {
	k := newKeys(t)
	all, pairs := k.everything(), 0
	for _, from := range all {
		if from.document != "" {
			if l, p := (keygen.Format{}).Verify([]byte(from.document), k.anchors); p != nil || l == nil {
				t.Errorf("%s as it is: %+v", from.scheme, p)
			}
		}
		for _, as := range all {
			if from.scheme == as.scheme || as.document == "" {
				continue
			}
			pairs++
			for _, doc := range from.recasts(as) {
				// it is what it was, but for padding
				if bare := strings.NewReplacer("=", ""); bare.Replace(doc) == bare.Replace(from.document) {
					continue
				}
				if l, p := (keygen.Format{}).Verify([]byte(doc), k.anchors); p == nil {
					t.Errorf("%s as %s is good, until %v", from.scheme, as.scheme, l.Expires)
				}
			}
		}
	}
	if pairs < 300 {
		t.Errorf("only %d pairs", pairs)
	}
}

// TestForeignTexts: other texts that Keygen signs are no datasets of the schemes that sign or encrypt a bare dataset. A
// vendor's own dataset is.
func TestForeignTexts(t *testing.T) {
	k := newKeys(t)
	digestInfo := "\x30\x31\x30\x0d\x06\x09\x60\x86\x48\x01\x65\x03\x04\x02\x01\x05\x00\x04\x20" +
		strings.Repeat("d", 32)
	token := base64.RawURLEncoding.EncodeToString([]byte(`{"typ":"JWT","alg":"RS256"}`)) + ".e30"
	for text, good := range map[string]bool{
		"license/abc": false, "machine/abc": false, "key/abc": false, " Machine/abc": false,
		"(request-target): post /x": false, digestInfo: false, token: false, token + ".c2ln": false,
		`{"data":{"type":"licenses","id":"a"}}`: false, `{"data":[]}`: false, `{"errors":[]}`: false,
		"user@customer.example": true, "A1B2-C3D4": true, `{"data":"of the vendor's"}`: true,
		`{"license":{"id":"x"}}`: true, "licence 7": true, "v1.2": true,
	} {
		for scheme, doc := range map[string]string{
			"rsa-sha256":     url64([]byte(text)) + "." + url64(k.sign["rsa-sha256"]([]byte(text))),
			"rsa-pss-sha256": url64([]byte(text)) + "." + url64(k.sign["rsa-pss-sha256"]([]byte(text))),
			"encrypt":        url64(k.encrypt([]byte(text))),
		} {
			_, p := keygen.Format{}.Verify([]byte(doc), k.anchors)
			if good != (p == nil) || p != nil && p.Code != enforcer.BadSignature {
				t.Errorf("%q by %s: %+v, want good %t", text, scheme, p, good)
			}
		}
	}
}

// TestNamedSchemes: an anchor that names schemes counts for those alone.
func TestNamedSchemes(t *testing.T) {
	k := newKeys(t)
	for _, m := range k.everything() {
		if m.document == "" {
			continue
		}
		name, _, _ := strings.Cut(m.scheme, " ")
		i := slices.IndexFunc(k.anchors, func(a plugin.Anchor) bool { return a.Algorithm == m.alg })
		for _, scheme := range keygen.Schemes(m.alg) {
			a := k.anchors[i]
			if err := keygen.NameSchemes(&a, []string{scheme}); err != nil {
				t.Fatal(err)
			}
			_, p := keygen.Format{}.Verify([]byte(m.document), []plugin.Anchor{a})
			if (p == nil) != (scheme == name) || p != nil && p.Code != enforcer.UntrustedKey {
				t.Errorf("%s with a key for %s: %+v", m.scheme, scheme, p)
			}
		}
	}
	a := k.anchors[0]
	if err := keygen.NameSchemes(&a, []string{"RSA_2048"}); err == nil ||
		!strings.Contains(err.Error(), "known: FILE") {
		t.Errorf("an unknown scheme: %v", err)
	}
}

// With a small public exponent, anybody could find a number whose power begins like an encrypted dataset. A key with
// one decrypts nothing.
func TestSmallExponent(t *testing.T) {
	k := newKeys(t)
	prefix := slices.Concat([]byte{0, 1}, []byte(strings.Repeat("\xff", 8)), []byte{0}, []byte(`A1B2`),
		make([]byte, 256-15))
	root, n := new(big.Int), new(big.Int).SetBytes(prefix)
	for bit := 700; bit >= 0; bit-- { // the cube root, rounded up
		try := new(big.Int).SetBit(root, bit, 1)
		if new(big.Int).Exp(try, big.NewInt(3), nil).Cmp(n) <= 0 {
			root = try
		}
	}
	root.Add(root, big.NewInt(1))
	a := k.anchors[slices.IndexFunc(k.anchors, func(a plugin.Anchor) bool { return a.Algorithm == "rsa-sha256" })]
	a.Key = &rsa.PublicKey{N: k.rsa.N, E: 3}
	if _, p := (keygen.Format{}).Verify([]byte(url64(root.FillBytes(make([]byte, 256)))), []plugin.Anchor{a}); p ==
		nil {
		t.Error("a forged key is good")
	}
}
