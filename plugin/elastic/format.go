package elastic

import (
	"bytes"
	"errors"
	"fmt"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/usher-agent/usher/enforcer"
	"github.com/usher-agent/usher/plugin"
)

// Format is Elastic's documents: stack licences and orchestration licences. Its zero value is ready.
type Format struct{}

var _ plugin.Format = Format{}

// System returns "elastic".
func (Format) System() string { return System }

// Recognise reports whether the bytes look like a licence of either kind.
func (Format) Recognise(document []byte) bool {
	if len(document) > plugin.MaxDocument || !bytes.Contains(document, []byte(`"uid"`)) {
		return false
	}
	_, v, ok := find(document)
	return ok && (v == nil || bytes.Contains(v, []byte(`"uid"`)))
}

// Verify checks a document against the anchors; see [plugin.Format]. Of several licences in one document it is about
// the latest issued.
func (Format) Verify(document []byte, anchors []plugin.Anchor) (*enforcer.License, *enforcer.Problem) {
	if len(document) > plugin.MaxDocument {
		return nil, malformed("", "", "it has %d bytes; a document has at most %d (1 MiB)", len(document),
			plugin.MaxDocument)
	}
	all, err := parse(document)
	if err != nil {
		return nil, malformed("", "", "%v", err)
	}
	return latest(all).verify(anchors)
}

// latest returns the latest issued of licences; of two the first.
func latest(all []*fields) *fields {
	out := all[0]
	for _, f := range all[1:] {
		if f.issue.n > out.issue.n {
			out = f
		}
	}
	return out
}

// verify checks one licence.
func (f *fields) verify(anchors []plugin.Anchor) (*enforcer.License, *enforcer.Problem) {
	if p := f.required(); p != nil {
		return nil, p
	}
	b, err := parseBlob(f.signature.s)
	switch {
	case errors.Is(err, errNewer):
		return nil, malformed("NEWER", "update the agent", "%v", err)
	case err != nil:
		return nil, malformed("", "", "%v", err)
	case b.version < 0:
		return f.unverified(KindStack, b), f.selfGenerated(b)
	}
	by, p := f.believe(b, anchors)
	if p != nil {
		if by.kind == "" {
			by.kind = f.likely(b)
		}
		if p.Code == enforcer.BadSignature && by.kind == KindOrchestration && f.tooOld(b) {
			p = tooOld()
		}
		return f.unverified(by.kind, b), p
	}
	if p := f.check(by.kind, b.version); p != nil {
		return nil, p
	}
	l := f.license(by.kind, b)
	f.judgeClusters(l, anchors)
	l.KeyID, l.AnchorEnvironment = by.anchor.KeyID, by.anchor.Environment
	if err := l.Validate(); err != nil {
		return nil, malformed("", "ask Elastic for a mended one", "%v", err)
	}
	return l, inTime(by.anchor, l)
}

// required reports a member that no licence lacks, of whichever kind.
func (f *fields) required() *enforcer.Problem {
	missing := func(name string) *enforcer.Problem {
		return malformed("", "", "it has no %s: a part of it was cut off, or it is no licence file", name)
	}
	switch {
	case f.uid.s == "":
		return missing("uid")
	case f.typ.s == "":
		return missing("type")
	case f.signature.s == "":
		return missing("signature")
	case !f.expiry.set && f.typ.s != typeBasic:
		return missing("expiry_date_in_millis")
	case f.startOrNone() < noStart || f.issue.n < 0 || f.expiry.n < 0:
		return malformed("", "", "one of its dates lies before 1970")
	}
	return nil
}

// check reports why a licence that is well signed is none all the same.
func (f *fields) check(kind string, version int32) *enforcer.Problem {
	const ask = "ask Elastic for a licence of the present form"
	units := f.units.set && version >= enterpriseSignature
	switch {
	case kind == KindOrchestration && f.start.n < 0:
		return malformed("", ask, "its start lies before 1970")
	case kind == KindOrchestration:
		return nil
	case !f.issue.set || !f.issuer.set || !f.issuedTo.set:
		return malformed("", ask, "it lacks its issue date, its issuer or its customer")
	case version == 1 && f.subscription.s == "":
		return malformed("", ask, "it has no subscription_type, by which licences of version 1 have their tier")
	case f.tier(kind, version) == "":
		return malformed("", "update the agent", "its type is none that is known")
	case f.typ.s == typeEnterprise && version < enterpriseSignature:
		return malformed("ENTERPRISE_BEFORE_V5", ask, "it is an enterprise licence of signature version %d, and "+
			"Elasticsearch takes these from version %d on", version, enterpriseSignature)
	case f.typ.s == typeEnterprise && (!units || f.nodes.set):
		return malformed("", ask, "an enterprise licence states max_resource_units, and no max_nodes")
	case f.typ.s != typeEnterprise && (units || !f.nodes.set):
		return malformed("", ask, "a licence of its type states max_nodes, and no max_resource_units")
	}
	return nil
}

// likely returns the kind that a licence seems to be of, for those that nobody has signed.
func (f *fields) likely(b *blob) string {
	if orchestrates(f.typ.s) && !f.nodes.set && (f.instances.set || f.allocators.set || len(b.fingerprint) != 32) {
		return KindOrchestration
	}
	return KindStack
}

// tooOld reports whether a licence has what only orchestration licences before version 3 have.
func (f *fields) tooOld(b *blob) bool {
	return b.version < orchestrationSince || !f.instances.set && !f.units.set && (f.allocators.set || f.ram.set)
}

func tooOld() *enforcer.Problem {
	return malformed("ORCHESTRATION_BEFORE_V3", "ask Elastic for a licence of version 3 or later",
		"it is an orchestration licence of version 1 or 2, by allocators and memory; what these sign is not public, "+
			"so nothing can verify it here")
}

// selfGenerated is what is said of a licence that an Elasticsearch has made for itself.
func (f *fields) selfGenerated(b *blob) *enforcer.Problem {
	if !f.matches(b) {
		return &enforcer.Problem{System: System, Code: enforcer.BadSignature, SystemCode: "SELF_GENERATED",
			Reason: "it says that an Elasticsearch has made it for itself, and what is signed in it is something else",
			Hint:   "install the licence file that Elastic sent"}
	}
	return untrusted("SELF_GENERATED", "install the licence file that Elastic sent",
		"an Elasticsearch has made this %s licence for itself; anybody can make such a one, so it grants nothing here",
		f.tier(KindStack, enterpriseSignature))
}

// matches reports whether the members of a self-generated licence are those that are encrypted in it.
func (f *fields) matches(b *blob) bool {
	version := -b.version
	if version > maxVersion {
		return false
	}
	key, filled := key4, false
	if version < 4 {
		key, filled = key3, true
	}
	v := jsontext.Value(decrypt(key, b.content, filled))
	if !v.IsValid() || v.Kind() != '{' {
		return false
	}
	in, err := parseFields(v)
	return err == nil && bytes.Equal(in.stackContent(version, byNewJava), f.stackContent(version, byNewJava))
}

func malformed(code, hint, format string, args ...any) *enforcer.Problem {
	if hint == "" {
		hint = "copy the whole file again, as Elastic sent it"
	}
	return &enforcer.Problem{System: System, Code: enforcer.Malformed, SystemCode: code, Hint: hint,
		Reason: fmt.Sprintf(format, args...)}
}
