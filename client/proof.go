package client

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/usher-agent/usher/client/wire"
)

// ErrNotProven reports that the agent, or a lease of its, could not be proved to be true.
const ErrNotProven Code = "not_proven"

// Vendor is what a product that embeds its vendor's public key knows. With it a session proves that it speaks to the agent
// that the vendor's licence names.
type Vendor struct {
	Product string
	Keys    map[string]ed25519.PublicKey // by key id
}

// Proven says how much could be proved.
type Proven string

// What can be proved.
const (
	ProvenNone    Proven = "none"    // no vendor key was given, or the licence names no agent
	ProvenLicense Proven = "licence" // the vendor's licence names the agent's key, and the agent has it and sees this process
	ProvenLease   Proven = "lease"   // and the agent's key signed the lease for this process's own nonce
)

// Prove checks that the agent of a session is the one that the vendor's licence names, and that it sees this process at the
// other end and nobody between. ProvenNone means that the licence in force names no agent; an agent that should prove
// itself and cannot is [ErrNotProven].
func (s *Session) Prove(ctx context.Context, v Vendor) (Proven, ed25519.PublicKey, error) {
	keys, err := get[wire.Keys](ctx, s.client, "/v1/keys")
	if err != nil {
		return ProvenNone, nil, err
	}
	if len(keys.Chain) == 0 {
		return ProvenNone, nil, nil
	}
	agent, err := v.agentKey(keys)
	if err != nil {
		return ProvenNone, nil, notProven(err)
	}
	nonce := newNonce()
	var proof wire.Proof
	if err := s.call(ctx, "session.prove", wire.Prove{Nonce: nonce}, &proof); err != nil {
		return ProvenNone, nil, err
	}
	var c struct {
		Nonce, Product string
		Holder         struct{ UID, PID int64 }
	}
	if err := open(proof.Token, "usher-session+jwt", agent, &c); err != nil {
		return ProvenNone, nil, notProven(fmt.Errorf("its proof: %w", err))
	}
	switch {
	case c.Nonce != nonce:
		err = errors.New("its proof is for another nonce")
	case c.Product != v.Product:
		err = fmt.Errorf("its proof is for product %q", c.Product)
	case c.Holder.PID != 0 && c.Holder.PID != int64(os.Getpid()) || c.Holder.UID != int64(os.Getuid()):
		err = fmt.Errorf("it sees process %d of uid %d at this end: somebody stands between", c.Holder.PID, c.Holder.UID)
	}
	if err != nil {
		return ProvenNone, nil, notProven(err)
	}
	return ProvenLicense, agent, nil
}

// AcquireProven is Acquire with a token that agent, the key that Prove returned, must have signed for a fresh nonce and for
// what was asked; a lease that is not so proved is given back, and [ErrNotProven] returned.
func (s *Session) AcquireProven(ctx context.Context, r wire.AcquireRequest, agent ed25519.PublicKey) (*Lease, error) {
	r.Nonce = newNonce()
	l, err := s.Acquire(ctx, r)
	if err != nil {
		return nil, err
	}
	info := l.Info()
	var c struct {
		Nonce string      `json:"nonce"`
		ID    string      `json:"jti"`
		Items []wire.Item `json:"items"`
	}
	err = open(info.Token, "usher-lease+jwt", agent, &c)
	if err == nil && (c.Nonce != r.Nonce || c.ID != info.ID || !slices.Equal(c.Items, info.Items)) {
		err = errors.New("its token is for something else")
	}
	if err != nil {
		return nil, errors.Join(notProven(fmt.Errorf("the lease: %w", err)), l.Close())
	}
	return l, nil
}

func notProven(err error) error {
	return &Error{cause: err, Problem: wire.Problem{Code: string(ErrNotProven), Title: "Not proven",
		Detail: "the agent cannot prove that it is the one that the licence names: " + err.Error(),
		Hint:   "is another program listening on the socket? `usher doctor` says more"}}
}

// agentKey returns the agent's key that a licence of the vendor's names.
func (v Vendor) agentKey(keys *wire.Keys) (ed25519.PublicKey, error) {
	var first error
	for _, doc := range keys.Chain {
		named, err := v.named(doc)
		if err != nil {
			first = errors.Join(first, err)
			continue
		}
		for _, k := range keys.Keys {
			pub, err := base64.RawURLEncoding.DecodeString(k.X)
			if err != nil || len(pub) != ed25519.PublicKeySize || k.KeyType != "OKP" || k.Curve != "Ed25519" {
				continue
			}
			sum := sha256.Sum256([]byte(`{"crv":"Ed25519","kty":"OKP","x":"` + base64.RawURLEncoding.EncodeToString(pub) + `"}`)) // RFC 7638
			if slices.Contains(named, base64.RawURLEncoding.EncodeToString(sum[:])) {
				return pub, nil
			}
		}
	}
	if first == nil {
		first = errors.New("no licence names its key")
	}
	return nil, first
}

// named returns the agents' keys that a licence of the vendor's names.
func (v Vendor) named(document string) ([]string, error) {
	compact := strip(document)
	head, _, ok := strings.Cut(compact, ".")
	var h struct{ Kid string }
	if b, err := base64.RawURLEncoding.DecodeString(head); err != nil || !ok || json.Unmarshal(b, &h) != nil {
		return nil, errors.New("the licence cannot be read")
	}
	key := v.Keys[h.Kid]
	if key == nil {
		return nil, fmt.Errorf("the licence is signed by key %q, which this product does not know", h.Kid)
	}
	var c struct {
		Product string
		Cnf     struct{ Jkt string }
		Agents  []string `json:"agent_keys"`
	}
	if err := open(compact, "usher-license+jwt", key, &c); err != nil {
		return nil, fmt.Errorf("the licence: %w", err)
	}
	if c.Product != v.Product {
		return nil, fmt.Errorf("the licence is for product %q", c.Product)
	}
	if c.Cnf.Jkt != "" {
		c.Agents = append(c.Agents, c.Cnf.Jkt)
	}
	return c.Agents, nil
}

// strip takes a licence's armour off.
func strip(document string) string {
	var b strings.Builder
	for line := range strings.Lines(strings.TrimPrefix(document, "\ufeff")) {
		if line = strings.TrimLeft(strings.TrimSpace(line), "> "); !strings.HasPrefix(line, "-----") {
			b.WriteString(line)
		}
	}
	return b.String()
}

// open verifies a compact JWS (RFC 7515) of a type with an Ed25519 key and reads its claims. The key decides the algorithm.
func open(token, typ string, key ed25519.PublicKey, claims any) error {
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		return errors.New("it is not signed")
	}
	var raw [3][]byte
	for i, p := range parts {
		b, err := base64.RawURLEncoding.Strict().DecodeString(p)
		if err != nil {
			return errors.New("it is not base64url")
		}
		raw[i] = b
	}
	var h struct {
		Alg, Typ string
		Crit     []string
	}
	if err := json.Unmarshal(raw[0], &h); err != nil || h.Typ != typ || h.Alg != "EdDSA" || len(h.Crit) > 0 || bytes.Contains(raw[0], []byte(`"b64"`)) {
		return fmt.Errorf("it is no %s signed with EdDSA", typ)
	}
	if !ed25519.Verify(key, []byte(parts[0]+"."+parts[1]), raw[2]) {
		return errors.New("its signature does not match")
	}
	if err := json.Unmarshal(raw[1], claims); err != nil {
		return errors.New("its claims cannot be read")
	}
	return nil
}

func newNonce() string {
	b := make([]byte, 16)
	rand.Read(b) // never fails: see crypto/rand
	return base64.RawURLEncoding.EncodeToString(b)
}
