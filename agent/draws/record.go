package draws

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"

	"github.com/usher-agent/usher/enforcer"
)

// record is what a restarted agent goes on with.
type record struct {
	Licences map[string]*entry `json:"licences"` // by enforcer.Ref.Written
}

// load reads the record. One that cannot be read is an error: without it draws that were paid for would be lost.
func load(read func(string) ([]byte, error), file string) (map[enforcer.Ref]*entry, error) {
	b, err := read(file)
	if errors.Is(err, fs.ErrNotExist) {
		return map[enforcer.Ref]*entry{}, nil
	}
	if err != nil {
		return nil, fmt.Errorf("record of draws: %w", err)
	}
	var r record
	if err := json.Unmarshal(b, &r); err != nil || r.Licences == nil {
		return nil, fmt.Errorf(
			"record of draws %s: it cannot be read (%v); have it back from a backup, or move it away: what it says "+
				"was taken is then lost to this agent", file, err)
	}
	for id, e := range r.Licences {
		if e == nil || e.Meters == nil {
			return nil, fmt.Errorf(
				"record of draws %s: it says nothing of licence %s; have it back from a backup, or move it away", file,
				id)
		}
		for name, m := range e.Meters {
			if m == nil || m.Taken < 0 || m.Pending != nil && (m.Pending.N < 1 || m.Pending.Token == "") {
				return nil, fmt.Errorf(
					"record of draws %s: what it says of meter %s cannot be; have it back from a backup, or move "+
						"it away", file, name)
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

// save writes the record. k.mu is held.
func (k *Keeper) save() error {
	b, err := json.Marshal(record{enforcer.ByName(k.of)})
	if err != nil {
		return err
	}
	return k.cfg.Write(k.cfg.File, b)
}
