package shares

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"

	"github.com/usher-agent/usher/enforcer"
)

// drawsRecord is what a restarted agent goes on with.
type drawsRecord struct {
	Licences map[string]*recordedDraws `json:"licences"` // by enforcer.Ref.Written
}

type recordedDraws struct {
	Named  bool              `json:"named,omitempty"` // it is kept under a Ref; former versions kept it under an id
	State  []byte            `json:"state,omitempty"`
	Meters map[string]*Meter `json:"meters"`
}

// loadDraws reads the record of draws. One that cannot be read is an error: without it draws that were paid for would
// be lost.
func loadDraws(f File) (map[enforcer.Ref]*entry[*Meter], error) {
	out := map[enforcer.Ref]*entry[*Meter]{}
	b, err := f.Read(f.Path)
	if errors.Is(err, fs.ErrNotExist) {
		return out, nil
	}
	if err != nil {
		return nil, fmt.Errorf("record of draws: %w", err)
	}
	var r drawsRecord
	if err := json.Unmarshal(b, &r); err != nil || r.Licences == nil {
		return nil, fmt.Errorf(
			"record of draws %s: it cannot be read (%v); restore it from a backup, or move it away: "+
				"the agent then loses the draws that it has taken", f.Path, err)
	}
	for id, l := range r.Licences {
		if l == nil || l.Meters == nil {
			return nil, fmt.Errorf(
				"record of draws %s: it says nothing of licence %s; restore it from a backup, or move it away", f.Path,
				id)
		}
		for name, m := range l.Meters {
			if m == nil || m.Taken < 0 || m.Pending != nil && (m.Pending.N < 1 || m.Pending.Token == "") {
				return nil, fmt.Errorf(
					"record of draws %s: meter %s has an impossible value; restore it from a backup, "+
						"or move it away", f.Path, name)
			}
		}
	}
	for ref, l := range enforcer.ByRef(r.Licences, func(l *recordedDraws) bool { return l.Named }) {
		out[ref] = &entry[*Meter]{state: l.State, plans: l.Meters}
	}
	return out, nil
}

// encodeRecord returns the record of draws. mu is held.
func (d *draws) encodeRecord(entries map[enforcer.Ref]*entry[*Meter]) (data []byte, written func(), err error) {
	r := drawsRecord{map[string]*recordedDraws{}}
	for ref, e := range entries {
		r.Licences[ref.Written()] = &recordedDraws{true, e.state, e.plans}
	}
	data, err = json.Marshal(r)
	return data, func() {}, err
}
