package identity

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"sync"

	"github.com/usher-agent/usher/agent/files"
)

// maxAttestations is how many licences the agent keeps an attestation for.
const maxAttestations = 1024

// Attestations keeps, by licence, the vendor's attestation of the agent's key that an activation brought. A product can
// tell the true agent by it, although the licence names no key. It is safe for concurrent use.
type Attestations struct {
	path string

	mu sync.Mutex // guards all below; taken last
	by map[string]string
}

// OpenAttestations reads the attestations of a file, which need not exist.
func OpenAttestations(path string) (*Attestations, error) {
	a := &Attestations{path: path, by: map[string]string{}}
	b, err := files.Read(path, files.MaxSize)
	if errors.Is(err, fs.ErrNotExist) {
		return a, nil
	}
	if err == nil {
		err = json.Unmarshal(b, &a.by)
	}
	if err != nil {
		return nil, fmt.Errorf("activations %s: %w; move the file away, and the next activation brings it again",
			path, err)
	}
	if a.by == nil { // the file says null
		a.by = map[string]string{}
	}
	return a, nil
}

// For returns the attestation for a licence; empty: there is none.
func (a *Attestations) For(license string) string {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.by[license]
}

// Restore writes the file again, where it was removed.
func (a *Attestations) Restore() error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if _, err := os.Lstat(a.path); !errors.Is(err, fs.ErrNotExist) || len(a.by) == 0 {
		return nil
	}
	b, err := json.Marshal(a.by)
	if err == nil {
		err = files.Replace(a.path, b, 0o600)
	}
	return err
}

// Set keeps the attestation for a licence, or forgets it where it is empty. Where Set returns an error, nothing has
// changed.
func (a *Attestations) Set(license, word string) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.by[license] == word {
		return nil
	}
	next := maps.Clone(a.by)
	if next[license] = word; word == "" {
		delete(next, license)
	}
	if len(next) > maxAttestations {
		return fmt.Errorf("activations %s: it holds those of %d licences, which is the most",
			a.path, maxAttestations)
	}
	b, err := json.Marshal(next)
	if err == nil {
		err = files.Replace(a.path, b, 0o600)
	}
	if err == nil {
		a.by = next
	}
	return err
}
