package agent

import (
	"crypto/ed25519"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/usher-agent/usher/agent/config"
	"github.com/usher-agent/usher/agent/files"
)

// loadKey reads the agent's Ed25519 key (PKCS #8 in PEM) of a configuration, and makes one when the file does not exist.
func loadKey(c *config.Config) (ed25519.PrivateKey, error) {
	path, read := keyFile(c), files.Read
	if c.Agent.KeyFile != "" {
		read = c.ReadFile // a container has it from a Secret, by links
	}
	b, err := read(path, maxNamed)
	if errors.Is(err, fs.ErrNotExist) {
		return makeKey(path)
	}
	if err != nil {
		return nil, fmt.Errorf("agent key %s: %w", path, err)
	}
	block, _ := pem.Decode(b)
	if block == nil || block.Type != "PRIVATE KEY" {
		return nil, fmt.Errorf("agent key %s: not a PEM file with a PRIVATE KEY; move it away and a new one is made (a licence bound to the old key must be bound again)", path)
	}
	key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("agent key %s: not a PKCS #8 key; move it away and a new one is made (a licence bound to the old key must be bound again)", path)
	}
	ed, ok := key.(ed25519.PrivateKey)
	if !ok {
		return nil, fmt.Errorf("agent key %s: %T is not an Ed25519 key; give one, or leave agent.key_file out and one is made", path, key)
	}
	return ed, nil
}

func makeKey(path string) (ed25519.PrivateKey, error) {
	_, key, err := ed25519.GenerateKey(nil)
	if err != nil {
		return nil, fmt.Errorf("agent key: %w", err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, fmt.Errorf("agent key: %w", err)
	}
	if err := files.Replace(path, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), 0o600); err != nil {
		return nil, fmt.Errorf("agent key %s: %w; make the folder writable for the agent, or set agent.key_file", path, err)
	}
	return key, nil
}

// Thumbprint returns the RFC 7638 thumbprint of an Ed25519 key (RFC 8037), as a licence's cnf.jkt names it.
func Thumbprint(pub ed25519.PublicKey) string {
	x := base64.RawURLEncoding.EncodeToString(pub)
	sum := sha256.Sum256([]byte(`{"crv":"Ed25519","kty":"OKP","x":"` + x + `"}`))
	return base64.RawURLEncoding.EncodeToString(sum[:])
}

// sealedHeader is the header, in the key's PEM file, that says that the key has sealed its state. Who removes the seal cannot remove that
// without reading the key.
const sealedHeader = "Usher-State"

// keySealed reports whether the key's file has that header.
func keySealed(path string) bool {
	b, err := os.ReadFile(path)
	if err != nil {
		return false
	}
	block, _ := pem.Decode(b)
	return block != nil && block.Headers[sealedHeader] != ""
}

// markKey writes the header, where the key's file is the agent's own: one that is configured elsewhere is left as it is.
func markKey(c *config.Config) error {
	if c.Agent.KeyFile != "" {
		return nil
	}
	path := keyFile(c)
	b, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	block, _ := pem.Decode(b)
	if block == nil {
		return fmt.Errorf("%s is no PEM file", path)
	}
	block.Headers = map[string]string{sealedHeader: "sealed"}
	return files.Replace(path, pem.EncodeToMemory(block), 0o600)
}

// keyFile returns where the agent's key is.
func keyFile(c *config.Config) string {
	if c.Agent.KeyFile != "" {
		return c.Agent.KeyFile
	}
	return filepath.Join(c.State.Dir, "agent.key")
}

// existingKey returns the thumbprint of the agent's key if there is one that can be read.
func existingKey(c *config.Config) string {
	if key := existingPublicKey(c); key != nil {
		return Thumbprint(key)
	}
	return ""
}

// existingPublicKey returns that key; nil: there is none that can be read.
func existingPublicKey(c *config.Config) ed25519.PublicKey {
	if _, err := os.Stat(keyFile(c)); err != nil {
		return nil
	}
	key, err := loadKey(c)
	if err != nil {
		return nil
	}
	return key.Public().(ed25519.PublicKey)
}
