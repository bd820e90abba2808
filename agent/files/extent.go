package files

import (
	"encoding/json"
	"errors"
)

// Extent is the beginning of a journal as it was sealed: so many bytes, and their SHA-256. The bytes behind it were
// written since, and no seal covers them.
type Extent struct {
	Size   int64  `json:"size"`
	Digest []byte `json:"digest"`
}

// Extents returns the extents with one of which a journal must begin: as it was sealed last, or as its announced
// replacement. listed reports whether the manifest knows the journal. One that was only announced may be anything.
func (v *Vault) Extents(name string) (want []Extent, listed bool) {
	v.mu.Lock()
	defer v.mu.Unlock()
	e := v.m.Files[name]
	if e == nil {
		return nil, false
	}
	for _, x := range []*Extent{e.Journal, e.Next} {
		if x != nil {
			want = append(want, *x)
		}
	}
	return want, true
}

// Past reports whether a journal is of another start of the host, and was not sealed in this one.
func (v *Vault) Past(name string) bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	e := v.m.Files[name]
	return e != nil && e.Past
}

// SealJournal lists a journal's beginning in the manifest, and keeps a copy of its gist; nil: the copy stays as it is.
func (v *Vault) SealJournal(name string, x Extent, gist []byte) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	was := v.m.Files[name]
	e := &entry{Journal: &x}
	if was != nil {
		e.Generation = was.Generation
		e.Copy = was.Copy
	}
	e.Generation++
	if gist != nil {
		if !json.Valid(gist) {
			return errors.New("the gist of a journal must be JSON")
		}
		e.Copy = gist
	}
	v.m.Files[name] = e
	return v.write()
}

// Announce lists the file that will take a journal's place in the manifest, so that a crash on either side of the
// rename is explained.
func (v *Vault) Announce(name string, next Extent) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	e := entry{}
	if was := v.m.Files[name]; was != nil {
		e = *was
	}
	e.Next = &next
	v.m.Files[name] = &e
	return v.write()
}

// Known returns the manifest's copy of a file's content or of a journal's gist; nil: there is none.
func (v *Vault) Known(name string) []byte {
	v.mu.Lock()
	defer v.mu.Unlock()
	if e := v.m.Files[name]; e != nil {
		return e.Copy
	}
	return nil
}

// Note notes a finding that the caller made itself, of a journal or of a folder.
func (v *Vault) Note(name string, fault Fault) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.find(name, fault)
	if !v.stale {
		return nil
	}
	return v.write()
}
