package api

import (
	"github.com/usher-agent/usher/client/wire"
	"github.com/usher-agent/usher/plugin/redact"
)

// shown is an answer as a caller may see it. Admins see all. For the others, secrets and e-mail addresses are hidden,
// except in what is the caller's own. docs/privacy.md has the table. A new route or method needs nothing for it.
func shown(admin bool, answer any) any {
	switch a := answer.(type) {
	case wire.Lease, wire.Leases, wire.Proof, wire.HelloAnswer, wire.Waiting: // the caller's own
		return a
	case wire.Keys: // for everybody; its maker keeps the chain clean
		return a
	case wire.NamedFeature:
		if admin {
			return a
		}
		named := redact.Shape(map[string]wire.Feature{a.Name: a.Feature})
		for _, f := range named {
			a.Feature = f
		}
		return a
	case wire.Pool:
		if admin {
			return a
		}
		name := a.Name // the caller has said it itself
		a = redact.Shape(a)
		a.Name = name
		return a
	}
	if admin {
		return answer
	}
	return redact.Shape(answer)
}

// conceal hides in a problem what a licence says, for callers who are not admins.
func conceal(p *wire.Problem) {
	p.Detail, p.Hint = redact.Text(p.Detail), redact.Text(p.Hint)
	if p.Verdict != nil {
		p.Verdict.Reason = redact.Text(p.Verdict.Reason)
	}
}
