package enforcer

import "strings"

// Ref names a licence among those of all systems: an id means something within one system alone, and its test licences
// have ids of their own. Whatever is remembered of a licence (duties, first use, emergencies, returns, draws, shares)
// is remembered under its Ref. So a document of another system, or of a test key, has no part in it.
//
// It is "usher/ID" for a production licence of the system usher, and "usher:test/ID" for a test licence. The names of
// systems have neither a colon nor a slash. The key that signed is no part of it: a vendor that changes to another
// production key renews a licence under its old id.
type Ref string

// Ref returns the name of the licence among those of all systems.
func (l *License) Ref() Ref {
	if l.IsTest() {
		return Ref(l.System + ":test/" + l.ID)
	}
	return Ref(l.System + "/" + l.ID)
}

// nativeSystem begins the Refs of the system whose licences files name by the id alone.
const nativeSystem = "usher/"

// Written returns the name that files use: the id alone for a production licence of the native system, as former
// versions wrote it, and otherwise the Ref itself. ReadRef reads it.
func (r Ref) Written() string {
	if id, ok := strings.CutPrefix(string(r), nativeSystem); ok && id != "" && !strings.Contains(id, "/") {
		return id
	}
	return string(r)
}

// ReadRef returns the Ref that Written wrote.
func ReadRef(written string) Ref {
	if strings.Contains(written, "/") {
		return Ref(written)
	}
	return Ref(nativeSystem + written)
}

// ByRef returns what a file keeps of licences by their Refs. named reports whether an entry is under what Written
// wrote; otherwise a former version wrote it, under the id alone.
func ByRef[V any](of map[string]V, named func(V) bool) map[Ref]V {
	out := make(map[Ref]V, len(of))
	for name, v := range of {
		if named(v) {
			out[ReadRef(name)] = v
		} else {
			out[FormerRef(name)] = v
		}
	}
	return out
}

// ByName is ByRef the other way round, for writing.
func ByName[V any](of map[Ref]V) map[string]V {
	out := make(map[string]V, len(of))
	for ref, v := range of {
		out[ref.Written()] = v
	}
	return out
}

// FormerRef returns the name under which former versions remembered a licence, which was its id alone.
func FormerRef(id string) Ref { return Ref("/" + id) }

// ID returns the licence's id.
func (r Ref) ID() string {
	_, id, _ := strings.Cut(string(r), "/")
	return id
}

// Former reports whether a former version remembered it, so that neither its system nor its environment is known.
func (r Ref) Former() bool { return strings.HasPrefix(string(r), "/") }

// MayActOn reports whether the word of one licence may change what another one grants: both are of one system, and the
// other is of no stronger environment. A test key's signature never acts on a production licence.
func (l *License) MayActOn(other *License) bool {
	return l.System == other.System && (!l.IsTest() || other.IsTest())
}

// Kept returns what is kept of a licence: under its Ref, or under the id alone where a former version kept it. In that
// case it belongs to this licence from now on.
func Kept[V any](of map[Ref]V, l *License) (v V, ok bool) {
	if v, ok = of[l.Ref()]; ok {
		return v, true
	}
	if v, ok = of[FormerRef(l.ID)]; ok {
		delete(of, FormerRef(l.ID))
		of[l.Ref()] = v
	}
	return v, ok
}
