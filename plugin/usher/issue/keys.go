// Package issue is the vendor's side of the native licence format: keys on disk, signers that live elsewhere, binding
// to a host's request, and the ledger of issued licences.
package issue

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/asn1"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"math/big"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/usher-agent/usher/enforcer"
	"github.com/usher-agent/usher/plugin"
	"github.com/usher-agent/usher/plugin/redact"
	"github.com/usher-agent/usher/plugin/textual"
	"github.com/usher-agent/usher/plugin/usher"
)

// ThumbprintOf returns the RFC 7638 thumbprint of the public key in a file. It returns a thumbprint as it is.
func ThumbprintOf(key string) (string, error) {
	if b, err := base64.RawURLEncoding.DecodeString(key); err == nil && len(b) == sha256.Size {
		return key, nil
	}
	b, err := os.ReadFile(key)
	if err != nil {
		return "", fmt.Errorf("it is neither a thumbprint (43 characters) nor a public key's file: %w", err)
	}
	public, err := usher.ParsePublicKey(b)
	if err != nil {
		return "", fmt.Errorf("%s: %w", key, err)
	}
	return plugin.Thumbprint(public)
}

// KeyIDOf returns the id of a key file: its name without .key, .pub or .pem.
func KeyIDOf(path string) string {
	base := filepath.Base(path)
	for _, ext := range []string{".key", ".pub", ".pem"} {
		if s, ok := strings.CutSuffix(base, ext); ok {
			return s
		}
	}
	return base
}

// MakeKey makes a signing key and writes K.key (0600, PKCS #8) and K.pub (PKIX) into dir, which it makes if missing. It
// never overwrites a key. alg is EdDSA (the default), ES256, PS256 or RS256.
func MakeKey(dir, keyID, alg string) (private, public string, err error) {
	if !usher.IsKeyID(keyID) {
		return "", "", fmt.Errorf("key id %q: letters, digits and . _ - only, at most 64", keyID)
	}
	var key crypto.Signer
	switch alg {
	case "", "EdDSA":
		_, key, err = ed25519.GenerateKey(rand.Reader)
	case "ES256":
		key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	case "PS256", "RS256":
		key, err = rsa.GenerateKey(rand.Reader, 3072)
	default:
		return "", "", fmt.Errorf("algorithm %q: choose one of %s", alg, strings.Join(usher.Algorithms(), ", "))
	}
	if err != nil {
		return "", "", fmt.Errorf("make key %s: %w", keyID, err)
	}
	priv, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return "", "", fmt.Errorf("make key %s: %w", keyID, err)
	}
	pub, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		return "", "", fmt.Errorf("make key %s: %w", keyID, err)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", "", fmt.Errorf("make key %s: %w", keyID, err)
	}
	private, public = filepath.Join(dir, keyID+".key"), filepath.Join(dir, keyID+".pub")
	if err := create(private, "PRIVATE KEY", priv, 0o600); err != nil {
		return "", "", err
	}
	if err := create(public, "PUBLIC KEY", pub, 0o644); err != nil {
		return "", "", errors.Join(err, os.Remove(private)) // half a pair would be in the way next time
	}
	return private, public, nil
}

func create(path, kind string, der []byte, mode fs.FileMode) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode)
	if errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("%s exists; a key is never overwritten: choose another --kid or --out", path)
	}
	if err != nil {
		return fmt.Errorf("write key: %w", err)
	}
	err = pem.Encode(f, &pem.Block{Type: kind, Bytes: der})
	return errors.Join(err, f.Sync(), f.Close())
}

// Signer signs documents for one anchor.
type Signer struct {
	Anchor plugin.Anchor
	sign   func(input []byte) ([]byte, error)
}

// LoadSigner reads a private key from a K.key file. alg may choose RS256 over PS256 for an RSA key; otherwise leave it
// empty.
func LoadSigner(path, alg string) (*Signer, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("signing key: %w", err)
	}
	block, _ := pem.Decode(textual.PEM(b))
	if block == nil || block.Type != "PRIVATE KEY" {
		return nil, fmt.Errorf(
			"signing key %s: it is not a PRIVATE KEY in PEM (PKCS #8); `usher vendor keygen` makes one", path)
	}
	parsed, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("signing key %s: it is not a PKCS #8 key", path)
	}
	key, ok := parsed.(crypto.Signer)
	if !ok {
		return nil, fmt.Errorf("signing key %s: a %T cannot sign", path, parsed)
	}
	alg, err = usher.AlgorithmFor(key.Public(), alg)
	if err != nil {
		return nil, fmt.Errorf("signing key %s: %w", path, err)
	}
	s := &Signer{Anchor: plugin.Anchor{System: usher.System, KeyID: KeyIDOf(path), Algorithm: alg, Key: key.Public()}}
	s.sign = func(input []byte) ([]byte, error) { return signRaw(key, alg, input) }
	return s, nil
}

// signRaw makes the signature of RFC 7518 §3 or RFC 8037 §3.1 over input.
func signRaw(key crypto.Signer, alg string, input []byte) ([]byte, error) {
	if alg == "EdDSA" {
		return key.Sign(rand.Reader, input, crypto.Hash(0))
	}
	sum := sha256.Sum256(input)
	switch alg {
	case "PS256":
		return key.Sign(rand.Reader, sum[:],
			&rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash, Hash: crypto.SHA256})
	case "ES256":
		der, err := key.Sign(rand.Reader, sum[:], crypto.SHA256)
		if err != nil {
			return nil, err
		}
		return fixedECDSA(der)
	default:
		return key.Sign(rand.Reader, sum[:], crypto.SHA256)
	}
}

// fixedECDSA turns an ASN.1 signature into the 64 bytes of RFC 7518 §3.4.
func fixedECDSA(der []byte) ([]byte, error) {
	var sig struct{ R, S *big.Int }
	if rest, err := asn1.Unmarshal(der, &sig); err != nil || len(rest) > 0 || sig.R.Sign() <= 0 || sig.S.Sign() <= 0 ||
		sig.R.BitLen() > 256 || sig.S.BitLen() > 256 {
		return nil, errors.New("the ECDSA signature is neither ASN.1 nor 64 bytes")
	}
	out := make([]byte, 64)
	sig.R.FillBytes(out[:32])
	sig.S.FillBytes(out[32:])
	return out, nil
}

// signerWithin bounds how long a signing command may take.
const signerWithin = time.Minute

// CommandSigner signs with a command of the vendor's (a KMS, an HSM). The shell runs it. It gets the bytes to sign on
// its standard input, and USHER_KID and USHER_ALG in its environment. It writes the signature to its standard output,
// raw or in base64; an ECDSA signature is either ASN.1 or 64 bytes. It is stopped when ctx ends, and after a minute.
// The signature is checked with the anchor's key before it is used.
func CommandSigner(ctx context.Context, command string, anchor plugin.Anchor) *Signer {
	return &Signer{Anchor: anchor, sign: func(input []byte) ([]byte, error) {
		ctx, cancel := context.WithTimeoutCause(ctx, signerWithin,
			fmt.Errorf("it took longer than %s", enforcer.Span(signerWithin)))
		defer cancel()
		shell, flag := "/bin/sh", "-c"
		if runtime.GOOS == "windows" {
			shell, flag = "cmd", "/C"
		}
		cmd := exec.CommandContext(ctx, shell, flag, command)
		cmd.Env = append(os.Environ(), "USHER_KID="+anchor.KeyID, "USHER_ALG="+anchor.Algorithm)
		cmd.Stdin, cmd.Stderr = bytes.NewReader(input), os.Stderr
		cmd.WaitDelay = time.Second
		out, err := cmd.Output()
		switch {
		case err != nil && ctx.Err() != nil:
			return nil, fmt.Errorf("signer %q: it was stopped: %w", command, context.Cause(ctx))
		case err != nil:
			return nil, fmt.Errorf("signer %q: %w", command, err)
		case len(out) == 0:
			return nil, fmt.Errorf("signer %q: it wrote nothing; a signature is wanted on its standard output", command)
		case len(out) > 64<<10:
			return nil, fmt.Errorf("signer %q: it wrote %d bytes; a signature is wanted", command, len(out))
		}
		text := strings.TrimSpace(string(out))
		for _, enc := range []*base64.Encoding{base64.StdEncoding, base64.RawStdEncoding, base64.URLEncoding,
			base64.RawURLEncoding} {
			if b, err := enc.DecodeString(text); err == nil && len(b) >= 64 {
				out = b
				break
			}
		}
		if anchor.Algorithm == "ES256" && len(out) != 64 {
			return fixedECDSA(out)
		}
		return out, nil
	}}
}

// Sign signs claims and checks the result as an agent would. A licence that names agents' keys, and holds something
// that only admins may see, gets a voucher for the keys: see [usher.VoucherClaim].
func (s *Signer) Sign(c *usher.Claims) ([]byte, error) {
	own := *c
	own.Extra = maps.Clone(c.Extra)
	delete(own.Extra, usher.VoucherClaim) // of what was signed before
	doc, err := s.signClaims(&own)
	if err != nil || c.Confirmation == nil && len(c.AgentKeys) == 0 || usher.Discreet(doc) != nil {
		return doc, err
	}
	word := struct {
		License      string              `json:"license,omitempty"` // which has nothing to hide itself
		Product      string              `json:"product"`
		Issued       int64               `json:"iat"`
		Confirmation *usher.Confirmation `json:"cnf,omitzero"`
		AgentKeys    []string            `json:"agent_keys,omitempty"`
	}{c.ID, c.Product, c.Issued, c.Confirmation, c.AgentKeys}
	if redact.Text(c.ID) != c.ID {
		word.License = ""
	}
	b, err := json.Marshal(word)
	if err != nil {
		return nil, err
	}
	voucher, err := s.SignAs("usher-activation+jwt", b)
	if err != nil {
		return nil, err
	}
	if b, err = json.Marshal(voucher); err != nil {
		return nil, err
	}
	if own.Extra == nil {
		own.Extra = map[string]jsontext.Value{}
	}
	own.Extra[usher.VoucherClaim] = b
	return s.signClaims(&own)
}

func (s *Signer) signClaims(c *usher.Claims) ([]byte, error) {
	doc, err := usher.Sign(c, s.Anchor.KeyID, s.Anchor.Algorithm, s.sign)
	if err != nil {
		return nil, err
	}
	anchor := s.Anchor
	anchor.NotBefore, anchor.NotAfter = time.Time{}, time.Time{}
	if _, p := (usher.Format{}).Verify(doc, []plugin.Anchor{anchor}); p != nil {
		return nil, fmt.Errorf(
			"the signed licence does not verify with key %q: %s; does the signer use the private key of that public "+
				"key, and %s?", s.Anchor.KeyID, p.Reason, s.Anchor.Algorithm)
	}
	return doc, nil
}

// Claims returns the claims of a document that was signed with the signer's key.
func (s *Signer) Claims(document []byte) (*usher.Claims, error) {
	anchor := s.Anchor
	anchor.NotBefore, anchor.NotAfter = time.Time{}, time.Time{}
	if _, p := (usher.Format{}).Verify(document, []plugin.Anchor{anchor}); p != nil {
		return nil, errors.New(p.Reason)
	}
	b, err := usher.Body(document)
	if err != nil {
		return nil, err
	}
	return usher.ReadClaims(b, false)
}

// SignAs signs a payload that is no licence, as a compact JWS of a type.
func (s *Signer) SignAs(typ string, payload []byte) (string, error) {
	return s.signHeaded(payload, struct {
		Algorithm string `json:"alg"`
		KeyID     string `json:"kid"`
		Type      string `json:"typ"`
	}{s.Anchor.Algorithm, s.Anchor.KeyID, typ})
}

// SignBare is SignAs for readers without an anchor of the signer's: the header carries the key itself.
func (s *Signer) SignBare(typ string, payload []byte) (string, error) {
	return s.signHeaded(payload, struct {
		Algorithm string           `json:"alg"`
		Key       *jose.JSONWebKey `json:"jwk"`
		Type      string           `json:"typ"`
	}{s.Anchor.Algorithm, &jose.JSONWebKey{Key: s.Anchor.Key}, typ})
}

func (s *Signer) signHeaded(payload []byte, header any) (string, error) {
	head, err := json.Marshal(header)
	if err != nil {
		return "", err
	}
	input := base64.RawURLEncoding.EncodeToString(head) + "." + base64.RawURLEncoding.EncodeToString(payload)
	sig, err := s.sign([]byte(input))
	if err != nil {
		return "", err
	}
	return input + "." + base64.RawURLEncoding.EncodeToString(sig), nil
}

// RawSign signs bytes that are no licence, for tests of wrong documents under a right key.
func RawSign(s *Signer, input []byte) ([]byte, error) { return s.sign(input) }
