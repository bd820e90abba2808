package agent

import (
	"context"
	"path/filepath"
	"slices"
	"time"

	"github.com/usher-agent/usher/agent/draws"
	"github.com/usher-agent/usher/enforcer"
	"github.com/usher-agent/usher/plugin"
)

// openDraws makes the keeper of what was taken of site meters.
func (a *Agent) openDraws() error {
	cfg := a.config
	a.drawers = map[string]plugin.Drawer{}
	for system, u := range a.upstreams {
		if d, ok := u.(plugin.Drawer); ok {
			a.drawers[system] = d
		}
	}
	var err error
	file := sealed(a.seals.state, lastKnown)
	a.draws, err = draws.New(draws.Config{File: filepath.Join(cfg.State.Dir, drawsFile), Read: file.read,
		Write: file.write, CallWithin: cfg.Upstream.Timeout.Duration(),
		Now: a.desk.counted, Request: a.blockRequest, Demand: a.desk.drawDemand, OnChange: a.court.reshare,
		Called: func(call, result string) { a.metrics.UpstreamCalled(call, result, a.desk.time()) }, Log: a.log})
	a.court.draws = a.draws.Taken
	return err
}

// drawDemand says what is asked of a meter: a want is either drawn or waited for.
func (d *desk) drawDemand(meter string) draws.Demand {
	d.mu.Lock()
	defer d.mu.Unlock()
	now := d.licenceTime()
	d.tick(now)
	p, ok := d.core.Pool(meter, now)
	if !ok {
		return draws.Demand{}
	}
	return draws.Demand{Drawn: p.InUse, Waiting: d.awaited(meter), Capacity: int64(p.Budget.Plus(p.Overage))}
}

// haveDraws tells the keeper of draws which licences are in force, as haveShares does that of blocks.
func (a *Agent) haveDraws(v *enforcer.Verdict) bool {
	var out []draws.Licence
	for _, j := range v.Licenses {
		if !j.InForce { // of a document that cannot be read there is no licence
			continue
		}
		if u := a.drawers[j.License.System]; u != nil {
			out = append(out, draws.Licence{License: j.License, Document: a.court.document(j.Document), Upstream: u})
		}
	}
	return a.draws.Set(out)
}

// thirst is an acquire that waits for draws.
type thirst struct {
	items   []enforcer.Item
	decided bool // it waits for the disk alone: what it was granted is drawn
}

// thirstFor gives an acquire its place among those that wait for draws. d.mu is held.
func (d *desk) thirstFor(r *enforcer.Acquire) *thirst {
	t := &thirst{items: itemsOf(r)}
	d.thirsty = append(d.thirsty, t)
	if d.stir != nil {
		d.stir()
	}
	return t
}

func itemsOf(r *enforcer.Acquire) []enforcer.Item {
	if r.Pool != "" {
		return []enforcer.Item{{Pool: r.Pool, N: r.N}}
	}
	return r.Items
}

// shares reports whether two acquires wait for draws of one meter.
func (t *thirst) shares(items []enforcer.Item) bool {
	return slices.ContainsFunc(t.items, func(a enforcer.Item) bool {
		return slices.ContainsFunc(items, func(b enforcer.Item) bool { return a.Pool == b.Pool })
	})
}

// parched reports whether others wait for draws of a meter that a request is for. d.mu is held.
func (d *desk) parched(r *enforcer.Acquire) bool {
	return slices.ContainsFunc(d.thirsty, func(t *thirst) bool { return t.shares(itemsOf(r)) })
}

// isNext reports whether nobody waits for draws of the same meters before. d.mu is held.
func (d *desk) isNext(t *thirst) bool {
	for _, before := range d.thirsty {
		if before == t {
			return true
		}
		if before.shares(t.items) {
			return false
		}
	}
	return false
}

// quenched takes an acquire out of those that wait for draws; the next one looks again.
func (d *desk) quenched(t *thirst) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.thirsty = slices.DeleteFunc(d.thirsty, func(o *thirst) bool { return o == t })
	d.rejudged()
	if d.stir != nil {
		d.stir()
	}
}

// awaited returns how many draws of a meter are waited for. d.mu is held.
func (d *desk) awaited(meter string) (n int64) {
	for _, t := range d.thirsty {
		if t.decided {
			continue
		}
		for _, it := range t.items {
			if it.Pool == meter {
				n += it.N
			}
		}
	}
	return n
}

// turn decides an acquire that waits for draws, where it is its turn, and reports whether it is. What it is granted is
// drawn from then on, and waited for no more: the answer may still wait for the disk. d.mu is held.
func (d *desk) turn(a *asked) bool {
	if !d.isNext(a.thirst) {
		return false
	}
	d.ask(a, nil)
	a.thirst.decided = a.out.Denial == nil || !a.out.Denial.MayGrow
	return true
}

// awaitDraws waits for draws that the agent may take more of, and decides again each time that the verdict has changed
// and it is the acquire's turn. It says for how long it waited.
func (d *desk) awaitDraws(ctx context.Context, a *asked) (dec enforcer.Decision, waited time.Duration) {
	defer d.quenched(a.thirst)
	began := time.Now()
	over := time.NewTimer(a.r.Wait)
	defer over.Stop()
	for {
		d.enter()
		judged := d.judged
		if d.drained.Load() {
			d.mu.Unlock()
			return enforcer.Decision{Denial: drainingDenial()}, time.Since(began)
		}
		next := d.turn(a)
		d.mu.Unlock()
		if next {
			if dec = d.await(a.out); dec.Denial == nil || !dec.Denial.MayGrow {
				return dec, time.Since(began)
			}
		}
		select {
		case <-judged:
			continue
		case <-over.C:
		case <-ctx.Done():
		}
		if dec.Denial == nil { // its turn has not come
			dec = enforcer.Decision{Denial: &enforcer.Denial{Code: enforcer.MeterEmpty, Pool: a.thirst.items[0].Pool,
				MayGrow: true,
				Detail:  "others wait for draws of meter " + a.thirst.items[0].Pool,
				Hint:    "wait for longer (wait_seconds), or try again later"}}
		}
		dec.Denial.Waited = time.Since(began)
		return dec, dec.Denial.Waited
	}
}

// rejudged has those who wait for draws look again. d.mu is held.
func (d *desk) rejudged() {
	close(d.judged)
	d.judged = make(chan struct{})
}
