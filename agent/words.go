package agent

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"sync"

	"github.com/usher-agent/usher/agent/files"
)

// maxWords is of how many licences the vendor's word is kept.
const maxWords = 1024

// words keeps, by licence, the vendor's word for the agent's key that an activation brought (online.Activation): with it a product
// can tell the true agent although the licence names no key. It is safe for concurrent use.
type words struct {
	path string

	mu sync.Mutex // guards all below; taken last
	by map[string]string
}

func openWords(path string) (*words, error) {
	w := &words{path: path, by: map[string]string{}}
	b, err := files.Read(path, files.MaxSize)
	if errors.Is(err, fs.ErrNotExist) {
		return w, nil
	}
	if err == nil {
		err = json.Unmarshal(b, &w.by)
	}
	if err != nil {
		return nil, fmt.Errorf("activations %s: %w; move the file away, and the next activation brings it again", path, err)
	}
	return w, nil
}

// of returns the word for a licence; empty: there is none.
func (w *words) of(license string) string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.by[license]
}

// set keeps the word for a licence; an empty one is forgotten.
func (w *words) set(license, word string) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.by[license] == word {
		return nil
	}
	next := maps.Clone(w.by)
	if next[license] = word; word == "" {
		delete(next, license)
	}
	if len(next) > maxWords {
		return fmt.Errorf("activations %s: it holds those of %d licences, the most that is kept", w.path, maxWords)
	}
	b, err := json.Marshal(next)
	if err == nil {
		err = files.Replace(w.path, b, 0o600)
	}
	if err == nil {
		w.by = next
	}
	return err
}
