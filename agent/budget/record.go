package budget

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"slices"

	"github.com/usher-agent/usher/enforcer"
)

// record is what a restarted agent goes on with. Its instants mean nothing on another start of the host.
type record struct {
	Boot string `json:"boot"`
	// instants are by the host's clock, and not by a time namespace's
	Host     bool              `json:"host_clock,omitempty"`
	Licences map[string]*entry `json:"licences"` // by enforcer.Ref.Written
}

// load reads the record; what is of another start of the host, or over, is nothing.
func load(cfg Config) (map[enforcer.Ref]*entry, error) {
	none := map[enforcer.Ref]*entry{}
	b, err := cfg.Read(cfg.File)
	if errors.Is(err, fs.ErrNotExist) {
		return none, nil
	}
	if err != nil {
		return nil, fmt.Errorf("record of blocks: %w", err)
	}
	var r record
	if err := json.Unmarshal(b, &r); err != nil {
		return nil, fmt.Errorf("record of blocks %s: %v; move the file away, and blocks are checked out anew", cfg.File,
			err)
	}
	// where no start of the host is told from another, none is the same
	if cfg.BootID == "" || r.Boot != cfg.BootID || cfg.Offset && !r.Host || r.Licences == nil {
		return none, nil
	}
	for id, e := range r.Licences {
		if e == nil {
			delete(r.Licences, id)
			continue
		}
		for name, p := range e.Pools {
			if p == nil {
				delete(e.Pools, name)
				continue
			}
			p.lapse(cfg.Now())
			for _, b := range p.Blocks {
				p.span = b.For
				b.Use = min(b.Use, b.Slots)
				b.kept = b.Use
			}
		}
	}
	return named(r.Licences), nil
}

// named returns what was kept under its Refs, which a former version did not write.
func named(of map[string]*entry) map[enforcer.Ref]*entry {
	out := enforcer.ByRef(of, func(e *entry) bool { return e.Named })
	for _, e := range out {
		e.Named = true
	}
	return out
}

// keep writes the record, whole or not at all, and reports whether it could. What is not there after a restart is not
// had any more, which is safe; what is given back is written before. k.mu is held.
func (k *Keeper) keep() bool {
	err := k.save()
	if err != nil && k.unkept == nil {
		k.cfg.Log.Error("the blocks of slots could not be recorded, and are lost to this agent if it restarts", "error",
			err)
	}
	k.unkept = err
	return err == nil
}

func (k *Keeper) save() error {
	b, err := json.Marshal(record{k.cfg.BootID, true, enforcer.ByName(k.of)})
	if err != nil {
		return err
	}
	if err := k.cfg.Write(k.cfg.File, b); err != nil {
		return err
	}
	for _, e := range k.of {
		for _, p := range e.Pools {
			for _, b := range p.Blocks {
				b.kept = b.Use
			}
		}
	}
	return nil
}

// behind reports whether a restarted agent would hand out more of a licence's blocks than this one does. The upstream
// must not hear of the smaller size before that is mended: it gives the rest to others. k.mu is held.
func (e *entry) behind() bool {
	for _, p := range e.Pools {
		if slices.ContainsFunc(p.Blocks, func(b *Block) bool { return b.kept > b.Use }) {
			return true
		}
	}
	return false
}
