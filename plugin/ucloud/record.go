package ucloud

import (
	"errors"
	"fmt"
	"math"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"github.com/go-json-experiment/json"

	"github.com/usher-agent/usher/enforcer"
	"github.com/usher-agent/usher/plugin"
)

// Bounds of what a licence keeps.
const (
	maxName    = 256      // bytes of a name
	maxUpdates = 64       // of a licence; older ones are forgotten
	maxStatus  = 256      // bytes of an update's text
	maxGrants  = 32       // entities that a licence is shared with
	maxHolders = 16       // callers that have bound jobs to a licence
	maxLabels  = 16       // of a licence
	maxRecord  = 12 << 10 // bytes of a licence in the store
	maxOwned   = 1000     // licences of one user
)

// The keys of the store.
const (
	keyLicense = "l/" // + id in 16 digits, so that they stand in order
	keyServer  = "s/" // + name
	keyNext    = "next"
)

// record is a licence in the store.
type record struct {
	ID        int64             `json:"id"`
	Product   ProductRef        `json:"product"`
	CreatedBy string            `json:"by"`
	Project   string            `json:"project,omitzero"`
	CreatedAt int64             `json:"at"`
	State     string            `json:"state"`
	Updates   []Update          `json:"updates,omitzero"`
	Grants    []Grant           `json:"grants,omitzero"`
	Labels    map[string]string `json:"labels,omitzero"`
	Generated string            `json:"generated,omitzero"` // providerGeneratedId
	Core      string            `json:"core,omitzero"`      // the id at the UCloud that has told of it
	// Holders are the callers that have bound jobs. They are written before a slot is taken, so that after a crash each
	// slot is found again.
	Holders []holder `json:"holders,omitzero"`
	All     []string `json:"all,omitzero"` // permissions of all members of the project
}

// holder is a caller as the agent vouched for it.
type holder struct {
	UID        uint32 `json:"uid"`
	Credential string `json:"credential,omitzero"`
}

func holderOf(c enforcer.Caller) holder { return holder{c.UID, c.Credential} }

func (h holder) caller() enforcer.Caller {
	return enforcer.Caller{UID: h.UID, Credential: h.Credential}
}

func (r *record) key() string { return fmt.Sprintf("%s%016d", keyLicense, r.ID) }
func (r *record) id() string  { return strconv.FormatInt(r.ID, 10) }

// find returns a licence by its id; nil: there is none.
func (x *request) find(id string) *record {
	n, err := strconv.ParseInt(id, 10, 64)
	if err != nil || n <= 0 || strconv.FormatInt(n, 10) != id {
		return nil
	}
	b, ok := x.Store().Get((&record{ID: n}).key())
	if !ok {
		return nil
	}
	r := &record{}
	if err := json.Unmarshal(b, r); err != nil {
		x.Log().Error("a licence in the store cannot be read", "id", id, "error", err)
		return nil
	}
	return r
}

// all returns every licence, by id.
func (x *request) all() (out []*record) {
	x.Store().Range(keyLicense, func(key string, value []byte) bool {
		r := &record{}
		if err := json.Unmarshal(value, r); err != nil {
			x.Log().Error("a licence in the store cannot be read", "key", key, "error", err)
		} else {
			out = append(out, r)
		}
		return true
	})
	return out
}

// change is the record as the store is to have it. The oldest updates go where it is too large.
func (r *record) change() (plugin.Change, *Fault) {
	for {
		r.Updates = r.Updates[max(0, len(r.Updates)-maxUpdates):]
		b, err := json.Marshal(r, json.Deterministic(true))
		switch {
		case err != nil:
			return plugin.Change{}, errBad
		case len(b) <= maxRecord:
			return plugin.Change{Key: r.key(), Value: b}, nil
		case len(r.Updates) == 0:
			return plugin.Change{}, refuse(http.StatusBadRequest, "The licence would be too large")
		}
		r.Updates = r.Updates[1:]
	}
}

// save writes licences, all or none, with further changes.
func (x *request) save(records []*record, more ...plugin.Change) *Fault {
	for _, r := range records {
		c, f := r.change()
		if f != nil {
			return f
		}
		more = append(more, c)
	}
	return x.apply(more)
}

// apply makes changes, all or none. More than the store takes at once goes in parts: where a later part fails, the
// earlier ones are taken back. A crash in between can leave some of them, which the caller sees when it browses again.
func (x *request) apply(changes []plugin.Change) *Fault {
	var undo []plugin.Change
	for len(changes) > 0 {
		n, size := 0, 0
		for n < len(changes) {
			if size += len(changes[n].Key) + len(changes[n].Value); n > 0 && size > plugin.MaxStoreApply {
				break
			}
			n++
		}
		part := changes[:n]
		var was []plugin.Change
		if changes = changes[n:]; len(changes) > 0 {
			for _, c := range part {
				value, _ := x.Store().Get(c.Key)
				was = append(was, plugin.Change{Key: c.Key, Value: value})
			}
		}
		if err := x.Store().Apply(part...); err != nil {
			x.takeBack(undo)
			return x.unwritten(err)
		}
		undo = append(undo, was...)
	}
	return nil
}

// takeBack puts earlier values back.
func (x *request) takeBack(undo []plugin.Change) {
	for _, c := range undo {
		if err := x.Store().Apply(c); err != nil {
			x.Log().Error("a change cannot be taken back", "key", c.Key, "error", err)
		}
	}
}

// unwritten says why a change could not be written.
func (x *request) unwritten(err error) *Fault {
	if errors.Is(err, plugin.ErrStoreFull) {
		return refuse(http.StatusInsufficientStorage, "There are too many licences; delete some")
	}
	x.Log().Error("a change cannot be written", "error", err)
	return refuse(http.StatusInsufficientStorage, "The change could not be written; try again")
}

// next returns n ids for new licences, the first of them, with the change that makes them used.
func (x *request) next(n int) (int64, plugin.Change) {
	at := int64(1)
	if b, ok := x.Store().Get(keyNext); ok {
		if v, err := strconv.ParseInt(string(b), 10, 64); err == nil && v > 0 && v < math.MaxInt64/2 {
			at = v
		}
	}
	return at, plugin.Change{Key: keyNext, Value: []byte(strconv.FormatInt(at+int64(n), 10))}
}

// permissions returns what the caller may do with a licence, in the order ADMIN, READ, EDIT; none: it cannot see it.
func (x *request) permissions(r *record) (out []string) {
	w := x.who
	switch {
	case w.role == ProviderRole || w.role == roleService:
		return []string{Read, ProviderRole}
	case w.admin, r.CreatedBy == w.name && r.Project == w.project,
		r.Project != "" && r.Project == w.project && w.manages:
		return []string{Admin, Read, Edit}
	}
	add := func(more []string) {
		for _, p := range []string{Read, Edit} {
			if slices.Contains(more, p) && !slices.Contains(out, p) {
				out = append(out, p)
			}
		}
	}
	if r.Project != "" && r.Project == w.project {
		add(r.All)
	}
	for _, g := range r.Grants {
		switch e := g.Entity; {
		case e.Type == "user" && e.Username == w.name,
			e.Type == "project_group" && slices.Contains(w.groups, e) && e.ProjectID == w.project:
			add(g.Permissions)
		}
	}
	return out
}

// may returns a licence on which the caller has a permission.
func (x *request) may(id, permission string) *record {
	r := x.find(id)
	if r == nil {
		return nil
	}
	has := x.permissions(r)
	if slices.Contains(has, permission) || permission == Edit && slices.Contains(has, ProviderRole) {
		return r
	}
	return nil
}

// several returns licences on which the caller has a permission: all of them, or the refusal.
func (x *request) several(ids []string, permission string) ([]*record, *Fault) {
	var out []*record
	for i, id := range ids {
		r := x.may(id, permission)
		switch {
		case r == nil && len(ids) == 1:
			return nil, errGone
		case r == nil:
			return nil, refuse(http.StatusBadRequest,
				"Permission denied. Try to reload the page and try again.")
		case slices.Contains(ids[:i], id):
			return nil, refuse(http.StatusBadRequest, "Licence "+plugin.Short(id)+" stands twice in the request")
		}
		out = append(out, r)
	}
	return out, nil
}

// clip bounds a text to whole characters.
func clip(s string, n int) string {
	if len(s) > n {
		s = s[:n]
	}
	return strings.ToValidUTF8(s, "")
}
