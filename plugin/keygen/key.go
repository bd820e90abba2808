package keygen

import (
	"crypto/rsa"
	"encoding/base64"
	"math/big"
	"slices"
	"strings"

	"github.com/go-json-experiment/json"

	"github.com/usher-agent/usher/enforcer"
	"github.com/usher-agent/usher/plugin"
)

// maxKey is the longest licence key, in bytes, that Keygen takes.
const maxKey = 16 << 10

// rsaSize is the size of Keygen's RSA signatures, in bytes.
const rsaSize = 256

// signed is a licence key that carries its own signature.
type signed struct {
	text    string
	scheme  string // Keygen's name, as far as the key's form tells
	data    []byte // nil: it is recovered from sig
	message []byte
	sig     []byte
	algs    []string
}

// parseSigned parses a signed licence key; nil: it is not one.
func parseSigned(s string) *signed {
	if len(s) > maxKey {
		return nil
	}
	if rest, ok := strings.CutPrefix(s, "key/"); ok {
		return parseParts(s, rest, "SIGN")
	}
	switch strings.Count(s, ".") {
	case 0:
		// RSA_2048_PKCS1_ENCRYPT: only the dataset, encrypted with the private key.
		if sig, ok := unbase64url(s); ok && len(sig) == rsaSize {
			return &signed{text: base64.URLEncoding.EncodeToString(sig), scheme: "RSA_2048_PKCS1_ENCRYPT", sig: sig,
				algs: []string{algRSA}}
		}
	case 1:
		return parseParts(s, s, "RSA_2048_SIGN")
	case 2:
		return parseJWT(s)
	}
	return nil
}

// parseParts reads D.S. The old schemes sign D's bytes; the present ones sign its text after the prefix "key/".
func parseParts(s, parts, scheme string) *signed {
	d, sig, ok := strings.Cut(parts, ".")
	data, ok1 := unbase64url(d)
	raw, ok2 := unbase64url(sig)
	if !ok || !ok1 || !ok2 || len(raw) < 8 {
		return nil
	}
	// The padding that Keygen writes may be lost; with and without it this is one key.
	s = strings.TrimSuffix(s, sig) + base64.URLEncoding.EncodeToString(raw)
	k := &signed{text: s, scheme: scheme, data: data, sig: raw, message: []byte("key/" + d), algs: Algorithms()}
	if scheme != "SIGN" {
		if len(raw) != rsaSize {
			return nil
		}
		k.message, k.algs = data, []string{algPSS, algRSA}
	}
	return k
}

// parseJWT reads RSA_2048_JWT_RS256. Its header has alg alone; the tokens of other issuers have more.
func parseJWT(s string) *signed {
	parts := strings.Split(s, ".")
	var raw [3][]byte
	for i, p := range parts {
		b, err := base64.RawURLEncoding.Strict().DecodeString(p)
		if err != nil {
			return nil
		}
		raw[i] = b
	}
	var header map[string]any
	if json.Unmarshal(raw[0], &header) != nil || len(header) != 1 || header["alg"] != "RS256" {
		return nil
	}
	return &signed{text: s, scheme: "RSA_2048_JWT_RS256", data: raw[1], message: []byte(parts[0] + "." + parts[1]),
		sig: raw[2], algs: []string{algRSA}}
}

// read verifies the key.
func (k *signed) read(anchors []plugin.Anchor) (*document, *enforcer.Problem) {
	d := &document{kind: signedKey, data: k.data, key: k.text, scheme: k.scheme}
	foreign := ""
	if k.scheme == "RSA_2048_SIGN" {
		foreign = foreignText(k.data)
	}
	believed := func(a plugin.Anchor) bool {
		return slices.Contains(k.algs, a.Algorithm) && serves(a, k.schemeOf(a.Algorithm))
	}
	a, p := believe(anchors, k.signatures(), believed, func(a plugin.Anchor) bool {
		if k.data != nil {
			return foreign == "" && verifies(a, k.message, k.sig)
		}
		if d.data = recoverPKCS1(a, k.sig); d.data != nil {
			if s := foreignText(d.data); s != "" {
				d.data, foreign = nil, s
			}
		}
		return d.data != nil
	})
	if foreign != "" && p != nil && p.Code == enforcer.BadSignature {
		p.Reason = "it contains " + foreign + ", which Keygen signs for another purpose, and is no licence key"
		p.Hint = "ask the vendor for the licence key or file as Keygen made it"
	}
	if d.data == nil || foreign != "" {
		return nil, p
	}
	d.anchor, d.alg = a, a.Algorithm
	return d, p
}

// leastExponent is the least public exponent for the scheme that encrypts. Nothing marks the end of the encrypted text,
// so with a small exponent anybody could find a number whose power begins like a padded text.
const leastExponent = 65537

// recoverPKCS1 returns the text that the anchor's private key encrypted, with PKCS #1 v1.5 padding of block type 1
// (RFC 8017 §9.2, without a DigestInfo); nil: the padding is not whole. Package crypto/rsa has no such call.
func recoverPKCS1(a plugin.Anchor, c []byte) []byte {
	k, ok := a.Key.(*rsa.PublicKey)
	if !ok || len(c) != k.Size() || k.E < leastExponent {
		return nil
	}
	n := new(big.Int).SetBytes(c)
	if n.Cmp(k.N) >= 0 {
		return nil
	}
	em := n.Exp(n, big.NewInt(int64(k.E)), k.N).FillBytes(make([]byte, k.Size()))
	if em[0] != 0 || em[1] != 1 {
		return nil
	}
	for i := 2; i < len(em); i++ {
		switch {
		case em[i] == 0xff:
		case em[i] == 0 && i >= 10: // at least eight bytes of padding
			return em[i+1:]
		default:
			return nil
		}
	}
	return nil
}
