package keygen

import (
	"bytes"
	"cmp"
	"encoding/asn1"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/go-json-experiment/json"

	"github.com/usher-agent/usher/plugin"
)

// The schemes of signatures: Keygen's names for those of licence keys (docs: API, Policies, scheme), and one of ours
// for licence and machine files.
const (
	schemeFile    = "FILE"
	schemeEd25519 = "ED25519_SIGN"
	schemeECDSA   = "ECDSA_P256_SIGN"
	schemePSS2    = "RSA_2048_PKCS1_PSS_SIGN_V2"
	schemeRSA2    = "RSA_2048_PKCS1_SIGN_V2"
	schemeJWT     = "RSA_2048_JWT_RS256"
	schemePSS     = "RSA_2048_PKCS1_PSS_SIGN"
	schemeRSA     = "RSA_2048_PKCS1_SIGN"
	schemeEncrypt = "RSA_2048_PKCS1_ENCRYPT"
)

// Schemes returns the schemes that an algorithm can serve.
func Schemes(alg string) []string {
	switch alg {
	case algEd25519:
		return []string{schemeFile, schemeEd25519}
	case algECDSA:
		return []string{schemeFile, schemeECDSA}
	case algPSS:
		return []string{schemeFile, schemePSS2, schemePSS}
	case algRSA:
		return []string{schemeFile, schemeRSA2, schemeJWT, schemeRSA, schemeEncrypt}
	default:
		return nil
	}
}

// NameSchemes limits an anchor to schemes; none means all that its algorithm serves.
func NameSchemes(a *plugin.Anchor, schemes []string) error {
	all := Schemes(a.Algorithm)
	for _, s := range schemes {
		if !slices.Contains(all, s) {
			return fmt.Errorf("key %q: scheme %s does not fit a key of %s (known: %s)", a.KeyID, plugin.Short(s),
				a.Algorithm, strings.Join(all, ", "))
		}
	}
	a.Schemes = slices.Clone(schemes)
	return nil
}

// serves reports whether an anchor is believed for a scheme.
func serves(a plugin.Anchor, scheme string) bool {
	if len(a.Schemes) > 0 {
		return slices.Contains(a.Schemes, scheme)
	}
	return slices.Contains(Schemes(a.Algorithm), scheme)
}

// schemeOf returns the scheme of a signed key. Where the key's form leaves it open, the anchor's algorithm decides.
func (k *signed) schemeOf(alg string) string {
	if k.scheme != "SIGN" && k.scheme != "RSA_2048_SIGN" {
		return k.scheme
	}
	bare := k.scheme != "SIGN"
	switch alg {
	case algEd25519:
		return schemeEd25519
	case algECDSA:
		return schemeECDSA
	case algPSS:
		return map[bool]string{false: schemePSS2, true: schemePSS}[bare]
	default:
		return map[bool]string{false: schemeRSA2, true: schemeRSA}[bare]
	}
}

// others matches the beginning of texts that Keygen's servers sign with the same keys for other purposes: files, keys
// of the present schemes, answers and webhooks.
var others = regexp.MustCompile(`^\s*(?i:license/|machine/|key/|\(request-target\)|keygen-)`)

// foreignText names a text that Keygen signs for another purpose; empty: the text is none. The old schemes sign a bare
// dataset. Without this check anybody could present such a signature as a licence key without an end.
func foreignText(data []byte) string {
	var info asn1.RawValue
	if rest, err := asn1.Unmarshal(data, &info); err == nil && len(rest) == 0 && info.Class == asn1.ClassUniversal &&
		info.Tag == asn1.TagSequence && info.IsCompound {
		return "the digest of a signature (DigestInfo)"
	}
	if others.Match(data) {
		return "the text of a file, of a key of another scheme, or of an answer"
	}
	head, _, dotted := bytes.Cut(bytes.TrimSpace(data), []byte("."))
	if b, ok := unbase64url(string(head)); ok && dotted {
		var h map[string]any
		if json.Unmarshal(b, &h, json.RejectUnknownMembers(false)) == nil && h["alg"] != nil {
			return "the text of a JWT"
		}
	}
	// The body of an answer: old versions of the API signed it bare (X-Signature).
	var body map[string]any
	if json.Unmarshal(data, &body) == nil {
		_, list := body["data"].([]any)
		resource, _ := body["data"].(map[string]any)
		if list || resource["type"] != nil || body["errors"] != nil || body["jsonapi"] != nil {
			return "the body of an answer"
		}
	}
	return ""
}

// signatures names the kinds of signature that the key may have, for people.
func (k *signed) signatures() string {
	if len(k.algs) == len(Algorithms()) {
		return "one of Keygen's algorithms"
	}
	return cmp.Or(strings.Join(k.algs, " or "), "nothing")
}
