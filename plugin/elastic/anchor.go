package elastic

import (
	"bytes"
	"crypto"
	"crypto/rsa"
	"crypto/sha512"
	"encoding/base64"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/usher-agent/usher/enforcer"
	"github.com/usher-agent/usher/plugin"
	"github.com/usher-agent/usher/plugin/textual"
)

// Algorithm is the only one of licences: RSASSA-PKCS1-v1_5 with SHA-512 (RFC 8017), as RFC 7518 names it.
const Algorithm = "RS512"

const minBits = 2048 // of a key

// NewAnchor makes an anchor of a public key as Elastic's products have it: SubjectPublicKeyInfo or PKCS #1, in DER (the
// resource public.key), base64 of that, or PEM. An empty alg means [Algorithm].
func NewAnchor(keyID string, key []byte, alg string) (plugin.Anchor, error) {
	if keyID == "" || len(keyID) > 256 {
		return plugin.Anchor{}, fmt.Errorf("key %q: its id is empty or longer than 256 bytes", plugin.Short(keyID))
	}
	if alg != "" && alg != Algorithm {
		return plugin.Anchor{}, fmt.Errorf("key %q: algorithm %s is not known; leave alg out, or set it to %s", keyID,
			plugin.Short(alg), Algorithm)
	}
	pub, err := parseKey(textual.PEM(key))
	if err != nil {
		return plugin.Anchor{}, fmt.Errorf("key %q: %w; give an RSA public key in DER, base64 or PEM", keyID, err)
	}
	if bits := pub.N.BitLen(); bits < minBits || pub.E < 3 {
		return plugin.Anchor{}, fmt.Errorf("key %q: it is an RSA key of %d bits; at least %d are needed", keyID, bits,
			minBits)
	}
	return plugin.Anchor{System: System, KeyID: keyID, Algorithm: Algorithm, Key: pub}, nil
}

func parseKey(key []byte) (*rsa.PublicKey, error) {
	der := key
	switch block, _ := pem.Decode(bytes.TrimSpace(key)); {
	case block != nil && strings.Contains(block.Type, "PRIVATE"):
		return nil, errors.New("it is a private key")
	case block != nil:
		der = block.Bytes
	case len(key) > 0 && key[0] != 0x30: // no DER: a SEQUENCE begins so
		raw, err := base64.StdEncoding.DecodeString(string(bytes.TrimSpace(key))) // passes over line breaks
		if err != nil {
			return nil, errors.New("it is none that can be read")
		}
		der = raw
	}
	if pub := publicKey(der); pub != nil {
		return pub, nil
	}
	return nil, errors.New("it is none that can be read")
}

// NameSchemes sets the kinds of licences that an anchor is believed for; none means both.
func NameSchemes(a *plugin.Anchor, schemes []string) error {
	known := []string{KindStack, KindOrchestration}
	for _, s := range schemes {
		if !slices.Contains(known, s) {
			return fmt.Errorf("key %q: scheme %q is not known (known: %s)", a.KeyID, plugin.Short(s),
				strings.Join(known, ", "))
		}
	}
	a.Schemes = slices.Clone(schemes)
	return nil
}

func serves(a plugin.Anchor, kind string) bool {
	return len(a.Schemes) == 0 || slices.Contains(a.Schemes, kind)
}

// believed is by which anchor a licence is believed, and as which kind.
type believed struct {
	kind   string
	anchor plugin.Anchor
}

// candidate is a text that a signature may cover.
type candidate struct {
	kind string
	sum  [sha512.Size]byte
}

// candidates returns what a signature may cover, given the members. The contents of the two kinds differ in their
// order, and all forms of one kind say the same, so that no signature is good for two meanings.
func (f *fields) candidates(b *blob) (out []candidate) {
	add := func(kind string, contents ...[]byte) {
		for i, c := range contents {
			if i == 0 || !bytes.Equal(c, contents[0]) {
				out = append(out, candidate{kind, sha512.Sum512(c)})
			}
		}
	}
	add(KindStack, f.stackContent(b.version, byJava), f.stackContent(b.version, byNewJava))
	if orchestrates(f.typ.s) && b.version >= orchestrationSince {
		add(KindOrchestration, f.orchestrationContent(byGo), f.orchestrationContent(byJava))
	}
	return out
}

// believe returns the anchor that signed a licence.
func (f *fields) believe(b *blob, anchors []plugin.Anchor) (believed, *enforcer.Problem) {
	type key struct {
		plugin.Anchor
		pub   *rsa.PublicKey
		print []byte
	}
	var keys []key
	var names []string
	for _, a := range anchors {
		if pub, ok := a.Key.(*rsa.PublicKey); ok && a.System == System {
			print := thumbprint(pub)
			keys = append(keys, key{a, pub, print})
			names = append(names, fmt.Sprintf("%s (%s)", plugin.Short(a.KeyID), brief(print)))
		}
	}
	if len(keys) == 0 {
		return believed{}, untrusted("NO_KEY", "add Elastic's public key under license.trust, with system elastic: it "+
			"ships in the product that the licence is for", "no key of Elastic's is in trust")
	}
	// The signature names a key. It could name any, so that decides nothing for the licence, and something against it.
	meant := b.issuedFor()
	if meant != nil && !slices.ContainsFunc(keys, func(k key) bool { return bytes.Equal(k.print, meant) }) {
		return believed{}, untrusted("OTHER_KEY", "ask for a licence of this product, or add the key that signs such "+
			"licences under license.trust", "issued for another key: %s, and those in trust are %s", brief(meant),
			strings.Join(names, ", "))
	}
	all := f.candidates(b)
	unserved := ""
	for _, k := range keys {
		if meant != nil && !bytes.Equal(k.print, meant) {
			continue
		}
		for _, c := range all {
			switch {
			case rsa.VerifyPKCS1v15(k.pub, crypto.SHA512, c.sum[:], b.signature) != nil:
			case k.Revoked:
				return believed{c.kind, k.Anchor}, untrusted("REVOKED_KEY", "ask Elastic for one that is signed by "+
					"another key", "signed by key %q, which is revoked", k.KeyID)
			case !serves(k.Anchor, c.kind):
				unserved = k.KeyID + " is not in trust for " + c.kind + " licences"
			default:
				return believed{c.kind, k.Anchor}, nil
			}
		}
	}
	if unserved != "" {
		return believed{}, untrusted("OTHER_SCHEME", "add the kind to the key's schemes under license.trust, if it is "+
			"to be believed", "it is signed, but key %s", unserved)
	}
	return believed{}, &enforcer.Problem{System: System, Code: enforcer.BadSignature,
		Reason: fmt.Sprintf("its signature is not good by any key in trust (%s): it has been changed, or another key "+
			"signed it", strings.Join(names, ", ")),
		Hint: "copy the whole file again, as Elastic sent it"}
}

// inTime checks that the anchor was good when the licence was issued.
func inTime(a plugin.Anchor, l *enforcer.License) *enforcer.Problem {
	early := !a.NotBefore.IsZero() && l.Issued.Before(a.NotBefore)
	late := !a.NotAfter.IsZero() && (l.Issued.IsZero() || l.Issued.After(a.NotAfter))
	if !early && !late {
		return nil
	}
	return untrusted("", "ask Elastic for one that is signed by a key that is good now",
		"issued on %s, and key %q is not believed then", l.Issued.UTC().Format("2006-01-02"), a.KeyID)
}

func untrusted(code, hint, format string, args ...any) *enforcer.Problem {
	return &enforcer.Problem{System: System, Code: enforcer.UntrustedKey, SystemCode: code, Hint: hint,
		Reason: fmt.Sprintf(format, args...)}
}

// brief is the beginning of a thumbprint, for people.
func brief(print []byte) string {
	if len(print) < 8 {
		return "not known"
	}
	return hex.EncodeToString(print[:8]) + "…"
}
