package upstreams

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/usher-agent/usher/agent/files"
	"github.com/usher-agent/usher/enforcer"
	"github.com/usher-agent/usher/plugin"
)

// Renewals is a folder of documents that upstreams brought while the licence folder could not be written: one a
// licence. It need not exist.
type Renewals string

// Renewal is a document of the folder.
type Renewal struct {
	Name string // which no file of the licence folder has
	Data []byte
}

// Keep puts a document of a licence in the place of the one before.
func (r Renewals) Keep(of enforcer.Ref, document []byte) error {
	if err := os.MkdirAll(string(r), 0o700); err != nil {
		return err
	}
	sum := sha256.Sum256([]byte(of))
	return files.Replace(filepath.Join(string(r), hex.EncodeToString(sum[:16])+".lic"), document, 0o600)
}

// Read returns the documents. They are to be verified like any other.
func (r Renewals) Read() (out []Renewal, err error) {
	entries, err := os.ReadDir(string(r))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("renewed licences: %w", err)
	}
	for _, e := range entries {
		if !strings.HasSuffix(e.Name(), ".lic") {
			continue
		}
		b, err := files.Read(filepath.Join(string(r), e.Name()), plugin.MaxDocument+1)
		if err != nil {
			return nil, fmt.Errorf("renewed licences: %w", err)
		}
		if len(b) <= plugin.MaxDocument {
			out = append(out, Renewal{Name: "renewed-" + e.Name(), Data: b})
		}
	}
	return out, nil
}
