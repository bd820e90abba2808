package agent

import (
	"path/filepath"

	"github.com/usher-agent/usher/agent/draws"
	"github.com/usher-agent/usher/agent/seals"
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
	file := seals.Sealed(a.seals.State, seals.LastKnown)
	a.draws, err = draws.New(draws.Config{File: filepath.Join(cfg.State.Dir, seals.DrawsFile), Read: file.Read,
		Write: file.Write, CallWithin: cfg.Upstream.Timeout.Duration(),
		Now: a.desk.Counted, Request: a.blockRequest, Demand: a.drawDemand, OnChange: a.court.reshare,
		Called: func(call, result string) { a.metrics.UpstreamCalled(call, result, a.desk.Now()) }, Log: a.log})
	a.court.draws = a.draws.Taken
	return err
}

// drawDemand says what is asked of a meter.
func (a *Agent) drawDemand(meter string) draws.Demand {
	d := a.desk.DrawDemand(meter)
	return draws.Demand{Drawn: d.Drawn, Waiting: d.Waiting, Capacity: d.Capacity}
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
