package agent

import (
	"crypto/ed25519"
	"encoding/base64"
	"slices"

	"github.com/usher-agent/usher/agent/identity"
	"github.com/usher-agent/usher/client/wire"
	"github.com/usher-agent/usher/enforcer"
	"github.com/usher-agent/usher/plugin/redact"
	"github.com/usher-agent/usher/plugin/usher"
	"github.com/usher-agent/usher/plugin/usher/online"
)

// LeaseToken signs a lease for whoever sent the nonce.
func (f front) LeaseToken(l *enforcer.Lease, nonce string) (string, error) {
	c := identity.LeaseClaims{Nonce: nonce, ID: l.ID.String(), Product: f.product(), Lifetime: string(l.Lifetime),
		Holder: proofOf(l.Holder.Caller), Issued: f.desk.Now().Unix()}
	for _, it := range l.Items {
		c.Items = append(c.Items, identity.Item{Pool: it.Pool, N: it.N})
	}
	if !l.ExpiresAt.IsZero() {
		c.Expires = l.ExpiresAt.Unix()
	}
	return identity.LeaseToken(f.key, c)
}

// Prove signs whom the agent sees at the session's other end, for the nonce.
func (s *session) Prove(nonce string) (string, error) {
	holder := proofOf(s.caller)
	if h, _ := s.process(); h != nil {
		holder.Inode = h.Process().Inode
	}
	return identity.SessionProof(s.agent.key,
		identity.SessionClaims{Nonce: nonce, Product: s.agent.product(), Holder: holder,
			Issued: s.agent.desk.Now().Unix()})
}

// Keys returns the agent's public key (RFC 7517, RFC 8037), those that its dialects sign with, and what vouches for the
// first of the licences in force: the document that names it, or else the vendor's word that an activation brought. A
// document with anything in it that only admins may see is shown to them alone: for others its voucher, or the
// activation, stands in its place.
func (f front) Keys(admin bool) wire.Keys {
	key := func(public ed25519.PublicKey, dialect string) wire.Key {
		return wire.Key{KeyType: "OKP", Curve: "Ed25519", X: base64.RawURLEncoding.EncodeToString(public),
			KeyID: identity.Thumbprint(public), Use: "sig", Algorithm: "EdDSA", Dialect: dialect}
	}
	out := wire.Keys{Keys: []wire.Key{key(f.key.Public().(ed25519.PublicKey), "")}, Chain: []string{}}
	for _, k := range f.dialects.Keys() {
		out.Keys = append(out.Keys, key(k.Public, k.Dialect))
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
		word := f.attestations.For(online.WordFor(j.License.ID, j.License.IsTest()))
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
					out.Withheld = append(out.Withheld, "licence "+redact.Text(j.License.ID)+
						" names an agent's key, and has secrets or e-mail addresses in it that only admins may see; "+
						"have the vendor sign it again (usher vendor bind), with which it says the key apart, or "+
						"keep these out of it")
				}
			}
		}
		if word != "" {
			out.Chain = append(out.Chain, word)
		}
	}
	return out
}

func proofOf(c enforcer.Caller) identity.Holder {
	return identity.Holder{UID: c.UID, PID: c.PID, Start: c.Start}
}
