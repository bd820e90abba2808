package usher

import (
	"bytes"
	"cmp"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"encoding/base64"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/usher-agent/usher/enforcer"
	"github.com/usher-agent/usher/plugin"
)

// Format is the native licence format. Its zero value is ready.
type Format struct{}

var _ plugin.Format = Format{}

// System returns "usher".
func (Format) System() string { return System }

// Recognise reports whether the bytes are, or once were, a native document.
func (Format) Recognise(document []byte) bool {
	if len(document) > plugin.MaxDocument {
		return false
	}
	if bytes.Contains(document, []byte(armourBegin)) || bytes.Contains(document, []byte(armourEnd)) {
		return true
	}
	compact, _ := unarmour(document)
	head, _, _ := strings.Cut(compact, ".")
	head = head[:min(len(head), 1024)]
	// However broken the rest is, the first whole groups of the header decode by themselves.
	b, _ := base64.RawURLEncoding.DecodeString(head[:len(head)/4*4])
	if b == nil {
		b, _ = base64.RawURLEncoding.DecodeString(head)
	}
	return bytes.HasPrefix(bytes.TrimSpace(b), []byte("{")) && bytes.Contains(b, []byte("usher-license"))
}

// header is the protected header (RFC 7515 §4).
type header struct {
	Algorithm string   `json:"alg"`
	Type      string   `json:"typ"`
	KeyID     string   `json:"kid"`
	Critical  []string `json:"crit"`
}

// Verify checks a document against the anchors; see [plugin.Format]. A document whose signature is not believed
// (UNTRUSTED_KEY, BAD_SIGNATURE) comes back with both its unverified terms and the problem.
func (Format) Verify(document []byte, anchors []plugin.Anchor) (*enforcer.License, *enforcer.Problem) {
	if len(document) > plugin.MaxDocument {
		return nil, malformed("", "it has %d bytes; a licence document has at most %d (1 MiB)", len(document),
			plugin.MaxDocument)
	}
	compact, problem := strip(document)
	if problem != "" {
		return nil, malformed("", "%s", problem)
	}
	parts := strings.Split(compact, ".")
	if len(parts) != 3 {
		return nil, malformed("copy the whole file again, as the vendor sent it",
			"it has %d of the 3 parts of a signed licence: it has been cut off or joined with something else",
			len(parts))
	}
	var raw [3][]byte
	for i, p := range parts {
		// Decode strictly, without the line breaks that decoding would skip: one document has one spelling.
		b, err := base64.RawURLEncoding.Strict().DecodeString(p)
		if err != nil || strings.ContainsAny(p, "\r\n") {
			return nil, malformed("copy the whole file again, as the vendor sent it",
				"its %s is not base64url: it has been changed on the way", [3]string{"header", "body", "signature"}[i])
		}
		raw[i] = b
	}
	var h header
	if err := json.Unmarshal(raw[0], &h); err != nil {
		return nil, malformed("", "its header cannot be read: %v", plugin.JSONFault(err, "claim"))
	}
	switch {
	case h.Type != Type:
		return nil, malformed("", "its header says it is a %q, not a %q", plugin.Short(h.Type), Type)
	case len(h.Critical) > 0:
		return nil, malformed("update the agent, or ask the vendor for a licence without it",
			"it demands %q, which this version does not know", plugin.Short(strings.Join(h.Critical, ", ")))
	case bytes.Contains(raw[0], []byte(`"crit"`)):
		return nil, malformed("", "its header has an empty crit, which RFC 7515 forbids")
	}
	var terms map[string]any
	claims, err := ParseClaims(raw[1], false)
	if err == nil {
		terms, err = readTerms(raw[1])
	}
	if err != nil {
		// Only a signed body deserves the more precise word.
		if _, p := believe(compact, h, anchors); p != nil {
			return nil, p
		}
		return nil, malformed("ask the vendor for a corrected one", "%v", err)
	}
	license := claims.license(terms)
	license.KeyID = h.KeyID
	anchor, p := believe(compact, h, anchors)
	if p != nil {
		return license, p
	}
	if p := inTime(anchor, license); p != nil {
		return license, p
	}
	license.AnchorEnvironment = anchor.Environment
	return license, nil
}

// longTerm is how many bytes a list of pools or meters has that stays a text in the terms.
const longTerm = 4 << 10

// readTerms reads everything that the body of a document says.
func readTerms(body []byte) (terms map[string]any, err error) {
	if err := json.Unmarshal(body, &terms); err != nil {
		return nil, err
	}
	if len(body) < longTerm {
		return terms, nil
	}
	var parts struct {
		Pools  jsontext.Value `json:"pools"`
		Meters jsontext.Value `json:"meters"`
	}
	if err := json.Unmarshal(body, &parts); err != nil {
		return nil, err
	}
	for name, text := range map[string]jsontext.Value{"pools": parts.Pools, "meters": parts.Meters} {
		if len(text) < longTerm {
			continue
		}
		if err := text.Compact(); err != nil {
			return nil, err
		}
		terms[name] = enforcer.Text(text)
	}
	return terms, nil
}

// believe finds the anchor that the header names and checks the signature with it.
func believe(compact string, h header, anchors []plugin.Anchor) (plugin.Anchor, *enforcer.Problem) {
	var known []string
	i := -1
	for k, a := range anchors {
		if a.System != System {
			continue
		}
		if a.KeyID == h.KeyID {
			i = k
		}
		known = append(known, a.KeyID)
	}
	if i < 0 {
		slices.Sort(known)
		mend := "add it under license.trust"
		if slices.ContainsFunc(anchors, func(a plugin.Anchor) bool { return a.Embedded }) {
			mend = "this agent is built for those alone: have the vendor sign the licence with one of them"
		}
		return plugin.Anchor{}, &enforcer.Problem{System: System, Code: enforcer.UntrustedKey,
			Reason: fmt.Sprintf("signed by key %q, which is not in trust (known: %s); %s", plugin.Short(h.KeyID),
				orNone(known), mend),
			Hint: "ask the vendor for the public key, or for a licence signed by a key that is known"}
	}
	a := anchors[i]
	bad := func(format string, args ...any) (plugin.Anchor, *enforcer.Problem) {
		return plugin.Anchor{},
			&enforcer.Problem{System: System, Code: enforcer.BadSignature, Reason: fmt.Sprintf(format, args...),
				Hint: "copy the whole file again, as the vendor sent it"}
	}
	if h.Algorithm != a.Algorithm {
		return bad("its header says the algorithm %q, and key %q is for %s; the key decides", plugin.Short(h.Algorithm),
			a.KeyID, a.Algorithm)
	}
	alg := jose.SignatureAlgorithm(a.Algorithm)
	if !slices.Contains(Algorithms(), a.Algorithm) {
		return bad("key %q is for the algorithm %q, which licences are not signed with", a.KeyID,
			plugin.Short(a.Algorithm))
	}
	jws, err := jose.ParseSignedCompact(compact, []jose.SignatureAlgorithm{alg})
	if err != nil {
		return bad("it is not a signed licence that can be checked")
	}
	if _, err := jws.Verify(a.Key); err != nil {
		return bad("its signature does not match what it says: it has been changed, or was not signed by key %q",
			a.KeyID)
	}
	if a.Revoked {
		return plugin.Anchor{}, &enforcer.Problem{System: System, Code: enforcer.UntrustedKey,
			Reason: fmt.Sprintf("signed by key %q, which is revoked", a.KeyID),
			Hint:   "ask the vendor for a licence signed by another key"}
	}
	return a, nil
}

// Open verifies a compact JWS that is no licence (an upstream's reply) with the anchors, and returns its payload. typ
// is the type that its header must name (RFC 7515 §4.1.9), so that one kind never passes for another.
func Open(token, typ string, anchors []plugin.Anchor) ([]byte, plugin.Anchor, *enforcer.Problem) {
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		return nil, plugin.Anchor{}, malformed("", "it has %d of the 3 parts of a signed message", len(parts))
	}
	var raw [2][]byte
	for i := range raw {
		b, err := base64.RawURLEncoding.Strict().DecodeString(parts[i])
		if err != nil {
			return nil, plugin.Anchor{}, malformed("", "it is not base64url")
		}
		raw[i] = b
	}
	var h header
	if err := json.Unmarshal(raw[0], &h); err != nil || h.Type != typ || bytes.Contains(raw[0], []byte(`"crit"`)) {
		return nil, plugin.Anchor{}, malformed("", "its header is not that of a %s", typ)
	}
	a, p := believe(token, h, anchors)
	return raw[1], a, p
}

// inTime checks that the anchor was good when the document was issued.
func inTime(a plugin.Anchor, l *enforcer.License) *enforcer.Problem {
	outside := func(format string, args ...any) *enforcer.Problem {
		return &enforcer.Problem{System: System, Code: enforcer.UntrustedKey, Reason: fmt.Sprintf(format, args...),
			Hint: "ask the vendor for a licence signed by a key that is good now"}
	}
	const day = "2006-01-02"
	switch {
	case !a.NotBefore.IsZero() && l.Issued.Before(a.NotBefore):
		return outside("issued %s, but key %q signs only from %s on", l.Issued.Format(day), a.KeyID,
			a.NotBefore.UTC().Format(day))
	case !a.NotAfter.IsZero() && l.Issued.After(a.NotAfter):
		return outside("issued %s, but key %q signs only until %s", l.Issued.Format(day), a.KeyID,
			a.NotAfter.UTC().Format(day))
	}
	return nil
}

func malformed(hint, format string, args ...any) *enforcer.Problem {
	return &enforcer.Problem{System: System, Code: enforcer.Malformed, Reason: fmt.Sprintf(format, args...), Hint: hint}
}

func orNone(names []string) string {
	if len(names) == 0 {
		return "none"
	}
	return strings.Join(names, ", ")
}

// Algorithms returns the algorithms that an anchor may state (RFC 7518, RFC 8037).
func Algorithms() []string { return []string{"EdDSA", "ES256", "PS256", "RS256"} }

// AlgorithmFor returns the algorithm of a public key where none is stated: EdDSA for Ed25519, ES256 for P-256, PS256
// for RSA of 2048 bits and more. stated may choose RS256 for RSA; anything that does not fit the key is an error.
func AlgorithmFor(key crypto.PublicKey, stated string) (string, error) {
	var fits []string
	switch k := key.(type) {
	case ed25519.PublicKey:
		fits = []string{"EdDSA"}
	case *ecdsa.PublicKey:
		if k.Curve != elliptic.P256() {
			return "", fmt.Errorf("an ECDSA key on curve %s; licences are signed on P-256 (ES256)",
				k.Curve.Params().Name)
		}
		fits = []string{"ES256"}
	case *rsa.PublicKey:
		if bits := k.N.BitLen(); bits < 2048 {
			return "", fmt.Errorf("an RSA key of %d bits; at least 2048 are needed", bits)
		}
		fits = []string{"PS256", "RS256"}
	default:
		return "", fmt.Errorf("a key of type %T; licences are signed with Ed25519, ECDSA P-256 or RSA", key)
	}
	if stated == "" {
		return fits[0], nil
	}
	if !slices.Contains(fits, stated) {
		return "", fmt.Errorf("algorithm %s does not fit the key, which is for %s", plugin.Short(stated),
			strings.Join(fits, " or "))
	}
	return stated, nil
}

// Sign writes claims as a compact document, signed for the anchor keyID with alg. The claims are checked first.
func Sign(c *Claims, keyID, alg string, sign func(input []byte) (signature []byte, err error)) ([]byte, error) {
	if err := c.check(); err != nil {
		return nil, err
	}
	head, err := json.Marshal(struct {
		Algorithm string `json:"alg"`
		KeyID     string `json:"kid"`
		Type      string `json:"typ"`
	}{alg, keyID, Type})
	if err != nil {
		return nil, fmt.Errorf("write the header: %w", err)
	}
	body, err := c.encode()
	if err != nil {
		return nil, err
	}
	b64 := base64.RawURLEncoding.EncodeToString
	input := []byte(b64(head) + "." + b64(body))
	sig, err := sign(input)
	if err != nil {
		return nil, err
	}
	out := append(append(input, '.'), b64(sig)...)
	if len(out) > plugin.MaxDocument {
		return nil, fmt.Errorf("the licence has %d bytes; at most %d (1 MiB) are read", len(out), plugin.MaxDocument)
	}
	return out, nil
}

// encode writes the claims, the vendor's own last.
func (c *Claims) encode() ([]byte, error) {
	b, err := json.Marshal(c, json.Deterministic(true))
	if err != nil {
		return nil, fmt.Errorf("write the claims: %w", err)
	}
	for _, name := range slices.Sorted(maps.Keys(c.Extra)) {
		k, err := json.Marshal(name)
		if err != nil {
			return nil, fmt.Errorf("write claim %s: %w", plugin.Short(name), err)
		}
		b = append(append(append(append(b[:len(b)-1], ','), k...), ':'), c.Extra[name]...)
		b = append(b, '}')
	}
	return b, nil
}

// Body returns a document's claims, byte by byte as they were signed. It verifies nothing: see [Format.Verify].
func Body(document []byte) ([]byte, error) {
	compact, problem := strip(document)
	if problem != "" {
		return nil, errors.New(problem)
	}
	parts := strings.Split(compact, ".")
	if len(parts) != 3 {
		return nil, fmt.Errorf("it has %d of the 3 parts of a signed licence", len(parts))
	}
	b, err := base64.RawURLEncoding.Strict().DecodeString(parts[1])
	if err != nil {
		return nil, errors.New("its body is not base64url")
	}
	return b, nil
}

// Describe returns the contents of a document without believing it, for people who look at a file; nil: it cannot be
// read.
func Describe(document []byte) *enforcer.License {
	l, _ := Format{}.Verify(document, nil)
	return l
}

// DateOf turns a time into a claim's date; the zero time alone becomes 0, which states none.
func DateOf(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return cmp.Or(t.Unix(), 1)
}
