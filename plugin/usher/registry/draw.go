package registry

import (
	"github.com/usher-agent/usher/enforcer"
	"github.com/usher-agent/usher/plugin"
	"github.com/usher-agent/usher/plugin/usher/online"
)

// draw takes draws of a meter for an agent from the fleet, or says why not. The registry keeps none of it: what an
// agent has drawn is in the fleet, where every other server of the site finds it.
func (g *Registry) draw(agent string, l *enforcer.License, r *online.DrawRequest) (*online.DrawReply, *online.Refusal) {
	switch {
	case r == nil || r.N < 1 || r.N > enforcer.MaxN || r.Token == "":
		return nil, &online.Refusal{System: "BAD_DRAW", Reason: "the request names no draws, or no token"}
	case g.broker.draw == nil:
		return nil, &online.Refusal{System: plugin.SystemNoDraws,
			Reason: "this server gives no draws: it has no fleet",
			Hint: "give it the site's etcd (--fleet-endpoint); or name the etcd under fleet.endpoints of the agents, " +
				"and the meter under fleet.pools"}
	}
	if _, ok := l.SiteMeters()[r.Meter]; !ok {
		return nil, &online.Refusal{System: plugin.SystemNoDraws,
			Reason: "licence " + l.ID + " has no meter " + r.Meter + " that belongs to a whole site"}
	}
	n, refused := g.broker.draw(agent, l, r)
	if refused != nil {
		return nil, refused
	}
	return &online.DrawReply{Meter: r.Meter, N: n}, nil
}
