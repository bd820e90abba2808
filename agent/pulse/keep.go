package pulse

import (
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"

	"github.com/usher-agent/usher/enforcer"
)

// newNonce returns 32 random bytes.
func newNonce() []byte {
	b := make([]byte, 32)
	rand.Read(b) // never fails: see crypto/rand
	return b
}

// load reads the state. An absent file is an empty state.
func load(c Config) (map[enforcer.Ref]State, error) {
	b, err := c.Read(c.File)
	if errors.Is(err, fs.ErrNotExist) {
		return map[enforcer.Ref]State{}, nil
	}
	if err != nil {
		return nil, fmt.Errorf("upstream state: %w", err)
	}
	out := map[string]State{}
	if err := json.Unmarshal(b, &out); err != nil {
		return nil, fmt.Errorf("upstream state %s: %v; move the file away, and the agent asks the upstream again",
			c.File, err)
	}
	named := enforcer.ByRef(out, func(s State) bool { return s.Named })
	for ref, s := range named {
		if s.Named = true; s.Epoch != c.Epoch {
			s = s.atOnce()
		}
		named[ref] = s
	}
	return named, nil
}

// keep writes the state, whole or not at all. It logs a failure once, and the calls go on. p.mu is held.
func (p *Pulse) keep() {
	for ref, s := range p.state {
		s.Named = true
		p.state[ref] = s
	}
	b, err := json.Marshal(enforcer.ByName(p.state))
	if err == nil {
		err = p.cfg.Write(p.cfg.File, b)
	}
	if err != nil && p.unkept == nil {
		p.cfg.Log.Error("the upstream's answers could not be kept; after a restart the agent asks again", "error", err)
	}
	p.unkept = err
}
