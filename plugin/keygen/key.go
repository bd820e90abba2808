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

// signed is a licence key that proves itself.
type signed struct {
	text    string
	scheme  string // Keygen's word, as far as the key tells
	data    []byte // nil: it must be recovered from sig
	message []byte
	sig     []byte
	algs    []string
}

// parseSigned takes a licence key apart; nil: it is none that is signed.
func parseSigned(s string) *signed {
	if len(s) > maxKey {
		return nil
	}
	if rest, ok := strings.CutPrefix(s, "key/"); ok {
		return parseParts(s, rest, "SIGN")
	}
	switch strings.Count(s, ".") {
	case 0:
		// RSA_2048_PKCS1_ENCRYPT: nothing but what the private key made of the dataset.
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

// parseParts reads D.S. The old schemes sign D's bytes, the present ones its text with "key/" before it.
func parseParts(s, parts, scheme string) *signed {
	d, sig, ok := strings.Cut(parts, ".")
	data, ok1 := unbase64url(d)
	raw, ok2 := unbase64url(sig)
	if !ok || !ok1 || !ok2 || len(raw) < 8 {
		return nil
	}
	// One key is one text, whether the padding that Keygen writes has been lost or not.
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

// parseJWT reads RSA_2048_JWT_RS256, whose header says RS256 and nothing else: others' tokens have more to say.
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
	a, p := believe(anchors, k.wordsOf(), believed, func(a plugin.Anchor) bool {
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
		p.Reason = "what it says is " + foreign + ", which Keygen signs for another purpose, and no licence key"
		p.Hint = "ask the vendor for the licence key or file as Keygen made it"
	}
	if d.data == nil || foreign != "" {
		return nil, p
	}
	d.anchor, d.alg = a, a.Algorithm
	return d, p
}

// leastExponent is the least public exponent of a key that may have encrypted: nothing tells where what it encrypted
// ends, so that with a small one anybody could find a number whose power begins like it.
const leastExponent = 65537

// recoverPKCS1 returns what a private key has encrypted, with PKCS #1 v1.5 padding of block type 1 (RFC 8017 §9.2,
// without a DigestInfo), which must be whole; nil: it has not. Package crypto/rsa has no such call.
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
