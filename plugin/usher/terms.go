package usher

import (
	"slices"
	"time"

	"github.com/usher-agent/usher/enforcer"
)

// license turns the claims into the enforcer's terms. terms is everything that the document says.
func (c *Claims) license(terms map[string]any) *enforcer.License {
	l := &enforcer.License{
		ID: c.ID, System: System, Product: c.Product, Licensee: c.Licensee, Issuer: c.Issuer,
		Issued: date(c.Issued), NotBefore: date(c.NotBefore), Expires: date(c.Expires),
		Environment: enforcer.Environment(c.Environment), Role: enforcer.Role(c.Role), AddOnTo: c.AddOnTo,
		Supersedes: c.Supersedes,
		Versions:   c.Versions, ReleasedBefore: date(c.ReleasedBefore),
		Grace: seconds(c.Grace), OnExpiry: enforcer.OnExpiry(c.OnExpiry),
		Clock: enforcer.ClockPolicy(c.Clock), ClockTolerance: seconds(c.ClockTolerance),
		AgentAway: seconds(c.AgentAway), MaxBorrow: seconds(c.MaxBorrow), EarlyReturn: c.EarlyReturn,
		AgentKeys: slices.Clone(c.AgentKeys), Terms: terms,
		Trial: seconds(c.Trial), Usage: c.ReportUsage, Revokes: c.Revokes, ResetsClock: c.ResetClock,
	}
	if c.Confirmation != nil {
		l.AgentKeys = append(l.AgentKeys, c.Confirmation.Thumbprint)
	}
	if c.SiteServer != nil {
		l.SiteServer = c.SiteServer.Thumbprint
	}
	if len(c.Pools) > 0 {
		l.Pools = map[string]enforcer.PoolTerm{}
		for name, p := range c.Pools {
			l.Pools[name] = enforcer.PoolTerm{Max: limit(p.Max), Unit: p.Unit, Overage: enforcer.Limit(p.Overage),
				Scope: enforcer.Scope(p.Scope), CountBy: enforcer.CountBy(p.CountBy)}
		}
	}
	if len(c.Meters) > 0 {
		l.Meters = map[string]enforcer.MeterTerm{}
		for name, m := range c.Meters {
			l.Meters[name] = enforcer.MeterTerm{Max: limit(m.Max), Unit: m.Unit, Overage: enforcer.Limit(m.Overage),
				Scope: enforcer.Scope(m.Scope), Resets: enforcer.Resets(m.Resets), Adjustable: m.Adjustable}
		}
	}
	if len(c.Features) > 0 {
		l.Features = map[string]enforcer.Value{}
		for name, f := range c.Features {
			l.Features[name] = f.Value
		}
	}
	for _, h := range c.Hosts {
		l.Hosts = append(l.Hosts, enforcer.HostBinding{Name: h.Name, Components: h.Components,
			Strategy: enforcer.Strategy(h.Strategy), CountConfigured: h.CountConfigured})
	}
	if c.Cores != nil {
		l.CoreCap, l.CoreKind = enforcer.Limit(c.Cores.Max), enforcer.CoreKind(c.Cores.Count)
	}
	if c.Heartbeat != nil {
		l.Heartbeat = enforcer.Period{Every: seconds(c.Heartbeat.Every), Grace: seconds(c.Heartbeat.Grace)}
	}
	if c.CheckIn != nil {
		l.CheckIn = enforcer.Period{Every: seconds(c.CheckIn.Every), Months: int(c.CheckIn.Months),
			Grace: seconds(c.CheckIn.Grace)}
	}
	if c.Activation != nil {
		l.Activation = enforcer.Activation{Required: true, Grace: seconds(c.Activation.Grace)}
	}
	if c.Emergency != nil {
		l.Emergency = enforcer.Emergency{Length: seconds(c.Emergency.Length), PerYear: int(c.Emergency.PerYear)}
	}
	return l
}

func date(s int64) time.Time {
	if s == 0 {
		return time.Time{}
	}
	return time.Unix(s, 0).UTC()
}

func seconds(s int64) time.Duration { return time.Duration(s) * time.Second }

func limit(n *int64) enforcer.Limit {
	if n == nil {
		return enforcer.Unlimited
	}
	return enforcer.Limit(*n)
}
