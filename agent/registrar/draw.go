package registrar

import (
	"context"
	"errors"

	"github.com/usher-agent/usher/agent/fleet"
	"github.com/usher-agent/usher/enforcer"
	"github.com/usher-agent/usher/plugin"
	"github.com/usher-agent/usher/plugin/usher/online"
)

// draw takes draws of a meter from the fleet for an agent: see [registry.Broker]. It locks nothing of the stocks.
func (b *broker) draw(agent string, l *enforcer.License, r *online.DrawRequest) (int64, *online.Refusal) {
	if b.fleet.Drained() {
		return 0, &online.Refusal{System: plugin.SystemAway,
			Reason: "an operator drains this site server: it gives no " +
				"more draws", Hint: "the agent asks another one"}
	}
	ctx, cancel := context.WithTimeout(context.Background(), b.ttl/3)
	defer cancel()
	got, err := b.fleet.Meters(l).DrawFor(ctx, agent, r.After,
		&plugin.Draw{Meter: r.Meter, N: r.N, Token: r.Token, Period: r.Began()})
	var order *fleet.OrderError
	var e *plugin.Error
	switch {
	case err == nil:
		return got.N, nil
	case errors.As(err, &order):
		return 0, &online.Refusal{System: online.SystemOrder, Reason: order.Error(), Last: order.Last}
	case errors.As(err, &e) && e.SystemCode != "":
		return 0, &online.Refusal{System: e.SystemCode, Reason: e.Reason, Hint: e.Hint}
	case errors.As(err, &e):
		return 0, &online.Refusal{System: plugin.SystemAway, Reason: e.Reason, Hint: e.Hint}
	}
	return 0, &online.Refusal{System: plugin.SystemAway, Reason: err.Error()}
}
