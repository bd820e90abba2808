package api

import (
	"cmp"
	"maps"
	"slices"
	"time"

	"github.com/usher-agent/usher/client/wire"
	"github.com/usher-agent/usher/enforcer"
)

// changeShapes puts changes into their wire form.
func changeShapes(all []enforcer.Change) []wire.Change {
	out := make([]wire.Change, len(all))
	for i, c := range all {
		out[i] = wire.Change{At: c.At.UTC(), Begins: successorShapes(c.Begins), Ends: successorShapes(c.Ends),
			Losses: make([]wire.Loss, len(c.Losses))}
		for k, l := range c.Losses {
			out[i].Losses[k] = wire.Loss{Kind: string(l.Kind), Name: l.Name, Was: l.Was, Is: l.Is}
		}
	}
	return out
}

func successorShapes(all []enforcer.Successor) []wire.Successor {
	out := make([]wire.Successor, len(all))
	for i, s := range all {
		out[i] = wire.Successor{License: s.License, Document: s.Document, ExpiresAt: Instant(s.Expires)}
	}
	return out
}

// conditionsShape puts what a licence binds its grants to into its wire form. trialEnds is zero where no trial runs.
func conditionsShape(l *enforcer.License, trialEnds time.Time) *wire.Conditions {
	out := &wire.Conditions{Hosts: make([]wire.HostBinding, len(l.Hosts)), AgentKeys: slices.Clone(l.AgentKeys),
		SiteServer: l.SiteServer, Scopes: map[string]string{}, Grace: l.Grace.Seconds(),
		OnExpiry: string(cmp.Or(l.OnExpiry, enforcer.Drain)), Trial: l.Trial.Seconds(),
		TrialEndsAt: Instant(trialEnds)}
	if out.AgentKeys == nil {
		out.AgentKeys = []string{}
	}
	for i, h := range l.Hosts {
		out.Hosts[i] = wire.HostBinding{Name: h.Name, Components: slices.Sorted(maps.Keys(h.Components)),
			Strategy: string(cmp.Or(h.Strategy, enforcer.MatchMost))}
	}
	for name, p := range l.Pools {
		out.Scopes[name] = string(l.PoolScope(p.Scope))
	}
	for name, m := range l.Meters {
		out.Scopes[name] = string(l.PoolScope(m.Scope))
	}
	if a := l.Activation; a.Required {
		out.Activation = &wire.Contact{Grace: a.Grace.Seconds()}
	}
	out.Heartbeat, out.CheckIn = contactShape(l.Heartbeat), contactShape(l.CheckIn)
	if e := l.Emergency; e.Length > 0 {
		out.Emergency = &wire.EmergencyTerm{Length: e.Length.Seconds(), PerYear: e.PerYear}
	}
	return out
}

func contactShape(p enforcer.Period) *wire.Contact {
	if !p.Stated() {
		return nil
	}
	return &wire.Contact{Every: p.Every.Seconds(), Months: p.Months, Grace: p.Grace.Seconds()}
}
