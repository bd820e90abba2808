package usher

import (
	"crypto"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"regexp"
	"strings"

	"github.com/usher-agent/usher/plugin"
	"github.com/usher-agent/usher/plugin/textual"
)

// Provide returns the system for package catalog. Its upstream speaks with upstream.url, which belongs to no one
// system: see package online.
func Provide() plugin.System {
	return plugin.System{Name: System, Format: Format{}, NewAnchor: NewAnchor, Signed: Compact}
}

// keyIDRule is the form of a key's id, which is also a file name.
var keyIDRule = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$`)

// IsKeyID reports whether a text can be a key's id, which is a file's name as well.
func IsKeyID(s string) bool { return keyIDRule.MatchString(s) }

// ParsePublicKey reads a public key in PEM (PKIX, "PUBLIC KEY").
func ParsePublicKey(b []byte) (crypto.PublicKey, error) {
	block, _ := pem.Decode(textual.PEM(b))
	if block == nil {
		return nil, errors.New("it is not PEM; a public key begins with -----BEGIN PUBLIC KEY-----")
	}
	if strings.Contains(block.Type, "PRIVATE") {
		return nil, errors.New(
			"it holds a private key, which must never leave the vendor; the public key is in the file that ends in " +
				".pub",
		)
	}
	if block.Type != "PUBLIC KEY" {
		return nil, fmt.Errorf("it holds a %q; a public key begins with -----BEGIN PUBLIC KEY-----", block.Type)
	}
	key, err := x509.ParsePKIXPublicKey(block.Bytes)
	if err != nil {
		return nil, errors.New("its contents are not a public key (PKIX)")
	}
	return key, nil
}

// NewAnchor makes an anchor of a public key in PEM. An empty alg means the key's usual one; see [AlgorithmFor].
func NewAnchor(keyID string, publicPEM []byte, alg string) (plugin.Anchor, error) {
	if !IsKeyID(keyID) {
		return plugin.Anchor{}, fmt.Errorf("key id %q: letters, digits and . _ - only, at most 64", keyID)
	}
	key, err := ParsePublicKey(publicPEM)
	if err != nil {
		return plugin.Anchor{}, fmt.Errorf("key %q: %w", keyID, err)
	}
	alg, err = AlgorithmFor(key, alg)
	if err != nil {
		return plugin.Anchor{}, fmt.Errorf("key %q: %w", keyID, err)
	}
	return plugin.Anchor{System: System, KeyID: keyID, Algorithm: alg, Key: key}, nil
}
