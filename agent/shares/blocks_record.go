package shares

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"

	"github.com/usher-agent/usher/enforcer"
)

// blocksRecord is what a restarted agent goes on with. Its instants mean nothing on another start of the host.
type blocksRecord struct {
	Boot string `json:"boot"`
	// instants are by the host's clock, and not by a time namespace's
	Host     bool                       `json:"host_clock,omitempty"`
	Licences map[string]*recordedBlocks `json:"licences"` // by enforcer.Ref.Written
}

type recordedBlocks struct {
	Named bool             `json:"named,omitempty"` // it is kept under a Ref; former versions kept it under an id
	State []byte           `json:"state,omitempty"`
	Pools map[string]*Pool `json:"pools"`
}

// loadBlocks reads the record of blocks; what is of another start of the host, or over, is nothing.
func loadBlocks(cfg Config) (map[enforcer.Ref]*entry[*Pool], error) {
	out := map[enforcer.Ref]*entry[*Pool]{}
	b, err := cfg.Blocks.Read(cfg.Blocks.Path)
	if errors.Is(err, fs.ErrNotExist) {
		return out, nil
	}
	if err != nil {
		return nil, fmt.Errorf("record of blocks: %w", err)
	}
	var r blocksRecord
	if err := json.Unmarshal(b, &r); err != nil {
		return nil, fmt.Errorf("record of blocks %s: %v; move the file away: the agent then checks out other blocks",
			cfg.Blocks.Path, err)
	}
	// where no start of the host is told from another, none is the same
	if cfg.BootID == "" || r.Boot != cfg.BootID || cfg.Offset && !r.Host {
		return out, nil
	}
	maps.DeleteFunc(r.Licences, func(_ string, l *recordedBlocks) bool { return l == nil })
	for ref, l := range enforcer.ByRef(r.Licences, func(l *recordedBlocks) bool { return l.Named }) {
		e := &entry[*Pool]{state: l.State, plans: map[string]*Pool{}}
		for name, p := range l.Pools {
			if p != nil {
				p.load(cfg.Now())
				e.plans[name] = p
			}
		}
		out[ref] = e
	}
	return out, nil
}

// encodeRecord returns the record of blocks. What is not there after a restart is lost until its time is over, which is
// safe; a smaller block is written before it is given back. mu is held.
func (b *blocks) encodeRecord(entries map[enforcer.Ref]*entry[*Pool]) (data []byte, written func(), err error) {
	r := blocksRecord{b.cfg.BootID, true, map[string]*recordedBlocks{}}
	use := map[*Block]int64{}
	for ref, e := range entries {
		r.Licences[ref.Written()] = &recordedBlocks{true, e.state, e.plans}
		for _, p := range e.plans {
			for _, x := range p.Blocks {
				use[x] = x.Use
			}
		}
	}
	data, err = json.Marshal(r)
	return data, func() {
		for x, n := range use {
			x.kept = n
		}
	}, err
}
