package agent

import (
	"context"
	"path/filepath"
	"time"

	"github.com/usher-agent/usher/agent/draws"
	"github.com/usher-agent/usher/agent/files"
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
	write := func(file string, data []byte) error { return files.Replace(file, data, 0o600) }
	a.draws, err = draws.New(draws.Config{File: filepath.Join(cfg.State.Dir, "draws.json"), Write: write, CallWithin: cfg.Upstream.Timeout.Duration(),
		Now: a.desk.time, Request: a.blockRequest, Demand: a.drawDemand, OnChange: a.court.reshare,
		Called: func(call, result string) { a.metrics.UpstreamCalled(call, result, a.desk.time()) }, Log: a.log})
	a.court.draws = a.draws.Taken
	return err
}

// drawDemand says what is asked of a meter.
func (a *Agent) drawDemand(meter string) draws.Demand {
	p, ok := a.desk.Pool(meter)
	if !ok {
		return draws.Demand{}
	}
	return draws.Demand{Drawn: p.InUse, Waiting: a.desk.drawsAwaited(meter), Capacity: int64(p.Budget.Plus(p.Overage))}
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

func (d *desk) drawsAwaited(meter string) int64 {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.thirst[meter]
}

// awaitDraws waits for draws that the agent may take more of, and decides again each time that the verdict has changed. It says for
// how long it waited.
func (d *desk) awaitDraws(ctx context.Context, r *enforcer.Acquire) (dec enforcer.Decision, waited time.Duration) {
	items := r.Items
	if r.Pool != "" {
		items = []enforcer.Item{{Pool: r.Pool, N: r.N}}
	}
	await := func(sign int64) {
		d.mu.Lock()
		defer d.mu.Unlock()
		for _, it := range items {
			if d.thirst[it.Pool] += sign * it.N; d.thirst[it.Pool] == 0 {
				delete(d.thirst, it.Pool)
			}
		}
		if d.stir != nil {
			d.stir()
		}
	}
	await(1)
	defer await(-1)
	began := time.Now()
	over := time.NewTimer(r.Wait)
	defer over.Stop()
	for {
		d.mu.Lock()
		judged := d.judged
		d.mu.Unlock()
		if d.drained.Load() {
			return enforcer.Decision{Denial: drainingDenial()}, time.Since(began)
		}
		if dec, _ = d.acquire(ctx, r); dec.Denial == nil || !dec.Denial.MayGrow {
			return dec, time.Since(began)
		}
		dec.Denial.Waited = time.Since(began)
		select {
		case <-judged:
			continue
		case <-over.C:
		case <-ctx.Done():
		}
		return dec, time.Since(began)
	}
}

// rejudged has those who wait for draws look again. d.mu is held.
func (d *desk) rejudged() {
	close(d.judged)
	d.judged = make(chan struct{})
}
