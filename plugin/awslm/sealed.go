package awslm

import (
	"crypto/ed25519"
	"encoding/base64"
	"errors"
	"fmt"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/usher-agent/usher/enforcer"
	"github.com/usher-agent/usher/plugin"
)

// sealType is the typ of a sealed licence's header (RFC 7515 §4.1.9).
const sealType = "awslm-license+jwt"

// envelope is the content of a sealed licence: the time of the call, and AWS's whole answer.
type envelope struct {
	Asked   time.Time      `json:"asked"`
	License jsontext.Value `json:"license"`
}

// seal signs AWS's statement of a licence with the agent's key. said is the JSON of a [License].
func seal(key ed25519.PrivateKey, said []byte, at time.Time) ([]byte, error) {
	thumb, err := plugin.Thumbprint(key.Public())
	if err != nil {
		return nil, err
	}
	body, err := json.Marshal(envelope{at.UTC().Truncate(time.Millisecond), said}, json.Deterministic(true))
	if err != nil {
		return nil, fmt.Errorf("seal the licence: %w", err)
	}
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.EdDSA, Key: key},
		(&jose.SignerOptions{}).WithType(sealType).WithHeader("kid", thumb))
	if err != nil {
		return nil, fmt.Errorf("seal the licence: %w", err)
	}
	jws, err := signer.Sign(body)
	if err != nil {
		return nil, fmt.Errorf("seal the licence: %w", err)
	}
	out, err := jws.CompactSerialize()
	return append([]byte(out), '\n'), err
}

// openSealed reads a sealed licence without verifying it.
func openSealed(payload []byte) (*License, *envelope, error) {
	var e envelope
	if err := json.Unmarshal(payload, &e); err != nil {
		return nil, nil, plugin.JSONFault(err, "member")
	}
	if e.Asked.IsZero() || len(e.License) == 0 {
		return nil, nil, errors.New("it lacks the licence, or the time of the call")
	}
	l := &License{}
	if err := json.Unmarshal(e.License, l); err != nil {
		return nil, nil, plugin.JSONFault(err, "member")
	}
	return l, &e, nil
}

// receivedLicense turns the content of a sealed licence into a licence of the core.
func receivedLicense(payload []byte) (*enforcer.License, error) {
	l, e, err := openSealed(payload)
	if err != nil {
		return nil, err
	}
	var all map[string]any
	if err := json.Unmarshal(e.License, &all); err != nil {
		return nil, plugin.JSONFault(err, "member")
	}
	return l.terms(e.Asked.UTC(), all)
}

// believeSealed checks a sealed licence against the agent's own key, for the issuer that it names.
func believeSealed(compact string, kid string, issuer string,
	anchors []plugin.Anchor) (plugin.Anchor, *enforcer.Problem) {
	for _, a := range anchors {
		key, ok := a.Key.(ed25519.PublicKey)
		if a.System != System || a.Algorithm != AlgorithmSealed || a.KeyID != issuer || !ok ||
			len(key) != ed25519.PublicKeySize {
			continue
		}
		if own, err := plugin.Thumbprint(key); err != nil || kid != own {
			return a, &enforcer.Problem{System: System, Code: enforcer.UntrustedKey,
				Reason: "another agent sealed it: it counts on that agent's host alone",
				Hint:   "let this host's agent fetch the licence itself; see docs/systems/awslm.md"}
		}
		jws, err := jose.ParseSignedCompact(compact, []jose.SignatureAlgorithm{jose.EdDSA})
		if err == nil {
			_, err = jws.Verify(key)
		}
		if err != nil {
			return a, &enforcer.Problem{System: System, Code: enforcer.BadSignature,
				Reason: "it differs from what this agent sealed: it has been changed",
				Hint:   "remove it; the agent fetches the licence again"}
		}
		return a, revoked(a)
	}
	return plugin.Anchor{}, &enforcer.Problem{System: System, Code: enforcer.UntrustedKey,
		Reason: fmt.Sprintf("its issuer %q is not in trust, or the agent's own key is not known here",
			clip(issuer, 80)),
		Hint: "add the issuer's KeyFingerprint as kid under license.trust, with system awslm and alg sealed"}
}

func revoked(a plugin.Anchor) *enforcer.Problem {
	if !a.Revoked {
		return nil
	}
	return &enforcer.Problem{System: System, Code: enforcer.UntrustedKey,
		Reason: fmt.Sprintf("key %q is revoked", clip(a.KeyID, 80)),
		Hint:   "ask the vendor for a licence under another key"}
}

// inTime checks that the document was issued within the anchor's time.
func inTime(a plugin.Anchor, issued time.Time) *enforcer.Problem {
	if (a.NotBefore.IsZero() || !issued.Before(a.NotBefore)) &&
		(a.NotAfter.IsZero() || !issued.IsZero() && !issued.After(a.NotAfter)) {
		return nil
	}
	return &enforcer.Problem{System: System, Code: enforcer.UntrustedKey,
		Reason: fmt.Sprintf("it is dated %s, when key %q was not valid", issued.Format("2006-01-02"),
			clip(a.KeyID, 80)),
		Hint: "ask the vendor which key is valid now"}
}

// part decodes one part of a compact JWS. It accepts one spelling of each value.
func part(s string) ([]byte, bool) {
	b, err := base64.RawURLEncoding.Strict().DecodeString(s)
	if err != nil {
		return nil, false
	}
	for i := range len(s) {
		if s[i] == '\r' || s[i] == '\n' { // the decoder passes over them
			return nil, false
		}
	}
	return b, true
}
