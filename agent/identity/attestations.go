package identity

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"sync"

	"github.com/usher-agent/usher/agent/files"
)

// maxAttestations is for how many licences an attestation is kept.
const maxAttestations = 1024

// Attestations keeps, by licence, the vendor's word for the agent's key that an activation brought: with it a product
// can tell the true agent although the licence names no key. It is safe for concurrent use.
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

// Set keeps the attestation for a licence; with an empty one the licence's is forgotten. What it returns an error of is
// not kept.
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
		return fmt.Errorf("activations %s: it holds those of %d licences, the most that is kept",
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
