package elastic

import (
	"strings"
	"time"

	"github.com/usher-agent/usher/enforcer"
	"github.com/usher-agent/usher/plugin"
)

// tier returns what a licence's type opens, by the members that are signed: in version 1 it is the subscription.
func (f *fields) tier(kind string, version int32) string {
	if kind == KindStack && version == 1 {
		return tierOf(f.subscription.s)
	}
	return tierOf(f.typ.s)
}

// license turns a licence into terms. Only signed members have an effect.
func (f *fields) license(kind string, b *blob) *enforcer.License {
	tier := f.tier(kind, b.version)
	l := &enforcer.License{
		ID:       f.uid.s,
		System:   System,
		Product:  System,
		Licensee: oneLine(f.issuedTo.s),
		Issuer:   oneLine(f.issuer.s),
		Issued:   instant(f.issue.n),
		Role:     enforcer.RoleBase,
		// After its end a platform keeps serving what runs, and lets nothing new be made.
		OnExpiry: enforcer.Keep,
		Pools:    map[string]enforcer.PoolTerm{},
		Features: map[string]enforcer.Value{
			"type": {Kind: enforcer.KindText, Text: oneLine(f.typ.s)},
			"tier": {Kind: enforcer.KindText, Text: tier},
		},
		Terms: f.terms(kind, b),
	}
	for _, t := range Tiers() {
		l.Features[t] = enforcer.Value{Kind: enforcer.KindBool, Bool: rank(tier) >= rank(t)}
	}
	if tier == typeBasic {
		l.Role = enforcer.RoleFree
	}
	if !f.neverExpires() {
		l.Expires = time.UnixMilli(f.expiry.n).UTC() // a stated 0 is the beginning of 1970, and not "never"
	}
	// An orchestrator asks when a licence starts. Elasticsearch asks when it was issued, and at its installation when
	// it starts, too.
	switch {
	case kind == KindOrchestration:
		l.NotBefore = instant(f.start.n)
	case b.version >= startSignedSince && f.start.set && f.start.n > f.issue.n:
		l.NotBefore = instant(f.start.n)
	default:
		l.NotBefore = l.Issued
	}
	f.count(l, kind, b.version)
	if kind == KindStack && b.version == 1 {
		if name := featureName(f.feature.s); name != "" {
			l.Features[name] = enforcer.Value{Kind: enforcer.KindBool, Bool: true}
		}
	}
	return l
}

// count gives a licence its pool. The document names no host: each platform that has it may use the whole, and counts
// for itself, as Elastic's own products do.
func (f *fields) count(l *enforcer.License, kind string, version int32) {
	pool := func(name, unit string, n number, mib int64) {
		l.Pools[name] = enforcer.PoolTerm{Max: enforcer.Limit(n.n), Unit: unit, Scope: enforcer.ScopeHost, Quantum: mib}
	}
	units := f.units.set && f.units.n > 0 && (kind == KindOrchestration || version >= enterpriseSignature)
	switch {
	case units, f.units.set && kind == KindStack && version >= enterpriseSignature:
		pool(PoolUnits, "resource unit", f.units, unitMiB)
	case kind == KindOrchestration && f.instances.n > 0:
		pool(PoolInstances, "instance", f.instances, instanceMiB)
	case kind == KindStack && f.nodes.set:
		pool(PoolNodes, "node", f.nodes, 0)
	}
}

// unverified is what a licence says that nobody vouches for; nil: nothing that could be shown.
func (f *fields) unverified(kind string, b *blob) *enforcer.License {
	l := f.license(kind, b)
	if l.Validate() != nil {
		return nil
	}
	return l
}

// terms is everything that a licence says, by its members' names, those that its signature does not cover apart. What
// no licence is known to say is left out: anybody may have added it.
func (f *fields) terms(kind string, b *blob) map[string]any {
	signed, unsigned := map[string]any{"kind": kind}, map[string]any{}
	put := func(covered bool, name string, v any, has bool) {
		switch {
		case !has:
		case covered:
			signed[name] = v
		default:
			unsigned[name] = v
		}
	}
	text := func(covered bool, name string, w word) { put(covered, name, w.s, w.set) }
	count := func(covered bool, name string, n number) { put(covered, name, float64(n.n), n.set) }
	stack := kind == KindStack
	text(true, "uid", f.uid)
	text(true, "type", f.typ)
	text(true, "issued_to", f.issuedTo)
	text(true, "issuer", f.issuer)
	count(true, "issue_date_in_millis", f.issue)
	if !f.neverExpires() {
		count(true, "expiry_date_in_millis", f.expiry)
	}
	start := f.start
	if stack && start.n == noStart { // signed as if it were absent
		start.set = false
	}
	count(!stack || b.version >= startSignedSince, "start_date_in_millis", start)
	count(stack, "max_nodes", f.nodes)
	count(!stack || b.version >= enterpriseSignature, "max_resource_units", f.units)
	count(!stack, "max_instances", f.instances)
	count(false, "max_allocators", f.allocators)
	count(false, "max_ram_per_allocator_mb", f.ram)
	count(false, "version", f.version)
	text(stack && b.version == 1, "subscription_type", f.subscription)
	text(stack && b.version == 1, "feature", f.feature)
	text(false, "operation_mode", f.operation)
	text(false, "status", f.status)
	if len(unsigned) > 0 {
		signed["unsigned"] = unsigned
	}
	return signed
}

// judgeClusters adds to the terms what the cluster licences say, each with the word of its own signature. They raise no
// limit.
func (f *fields) judgeClusters(l *enforcer.License, anchors []plugin.Anchor) {
	if !f.hasClusters {
		return
	}
	list := []any{}
	for _, v := range f.clusters {
		list = append(list, clusterTerms(v, anchors))
	}
	unsigned, _ := l.Terms["unsigned"].(map[string]any)
	if unsigned == nil {
		unsigned = map[string]any{}
		l.Terms["unsigned"] = unsigned
	}
	unsigned["cluster_licenses"] = list
}

func clusterTerms(v []byte, anchors []plugin.Anchor) map[string]any {
	all, err := parse(v)
	if err != nil {
		return map[string]any{"signature": err.Error()}
	}
	f := all[0]
	f.clusters, f.hasClusters = nil, false // these have none
	c, p := f.verify(anchors)
	out := map[string]any{}
	switch {
	case p != nil && c == nil:
		out["uid"], out["type"] = f.uid.s, f.typ.s
	default:
		out = c.Terms
	}
	out["signature"] = "good"
	if p != nil {
		out["signature"] = p.Reason
	}
	return out
}

// instant is a date in milliseconds since the Unix epoch; 0 is not stated.
func instant(millis int64) time.Time {
	if millis == 0 {
		return time.Time{}
	}
	return time.UnixMilli(millis).UTC()
}

// featureName makes a text a feature's name: as it is, but for characters that names have not.
func featureName(s string) string {
	s = strings.Map(func(r rune) rune {
		switch {
		case r >= 'a' && r <= 'z', r >= 'A' && r <= 'Z', r >= '0' && r <= '9', strings.ContainsRune("._:/-", r):
			return r
		default:
			return '-'
		}
	}, s)
	s = strings.TrimLeft(s, "._:/-")
	return s[:min(64, len(s))]
}

// oneLine makes a text what a line may be.
func oneLine(s string) string {
	s = strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return ' '
		}
		return r
	}, s)
	return strings.ToValidUTF8(s[:min(len(s), 1024)], "")
}
