package online

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"strings"

	"github.com/usher-agent/usher/plugin/textual"
)

// tokenPrefix begins every enrolment token, so that people and scanners for secrets recognise one.
const tokenPrefix = "usher-enrol-"

// maxEnrolments is how many tokens a request may show.
const maxEnrolments = 8

// Enrolment is the proof that an agent has an enrolment token. The token itself stays where it is: neither an observer
// nor the server's store can use the proof.
type Enrolment struct {
	Token string `json:"token"` // the token's id, see [TokenID]
	Proof string `json:"proof"` // an Ed25519 signature over licence, agent key and nonce, base64url
}

// NewToken returns a new enrolment token: 160 random bits.
func NewToken() string {
	b := make([]byte, 20)
	rand.Read(b) // never fails: see crypto/rand
	return tokenPrefix + base64.RawURLEncoding.EncodeToString(b)
}

// tokenKey derives a token's key.
func tokenKey(token string) ed25519.PrivateKey {
	seed := sha256.Sum256([]byte("usher enrolment token\x00" + token))
	return ed25519.NewKeyFromSeed(seed[:])
}

// TokenID returns the public key of a token, in base64url.
func TokenID(token string) string {
	return base64.RawURLEncoding.EncodeToString(tokenKey(token).Public().(ed25519.PublicKey))
}

func enrolmentText(r *Request, agent string) []byte {
	return []byte(strings.Join([]string{"usher-enrolment", r.License, agent, r.Nonce}, "\x00"))
}

// enrol adds the proofs of tokens to a request of the agent whose key has a thumbprint.
func enrol(r *Request, agent string, tokens []string) {
	r.Enrolment = nil
	for _, t := range tokens[:min(len(tokens), maxEnrolments)] {
		r.Enrolment = append(r.Enrolment, Enrolment{TokenID(t),
			base64.RawURLEncoding.EncodeToString(ed25519.Sign(tokenKey(t), enrolmentText(r, agent)))})
	}
}

// ProvenTokens returns the ids of the tokens that a request of an agent proves.
func ProvenTokens(r *Request, agent string) (ids []string) {
	for _, e := range r.Enrolment {
		key, err := base64.RawURLEncoding.DecodeString(e.Token)
		sig, err2 := base64.RawURLEncoding.DecodeString(e.Proof)
		if err == nil && err2 == nil && len(key) == ed25519.PublicKeySize &&
			ed25519.Verify(key, enrolmentText(r, agent), sig) {
			ids = append(ids, e.Token)
		}
	}
	return ids
}

// ReadTokens returns the enrolment tokens in a file's text, one per line. It skips empty lines and those that begin
// with #.
func ReadTokens(file string) (out []string) {
	for _, line := range textual.Lines([]byte(file)) {
		if !strings.HasPrefix(line, "#") {
			out = append(out, line)
		}
	}
	return out
}
