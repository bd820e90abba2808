package shares

import (
	"context"
	"crypto/rand"
	"sync"
	"time"

	"github.com/usher-agent/usher/enforcer"
	"github.com/usher-agent/usher/plugin"
)

// draws keeps what was taken of meters, for licences in force or not: what was taken is taken. Its spans are by a clock
// of its own, its periods by the licence time.
type draws struct {
	ledger[*Meter]
	began time.Time
}

// open reads the record.
func (d *draws) open(cfg *Config, mu *sync.Mutex) (err error) {
	d.began = time.Now()
	d.cfg, d.mu, d.file, d.encode = cfg, mu, cfg.Draws, d.encodeRecord
	d.unkept = "draws could not be recorded, and none are taken until they can be"
	d.make = func() *Meter { return &Meter{} }
	d.site = func(l Licence) map[string]enforcer.Limit {
		if l.Drawer == nil {
			return nil
		}
		return l.SiteMeters()
	}
	d.entries, err = loadDraws(cfg.Draws)
	return err
}

// up is the clock of spans.
func (d *draws) up() time.Duration { return time.Since(d.began) }

// roll begins the periods that have come, and reports whether any has. mu is held.
func (d *draws) roll() (rolled bool) {
	now := d.cfg.Time()
	for _, e := range d.entries {
		if !e.named || e.calling != "" {
			continue
		}
		for name, m := range e.plans {
			if t, ok := e.licence.Meters[name]; ok && m.roll(t.Resets.Start(now)) {
				rolled = true
				d.cfg.Wants.elsewhere(name, nil, 0)
			}
		}
	}
	return rolled
}

// taken is Keeper.Taken. mu is held.
func (d *draws) taken() map[enforcer.Share]enforcer.Taken {
	out := map[enforcer.Share]enforcer.Taken{}
	for ref, e := range d.entries {
		for name, m := range e.plans {
			if e.inForce() && m.total > 0 && !(m.refused && m.Taken == 0) {
				out[enforcer.Share{License: ref, Pool: name}] = enforcer.Taken{N: enforcer.Limit(m.Taken),
					Period: m.Period}
			}
		}
	}
	return out
}

// due is ledger.due of draws. mu is held.
func (d *draws) due(now time.Duration) (calls []func(context.Context), wait time.Duration) {
	demands, calling := d.look(now)
	return d.ledger.due(now, func(s subject[*Meter]) (func(context.Context), time.Duration) {
		if !s.inForce() || calling[s.name] { // what a call for another licence brings is not needed of this one as well
			return nil, 0
		}
		n, again := s.plan.Next(now, demands[s.name])
		if n == 0 {
			return nil, again
		}
		calling[s.name] = true
		return func(ctx context.Context) {
			d.do(ctx, s, n)
			d.cfg.OnChange()
		}, 0
	})
}

// look asks for the demand of every meter, and returns it with the meters of which calls are under way. mu is held.
func (d *draws) look(now time.Duration) (demands map[string]MeterDemand, calling map[string]bool) {
	demands, calling = map[string]MeterDemand{}, map[string]bool{}
	for _, e := range d.entries {
		if e.calling != "" {
			calling[e.calling] = true
		}
		for name, m := range e.plans {
			if !e.inForce() || m.total <= 0 {
				continue
			}
			want, ok := demands[name]
			if !ok {
				want = d.cfg.Meter(name)
				want.Taken = 0
			}
			if want.Taken += min(m.Taken, m.total); m.Pending != nil {
				want.Taken += m.Pending.N
			}
			demands[name] = want
		}
	}
	for _, e := range d.entries {
		for name, m := range e.plans {
			if want, ok := demands[name]; ok && e.inForce() {
				m.look(now, want)
			}
		}
	}
	return demands, calling
}

// do makes one call for n draws. Its token is on the disk before, and
// what it took is before anything of it is handed out. mu is not held.
func (d *draws) do(ctx context.Context, s subject[*Meter], n int64) {
	m := s.plan
	d.mu.Lock()
	again := m.Pending != nil
	d.mu.Unlock()
	if !again {
		pending := &Pending{rand.Text(), n}
		if !d.save(func() (undo func()) {
			m.Pending = pending
			return func() { m.Pending = nil }
		}) {
			d.putOff(m) // the call is not made, so nothing need be asked again
			return
		}
	}
	d.mu.Lock()
	licence, pending, state, period := s.licence, *m.Pending, s.state, m.Period
	d.mu.Unlock()
	var got *plugin.Drawn
	failed := d.call(ctx, "draw", licence, state, d.cfg.CallWithin, func(ctx context.Context, r plugin.Request) error {
		var err error
		got, err = licence.Drawer.Draw(ctx,
			&plugin.Draw{Request: r, Meter: s.name, N: pending.N, Token: pending.Token, Again: again, Period: period})
		if err != nil {
			return err
		}
		return got.Check(s.name, pending.N)
	})
	if failed != nil {
		d.failed(s, failed)
		return
	}
	if !d.save(func() (undo func()) {
		taken, open, before := m.Taken, m.Pending, s.state
		m.Taken, m.Pending, s.state = m.Taken+got.N, nil, got.State
		return func() { m.Taken, m.Pending, s.state = taken, open, before }
	}) {
		d.putOff(m) // it is asked again, and brings the same
		return
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	s.fault = ""
	s.heard(d.cfg.Giver(s.name), nil, time.Time{})
	m.most, m.tries, m.notBefore, m.refused, m.spent = 0, 0, 0, false, false
	d.cfg.Wants.elsewhere(s.name, nil, 0)
}

// putOff has the next call wait, for the record could not be written. mu is not held.
func (d *draws) putOff(m *Meter) {
	d.mu.Lock()
	defer d.mu.Unlock()
	m.notBefore = d.up() + longestOpen
}

// spent returns what other hosts have taken of a meter of which no licence in force has draws left to take; nil: one
// may have some. mu is held.
func (d *draws) spent(name string) *plugin.Elsewhere {
	out := &plugin.Elsewhere{}
	for _, e := range d.entries {
		if m := e.plans[name]; m != nil && e.inForce() && m.total > 0 {
			if !m.spent {
				return nil
			}
			out.Out += m.others
		}
	}
	return out
}

// failed takes what a call failed with. mu is not held.
func (d *draws) failed(s subject[*Meter], err *plugin.Error) {
	d.mu.Lock()
	otherwise, id := s.failsOtherwise(err), s.licence.ID
	s.heard(d.cfg.Giver(s.name), err, d.cfg.Time())
	s.plan.refused = err.SystemCode == plugin.SystemNoDraws
	if err.SystemCode == plugin.SystemFull {
		s.plan.full(err.Elsewhere)
		d.cfg.Wants.elsewhere(s.name, d.spent(s.name), spentFor)
	}
	s.plan.failed(d.up(), err.Class == plugin.Transient, err.SystemCode == plugin.SystemFull, err.RetryAfter,
		d.cfg.Jitter())
	d.mu.Unlock()
	if otherwise {
		d.cfg.Log.Warn("the upstream gave no draws; retrying", "licence", id, "meter", s.name, "class", err.Class,
			"reason", err.Reason, "hint", err.Hint)
	}
	// where it cannot be written, the call is asked again after a restart, and its token takes nothing twice
	d.save(nil)
}
