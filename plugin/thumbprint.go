package plugin

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"math/big"
)

// Thumbprint returns the RFC 7638 thumbprint (SHA-256) of a public key in base64url. It fails for a key of a kind that
// JSON Web Keys do not have.
//
// It needs no JOSE library, so that none is among the dependencies of every plugin's author.
func Thumbprint(key crypto.PublicKey) (string, error) {
	text := base64.RawURLEncoding.EncodeToString
	var members string // RFC 7638 §3.2: the required ones, in the order of their names, without white space
	switch k := key.(type) {
	case ed25519.PublicKey: // RFC 8037 §2
		members = fmt.Sprintf(`{"crv":"Ed25519","kty":"OKP","x":%q}`, text(k))
	case *ecdsa.PublicKey: // RFC 7518 §6.2.1
		b, err := k.Bytes() // a byte, and both coordinates in full length
		if err != nil {
			return "", fmt.Errorf("thumbprint of a key: %w", err)
		}
		half := len(b) / 2
		members = fmt.Sprintf(`{"crv":%q,"kty":"EC","x":%q,"y":%q}`, k.Params().Name, text(b[1:1+half]),
			text(b[1+half:]))
	case *rsa.PublicKey: // RFC 7518 §6.3.1
		members = fmt.Sprintf(`{"e":%q,"kty":"RSA","n":%q}`, text(big.NewInt(int64(k.E)).Bytes()), text(k.N.Bytes()))
	default:
		return "", fmt.Errorf("thumbprint of a key: JSON Web Keys have no kind for a %T", key)
	}
	sum := sha256.Sum256([]byte(members))
	return text(sum[:]), nil
}
