package client

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"slices"
	"strings"
	"syscall"

	"github.com/usher-agent/usher/client/wire"
)

// Vendor has the vendor's public keys that a product embeds: see [WithVendor].
type Vendor struct {
	Product string
	Keys    map[string]crypto.PublicKey // by key id; Ed25519, ECDSA on P-256, or RSA. [ParseKey] reads one.
}

// ParseKey reads a public key in PEM, the form that `usher vendor keygen` writes.
func ParseKey(text []byte) (crypto.PublicKey, error) {
	block, _ := pem.Decode(text)
	if block == nil {
		return nil, errors.New("the vendor's key is not in PEM; use the .pub file that usher vendor keygen wrote")
	}
	key, err := x509.ParsePKIXPublicKey(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("the vendor's key is not a public key (PKIX): %w", err)
	}
	return key, nil
}

// Proven is how much an agent has proved.
type Proven string

// The degrees of proof.
const (
	// no vendor is set, or AllowUnproven accepted the agent without proof
	ProvenNone Proven = "none"
	// The vendor's licence names the agent's key, or the vendor's upstream vouched for it. The agent has the private
	// key, and sees this process at the other end.
	ProvenLicense Proven = "licence"
	ProvenLease   Proven = "lease" // and it granted the lease inside TLS with that key
)

// self is this process as it knows itself. In a namespace, the agent may know it by other numbers.
type self struct {
	uids, pids   []int64
	start, inode uint64 // zero: not known
	hidden       bool   // it is in a PID namespace, and has a number that it cannot know
}

// seen is this process as the agent sees it.
type seen struct {
	UID, PID     int64
	Start, Inode uint64
}

// is compares the process that the agent sees with this one. known is false if neither can tell.
func (me self) is(a seen) (same, known bool) {
	switch {
	case a.Inode != 0 && me.inode != 0: // unique to a process within a boot
		return a.Inode == me.inode, true
	case me.uids != nil && !slices.Contains(me.uids, a.UID):
		return false, true
	case a.PID != 0 && !slices.Contains(me.pids, a.PID) && !me.hidden:
		return false, true
	case a.Start != 0 && me.start != 0:
		return a.Start == me.start, true
	default:
		return true, a.PID != 0 && !me.hidden
	}
}

// prove makes the agent at the end of a TLS connection prove two things: that the vendor's licence names it, and that
// it sees this very process at the other end, and nobody between. A proved key stays proved for the session, because
// licences come and go.
func (s *Session) prove(ctx context.Context, l *link) error {
	certs := l.conn.(*tls.Conn).ConnectionState().PeerCertificates
	if len(certs) == 0 {
		return notProven(errors.New("it shows no key"))
	}
	key, ok := certs[0].PublicKey.(ed25519.PublicKey)
	if !ok {
		return notProven(errors.New("its key is not an Ed25519 key"))
	}
	s.mu.Lock()
	before := s.agentKey
	s.mu.Unlock()
	if !key.Equal(before) {
		c := New(s.socket)
		defer c.Close()
		keys, err := c.Keys(ctx)
		if err != nil {
			return err
		}
		if len(keys.Chain) == 0 && s.unproven {
			return nil
		}
		if err := s.vendor.Vouches(keys.Chain, key); err != nil {
			for _, why := range keys.Withheld {
				err = fmt.Errorf("%w; %s", err, why)
			}
			return notProven(err)
		}
	}
	nonce := newNonce()
	var proof wire.Proof
	if err := l.ask(ctx, "session.prove", wire.Prove{Nonce: nonce}, &proof); err != nil {
		return err
	}
	var c struct {
		Nonce, Product string
		Holder         seen
	}
	if err := open(proof.Token, "usher-session+jwt", key, &c); err != nil {
		return notProven(fmt.Errorf("its proof: %w", err))
	}
	same, known := whoami().is(c.Holder)
	switch {
	case c.Nonce != nonce:
		return notProven(errors.New("its proof is for another nonce"))
	case c.Product != s.vendor.Product:
		return notProven(fmt.Errorf("its proof is for product %q", c.Product))
	case !same:
		return notProven(fmt.Errorf("it sees process %d of uid %d at this end, so another process is "+
			"between", c.Holder.PID,
			c.Holder.UID))
	case !known && !s.unproven:
		return notProven(errors.New(
			"it cannot see which process is at this end; let it see this PID namespace (shareProcessNamespace in a " +
				"pod), or run Linux 6.9"))
	case !known:
		return nil
	}
	s.mu.Lock()
	s.agentKey = key
	s.mu.Unlock()
	l.proven = ProvenLicense
	return nil
}

// handshakeError tells an agent that is gone (err) from one that cannot prove itself.
func handshakeError(err, cause error) error {
	var slow net.Error
	var record tls.RecordHeaderError
	switch {
	case !errors.Is(err, ErrAgentAway), errors.Is(cause, io.EOF), errors.Is(cause, io.ErrUnexpectedEOF),
		errors.Is(cause, syscall.ECONNRESET), errors.Is(cause, syscall.EPIPE):
		return err
	case errors.As(cause, &record):
		if strings.HasPrefix(string(record.RecordHeader[:]), "HTTP/") {
			return refusedConnection()
		}
		return notProven(errors.New("it does not speak TLS"))
	case errors.As(cause, &slow) && slow.Timeout():
		return err
	}
	return notProven(cause)
}

// checkToken checks that the agent signed the lease with the nonce of its request.
func (s *Session) checkToken(l *Lease, nonce string) error {
	s.mu.Lock()
	key := s.agentKey
	s.mu.Unlock()
	if nonce == "" || key == nil || !l.Backed() {
		return nil
	}
	info := l.Info()
	var c struct {
		Nonce string      `json:"nonce"`
		ID    string      `json:"jti"`
		Items []wire.Item `json:"items"`
	}
	err := open(info.Token, "usher-lease+jwt", key, &c)
	if err == nil && (c.Nonce != nonce || c.ID != info.ID || !slices.Equal(c.Items, info.Items)) {
		err = errors.New("its token is for something else")
	}
	if err != nil {
		return notProven(fmt.Errorf("the lease: %w", err))
	}
	return nil
}

func notProven(err error) error {
	return &Error{cause: err, Problem: wire.Problem{Code: string(ErrNotProven), Title: "Not proven",
		Detail: "the agent cannot prove that the licence names it: " + err.Error(),
		Hint: "another program may listen on the socket, or the licence may be bound to another agent; the " +
			"agent's command `doctor` says more"}}
}

// Vouches checks that a document of the vendor's, of the chain that an agent shows (GET /v1/keys), names the agent's
// key.
func (v *Vendor) Vouches(chain []string, key ed25519.PublicKey) error {
	sum := sha256.Sum256([]byte(`{"crv":"Ed25519","kty":"OKP","x":"` + base64.RawURLEncoding.EncodeToString(key) +
		`"}`)) // RFC 7638
	thumb := base64.RawURLEncoding.EncodeToString(sum[:])
	err := errors.New(
		"no licence in force names an agent's key (usher vendor bind binds one), and no upstream has vouched for one")
	for i, doc := range chain {
		named, failed := v.named(doc)
		switch {
		case failed == nil && slices.Contains(named, thumb):
			return nil
		case failed == nil:
			failed = errors.New("the vendor's document names another agent's key")
		}
		if err = errors.Join(err, failed); i == 0 {
			err = failed
		}
	}
	return err
}

// vouching has the types (RFC 7519 §5.1) of the vendor's documents that can vouch for an agent's key, with their names.
var vouching = map[string]string{"usher-license+jwt": "the licence", "usher-activation+jwt": "the activation"}

// named returns the agents' keys in a licence of the vendor's, or the key in an activation.
func (v *Vendor) named(document string) ([]string, error) {
	compact := strip(document)
	head, _, ok := strings.Cut(compact, ".")
	var h struct{ Kid, Typ string }
	if b, err := base64.RawURLEncoding.DecodeString(head); err != nil || !ok || json.Unmarshal(b, &h) != nil {
		return nil, errors.New("the licence cannot be read")
	}
	what := vouching[h.Typ]
	if what == "" {
		return nil, fmt.Errorf("a document of type %q vouches for no agent", h.Typ)
	}
	key := v.Keys[h.Kid]
	if key == nil {
		return nil, fmt.Errorf("%s is signed by key %q, which this product does not know", what, h.Kid)
	}
	var c struct {
		Product string
		Cnf     struct{ Jkt string }
		Agents  []string `json:"agent_keys"`
	}
	if err := open(compact, h.Typ, key, &c); err != nil {
		return nil, fmt.Errorf("%s: %w", what, err)
	}
	if c.Product != v.Product {
		return nil, fmt.Errorf("%s is for product %q", what, c.Product)
	}
	if c.Cnf.Jkt != "" {
		c.Agents = append(c.Agents, c.Cnf.Jkt)
	}
	return c.Agents, nil
}

// strip removes a licence's armour.
func strip(document string) string {
	var b strings.Builder
	for line := range strings.Lines(strings.TrimPrefix(document, "\ufeff")) {
		if line = strings.TrimLeft(strings.TrimSpace(line), "> "); !strings.HasPrefix(line, "-----") {
			b.WriteString(line)
		}
	}
	return b.String()
}

// open verifies a compact JWS (RFC 7515, RFC 7518) of a type with a key and reads its claims. The key's kind decides
// the algorithm.
func open(token, typ string, key crypto.PublicKey, claims any) error {
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
	if err := json.Unmarshal(raw[0], &h); err != nil || h.Typ != typ || len(h.Crit) > 0 ||
		bytes.Contains(raw[0], []byte(`"b64"`)) {
		return fmt.Errorf("it is not of type %s", typ)
	}
	signed, sig := []byte(parts[0]+"."+parts[1]), raw[2]
	sum := sha256.Sum256(signed)
	good := false
	switch k := key.(type) {
	case ed25519.PublicKey:
		good = h.Alg == "EdDSA" && ed25519.Verify(k, signed, sig)
	case *ecdsa.PublicKey:
		good = h.Alg == "ES256" && k.Curve == elliptic.P256() && len(sig) == 64 &&
			ecdsa.Verify(k, sum[:], new(big.Int).SetBytes(sig[:32]), new(big.Int).SetBytes(sig[32:]))
	case *rsa.PublicKey:
		good = k.N.BitLen() >= 2048 && (h.Alg == "PS256" && rsa.VerifyPSS(k, crypto.SHA256, sum[:], sig, nil) == nil ||
			h.Alg == "RS256" && rsa.VerifyPKCS1v15(k, crypto.SHA256, sum[:], sig) == nil)
	}
	if !good {
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
