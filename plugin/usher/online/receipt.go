package online

import (
	"crypto/ed25519"
	"errors"
	"fmt"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-json-experiment/json"

	"github.com/usher-agent/usher/plugin"
)

// ReceiptType is the type of a Receipt (RFC 7515 §4.1.9).
const ReceiptType = "usher-return+jwt"

// Receipt is an agent's word that it has stopped a licence on its host for good: issues up to Issued count no more
// there. Its header carries the agent's key.
type Receipt struct {
	License  string `json:"license"`
	Product  string `json:"product"`
	Issued   int64  `json:"iat"` // when it was returned
	Document string `json:"document_sha256"`
}

// SignReceipt signs a receipt with the agent's key.
func SignReceipt(key ed25519.PrivateKey, r *Receipt) (string, error) {
	return signAs(key, ReceiptType, r)
}

// OpenReceipt verifies a receipt with the key that it carries, and returns that key's thumbprint. The caller checks
// whether it is the key of the licence's host.
func OpenReceipt(token string) (*Receipt, string, error) {
	r := &Receipt{}
	thumb, err := openAs(token, ReceiptType, "receipt", r)
	if err == nil && (r.License == "" || r.Issued <= 0) {
		err = errors.New("the receipt names no licence, or no date")
	}
	return r, thumb, err
}

// signAs signs an agent's message with its key, which the header carries.
func signAs(key ed25519.PrivateKey, typ string, v any) (string, error) {
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.EdDSA, Key: key},
		(&jose.SignerOptions{EmbedJWK: true}).WithType(jose.ContentType(typ)))
	if err != nil {
		return "", err
	}
	b, err := json.Marshal(v, json.Deterministic(true))
	if err != nil {
		return "", err
	}
	jws, err := signer.Sign(b)
	if err != nil {
		return "", err
	}
	return jws.CompactSerialize()
}

// openAs verifies what signAs signed and returns the thumbprint of its key.
func openAs(token, typ, what string, v any) (string, error) {
	jws, err := jose.ParseSignedCompact(token, []jose.SignatureAlgorithm{jose.EdDSA})
	if err != nil {
		return "", fmt.Errorf("the %s is not a JWS that is signed with EdDSA", what)
	}
	h := jws.Signatures[0].Protected
	if t, _ := h.ExtraHeaders[jose.HeaderType].(string); t != typ {
		return "", fmt.Errorf("the %s is not of the type %s", what, typ)
	}
	if h.JSONWebKey == nil || !h.JSONWebKey.IsPublic() || !h.JSONWebKey.Valid() {
		return "", fmt.Errorf("the %s carries no public key", what)
	}
	key, ok := h.JSONWebKey.Key.(ed25519.PublicKey)
	if !ok {
		return "", fmt.Errorf("the %s's key is not an Ed25519 key", what)
	}
	payload, err := jws.Verify(key)
	if err != nil {
		return "", fmt.Errorf("the %s's signature does not match", what)
	}
	if err := json.Unmarshal(payload, v, json.RejectUnknownMembers(false)); err != nil {
		return "", fmt.Errorf("the %s cannot be read", what)
	}
	return plugin.Thumbprint(key)
}
