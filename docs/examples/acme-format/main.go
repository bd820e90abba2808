// Acme-format is a licence system of its own for Usher, as small as one can be: a document is
// "ACME1.PAYLOAD.SIGNATURE", of which the payload is JSON and signed with Ed25519, both in base64url.
package main

import (
	"bytes"
	"crypto/ed25519"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"time"

	"github.com/usher-agent/usher/enforcer"
	"github.com/usher-agent/usher/plugin"
	"github.com/usher-agent/usher/plugin/sdk"
)

type format struct{}

type terms struct {
	ID, Product, Key string
	Issued, Expires  time.Time
	Seats            enforcer.Limit
}

func (format) System() string { return "acme" }

func (format) Recognise(document []byte) bool { return bytes.HasPrefix(document, []byte("ACME1.")) }

func (format) Verify(document []byte, anchors []plugin.Anchor) (*enforcer.License, *enforcer.Problem) {
	parts := bytes.Split(bytes.TrimSpace(document), []byte("."))
	if len(parts) != 3 {
		return nil, &enforcer.Problem{Code: enforcer.Malformed, Reason: "it has not the three parts of an Acme licence"}
	}
	payload, err := base64.RawURLEncoding.DecodeString(string(parts[1]))
	signature, err2 := base64.RawURLEncoding.DecodeString(string(parts[2]))
	var t terms
	if err != nil || err2 != nil || json.Unmarshal(payload, &t) != nil {
		return nil, &enforcer.Problem{Code: enforcer.Malformed, Reason: "its payload cannot be read",
			Hint: "copy the whole file again"}
	}
	for _, a := range anchors {
		key, ok := a.Key.(ed25519.PublicKey)
		switch {
		case a.KeyID != t.Key || !ok || a.Revoked:
			continue
		case !ed25519.Verify(key, parts[1], signature):
			return nil, &enforcer.Problem{Code: enforcer.BadSignature,
				Reason: "it has been changed since it was signed"}
		}
		return &enforcer.License{ID: t.ID, System: "acme", Product: t.Product, Issued: t.Issued, Expires: t.Expires,
			KeyID: t.Key,
			Pools: map[string]enforcer.PoolTerm{"seats": {Max: t.Seats, Scope: enforcer.ScopeHost}},
			Terms: map[string]any{"seats": float64(t.Seats)}}, nil
	}
	return nil, &enforcer.Problem{Code: enforcer.UntrustedKey,
		Reason: fmt.Sprintf("it is signed by key %.64q, which is not in trust", t.Key)}
}

func main() { sdk.Serve(sdk.System{Format: format{}, Version: "1.0"}) }
