package identity

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"math/big"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-json-experiment/json"
)

// The types of what the agent's key signs (RFC 7519 §5.1). A product that asks for one type accepts no other.
const (
	leaseTokenType   = "usher-lease+jwt"
	sessionProofType = "usher-session+jwt"
)

// LeaseClaims is the contents of a lease token: the grant, its holder and the holder's nonce.
type LeaseClaims struct {
	Nonce    string `json:"nonce"`
	ID       string `json:"jti"`
	Product  string `json:"product"`
	Items    []Item `json:"items"`
	Lifetime string `json:"lifetime"`
	Holder   Holder `json:"holder"`
	Issued   int64  `json:"iat"`
	Expires  int64  `json:"exp,omitzero"` // absent: no end of its own
}

// SessionClaims describes the process that the agent sees at the other end of a session.
type SessionClaims struct {
	Nonce   string `json:"nonce"`
	Product string `json:"product"`
	Holder  Holder `json:"holder"`
	Issued  int64  `json:"iat"`
}

// Item is a number of slots of one pool.
type Item struct {
	Pool string `json:"pool"`
	N    int64  `json:"n"`
	Of   int64  `json:"of,omitzero"` // n counts parts of a slot, of which so many make one
}

// Holder is the process that a proof is about, as the kernel names it to the agent; 0: not known.
type Holder struct {
	UID   uint32 `json:"uid"`
	PID   int32  `json:"pid"`
	Start uint64 `json:"start,omitzero"` // of the process, in clock ticks after boot
	Inode uint64 `json:"inode,omitzero"` // of its pidfd on pidfs, which no other process of this boot has
}

// LeaseToken signs a lease for the sender of the nonce, as a compact JWS.
func LeaseToken(key ed25519.PrivateKey, c LeaseClaims) (string, error) {
	return sign(key, leaseTokenType, c)
}

// SessionProof signs a description of the process at a session's other end, as a compact JWS.
func SessionProof(key ed25519.PrivateKey, c SessionClaims) (string, error) {
	return sign(key, sessionProofType, c)
}

func sign(key ed25519.PrivateKey, typ string, claims any) (string, error) {
	b, err := json.Marshal(claims)
	if err != nil {
		return "", err
	}
	options := (&jose.SignerOptions{}).WithType(jose.ContentType(typ)).
		WithHeader("kid", Thumbprint(key.Public().(ed25519.PublicKey)))
	s, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.EdDSA, Key: key}, options)
	if err != nil {
		return "", err
	}
	jws, err := s.Sign(b)
	if err != nil {
		return "", err
	}
	return jws.CompactSerialize()
}

// Certificate makes a certificate that the agent's key signs for itself, from a year before now. The other end of the
// connection compares the key with the one that the licence names.
func Certificate(key ed25519.PrivateKey, now time.Time) (*tls.Config, error) {
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	if err != nil {
		return nil, err
	}
	tmpl := &x509.Certificate{
		SerialNumber: serial,
		Subject:      pkix.Name{CommonName: "usher agent"},
		DNSNames:     []string{"usher"},
		NotBefore:    now.AddDate(-1, 0, 0),
		NotAfter:     now.AddDate(100, 0, 0),
		KeyUsage:     x509.KeyUsageDigitalSignature,
		ExtKeyUsage:  []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, key.Public(), key)
	if err != nil {
		return nil, fmt.Errorf("agent key: %w", err)
	}
	return &tls.Config{
		MinVersion:   tls.VersionTLS13,
		Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}},
	}, nil
}
