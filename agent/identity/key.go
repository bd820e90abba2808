package identity

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

	"github.com/usher-agent/usher/agent/files"
)

// maxKey is the size in bytes of the largest key file that is read.
const maxKey = 1 << 20

// remade is the mend for a file that holds no key.
const remade = "move it away, and the agent makes a new one (a licence bound to the old key must be bound again)"

// File says where the agent's key is: PKCS #8 in PEM.
type File struct {
	Path string
	// Read reads the key file, of at most max bytes; nil: the file is the agent's own, in its state folder. A
	// configured key needs another way: in a container it comes from a Secret, by links.
	Read func(path string, max int64) ([]byte, error)
}

// FileAt returns where an agent's key is: the file that the configuration names, which read reads, or where named is
// empty agent.key in the state folder.
func FileAt(named, stateDir string, read func(path string, max int64) ([]byte, error)) File {
	if named != "" {
		return File{Path: named, Read: read}
	}
	return File{Path: filepath.Join(stateDir, "agent.key")}
}

// Load reads the key, and makes one when the file does not exist.
func (f File) Load() (ed25519.PrivateKey, error) {
	key, err := f.Existing()
	if errors.Is(err, fs.ErrNotExist) {
		return f.create()
	}
	return key, err
}

// Existing reads the key. The error of a file that does not exist is an [fs.ErrNotExist].
func (f File) Existing() (ed25519.PrivateKey, error) {
	b, err := f.read()
	if err != nil {
		return nil, fmt.Errorf("agent key %s: %w", f.Path, err)
	}
	block, _ := pem.Decode(b)
	if block == nil || block.Type != "PRIVATE KEY" {
		return nil, fmt.Errorf("agent key %s: not a PEM file with a PRIVATE KEY; "+remade, f.Path)
	}
	key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("agent key %s: not a PKCS #8 key; "+remade, f.Path)
	}
	ed, ok := key.(ed25519.PrivateKey)
	if !ok {
		return nil, fmt.Errorf("agent key %s: %T is not an Ed25519 key; "+
			"give one, or leave agent.key_file out, and the agent makes one", f.Path, key)
	}
	return ed, nil
}

// Public returns the public half of the key; nil: there is no key that can be read.
func (f File) Public() ed25519.PublicKey {
	key, err := f.Existing()
	if err != nil {
		return nil
	}
	return key.Public().(ed25519.PublicKey)
}

func (f File) read() ([]byte, error) {
	if f.Read != nil {
		return f.Read(f.Path, maxKey)
	}
	return files.Read(f.Path, maxKey)
}

func (f File) create() (ed25519.PrivateKey, error) {
	_, key, err := ed25519.GenerateKey(nil)
	if err != nil {
		return nil, fmt.Errorf("agent key: %w", err)
	}
	if err := f.write(key, nil); err != nil {
		return nil, fmt.Errorf("agent key %s: %w; make the folder writable for the agent, or set agent.key_file",
			f.Path, err)
	}
	return key, nil
}

// Thumbprint returns the RFC 7638 thumbprint of an Ed25519 key (RFC 8037), as a licence's cnf.jkt names it.
func Thumbprint(pub ed25519.PublicKey) string {
	x := base64.RawURLEncoding.EncodeToString(pub)
	sum := sha256.Sum256([]byte(`{"crv":"Ed25519","kty":"OKP","x":"` + x + `"}`))
	return base64.RawURLEncoding.EncodeToString(sum[:])
}

// sealedHeader is the header in the key's PEM file which says that the key has sealed its state. To remove it together
// with the seal takes access to the key.
const sealedHeader = "Usher-State"

// Sealed reports whether the file says that the key has sealed a state folder.
func (f File) Sealed() bool {
	b, err := f.read()
	if err != nil {
		return false
	}
	block, _ := pem.Decode(b)
	return block != nil && block.Headers[sealedHeader] != ""
}

// Gone says that the agent's own file was removed; nil: it was not, or is configured.
func (f File) Gone() error {
	if f.Read != nil {
		return nil
	}
	if _, err := os.Lstat(f.Path); errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("agent key %s: it was removed", f.Path)
	}
	return nil
}

// Restore writes the agent's own file again, where it was removed. It leaves a configured file as it is.
func (f File) Restore(key ed25519.PrivateKey) error {
	if f.Read != nil {
		return nil
	}
	if _, err := os.Lstat(f.Path); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := f.write(key, map[string]string{sealedHeader: "sealed"}); err != nil {
		return fmt.Errorf("agent key %s: it was removed, and cannot be written again: %w", f.Path, err)
	}
	return nil
}

// write writes the agent's own file.
func (f File) write(key ed25519.PrivateKey, headers map[string]string) error {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return err
	}
	return files.Replace(f.Path, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Headers: headers, Bytes: der}),
		0o600)
}

// MarkSealed writes into the agent's own file that the key has sealed a state folder. It leaves a configured file as it
// is.
func (f File) MarkSealed() error {
	if f.Read != nil {
		return nil
	}
	b, err := f.read()
	if err != nil {
		return err
	}
	block, _ := pem.Decode(b)
	if block == nil {
		return fmt.Errorf("%s is not a PEM file", f.Path)
	}
	block.Headers = map[string]string{sealedHeader: "sealed"}
	return files.Replace(f.Path, pem.EncodeToMemory(block), 0o600)
}
