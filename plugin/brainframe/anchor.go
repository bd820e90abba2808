package brainframe

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/usher-agent/usher/plugin"
	"github.com/usher-agent/usher/plugin/textual"
)

// NewAnchor makes an anchor of a public key in PEM. alg is in the words of the system whose documents are wrapped. An
// empty one means the key's usual algorithm: EdDSA for Ed25519, ES256 for P-256, PS256 for RSA of 2048 bits and more
// (RFC 7518, RFC 8037).
func NewAnchor(keyID string, key []byte, alg string) (plugin.Anchor, error) {
	if keyID == "" || len(keyID) > 64 || plugin.Short(keyID) != keyID {
		return plugin.Anchor{}, fmt.Errorf("key id %q: a printable name of at most 64 bytes is needed",
			plugin.Short(keyID))
	}
	public, err := parseKey(key)
	if err != nil {
		return plugin.Anchor{}, fmt.Errorf("key %q: %w; give the vendor's public key in PEM (BEGIN PUBLIC KEY)", keyID,
			err)
	}
	fits, err := algorithms(public)
	if err != nil {
		return plugin.Anchor{}, fmt.Errorf("key %q: %w", keyID, err)
	}
	if alg == "" {
		alg = fits[0]
	}
	if !slices.ContainsFunc(fits, func(fit string) bool { return fit == alg || other[alg] == fit }) {
		return plugin.Anchor{}, fmt.Errorf("key %q: algorithm %s does not fit the key, which is for %s", keyID,
			plugin.Short(alg), strings.Join(fits, " or "))
	}
	return plugin.Anchor{System: System, KeyID: keyID, Algorithm: alg, Key: public}, nil
}

// other are the words of some systems for algorithms.
var other = map[string]string{"ed25519": "EdDSA", "ecdsa-p256": "ES256", "rsa-pss-sha256": "PS256",
	"rsa-sha256": "RS256"}

// algorithms returns the algorithms of a key, its usual one first.
func algorithms(key crypto.PublicKey) ([]string, error) {
	switch k := key.(type) {
	case ed25519.PublicKey:
		return []string{"EdDSA"}, nil
	case *ecdsa.PublicKey:
		if k.Curve != elliptic.P256() {
			return nil, fmt.Errorf("it is on curve %s; licences are signed on P-256", k.Curve.Params().Name)
		}
		return []string{"ES256"}, nil
	case *rsa.PublicKey:
		if bits := k.N.BitLen(); bits < 2048 {
			return nil, fmt.Errorf("it is an RSA key of %d bits; at least 2048 are needed", bits)
		}
		return []string{"PS256", "RS256", "RS512"}, nil
	}
	return nil, fmt.Errorf("it is a %T; licences are signed with Ed25519, ECDSA P-256 or RSA", key)
}

// parseKey reads one public key in PEM.
func parseKey(b []byte) (crypto.PublicKey, error) {
	block, rest := pem.Decode(bytes.TrimSpace(textual.PEM(b)))
	switch {
	case block == nil:
		return nil, errors.New("it is not PEM")
	case strings.Contains(block.Type, "PRIVATE"):
		return nil, errors.New("it is a private key, which must never leave the vendor")
	case block.Type != "PUBLIC KEY" || len(bytes.TrimSpace(rest)) > 0:
		return nil, errors.New("it is not one public key")
	}
	key, err := x509.ParsePKIXPublicKey(block.Bytes)
	if err != nil {
		return nil, errors.New("its contents are not a public key (PKIX)")
	}
	return key, nil
}
