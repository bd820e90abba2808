package plugin

import (
	"bytes"
	"fmt"
	"sync"
)

// Renewed is a file that the configuration names, and that may be renewed while the agent runs: a token, a certificate.
// It is read for each use. Where the present content is bad, the last good one counts on. Do not copy a Renewed; it is
// safe for concurrent use.
type Renewed[T any] struct {
	Read  func() ([]byte, error)
	Parse func([]byte) (T, error)
	// Told hears at each use why the present content is not used; nil: it is used. May be nil.
	Told func(error)

	mu    sync.Mutex // guards all below
	have  bool
	text  []byte // that value is made of
	value T
}

// Get returns the file's value: of its present content, or of the last good one. The error is that of a file that never
// was good.
func (r *Renewed[T]) Get() (T, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	text, err := r.Read()
	if err == nil && r.have && bytes.Equal(text, r.text) {
		r.tell(nil)
		return r.value, nil
	}
	var value T
	if err == nil {
		value, err = r.Parse(text)
	}
	if err == nil {
		r.have, r.text, r.value = true, bytes.Clone(text), value
		r.tell(nil)
		return value, nil
	}
	if !r.have {
		return value, err
	}
	r.tell(err)
	return r.value, nil
}

func (r *Renewed[T]) tell(err error) {
	if r.Told != nil {
		r.Told(err)
	}
}

// Secret returns what reads the one secret of a file that a key of the configuration names, as it is now. parse reads
// the text without what stands around a value, and its error names the key.
func (e Environment) Secret(key, path string, parse func(text []byte) (string, error)) func() (string, error) {
	r := &Renewed[string]{Parse: parse, Read: func() ([]byte, error) {
		b, err := e.ReadFile(path)
		if err != nil {
			err = fmt.Errorf("%s: %w", key, err)
		}
		return b, err
	}}
	if e.FileRefused != nil {
		r.Told = func(err error) { e.FileRefused(key, err) }
	}
	return r.Get
}
