package awslm

import (
	"crypto"
	"crypto/hmac"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"

	"github.com/go-json-experiment/json"

	"github.com/usher-agent/usher/enforcer"
	"github.com/usher-agent/usher/plugin"
)

// claims is the payload of a borrowed licence's SignedToken. It has no registered claims (exp, iat, …), so a stock JWT
// library would not enforce its end.
type claims struct {
	LicenseArn              string            `json:"licenseArn"`
	LicenseConsumptionToken string            `json:"licenseConsumptionToken"`
	EntitlementsAllowed     []allowed         `json:"entitlementsAllowed"`
	NodeID                  string            `json:"nodeId"`
	IssuedAt                string            `json:"issuedAt"`
	Expiration              string            `json:"expiration"`
	CheckoutMetadata        map[string]string `json:"checkoutMetadata"`
}

type allowed struct {
	Name  string `json:"name"`
	Value string `json:"value"`
	Unit  string `json:"unit"`
}

// ProductKey is the metadata with which the agent's borrows name their product. The borrower chooses it, so it can only
// narrow the anchor's product.
const ProductKey = "usher.product"

// NodeComponent is the component of the fingerprint that a NodeId must match unless it is an agent key's thumbprint.
// host.components in the configuration sets it.
const NodeComponent = "node-id"

// header is the header of a SignedToken. Members other than these are ignored.
type header struct {
	Algorithm string `json:"alg"`
	Type      string `json:"typ"`
	KeyID     string `json:"kid"`
	Critical  any    `json:"crit"`
}

// borrowedLicense turns the claims into a licence. product is the anchor's.
func borrowedLicense(payload []byte, product string) (*enforcer.License, error) {
	var c claims
	var all map[string]any
	if err := json.Unmarshal(payload, &c); err != nil {
		return nil, plugin.JSONFault(err, "member")
	}
	if err := json.Unmarshal(payload, &all); err != nil {
		return nil, plugin.JSONFault(err, "member")
	}
	switch {
	case arn(c.LicenseArn) != nil:
		return nil, errors.New("its licenseArn is not that of a licence")
	case len(c.EntitlementsAllowed) == 0:
		return nil, errors.New("it allows no entitlement")
	case c.NodeID == "":
		return nil, errors.New("it is bound to no node, so every copy would count")
	case c.Expiration == "":
		return nil, errors.New("it does not say when it expires")
	}
	if p := c.CheckoutMetadata[ProductKey]; p != "" {
		product = p
	}
	out := &enforcer.License{ID: c.LicenseArn, System: System, Product: product, Terms: all}
	var err error
	if out.Issued, err = ParseTime(c.IssuedAt); err != nil {
		return nil, fmt.Errorf("its issuedAt: %w", err)
	}
	if out.Expires, err = ParseTime(c.Expiration); err != nil {
		return nil, fmt.Errorf("its expiration: %w", err)
	}
	out.NotBefore = out.Issued
	if !out.Expires.After(out.NotBefore) {
		return nil, errors.New("it expires before it was issued")
	}
	bind(out, c.NodeID)
	return out, c.addEntitlements(out)
}

// bind binds a licence to a node. A thumbprint binds it to the agent with that key, any other name to the host that is
// configured with it.
func bind(l *enforcer.License, node string) {
	if b, err := base64.RawURLEncoding.Strict().DecodeString(node); err == nil && len(b) == sha256.Size {
		l.AgentKeys = []string{node}
		return
	}
	l.Hosts = []enforcer.HostBinding{{Name: clip(node, 128), Strategy: enforcer.MatchAll,
		Components: map[string][]string{NodeComponent: {keyed(l.Product, NodeComponent,
			strings.ToLower(strings.TrimSpace(node)))}}}}
}

// keyed returns a component's value by docs/fingerprint.md.
func keyed(product, name, value string) string {
	m := hmac.New(sha256.New, padded(product))
	m.Write([]byte("usher-fingerprint/1\x00" + name + "\x00" + value))
	return hex.EncodeToString(m.Sum(nil))
}

// padded returns a name as a key of HMAC-SHA-256. HMAC itself appends the zeros (RFC 2104 §2), so that they change no
// value. The name is no secret: it keeps apart what belongs to different names. GODEBUG=fips140=only takes no short
// key.
func padded(name string) []byte {
	return append([]byte(name), make([]byte, max(0, sha256.BlockSize-len(name)))...)
}

func (c *claims) addEntitlements(out *enforcer.License) error {
	t := termSet{out, map[string]bool{}}
	for _, e := range c.EntitlementsAllowed {
		name, err := t.name(e.Name)
		if err != nil {
			return err
		}
		kind := KindOf(e.Unit)
		if kind == KindFeature {
			out.Features[name] = featureOf(e.Value)
			continue
		}
		n, err := ParseValue(e.Value)
		if err != nil {
			return fmt.Errorf("entitlement %q: its value %w", plugin.Short(e.Name), err)
		}
		most := enforcer.Limit(min(n, int64(enforcer.MaxCount)))
		switch kind {
		case KindSlots: // borrowed slots belong to this node alone
			out.Pools[name] = enforcer.PoolTerm{Max: most, Scope: enforcer.ScopeHost}
		case KindAmount:
			out.Meters[name] = enforcer.MeterTerm{Max: most, Scope: enforcer.ScopeHost, Unit: e.Unit}
		case KindRate:
			out.Features[name] = enforcer.Value{Kind: enforcer.KindNumber, Number: float64(n), Unit: e.Unit}
		}
	}
	return nil
}

// believeToken finds the seller's key that signed a token. The token names no key, so it tries each.
func believeToken(input, signature []byte, anchors []plugin.Anchor) (plugin.Anchor, *enforcer.Problem) {
	digest := sha512.Sum384(input)
	tried := []string{}
	for _, a := range anchors {
		key, ok := a.Key.(*rsa.PublicKey)
		if a.System != System || a.Algorithm != AlgorithmPS384 || !ok {
			continue
		}
		tried = append(tried, clip(a.KeyID, 80))
		// PS384 demands a salt as long as the hash (RFC 7518 §3.5).
		if rsa.VerifyPSS(key, crypto.SHA384, digest[:], signature,
			&rsa.PSSOptions{SaltLength: sha512.Size384, Hash: crypto.SHA384}) == nil {
			return a, revoked(a)
		}
	}
	if len(tried) == 0 {
		return plugin.Anchor{}, &enforcer.Problem{System: System, Code: enforcer.UntrustedKey,
			Reason: "it is a borrowed licence, and license.trust has no seller's key",
			Hint:   "add the seller's public key under license.trust, with system awslm and the ProductSKU as kid"}
	}
	return plugin.Anchor{}, &enforcer.Problem{System: System, Code: enforcer.BadSignature,
		Reason: fmt.Sprintf(
			"no key in trust verifies its signature (tried: %s): it has been changed, or another seller signed it",
			strings.Join(tried[:min(len(tried), 5)], ", ")),
		Hint: "copy the whole token again"}
}
