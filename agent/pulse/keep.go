package pulse

import (
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/usher-agent/usher/enforcer"
)

// newNonce returns 32 random bytes.
func newNonce() []byte {
	b := make([]byte, 32)
	rand.Read(b) // never fails: see crypto/rand
	return b
}

// load reads the state; none is an empty one.
func load(file string) (map[enforcer.Ref]State, error) {
	b, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		return map[enforcer.Ref]State{}, nil
	}
	if err != nil {
		return nil, fmt.Errorf("upstream state: %w", err)
	}
	out := map[enforcer.Ref]State{}
	if err := json.Unmarshal(b, &out); err != nil {
		return nil, fmt.Errorf("upstream state %s: %v; move the file away, and the upstream is asked anew", file, err)
	}
	named := map[enforcer.Ref]State{}
	for ref, s := range out {
		if !s.Named {
			ref, s.Named = enforcer.FormerRef(string(ref)), true
		}
		named[ref] = s
	}
	return named, nil
}

// keep writes the state, whole or not at all. What cannot be kept is logged once; the calls go on. p.mu is held.
func (p *Pulse) keep() {
	err := save(p.cfg.File, p.state)
	if err != nil && p.unkept == nil {
		p.cfg.Log.Error("what the upstream said could not be kept, and is asked again after a restart", "error", err)
	}
	p.unkept = err
}

func save(file string, state map[enforcer.Ref]State) (err error) {
	for ref, s := range state {
		s.Named = true
		state[ref] = s
	}
	b, err := json.Marshal(state)
	if err != nil {
		return err
	}
	f, err := os.CreateTemp(filepath.Dir(file), ".upstream-*")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.Remove(f.Name()))
		}
	}()
	_, err = f.Write(b)
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	return os.Rename(f.Name(), file)
}
