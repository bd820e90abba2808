package api

import (
	"cmp"

	"github.com/usher-agent/usher/client/wire"
	"github.com/usher-agent/usher/enforcer"
)

// LicenseShape puts a verdict into its wire form, for callers who may see every term.
func LicenseShape(v *enforcer.Verdict, host enforcer.Host) wire.License {
	if v == nil {
		v = &enforcer.Verdict{State: enforcer.Preparing.State(), Code: enforcer.Preparing,
			Reason: "the agent is starting and has judged nothing yet"}
	}
	out := wire.License{
		State: string(v.State), Code: string(v.Code), SystemCode: v.SystemCode, Reason: v.Reason,
		Until: Instant(v.Until), CoveredUntil: Instant(v.CoveredUntil), TerminatesAt: Instant(v.TerminatesAt),
		GraceEndsAt: Instant(v.GraceEndsAt), Environment: string(v.Environment),
		AgentAway: cmp.Or(v.AgentAway, enforcer.DefaultAgentAway).Seconds(),
		Warnings:  []wire.Warning{}, Licenses: []wire.Document{}, Coming: changeShapes(v.Coming),
		Limits:   map[string]*int64{},
		Features: map[string]wire.Feature{},
		Host: wire.Host{Match: "unbound", Score: v.Match.Score(), Misses: v.Match.Misses,
			Cores: wire.Cores{Physical: host.Physical, Logical: host.Logical, Effective: host.Effective}},
	}
	if v.Match.Bound {
		out.Host.Match = "failed"
		if v.Match.OK {
			out.Host.Match = "ok"
		}
	}
	for _, w := range v.Warnings {
		out.Warnings = append(out.Warnings, wire.Warning{Code: string(w.Code), Detail: w.Detail, At: Instant(w.At)})
	}
	for _, j := range v.Licenses {
		out.Licenses = append(out.Licenses, DocumentShape(j))
	}
	for name, g := range v.Pools {
		out.Limits[name] = count(g.Limit)
	}
	for name, g := range v.Meters {
		out.Limits[name] = count(g.Limit)
	}
	for name, f := range v.Features {
		out.Features[name] = featureShape(f)
	}
	return out
}

// DocumentShape puts one judged document into its wire form, every term shown.
func DocumentShape(j enforcer.Judged) wire.Document {
	d := wire.Document{Document: j.Document, InForce: j.InForce, Code: string(j.Code), Reason: j.Reason,
		Verified: j.License != nil, Terms: map[string]any{}}
	for _, f := range j.Findings {
		d.Findings = append(d.Findings, wire.Finding{Code: string(f.Code), Reason: f.Reason})
	}
	if p := j.Problem; p != nil {
		d.System, d.SystemCode, d.Hint = p.System, p.SystemCode, p.Hint
		d.Verified = p.Stale && j.License != nil || p.Signed
	}
	l := j.License
	if l == nil {
		return d
	}
	d.Role = string(j.Role)
	d.ID, d.System, d.Product, d.Licensee, d.Issuer, d.KeyID = l.ID, l.System, l.Product, l.Licensee, l.Issuer, l.KeyID
	d.IssuedAt, d.NotBefore, d.ExpiresAt = Instant(l.Issued), Instant(l.NotBefore), Instant(l.Expires)
	if l.SystemCode != "" {
		d.SystemCode = l.SystemCode
	}
	if l.Terms != nil {
		d.Terms = l.Terms
	}
	d.Limits, d.Features = map[string]*int64{}, map[string]wire.Feature{}
	for name, p := range l.Pools {
		d.Limits[name] = count(p.Max)
	}
	for name, m := range l.Meters {
		d.Limits[name] = count(m.Max)
	}
	for name, f := range l.Features {
		d.Features[name] = featureShape(f)
	}
	d.Conditions = conditionsShape(l, j.TrialEnds)
	return d
}

func featureShape(f enforcer.Value) wire.Feature {
	out := wire.Feature{Enabled: f.Enabled(), Unit: f.Unit}
	switch f.Kind {
	case enforcer.KindBool:
		out.Value = f.Bool
	case enforcer.KindNumber:
		out.Value = f.Number
	default:
		out.Value = f.Text
	}
	return out
}

// ItemShapes puts items into their wire form.
func ItemShapes(items []enforcer.Item) []wire.Item {
	out := make([]wire.Item, len(items))
	for i, it := range items {
		out[i] = itemShape(it)
	}
	return out
}

func itemShape(it enforcer.Item) wire.Item {
	out := wire.Item{Pool: it.Pool, N: it.N}
	if it.Of > 1 {
		out.Of = it.Of
	}
	return out
}
