package awslm

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"strings"

	"github.com/usher-agent/usher/plugin"
	"github.com/usher-agent/usher/plugin/textual"
)

// The algorithms of anchors.
const (
	// AlgorithmPS384 is the algorithm of a seller's KMS key for borrowed licences. The anchor's key id is the
	// ProductSKU, which the token does not contain. If one product has several keys, # and any text follow.
	AlgorithmPS384 = "PS384"
	// AlgorithmSealed is the agent's own seal on an answer of AWS. The anchor's key id is the issuer's KeyFingerprint,
	// and the anchor has no key until [Own] has given it the agent's.
	AlgorithmSealed = "sealed"
)

// isIssuer reports whether a text is a KeyFingerprint: aws:ACCOUNT:NAME:issuer-fingerprint.
func isIssuer(s string) bool {
	parts := strings.Split(s, ":")
	return len(s) <= 512 && len(parts) == 4 && parts[0] == "aws" && len(parts[1]) == 12 &&
		strings.Trim(parts[1], "0123456789") == "" &&
		parts[2] != "" && parts[2] == strings.TrimSpace(clip(parts[2], len(parts[2]))) &&
		parts[3] == "issuer-fingerprint"
}

// NewAnchor makes an anchor. With alg sealed (the default without a key), keyID is an issuer's KeyFingerprint, and key
// is empty. Otherwise it is a seller's RSA key of at least 2048 bits as KMS GetPublicKey gives it: DER, base64 of it,
// or PEM.
func NewAnchor(keyID string, key []byte, alg string) (plugin.Anchor, error) {
	bad := func(format string, args ...any) (plugin.Anchor, error) {
		return plugin.Anchor{}, fmt.Errorf("key %q: "+format, append([]any{plugin.Short(keyID)}, args...)...)
	}
	if keyID == "" || len(keyID) > 512 || strings.ContainsAny(keyID, "\r\n\t") {
		return bad("its id must be the ProductSKU or, with alg %s, the issuer's KeyFingerprint", AlgorithmSealed)
	}
	key = textual.PEM(key)
	if alg == "" && len(key) == 0 && isIssuer(keyID) {
		alg = AlgorithmSealed
	}
	switch alg {
	case AlgorithmSealed:
		switch {
		case !isIssuer(keyID):
			return bad(
				"with alg %s its id must be the issuer's KeyFingerprint, such as "+
					"aws:294406891311:AWS/Marketplace:issuer-fingerprint", alg)
		case len(key) > 0:
			return bad("with alg %s leave the key out: it is the agent's own", alg)
		}
		return plugin.Anchor{System: System, KeyID: keyID, Algorithm: alg}, nil
	case "", AlgorithmPS384:
	default:
		return bad("the algorithm is %s or %s, not %q", AlgorithmPS384, AlgorithmSealed, plugin.Short(alg))
	}
	pub, err := parseKey(key)
	if err != nil {
		return bad("%w; give the seller's public key as aws kms get-public-key prints it, or in PEM", err)
	}
	if bits := pub.N.BitLen(); bits < 2048 {
		return bad("it is an RSA key of %d bits; at least 2048 are needed", bits)
	}
	return plugin.Anchor{System: System, KeyID: keyID, Algorithm: AlgorithmPS384, Key: pub}, nil
}

func parseKey(b []byte) (*rsa.PublicKey, error) {
	if block, rest := pem.Decode(b); block != nil {
		if block.Type != "PUBLIC KEY" || len(bytes.TrimSpace(rest)) > 0 {
			return nil, errors.New("it is not one public key")
		}
		b = block.Bytes
	} else if raw, err := base64.StdEncoding.DecodeString(string(b)); err == nil {
		b = raw
	}
	pub, err := x509.ParsePKIXPublicKey(b)
	if err != nil {
		return nil, errors.New("it cannot be read as a public key")
	}
	if k, ok := pub.(*rsa.PublicKey); ok {
		return k, nil
	}
	return nil, fmt.Errorf("it is a %T, and License Manager signs with RSA", pub)
}

// Own gives the agent's key to the anchors of sealed licences. Only this key verifies them.
func Own(anchors []plugin.Anchor, agent ed25519.PublicKey) []plugin.Anchor {
	out := make([]plugin.Anchor, len(anchors))
	for i, a := range anchors {
		if a.System == System && a.Algorithm == AlgorithmSealed && a.Key == nil {
			a.Key = agent
		}
		out[i] = a
	}
	return out
}

// skuOf returns the product of an anchor of borrowed licences.
func skuOf(a plugin.Anchor) string {
	sku, _, _ := strings.Cut(a.KeyID, "#")
	return sku
}
