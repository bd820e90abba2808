package dialect

import (
	"crypto/ed25519"
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"fmt"

	"github.com/usher-agent/usher/agent/api"
	"github.com/usher-agent/usher/enforcer"
)

// keyFor derives the key of a dialect's answers from the agent's (RFC 5869), so that no signature of one passes for a
// signature of the other.
func keyFor(agent ed25519.PrivateKey, system string) (ed25519.PrivateKey, error) {
	seed, err := hkdf.Key(sha256.New, agent.Seed(), nil, "usher dialect key/1 "+system, ed25519.SeedSize)
	if err != nil {
		return nil, fmt.Errorf("key of the %s dialect: %w", system, err)
	}
	return ed25519.NewKeyFromSeed(seed), nil
}

// credentialName names a credential without telling it: by a hash that only this agent can make.
func credentialName(agent ed25519.PrivateKey, kind, credential string) string {
	key, err := hkdf.Key(sha256.New, agent.Seed(), nil, "usher credential names/1", sha256.Size)
	if err != nil { // only of a hash that FIPS 140 does not allow, and this one it does
		panic(err)
	}
	m := hmac.New(sha256.New, key)
	m.Write([]byte(kind + "\x00" + credential))
	return kind + ":" + hex.EncodeToString(m.Sum(nil)[:12])
}

// byCredential returns the caller that a credential alone names.
func byCredential(name string) enforcer.Caller {
	return enforcer.Caller{UID: api.Nobody, GID: api.Nobody, Credential: name}
}
