package awslm

import (
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"net/http"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-json-experiment/json"

	"github.com/usher-agent/usher/enforcer"
	"github.com/usher-agent/usher/plugin"
	"github.com/usher-agent/usher/plugin/redact"
)

const (
	keyKey     = "signing-key" // in the store: PKCS #8
	keyBits    = 3072
	signedRoom = (keyBits/8)*4/3 + 64 // bytes of a SignedToken beside its payload
)

// borrow answers CheckoutBorrowLicense: it grants everything until a date, or nothing.
func (h *local) borrow(ctx context.Context, c enforcer.Caller, r *BorrowRequest) (any, *Fault) {
	client, request := digest(who(c), r.ClientToken), asked(OpBorrow, r)
	defer h.alone(client)()
	token, rec, l, f := h.prior(c, client, request)
	if f != nil {
		return nil, f
	}
	if rec != nil {
		return h.signed(c, token, rec, l)
	}
	v := h.byArn(r.LicenseArn)
	switch {
	case v == nil:
		return nil, &Fault{ErrResourceNotFound, "There is no such licence here."}
	case !v.inForce:
		return nil, &Fault{ErrResourceNotFound, "The licence cannot be consumed: " + v.why}
	case v.ConsumptionConfiguration.BorrowConfiguration == nil:
		return nil, &Fault{ErrNoEntitlements, "The licence has no BorrowConfiguration: nothing of it can be borrowed."}
	}
	p := v.plan(r.Entitlements, "", isPool, "it is consumed and cannot be borrowed")
	for i, e := range p.list {
		if why, no := p.no[i]; no {
			code := ErrNoEntitlements
			if t := v.term(e.Name, ""); t != nil && t.unit == e.Unit && t.is == isMeter {
				code = ErrEntitlementNot
			}
			return nil, &Fault{code,
				"A borrow is granted whole or not at all, and " + plugin.Short(e.Name) + " is not allowed: " + why +
					"."}
		}
	}
	if len(p.items) > maxCounted {
		return nil, invalid("Entitlements name %d counted ones; at most %d can be borrowed together.", len(p.items),
			maxCounted)
	}
	now := h.Now()
	until := h.borrowUntil(now)
	if !until.After(now) {
		return nil, &Fault{ErrNoEntitlements, "The licence ends too soon for a borrow."}
	}
	if _, f := h.signingKey(); f != nil { // an error comes before anything is taken
		return nil, f
	}
	rec = &record{Client: client, Request: request, Operation: OpBorrow, Arn: v.LicenseArn, Allowed: p.list,
		Node: r.NodeID, Metadata: r.CheckoutMetadata,
		Issued: now.Unix(), Until: until.Unix(), Seconds: until.Unix() - now.Unix()}
	if len(p.items) == 0 {
		rec.Who = who(c)
		token = newToken()
		if f := h.keep(token, rec); f != nil {
			return nil, f
		}
		return h.signed(c, token, rec, nil)
	}
	if n := len(rec.encode()) + base64.RawURLEncoding.EncodedLen(len(rec.claims(newToken()))) + signedRoom; n >
		plugin.MaxLeaseData {
		return nil,
			invalid(
				"The request is too long to be stored with its SignedToken: shorten NodeId and CheckoutMetadata, " +
					"or borrow less at once.")
	}
	l, _, d := h.Acquire(ctx,
		&enforcer.Acquire{Caller: c, Items: p.items, Lifetime: enforcer.LifetimeBorrow, Until: until}, rec.encode())
	if d != nil {
		return nil, faultOf(d)
	}
	h.note(client, l, c)
	return h.signed(c, l.ID.String(), rec, l)
}

// borrowUntil returns the end of a borrow: the longest that the licence permits, and no later than its end. It has
// whole seconds, like the token.
func (h *local) borrowUntil(now time.Time) time.Time {
	v := h.Verdict()
	until := now.Add(v.MaxBorrow)
	if !v.TerminatesAt.IsZero() && !v.CoveredUntil.IsZero() {
		end := v.TerminatesAt
		if v.CoveredUntil.After(end) {
			end = v.CoveredUntil
		}
		if end.Before(until) {
			until = end
		}
	}
	return until.Truncate(time.Second)
}

// signed answers a borrow. It signs once, and stores the token before it answers.
func (h *local) signed(c enforcer.Caller, token string, rec *record, l *enforcer.Lease) (any, *Fault) {
	if rec.Signed == "" {
		key, f := h.signingKey()
		if f != nil {
			return nil, f
		}
		signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.PS384, Key: key},
			(&jose.SignerOptions{}).WithType("JWT"))
		if err != nil {
			return nil, &Fault{ErrServerInternal, "It cannot be signed: " + err.Error()}
		}
		jws, err := signer.Sign(rec.claims(token))
		if err == nil {
			rec.Signed, err = jws.CompactSerialize()
		}
		if err != nil {
			return nil, &Fault{ErrServerInternal, "It cannot be signed: " + err.Error()}
		}
		if l == nil {
			f = h.keep(token, rec)
		} else if d := h.SetData(l.ID, c, rec.encode()); d != nil {
			f = faultOf(d)
		}
		if f != nil {
			return nil, f
		}
	}
	return &BorrowResponse{LicenseArn: redact.Text(rec.Arn), LicenseConsumptionToken: token,
		EntitlementsAllowed: rec.Allowed, SignedToken: rec.Signed, NodeID: rec.Node,
		IssuedAt: LocalTime(time.Unix(rec.Issued, 0)), Expiration: LocalTime(time.Unix(rec.Until, 0)),
		CheckoutMetadata: rec.Metadata}, nil
}

// claims returns the payload of a SignedToken.
func (r *record) claims(token string) []byte {
	c := claims{LicenseArn: redact.Text(r.Arn), LicenseConsumptionToken: token, NodeID: r.Node,
		IssuedAt: LocalTime(time.Unix(r.Issued, 0)), Expiration: LocalTime(time.Unix(r.Until, 0)),
		CheckoutMetadata: map[string]string{}}
	for _, e := range r.Allowed {
		c.EntitlementsAllowed = append(c.EntitlementsAllowed, allowed(e))
	}
	for _, m := range r.Metadata {
		c.CheckoutMetadata[m.Name] = m.Value
	}
	b, err := json.Marshal(c, json.Deterministic(true))
	if err != nil { // never for decoded texts
		panic(err)
	}
	return b
}

// signingKey returns the key that signs borrowed licences, and makes it at the first call.
func (h *local) signingKey() (*rsa.PrivateKey, *Fault) {
	h.keyOnce.Lock()
	defer h.keyOnce.Unlock()
	broken := func(err error) (*rsa.PrivateKey, *Fault) {
		h.Log().Error("borrowed licences cannot be signed", "error", err)
		return nil, &Fault{ErrServerInternal, "The signing key of borrowed licences is not available; the agent's " +
			"log says more."}
	}
	if der, ok := h.Store().Get(keyKey); ok {
		k, err := x509.ParsePKCS8PrivateKey(der)
		if key, ok := k.(*rsa.PrivateKey); ok && err == nil {
			return key, nil
		}
		return broken(fmt.Errorf("the store's %s is no RSA key", keyKey))
	}
	key, err := rsa.GenerateKey(rand.Reader, keyBits)
	if err != nil {
		return broken(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err == nil {
		err = h.Store().Apply(plugin.Change{Key: keyKey, Value: der, If: true})
	}
	if err != nil {
		return broken(err)
	}
	h.Log().Info("made a key to sign borrowed licences", "bits", keyBits, "public", SigningKeyPath)
	return key, nil
}

// publishKey answers with the public key.
func (h *local) publishKey(w http.ResponseWriter) {
	key, f := h.signingKey()
	var der []byte
	if f == nil {
		var err error
		if der, err = x509.MarshalPKIXPublicKey(&key.PublicKey); err != nil {
			f = &Fault{ErrServerInternal, err.Error()}
		}
	}
	if f != nil {
		http.Error(w, f.Message, f.Status())
		return
	}
	w.Header().Set("Content-Type", "application/x-pem-file")
	_ = pem.Encode(w, &pem.Block{Type: "PUBLIC KEY", Bytes: der}) // the caller may be gone
}
