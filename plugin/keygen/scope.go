package keygen

import (
	"slices"
	"strconv"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// Scope is the scope of a validation. A nil field is not given, unless Null names it.
type Scope struct {
	Product      *string   `json:"product"`
	Policy       *string   `json:"policy"`
	User         *string   `json:"user"`
	Machine      *string   `json:"machine"`
	Fingerprint  *string   `json:"fingerprint"`
	Fingerprints *[]string `json:"fingerprints"`
	Components   *[]string `json:"components"`
	Entitlements *[]string `json:"entitlements"`
	Checksum     *string   `json:"checksum"`
	Version      *string   `json:"version"`
	Environment  *string   `json:"environment"`
	// Null has the names of the members that are given as null: {"user": null} asks for a licence without an owner. A
	// list's member has its place after the name: "components/0".
	Null []string `json:"-"`
}

// UnmarshalJSON reads a scope, and tells a member that is null from one that is absent.
func (s *Scope) UnmarshalJSON(b []byte) error {
	type plain Scope
	var p plain
	if err := json.Unmarshal(b, &p); err != nil {
		return err
	}
	var all map[string]jsontext.Value
	if err := json.Unmarshal(b, &all); err != nil {
		return err
	}
	*s = Scope(p)
	for name, v := range all {
		if v.Kind() == 'n' {
			s.Null = append(s.Null, name)
		}
	}
	for name, list := range map[string]*[]string{"fingerprints": s.Fingerprints, "components": s.Components,
		"entitlements": s.Entitlements} {
		var each []*string
		if list == nil || json.Unmarshal(all[name], &each) != nil {
			continue
		}
		*list = []string{}
		for i, v := range each {
			if v == nil {
				s.Null = append(s.Null, name+"/"+strconv.Itoa(i))
			} else {
				*list = append(*list, *v)
			}
		}
	}
	slices.Sort(s.Null)
	return nil
}

// null reports whether a member is given as null.
func (s *Scope) null(name string) bool { return slices.Contains(s.Null, name) }

// machines returns the fingerprints that the scope names, each once. The singular comes before the plural. given is
// false if the scope names neither.
func (s *Scope) machines() (out []string, given bool) {
	switch {
	case s.Fingerprint != nil:
		return []string{*s.Fingerprint}, true
	case s.Fingerprints != nil:
		return once(*s.Fingerprints), true
	}
	return nil, s.null("fingerprint") || s.null("fingerprints")
}

// once returns a list with each text once.
func once(list []string) (out []string) {
	for _, s := range list {
		if !slices.Contains(out, s) {
			out = append(out, s)
		}
	}
	return out
}
