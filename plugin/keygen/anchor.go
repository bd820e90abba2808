package keygen

import (
	"bytes"
	"cmp"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/usher-agent/usher/enforcer"
	"github.com/usher-agent/usher/plugin"
	"github.com/usher-agent/usher/plugin/textual"
)

// The algorithms, in Keygen's words. The first that fits a key is its default.
const (
	algEd25519 = "ed25519"
	algECDSA   = "ecdsa-p256"
	algPSS     = "rsa-pss-sha256"
	algRSA     = "rsa-sha256"
)

// Algorithms returns the algorithms that an anchor may state. A Keygen account has a key for Ed25519, one for ECDSA and
// one for RSA. The RSA key serves two algorithms; the anchor names one of them.
func Algorithms() []string { return []string{algEd25519, algECDSA, algPSS, algRSA} }

// NewAnchor makes an anchor of an account's public key as Keygen's dashboard and guides give it: 64 hexadecimal digits
// (Ed25519 only), PEM, or base64 of DER or of PEM. An empty alg means the key's default: ed25519, ecdsa-p256,
// rsa-pss-sha256.
func NewAnchor(keyID string, key []byte, alg string) (plugin.Anchor, error) {
	if keyID == "" || len(keyID) > 256 {
		return plugin.Anchor{}, fmt.Errorf(
			"key %q: its id is empty or longer than 256 bytes; use the account's id or name", plugin.Short(keyID))
	}
	pub, err := parseKey(textual.PEM(key))
	if err != nil {
		return plugin.Anchor{},
			fmt.Errorf("key %q: %w; give the account's public key in hex, PEM or base64", keyID, err)
	}
	var fits []string
	switch k := pub.(type) {
	case ed25519.PublicKey:
		fits = []string{algEd25519}
	case *ecdsa.PublicKey:
		if k.Curve != elliptic.P256() {
			return plugin.Anchor{},
				fmt.Errorf("key %q: its curve is %s, and Keygen signs on P-256", keyID, k.Curve.Params().Name)
		}
		fits = []string{algECDSA}
	case *rsa.PublicKey:
		if bits := k.N.BitLen(); bits < 2048 {
			return plugin.Anchor{},
				fmt.Errorf("key %q: it is an RSA key of %d bits; at least 2048 are needed", keyID, bits)
		}
		fits = []string{algPSS, algRSA}
	default:
		return plugin.Anchor{},
			fmt.Errorf("key %q: the key is a %T; Keygen signs with Ed25519, ECDSA P-256 or RSA", keyID, pub)
	}
	if alg = cmp.Or(alg, fits[0]); !slices.Contains(fits, alg) {
		return plugin.Anchor{}, fmt.Errorf("key %q: algorithm %s does not fit the key, which is for %s", keyID,
			plugin.Short(alg), strings.Join(fits, " or "))
	}
	return plugin.Anchor{System: System, KeyID: keyID, Algorithm: alg, Key: pub}, nil
}

func parseKey(b []byte) (crypto.PublicKey, error) {
	if block, _ := pem.Decode(b); block != nil {
		switch {
		case strings.Contains(block.Type, "PRIVATE"):
			return nil, errors.New("it is a private key")
		case block.Type == "RSA PUBLIC KEY":
			return x509.ParsePKCS1PublicKey(block.Bytes)
		}
		return x509.ParsePKIXPublicKey(block.Bytes)
	}
	if raw, err := hex.DecodeString(string(b)); err == nil && len(raw) == ed25519.PublicKeySize {
		return ed25519.PublicKey(raw), nil
	}
	raw, err := base64.StdEncoding.DecodeString(string(b)) // line breaks are passed over
	if err != nil || len(raw) == 0 {
		return nil, errors.New("it cannot be read")
	}
	if bytes.HasPrefix(raw, []byte("-----BEGIN ")) {
		return parseKey(raw)
	}
	if len(raw) == ed25519.PublicKeySize {
		return ed25519.PublicKey(raw), nil
	}
	return x509.ParsePKIXPublicKey(raw)
}

// verifies reports whether the anchor's key has signed a message, by the anchor's algorithm.
func verifies(a plugin.Anchor, message, sig []byte) bool {
	digest := sha256.Sum256(message)
	switch k := a.Key.(type) {
	case ed25519.PublicKey:
		return a.Algorithm == algEd25519 && len(k) == ed25519.PublicKeySize && ed25519.Verify(k, message, sig)
	case *ecdsa.PublicKey:
		return a.Algorithm == algECDSA && k.Curve == elliptic.P256() && ecdsa.VerifyASN1(k, digest[:], sig)
	case *rsa.PublicKey:
		switch a.Algorithm {
		case algPSS:
			// Keygen makes the salt as long as the key permits, so the length must be detected.
			return rsa.VerifyPSS(k, crypto.SHA256, digest[:], sig,
				&rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthAuto, Hash: crypto.SHA256}) == nil
		case algRSA:
			return rsa.VerifyPKCS1v15(k, crypto.SHA256, digest[:], sig) == nil
		}
	}
	return false
}

// believe returns the anchor for which check holds. Documents name no key, so it tries each anchor that serves. what
// names the kind of signature in the problem's reason.
func believe(anchors []plugin.Anchor, what string,
	serves, check func(plugin.Anchor) bool) (plugin.Anchor, *enforcer.Problem) {
	tried := []string{}
	for _, a := range anchors {
		if a.System != System || !serves(a) {
			continue
		}
		tried = append(tried, a.KeyID)
		if !check(a) {
			continue
		}
		if a.Revoked {
			return a, &enforcer.Problem{System: System, Code: enforcer.UntrustedKey,
				Reason: fmt.Sprintf("signed by key %q, which is revoked", a.KeyID),
				Hint:   "ask the vendor for a document signed with another key"}
		}
		return a, nil
	}
	if len(tried) == 0 {
		return plugin.Anchor{}, &enforcer.Problem{System: System, Code: enforcer.UntrustedKey,
			Reason: fmt.Sprintf("it is signed with %s, and license.trust has no Keygen key for that", what),
			Hint: "add the account's public key under license.trust, with system keygen; for RSA, alg says which " +
				"of rsa-pss-sha256 and rsa-sha256 it is for, and schemes, where it is given, must name the scheme"}
	}
	return plugin.Anchor{}, &enforcer.Problem{System: System, Code: enforcer.BadSignature,
		Reason: fmt.Sprintf(
			"no key in trust for %s verifies its signature (tried: %s): it has been changed, or another "+
				"account signed it", what, strings.Join(tried, ", ")),
		Hint: "copy the whole file again, as the vendor sent it"}
}

// inTime checks that the document was issued within the anchor's time.
func inTime(a plugin.Anchor, l *enforcer.License) *enforcer.Problem {
	early := !a.NotBefore.IsZero() && l.Issued.Before(a.NotBefore)
	late := !a.NotAfter.IsZero() && (l.Issued.IsZero() || l.Issued.After(a.NotAfter))
	if !early && !late {
		return nil
	}
	when := "at an unknown time"
	if !l.Issued.IsZero() {
		when = "on " + l.Issued.UTC().Format("2006-01-02")
	}
	return &enforcer.Problem{System: System, Code: enforcer.UntrustedKey,
		Reason: fmt.Sprintf("issued %s, when key %q was not valid", when, a.KeyID),
		Hint:   "ask the vendor for a document signed with a key that is valid now"}
}
