package identity

import (
	"crypto/ed25519"
	"encoding/base64"
	"slices"
	"time"

	"github.com/usher-agent/usher/client/wire"
	"github.com/usher-agent/usher/enforcer"
	"github.com/usher-agent/usher/plugin/redact"
	"github.com/usher-agent/usher/plugin/usher"
	"github.com/usher-agent/usher/plugin/usher/online"
)

// Signer signs with the agent's key, and says what vouches for it. All fields are required.
type Signer struct {
	Key          ed25519.PrivateKey
	Attestations *Attestations
	Product      func() string    // the first that the agent serves
	Now          func() time.Time // the licence time
}

// KeyID returns the RFC 7638 thumbprint of the key.
func (s *Signer) KeyID() string { return Thumbprint(s.public()) }

func (s *Signer) public() ed25519.PublicKey { return s.Key.Public().(ed25519.PublicKey) }

// LeaseToken signs a lease for the caller that sent the nonce.
func (s *Signer) LeaseToken(l *enforcer.Lease, nonce string) (string, error) {
	c := LeaseClaims{Nonce: nonce, ID: l.ID.String(), Product: s.Product(), Lifetime: string(l.Lifetime),
		Holder: Holder{UID: l.Holder.UID, PID: l.Holder.PID, Start: l.Holder.Start}, Issued: s.Now().Unix()}
	for _, it := range l.Items {
		c.Items = append(c.Items, Item{Pool: it.Pool, N: it.N, Of: it.Of})
	}
	if !l.ExpiresAt.IsZero() {
		c.Expires = l.ExpiresAt.Unix()
	}
	return LeaseToken(s.Key, c)
}

// Prove signs for a nonce whom the agent sees at a session's other end.
func (s *Signer) Prove(nonce string, of enforcer.Caller) (string, error) {
	return SessionProof(s.Key, SessionClaims{Nonce: nonce, Product: s.Product(), Issued: s.Now().Unix(),
		Holder: Holder{UID: of.UID, PID: of.PID, Start: of.Start, Inode: of.Inode}})
}

// PublicKey returns a public key in its wire form (RFC 7517, RFC 8037). dialect is the system whose answers it is for;
// empty: it is the agent's own.
func PublicKey(key ed25519.PublicKey, dialect string) wire.Key {
	return wire.Key{KeyType: "OKP", Curve: "Ed25519", X: base64.RawURLEncoding.EncodeToString(key),
		KeyID: Thumbprint(key), Use: "sig", Algorithm: "EdDSA", Dialect: dialect}
}

// Keys returns the agent's public key and what vouches for it by the licences in force, the first one first: the
// document that names the key, or else the vendor's word that an activation brought. Only admins see a document in
// which something is for admins alone: for others its voucher, or the activation, stands in its place. document returns
// the bytes of a document by its name.
func (s *Signer) Keys(v *enforcer.Verdict, document func(name string) []byte, admin bool) wire.Keys {
	out := wire.Keys{Keys: []wire.Key{PublicKey(s.public(), "")}, Chain: []string{}}
	if v == nil {
		return out
	}
	for _, j := range v.Licenses {
		if !j.InForce || j.License == nil {
			continue
		}
		word, withheld := s.voucher(j, document, admin)
		if word != "" {
			out.Chain = append(out.Chain, word)
		}
		if withheld {
			out.Withheld = append(out.Withheld, "licence "+redact.Text(j.License.ID)+
				" names an agent's key, and has secrets or e-mail addresses in it that only admins may see; "+
				"have the vendor sign it again (usher vendor bind), with which it says the key apart, or "+
				"keep these out of it")
		}
	}
	return out
}

// voucher returns what vouches for the key by one licence in force; empty: nothing does. withheld says that its
// document would, and is for admins alone.
func (s *Signer) voucher(j enforcer.Judged, document func(string) []byte, admin bool) (word string, withheld bool) {
	l, native := j.License, j.License.System == usher.System
	if native {
		word = s.Attestations.For(online.WordFor(l.ID, l.IsTest()))
	}
	if !slices.Contains(l.AgentKeys, s.KeyID()) {
		return word, false
	}
	whole := document(j.Document)
	if admin {
		return string(whole), false
	}
	if voucher := usher.Voucher(l.Terms); native && voucher != "" {
		return voucher, false
	}
	if shown := usher.Discreet(whole); shown != nil {
		return string(shown), false
	}
	return word, word == ""
}
