package fleet

import (
	"context"
	"time"

	"github.com/usher-agent/usher/enforcer"
	"github.com/usher-agent/usher/plugin"
)

var _ plugin.Drawer = (*Drawer)(nil)

// Drawer gives the draws of one licence's meters from the fleet.
type Drawer struct {
	plugin.Upstream // the licence's own, for all other calls
	fleet           *Fleet
	licence         *enforcer.License
	limits          map[string]int64 // of its site meters that are the fleet's
	own             plugin.Drawer    // gives the others; nil: nobody does
}

// DrawerFor returns what gives a licence's draws: the fleet those of the meters that shared names, own all others.
// Without a meter of the fleet it returns own.
func (f *Fleet) DrawerFor(l *enforcer.License, upstream plugin.Upstream, own plugin.Drawer,
	shared func(meter string) bool) plugin.Drawer {
	d := f.drawer(l, shared)
	if d.Upstream, d.own = upstream, own; len(d.limits) == 0 {
		return own
	}
	return d
}

// Meters returns what gives the draws of all site meters of a licence to agents behind this one: see [Drawer.DrawFor].
func (f *Fleet) Meters(l *enforcer.License) *Drawer {
	return f.drawer(l, func(string) bool { return true })
}

func (f *Fleet) drawer(l *enforcer.License, shared func(meter string) bool) *Drawer {
	d := &Drawer{fleet: f, licence: l, limits: map[string]int64{}}
	for name, n := range l.SiteMeters() {
		if shared(name) {
			d.limits[name] = int64(n)
		}
	}
	return d
}

// System returns the licence's.
func (d *Drawer) System() string { return d.licence.System }

// tally is one agent's draws of a meter in one period, as this process knows them.
type tally struct {
	epoch string // of the store that the agent's draws were last written to
	last  lastDraw
	sum   int64 // of all agents
}

// Draw takes draws, once a token.
func (d *Drawer) Draw(ctx context.Context, r *plugin.Draw) (*plugin.Drawn, error) {
	if _, ok := d.limits[r.Meter]; !ok && d.own != nil {
		return d.own.Draw(ctx, r)
	}
	start := r.Period
	if start.IsZero() {
		start = d.licence.Meters[r.Meter].Resets.Start(d.fleet.cfg.Time())
	}
	return d.draw(ctx, &drawing{r, d.fleet.cfg.Agent, period(start), nil})
}

// DrawFor is Draw for an agent behind this one. The agent may ask several members of the fleet for the same draws, and
// one of them may come to it late. So after names the token of the agent's draw before, empty for its first one in the
// period: where the store has another, nothing is taken, and the error is an [OrderError]. The period is the one that
// the agent states, which is this member's too, but for a quarter of an hour in which their clocks may differ.
func (d *Drawer) DrawFor(ctx context.Context, agent, after string, r *plugin.Draw) (*plugin.Drawn, error) {
	resets, now := d.licence.Meters[r.Meter].Resets, d.fleet.cfg.Time()
	if start := resets.Start(now); !r.Period.Equal(start) && !r.Period.Equal(resets.Start(now.Add(-clocksDiffer))) &&
		!r.Period.Equal(resets.Start(now.Add(clocksDiffer))) {
		return nil, &plugin.Error{Class: plugin.Transient, SystemCode: SystemPeriod,
			Reason: "the agent counts the draws of " + r.Meter + " in the period " + period(r.Period) +
				", and it is " + period(start) + " here", Hint: "set the clock of the host that is wrong"}
	}
	return d.draw(ctx, &drawing{r, agent, period(r.Period), &after})
}

// clocksDiffer is by how much the clocks of an agent and of a site server may differ where a period begins.
const clocksDiffer = 15 * time.Minute

// SystemPeriod is the SystemCode of draws for a period that is not the present one.
const SystemPeriod = "OTHER_PERIOD"

// OrderError says that an agent's draw does not follow its last one, which has the token Last; empty: it has made none
// in the period. Nothing was taken.
type OrderError struct{ Last string }

func (e *OrderError) Error() string { return "another draw of the agent came in between" }

// period names the period that begins at an instant, as keys do; zero: there are no periods.
func period(start time.Time) string {
	if start.IsZero() {
		return "ever"
	}
	return start.UTC().Format(time.DateOnly)
}

// drawing is one request for draws.
type drawing struct {
	*plugin.Draw
	agent, at string
	after     *string // the agent's last token before this one; nil: whichever
}

// draw takes draws in a period, once a token.
func (d *Drawer) draw(ctx context.Context, r *drawing) (*plugin.Drawn, error) {
	limit, ok := d.limits[r.Meter]
	if !ok {
		return nil, &plugin.Error{Class: plugin.Misconfigured, SystemCode: plugin.SystemNoDraws,
			Reason: "the fleet has no draws of " + r.Meter + " to give",
			Hint:   "name the meter under fleet.pools, or configure an upstream that gives draws"}
	}
	f, name := d.fleet, poolName(d.licence, r.Meter)
	if err := f.longPast(r.Meter, r.at); err != nil {
		return nil, err
	}
	p := f.named(name + "@" + r.at)
	if err := p.calls.take(ctx); err != nil {
		return nil, f.transient(err)
	}
	defer p.calls.give()
	totalKey, ownKey := f.keys.drawn(name, r.at), f.keys.draw(name, r.at, r.agent)
	for try := 0; ; try++ {
		me, err := f.ready(ctx, false)
		if err != nil {
			return nil, err
		}
		x, err := f.drawings(ctx, p.tallies[r.agent], totalKey, ownKey)
		switch {
		case err != nil:
			return nil, err
		case x == nil:
			continue
		case x.own.Token == r.Token:
			if !x.restates {
				p.tell(r.agent, tally{x.epoch, x.own, x.sum})
			}
			return &plugin.Drawn{Meter: r.Meter, N: x.own.N, State: r.State}, nil
		case r.after != nil && x.own.Token != *r.after:
			return nil, &OrderError{x.own.Token}
		}
		n := min(r.N, limit-x.sum)
		if n <= 0 {
			return nil, &plugin.Error{Class: plugin.Transient, SystemCode: plugin.SystemFull,
				Elsewhere: &plugin.Elsewhere{Out: max(0, x.sum-x.own.Sum)},
				Reason:    "all draws of " + r.Meter + " have been taken in this period by the hosts of the fleet"}
		}
		next := lastDraw{Token: r.Token, N: n, Sum: x.own.Sum + n}
		res, err := f.cfg.Store.Txn(ctx, &Txn{Kind: KindDraw, If: []Is{has(f.keys.agent(f.cfg.Agent), me.value),
			absent(f.keys.quarantine()), still(totalKey, x.totalMod), still(ownKey, x.ownMod)},
			Then: []Op{{Put: totalKey, Value: text(drawn{x.sum + n})}, {Put: ownKey, Value: text(next)}}})
		if err != nil {
			return nil, f.transient(err) // the same token finds out whether it was done
		}
		if res.Done {
			p.tell(r.agent, tally{x.epoch, next, x.sum + n})
			return &plugin.Drawn{Meter: r.Meter, N: n, State: r.State}, nil
		}
		if err := f.again(ctx, try, 0); err != nil {
			return nil, err
		}
	}
}

// tell takes note of an agent's draws. calls is held.
func (p *pool) tell(agent string, t tally) {
	if p.tallies == nil {
		p.tallies = map[string]tally{}
	}
	p.tallies[agent] = t
}

// drawings is what the store has of a meter's draws in one period, for one agent.
type drawings struct {
	epoch            string
	sum              int64 // of all agents
	own              lastDraw
	totalMod, ownMod int64
	restates         bool // the store is an old copy, which does not know all that the agent has drawn
}

// drawings reads a meter's draws in a period; known is what this process knows of the agent's. It returns nil where a
// quarantine has just begun, for the store lacks some of them.
func (f *Fleet) drawings(ctx context.Context, known tally, totalKey, ownKey string) (*drawings, error) {
	was := f.lastSeen()
	res, err := f.cfg.Store.Txn(ctx, &Txn{Kind: KindRead, Then: []Op{{Get: f.keys.cluster()},
		{Get: f.keys.quarantine()}, {Get: totalKey}, {Get: ownKey}}})
	if err != nil {
		return nil, f.transient(err)
	}
	if err := f.sane(ctx, res, was); err != nil {
		return nil, err
	}
	kv, quarantined := res.one(1)
	if q, err := read[quarantine](kv, quarantined); quarantined && err == nil {
		return nil, settling(q, f.cfg.TTL)
	}
	totalKV, hasTotal := res.one(2)
	sum, err := read[drawn](totalKV, hasTotal)
	if err != nil {
		return nil, plugin.Transiently("%v", err)
	}
	ownKV, hasOwn := res.one(3)
	own, err := read[lastDraw](ownKV, hasOwn)
	if err != nil {
		return nil, plugin.Transiently("%v", err)
	}
	x := &drawings{f.lastSeen().Epoch, sum.Drawn, own, totalKV.Mod, ownKV.Mod, false}
	switch {
	case known.epoch == x.epoch && (own.Sum < known.last.Sum || sum.Drawn < known.sum):
		kv, _ := res.one(0)
		return nil, f.complete(ctx, kv, was, true)
	case known.epoch != "" && known.epoch != x.epoch && known.last.Sum > own.Sum:
		x.sum, x.own, x.restates = x.sum+known.last.Sum-own.Sum, known.last, true
	}
	return x, nil
}
