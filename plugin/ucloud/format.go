package ucloud

import (
	"bytes"
	"crypto/ed25519"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/go-json-experiment/json"

	"github.com/usher-agent/usher/enforcer"
	"github.com/usher-agent/usher/plugin"
)

// Type is the typ of a companion document's header (RFC 7515 §4.1.9).
const Type = "ucloud-license+jwt"

// Algorithm is the algorithm of every anchor.
const Algorithm = "EdDSA"

// Format reads companion documents: a compact JWS (RFC 7515) with EdDSA (RFC 8037), whose body is [Claims]. The
// document states the slots of a licence resource, which UCloud does not.
type Format struct{}

var _ plugin.Format = Format{}

// Claims is the body of a companion document. Times are seconds since 1970, durations whole seconds.
type Claims struct {
	ID       string `json:"jti"`
	Issuer   string `json:"iss,omitzero"`
	Product  string `json:"product"` // the agent's product
	Licensee string `json:"licensee,omitzero"`
	Issued   int64  `json:"iat"`
	Start    int64  `json:"nbf,omitzero"`
	Expires  int64  `json:"exp,omitzero"` // absent: perpetual
	// Resource is the product at UCloud whose licence resource the document belongs to.
	Resource ProductRef `json:"resource"`
	// Pools are the slots by the names of pools.
	Pools       map[string]PoolClaim `json:"pools"`
	CheckIn     *PeriodClaim         `json:"check_in,omitzero"`
	Grace       int64                `json:"grace_seconds,omitzero"`
	OnExpiry    string               `json:"on_expiry,omitzero"`
	Environment string               `json:"environment,omitzero"`
	Supersedes  []string             `json:"supersedes,omitzero"`
	AgentKeys   []string             `json:"agent_keys,omitzero"` // RFC 7638 thumbprints
	// LicenseID is the id of the one licence resource that counts; absent: any of the resource's product.
	LicenseID string `json:"license_id,omitzero"`
}

// PoolClaim is the slots of a pool.
type PoolClaim struct {
	Max   *int64 `json:"max"` // null: unlimited
	Unit  string `json:"unit,omitzero"`
	Scope string `json:"scope,omitzero"`
}

// PeriodClaim is how often the resource is looked at, and how much later that may be.
type PeriodClaim struct {
	Every int64 `json:"every_seconds"`
	Grace int64 `json:"grace_seconds,omitzero"`
}

type header struct {
	Algorithm string   `json:"alg"`
	KeyID     string   `json:"kid"`
	Type      string   `json:"typ"`
	Critical  []string `json:"crit,omitzero"`
}

// System returns "ucloud".
func (Format) System() string { return System }

// Recognise reports whether the bytes begin like a companion document.
func (Format) Recognise(document []byte) bool {
	if len(document) > plugin.MaxDocument {
		return false
	}
	head, _, _ := strings.Cut(strip(document), ".")
	head = head[:min(len(head), 1024)]
	b, _ := base64.RawURLEncoding.DecodeString(head[:len(head)/4*4])
	if b == nil {
		b, _ = base64.RawURLEncoding.DecodeString(head)
	}
	return bytes.HasPrefix(bytes.TrimSpace(b), []byte("{")) && bytes.Contains(b, []byte("ucloud-license"))
}

// strip takes off what mail and editors add: a byte order mark, line breaks and indentation. None of it is signed.
func strip(document []byte) string {
	return strings.Join(strings.Fields(string(bytes.TrimPrefix(document, []byte("\xef\xbb\xbf")))), "")
}

func problem(code enforcer.Code, hint, format string, args ...any) *enforcer.Problem {
	return &enforcer.Problem{System: System, Code: code, Reason: fmt.Sprintf(format, args...), Hint: hint}
}

func malformed(format string, args ...any) *enforcer.Problem {
	return problem(enforcer.Malformed, "copy the whole file again, as the vendor sent it", format, args...)
}

// Verify checks a companion document; see [plugin.Format]. One whose signature is not believed comes back with both its
// unverified terms and the problem.
func (Format) Verify(document []byte, anchors []plugin.Anchor) (*enforcer.License, *enforcer.Problem) {
	if len(document) > plugin.MaxDocument {
		return nil, malformed("it has %d bytes; a document has at most %d", len(document), plugin.MaxDocument)
	}
	parts := strings.Split(strip(document), ".")
	if len(parts) != 3 {
		return nil, malformed("it has %d of the 3 parts of a signed document: it has been cut off", len(parts))
	}
	var raw [3][]byte
	for i, p := range parts {
		b, err := base64.RawURLEncoding.Strict().DecodeString(p)
		if err != nil {
			return nil, malformed("its %s is not base64url: it has been changed on the way",
				[3]string{"header", "body", "signature"}[i])
		}
		raw[i] = b
	}
	var h header
	if err := json.Unmarshal(raw[0], &h, json.RejectUnknownMembers(true)); err != nil {
		return nil, malformed("its header cannot be read: %v", plugin.JSONFault(err, "member"))
	}
	if h.Type != Type || h.Critical != nil {
		return nil, malformed("its header is not that of a %s", Type)
	}
	var c Claims
	var terms map[string]any
	err := json.Unmarshal(raw[1], &c, json.RejectUnknownMembers(true))
	if err == nil {
		err = json.Unmarshal(raw[1], &terms)
	}
	if err == nil {
		err = c.checkZeros(terms)
	}
	anchor, p := believe(parts[0]+"."+parts[1], raw[2], h, anchors)
	switch {
	case err != nil && p != nil:
		return nil, p
	case err != nil:
		return nil, problem(enforcer.Malformed, "ask the vendor for a corrected one", "%v",
			plugin.JSONFault(err, "claim"))
	}
	l := c.license(terms)
	l.KeyID = h.KeyID
	if err := cmpErr(c.check(), l.Validate()); err != nil {
		if p != nil {
			return nil, p
		}
		return nil, problem(enforcer.Malformed, "ask the vendor for a corrected one", "%v", err)
	}
	if p == nil {
		p = inTime(anchor, l)
	}
	if p != nil {
		return l, p
	}
	l.AnchorEnvironment = anchor.Environment
	return l, nil
}

func cmpErr(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

// believe finds the anchor that the header names, and checks the signature with it.
func believe(input string, sig []byte, h header, anchors []plugin.Anchor) (plugin.Anchor, *enforcer.Problem) {
	var known []string
	for _, a := range anchors {
		if a.System != System {
			continue
		}
		known = append(known, a.KeyID)
		if a.KeyID != h.KeyID {
			continue
		}
		key, ok := a.Key.(ed25519.PublicKey)
		switch {
		case h.Algorithm != Algorithm || a.Algorithm != Algorithm || !ok:
			return a, problem(enforcer.BadSignature, "ask the vendor for a corrected one",
				"its header says the algorithm %q, and key %q is for %s; the key decides", plugin.Short(h.Algorithm),
				a.KeyID, Algorithm)
		case !ed25519.Verify(key, []byte(input), sig):
			return a, problem(enforcer.BadSignature, "copy the whole file again, as the vendor sent it",
				"its signature does not match its contents: it has been changed, or was not signed by key %q", a.KeyID)
		case a.Revoked:
			return a, problem(enforcer.UntrustedKey, "ask the vendor for one signed by another key",
				"signed by key %q, which is revoked", a.KeyID)
		}
		return a, nil
	}
	slices.Sort(known)
	if known == nil {
		known = []string{"none"}
	}
	return plugin.Anchor{}, problem(enforcer.UntrustedKey, "ask the vendor for the public key",
		"signed by key %q, which is not in trust (known: %s); add it under license.trust", plugin.Short(h.KeyID),
		strings.Join(known, ", "))
}

// inTime checks that the anchor was good when the document was issued.
func inTime(a plugin.Anchor, l *enforcer.License) *enforcer.Problem {
	if !a.NotBefore.IsZero() && l.Issued.Before(a.NotBefore) || !a.NotAfter.IsZero() && l.Issued.After(a.NotAfter) {
		return problem(enforcer.UntrustedKey, "ask the vendor for one signed by a key that is good now",
			"issued %s, outside the time of key %q", l.Issued.Format(time.DateOnly), a.KeyID)
	}
	return nil
}

func (c *Claims) check() error {
	switch {
	case c.ID == "" || c.Product == "" || c.Issued <= 0:
		return fmt.Errorf("it lacks jti, product or iat")
	case c.Resource.ID == "" || c.Resource.Category == "" || c.Resource.Provider == "":
		return fmt.Errorf("resource needs id, category and provider")
	case len(c.Pools) == 0:
		return fmt.Errorf("it states no pools")
	}
	for _, n := range []int64{c.Grace, c.Start, c.Expires} {
		if n < 0 {
			return fmt.Errorf("a date or a span is negative")
		}
	}
	for name, p := range c.Pools {
		if p.Max != nil && *p.Max < 0 {
			return fmt.Errorf("pool %s has a negative max", plugin.Short(name))
		}
	}
	if p := c.CheckIn; p != nil && (p.Every < 60 || p.Every > maxSeconds || p.Grace < 0 || p.Grace > maxSeconds) {
		return fmt.Errorf("check_in must be every 60 seconds to 10 years")
	}
	if c.Grace > maxSeconds || c.Issued > maxDate || c.Start > maxDate || c.Expires > maxDate {
		return fmt.Errorf("a date or a span is too large")
	}
	return nil
}

const (
	maxSeconds = 10 * 366 * 24 * 3600
	maxDate    = 253402300799 // the end of 9999
)

// checkZeros reports a claim that states nothing, and would read as one that is absent: no end, no binding.
func (c *Claims) checkZeros(terms map[string]any) error {
	for name, zero := range map[string]bool{"exp": c.Expires == 0, "nbf": c.Start == 0,
		"agent_keys": len(c.AgentKeys) == 0, "license_id": c.LicenseID == "", "check_in": c.CheckIn == nil,
		"environment": c.Environment == "", "on_expiry": c.OnExpiry == ""} {
		if _, stated := terms[name]; stated && zero {
			return fmt.Errorf("claim %q states nothing; leave it out where none is meant", name)
		}
	}
	pools, _ := terms["pools"].(map[string]any)
	for name, v := range pools {
		p, _ := v.(map[string]any)
		if _, stated := p["max"]; !stated {
			return fmt.Errorf("pool %s states no max; null is unlimited", plugin.Short(name))
		}
	}
	return nil
}

func (c *Claims) license(terms map[string]any) *enforcer.License {
	date := func(s int64) time.Time {
		if s <= 0 || s > maxDate {
			return time.Time{}
		}
		return time.Unix(s, 0).UTC()
	}
	span := func(s int64) time.Duration { return time.Duration(min(max(s, 0), maxSeconds)) * time.Second }
	l := &enforcer.License{ID: c.ID, System: System, Product: c.Product, Licensee: c.Licensee, Issuer: c.Issuer,
		Issued: date(c.Issued), NotBefore: date(c.Start), Expires: date(c.Expires),
		Environment: enforcer.Environment(c.Environment), Supersedes: c.Supersedes, AgentKeys: c.AgentKeys,
		Grace: span(c.Grace), OnExpiry: enforcer.OnExpiry(c.OnExpiry), Terms: terms,
		Pools: map[string]enforcer.PoolTerm{}}
	for name, p := range c.Pools {
		most := enforcer.Unlimited
		if p.Max != nil {
			most = enforcer.Limit(max(*p.Max, 0))
		}
		l.Pools[name] = enforcer.PoolTerm{Max: most, Unit: p.Unit, Scope: enforcer.Scope(p.Scope)}
	}
	if c.CheckIn != nil {
		l.CheckIn = enforcer.Period{Every: span(c.CheckIn.Every), Grace: span(c.CheckIn.Grace)}
	}
	return l
}

// claimsOf returns the claims of a document that has been verified.
func claimsOf(document []byte) (*Claims, error) {
	parts := strings.Split(strip(document), ".")
	if len(parts) != 3 {
		return nil, fmt.Errorf("it is no companion document")
	}
	b, err := base64.RawURLEncoding.Strict().DecodeString(parts[1])
	if err != nil {
		return nil, fmt.Errorf("its body is not base64url")
	}
	c := &Claims{}
	return c, json.Unmarshal(b, c)
}

// Sign makes a companion document.
func Sign(c *Claims, keyID string, key ed25519.PrivateKey) ([]byte, error) {
	if err := c.check(); err != nil {
		return nil, err
	}
	head, err := json.Marshal(header{Algorithm: Algorithm, KeyID: keyID, Type: Type})
	if err != nil {
		return nil, err
	}
	body, err := json.Marshal(c, json.Deterministic(true))
	if err != nil {
		return nil, err
	}
	b64 := base64.RawURLEncoding.EncodeToString
	input := b64(head) + "." + b64(body)
	return []byte(input + "." + b64(ed25519.Sign(key, []byte(input))) + "\n"), nil
}

// NewAnchor makes an anchor of an Ed25519 public key in PEM (PKIX). alg is empty or EdDSA.
func NewAnchor(keyID string, key []byte, alg string) (plugin.Anchor, error) {
	if keyID == "" || len(keyID) > 256 {
		return plugin.Anchor{}, fmt.Errorf("key %q: its id is empty or longer than 256 bytes", plugin.Short(keyID))
	}
	if alg != "" && alg != Algorithm {
		return plugin.Anchor{}, fmt.Errorf("key %q: algorithm %s; companion documents are signed with %s", keyID,
			plugin.Short(alg), Algorithm)
	}
	block, _ := pem.Decode(key)
	if block == nil || block.Type != "PUBLIC KEY" {
		return plugin.Anchor{}, fmt.Errorf("key %q: it is no public key in PEM (-----BEGIN PUBLIC KEY-----)", keyID)
	}
	public, err := x509.ParsePKIXPublicKey(block.Bytes)
	if err != nil {
		return plugin.Anchor{}, fmt.Errorf("key %q: its contents are not a public key", keyID)
	}
	ed, ok := public.(ed25519.PublicKey)
	if !ok {
		return plugin.Anchor{}, fmt.Errorf("key %q: it is a %T; companion documents are signed with Ed25519", keyID,
			public)
	}
	return plugin.Anchor{System: System, KeyID: keyID, Algorithm: Algorithm, Key: ed}, nil
}
