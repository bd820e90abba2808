package agent

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"fmt"
	"maps"
	"math/big"
	"slices"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-json-experiment/json"

	"github.com/usher-agent/usher/client/wire"
	"github.com/usher-agent/usher/enforcer"
	"github.com/usher-agent/usher/plugin/usher"
	"github.com/usher-agent/usher/plugin/usher/online"
	"github.com/usher-agent/usher/redact"
)

// The types of what the agent's key signs (RFC 7519 §5.1): a product that asks for one takes no other.
const (
	leaseTokenType   = "usher-lease+jwt"
	sessionProofType = "usher-session+jwt"
)

// leaseClaims is a lease token: what was granted, to whom, for whose nonce.
type leaseClaims struct {
	Nonce    string      `json:"nonce"`
	ID       string      `json:"jti"`
	Product  string      `json:"product"`
	Items    []wire.Item `json:"items"`
	Lifetime string      `json:"lifetime"`
	Holder   proofHolder `json:"holder"`
	Issued   int64       `json:"iat"`
	Expires  int64       `json:"exp,omitzero"` // absent: no end of its own
}

// sessionClaims says whom the agent sees at the other end of a session.
type sessionClaims struct {
	Nonce   string      `json:"nonce"`
	Product string      `json:"product"`
	Holder  proofHolder `json:"holder"`
	Issued  int64       `json:"iat"`
}

type proofHolder struct {
	UID   uint32 `json:"uid"`
	PID   int32  `json:"pid"`
	Start uint64 `json:"start,omitzero"` // of the process, in clock ticks after boot
	Inode uint64 `json:"inode,omitzero"` // of its pidfd on pidfs, which no other process of this boot has
}

func proofOf(c enforcer.Caller) proofHolder {
	return proofHolder{UID: c.UID, PID: c.PID, Start: c.Start}
}

// sign signs claims with the agent's key, as a compact JWS.
func (a *Agent) sign(typ string, claims any) (string, error) {
	b, err := json.Marshal(claims)
	if err != nil {
		return "", err
	}
	s, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.EdDSA, Key: a.key},
		(&jose.SignerOptions{}).WithType(jose.ContentType(typ)).WithHeader("kid", a.agentKey()))
	if err != nil {
		return "", err
	}
	jws, err := s.Sign(b)
	if err != nil {
		return "", err
	}
	return jws.CompactSerialize()
}

// LeaseToken signs a lease for whoever sent the nonce.
func (f front) LeaseToken(l *enforcer.Lease, nonce string) (string, error) {
	c := leaseClaims{Nonce: nonce, ID: l.ID.String(), Product: f.product(), Items: itemShapes(l.Items), Lifetime: string(l.Lifetime),
		Holder: proofOf(l.Holder.Caller), Issued: f.desk.time().Unix()}
	if !l.ExpiresAt.IsZero() {
		c.Expires = l.ExpiresAt.Unix()
	}
	return f.sign(leaseTokenType, c)
}

// Prove signs whom the agent sees at the session's other end, for the nonce.
func (s *session) Prove(nonce string) (string, error) {
	holder := proofOf(s.caller)
	if h, _ := s.process(); h != nil {
		holder.Inode = h.Process().Inode
	}
	return s.agent.sign(sessionProofType, sessionClaims{nonce, s.agent.product(), holder, s.agent.desk.time().Unix()})
}

// Keys returns the agent's public key (RFC 7517, RFC 8037), those that its dialects sign with, and what vouches for the first of the
// licences in force: the document that names it, or else the vendor's word that an activation brought. A document with anything in it
// that only admins may see is shown to them alone: for others its voucher, or the activation, stands in its place.
func (f front) Keys(admin bool) wire.Keys {
	key := func(p dialectPublic, dialect string) wire.Key {
		return wire.Key{KeyType: "OKP", Curve: "Ed25519", X: base64.RawURLEncoding.EncodeToString(p.key), KeyID: p.id, Use: "sig", Algorithm: "EdDSA", Dialect: dialect}
	}
	out := wire.Keys{Keys: []wire.Key{key(publicOf(f.key), "")}, Chain: []string{}}
	for _, system := range slices.Sorted(maps.Keys(f.dialectKeys)) {
		out.Keys = append(out.Keys, key(f.dialectKeys[system], system))
	}
	v := f.desk.Verdict()
	if v == nil {
		return out
	}
	f.court.mu.Lock()
	defer f.court.mu.Unlock()
	for _, j := range v.Licenses {
		if !j.InForce || j.License == nil {
			continue
		}
		word := f.words.of(online.WordFor(j.License.ID, j.License.IsTest()))
		if j.License.System != usher.System {
			word = ""
		}
		if slices.Contains(j.License.AgentKeys, f.agentKey()) {
			document := f.court.document(j.Document)
			voucher := usher.Voucher(j.License.Terms)
			switch {
			case admin:
				word = string(document)
			case j.License.System == usher.System && voucher != "":
				word = voucher
			default:
				if shown := usher.Discreet(document); shown != nil {
					word = string(shown)
				} else if word == "" {
					out.Withheld = append(out.Withheld, "licence "+redact.Text(j.License.ID)+" names an agent's key, and has secrets or e-mail addresses in it that only admins may see; "+
						"have the vendor sign it again (usher vendor bind), with which it says the key apart, or keep these out of it")
				}
			}
		}
		if word != "" {
			out.Chain = append(out.Chain, word)
		}
	}
	return out
}

// certificate makes the certificate that the agent's key signs for itself: whoever speaks TLS with it compares the key with
// the one that the licence names.
func certificate(key ed25519.PrivateKey, now time.Time) (*tls.Config, error) {
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	if err != nil {
		return nil, err
	}
	tmpl := &x509.Certificate{SerialNumber: serial, Subject: pkix.Name{CommonName: "usher agent"}, DNSNames: []string{"usher"},
		NotBefore: now.AddDate(-1, 0, 0), NotAfter: now.AddDate(100, 0, 0), KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, key.Public(), key)
	if err != nil {
		return nil, fmt.Errorf("agent key: %w", err)
	}
	return &tls.Config{MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}}, nil
}
