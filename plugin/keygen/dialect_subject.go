package keygen

import (
	"cmp"
	"crypto/subtle"
	"slices"
	"strings"

	"github.com/go-json-experiment/json"

	"github.com/usher-agent/usher/enforcer"
)

// subject is the licence that a request is about.
type subject struct {
	verdict  *enforcer.Verdict
	judged   *enforcer.Judged
	license  *enforcer.License
	id       string
	key      string // the licence key that the request showed; empty: none
	digest   string // of the licence key, if the licence states it; empty: it does not
	terms    Object
	raw      object   // the licence as Keygen wrote it; nil: other terms stand in for it
	included []object // the resources that Keygen included
}

// subject returns the licence that a key opens, else the first in the verdict's order; nil: no licence can be read.
func (x *request) subject(key string) *subject {
	v := x.Verdict()
	if v == nil {
		return nil
	}
	var best *subject
	for i := range v.Licenses {
		j := &v.Licenses[i]
		if j.License == nil || j.Role == enforcer.RoleAddOn || j.Role == enforcer.RoleNotice {
			continue
		}
		s := newSubject(v, j)
		switch {
		case key != "" && s.opens(key) && (best == nil || !best.opens(key)):
			best = s
		case best == nil:
			best = s
		}
	}
	return best
}

func newSubject(v *enforcer.Verdict, j *enforcer.Judged) *subject {
	s := &subject{verdict: v, judged: j, license: j.License, id: j.License.ID}
	if j.License.System == System {
		s.read()
	}
	if s.raw == nil {
		s.makeUp()
	}
	if strings.ContainsFunc(s.id, func(r rune) bool {
		return !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' ||
			strings.ContainsRune("-._~", r))
	}) {
		s.id = namedID("license", s.id) // the SDKs put it into paths unescaped
	}
	if end := j.License.Terminates(); j.License.Grace > 0 && !end.IsZero() {
		s.terms.Attributes.Expiry = &end // clients see the grace as part of the licence's time
	}
	return s
}

// read takes Keygen's own objects from the licence's terms.
func (s *subject) read() {
	s.digest, _ = s.license.Terms["key"].(string)
	b, err := json.Marshal(s.license.Terms)
	if err != nil {
		return
	}
	set, err := parseDataset(b)
	if err != nil {
		return
	}
	var all struct {
		Data     object   `json:"data"`
		Included []object `json:"included"`
	}
	if json.Unmarshal(b, &all) != nil {
		return
	}
	about, raw := &set.Data, all.Data
	if about.Type == "machines" {
		about, raw = set.one("licenses", set.Data.related("license")), nil
		for _, o := range all.Included {
			if about != nil && o["type"] == "licenses" && o["id"] == about.ID {
				raw = o
			}
		}
	}
	if about == nil || about.Type != "licenses" || raw == nil {
		return
	}
	if s.terms, err = set.object(about); err != nil {
		return
	}
	s.raw, s.included = raw, all.Included
	if a, _ := raw["attributes"].(object); a != nil {
		s.digest, _ = a["key"].(string)
	}
}

// makeUp describes a licence of another system, or a bare key, in Keygen's attributes.
func (s *subject) makeUp() {
	l, a := s.license, &s.terms.Attributes
	name := cmp.Or(l.Licensee, l.ID)
	a.Name, a.Suspended, a.Floating, a.Created = &name, l.Suspended, true, &l.Issued
	if !l.Expires.IsZero() {
		a.Expiry = &l.Expires
	}
	if l.Banned {
		a.Status = string(CodeBanned)
	}
	pool := func(name string) *int64 {
		g, known := s.verdict.Pools[name]
		switch {
		case !known:
			return new(int64(0))
		case g.Limit == enforcer.Unlimited:
			return nil
		}
		return new(int64(g.Limit))
	}
	a.MaxMachines, a.MaxProcesses, a.MaxUsers = pool(PoolMachines), pool(PoolProcesses), nil
	for _, p := range []struct {
		name string
		to   **int64
	}{{PoolUsers, &a.MaxUsers}, {PoolCores, &a.MaxCores}, {PoolMemory, &a.MaxMemory}, {PoolDisk, &a.MaxDisk}} {
		if _, known := s.verdict.Pools[p.name]; known {
			*p.to = pool(p.name)
		}
	}
	if a.MaxMachines != nil && *a.MaxMachines == 1 {
		a.Floating = false
	}
	if m, known := s.verdict.Meters[MeterUses]; known && m.Limit != enforcer.Unlimited {
		a.MaxUses = new(int64(m.Limit))
	}
	s.terms.ID = l.ID
	s.terms.Policy.settle()
}

// opens reports whether a licence key is this licence's.
func (s *subject) opens(key string) bool {
	return s.digest != "" && subtle.ConstantTimeCompare([]byte(s.digest), []byte(KeyDigest(key))) == 1
}

// own reports whether a key is the licence's own: it opens the licence or, if the licence states no key, the
// credentials file lists it.
func (s *subject) own(key string, listed bool) bool {
	return s != nil && (s.opens(key) || s.digest == "" && listed)
}

// related returns the id of a to-one relationship that Keygen wrote.
func (s *subject) related(name string) string {
	all, _ := s.raw["relationships"].(object)
	r, _ := all[name].(object)
	if r == nil && name == "owner" {
		r, _ = all["user"].(object) // its name until version 1.5
	}
	d, _ := r["data"].(object)
	id, _ := d["id"].(string)
	return id
}

// user is a user of the licence.
type user struct{ id, email string } // email: empty if Keygen's file does not have it

// users returns the users that Keygen's file names: those with an e-mail address, then those without.
func (s *subject) users() (out []user) {
	var bare []user
	for _, id := range append([]string{s.related("owner")}, s.relatedAll("users")...) {
		if id != "" {
			bare = append(bare, user{id: id})
		}
	}
	for _, o := range s.included {
		if o["type"] == "users" {
			a, _ := o["attributes"].(object)
			u := user{textOf(o["id"]), textOf(a["email"])}
			if u.id != "" && u.email != "" {
				out = append(out, u)
			} else if u.id != "" {
				bare = append(bare, u)
			}
		}
	}
	for _, b := range bare {
		if !slices.ContainsFunc(out, func(u user) bool { return u.id == b.id }) {
			out = append(out, b)
		}
	}
	return out
}

// protected reports whether the vendor alone manages the licence's machines.
func (s *subject) protected() bool {
	a, _ := s.raw["attributes"].(object)
	protected, _ := a["protected"].(bool)
	return protected
}

// userCount returns how many users the licence has, the owner included, as far as Keygen's file says.
func (s *subject) userCount() int64 {
	known := int64(len(s.users()))
	all, _ := s.raw["relationships"].(object)
	users, _ := all["users"].(object)
	meta, _ := users["meta"].(object)
	if n, ok := meta["count"].(float64); ok && n >= 0 && n < 1<<53 {
		return max(known, int64(n))
	}
	return known
}

// relatedAll returns the ids of a to-many relationship that Keygen wrote.
func (s *subject) relatedAll(name string) (out []string) {
	all, _ := s.raw["relationships"].(object)
	r, _ := all[name].(object)
	list, _ := r["data"].([]any)
	for _, d := range list {
		o, _ := d.(object)
		out = append(out, textOf(o["id"]))
	}
	return out
}

func (s *subject) productID() string { return cmp.Or(s.related("product"), s.license.Product) }

func (s *subject) policyID() string {
	return cmp.Or(s.related("policy"), namedID("policy", s.license.ID))
}

func (s *subject) found(c enforcer.Code) bool {
	return slices.ContainsFunc(s.judged.Findings, func(f enforcer.Finding) bool { return f.Code == c })
}

// shut returns the refusal to authenticate with this licence's key; nil: it may be used. The server does the same.
func (s *subject) shut() *response {
	a := &s.terms.Attributes
	switch {
	case a.Status == string(CodeBanned) || s.found(enforcer.Banned):
		return forbidden("LICENSE_BANNED", "License is banned")
	case a.Suspended || a.Status == string(CodeSuspended) || s.found(enforcer.Suspended):
		return forbidden("LICENSE_SUSPENDED", "License is suspended")
	case s.found(enforcer.Expired) && s.terms.Policy.ExpirationStrategy == expiryRevoke:
		return forbidden("LICENSE_EXPIRED", "License is expired")
	}
	return nil
}

// secret returns the licence key that the request showed. For a licence that states no key, its id takes that place.
// Files are encrypted with it.
func (s *subject) secret() string {
	if s.key == "" && s.digest == "" {
		return s.id
	}
	return s.key
}
