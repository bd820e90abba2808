package agent

import (
	"fmt"
	"maps"
	"path/filepath"
	"runtime"
	"time"

	"github.com/usher-agent/usher/agent/budget"
	"github.com/usher-agent/usher/agent/clock"
	"github.com/usher-agent/usher/enforcer"
	"github.com/usher-agent/usher/plugin"
)

// SinceBoot returns for how long the host has been up, suspension included, where the host says so.
func SinceBoot() time.Duration { return clock.Boot() }

var loaded = time.Now()

// untilFence is the clock of what others may have later: that of the boot, and where it stands still in suspension the
// wall clock, should that be ahead.
func untilFence() time.Duration {
	if runtime.GOOS == "linux" {
		return clock.Boot()
	}
	return max(clock.Boot(), time.Since(loaded.Round(0)))
}

// openBudget makes the keeper of what this agent may hand out of site pools.
func (a *Agent) openBudget() error {
	cfg := a.config
	a.budgeters = map[string]plugin.Budgeter{}
	for system, u := range a.upstreams {
		if b, ok := u.(plugin.Budgeter); ok && u.Capabilities().Budget {
			a.budgeters[system] = b
		}
	}
	if at := cfg.Upstream.PoolsURL; at != "" {
		opener, err := a.opener()
		if err != nil {
			return err
		}
		u, err := opener.Native(at)
		if err != nil {
			return fmt.Errorf("upstream.pools_url: %w", err)
		}
		a.budgeters[u.System()] = u
	}
	var err error
	file := sealed(a.seals.runtime, nothing)
	offset, _ := clock.Offset()
	a.budget, err = budget.New(budget.Config{File: filepath.Join(cfg.State.RuntimeDir, blocksFile), Read: file.read,
		Write: file.write, BootID: clock.Epoch(), Offset: offset != 0, CallWithin: cfg.Upstream.Timeout.Duration(),
		Now: untilFence, Request: a.blockRequest, Demand: a.demand, OnChange: a.court.reshare, Stopping: a.desk.drain,
		Called: func(call, result string) { a.metrics.UpstreamCalled(call, result, a.desk.time()) }, Log: a.log})
	if err != nil {
		return err
	}
	if err := a.openDraws(); err != nil {
		return err
	}
	a.court.budgets = a.budget.Budgets
	a.court.shares = func(v *enforcer.Verdict) bool {
		blocks, draws := a.haveShares(v), a.haveDraws(v)
		return blocks || draws
	}
	a.desk.relapse = a.court.reshare
	if len(a.budgeters)+len(a.drawers) > 0 {
		a.desk.stir = func() { a.budget.Nudge(); a.draws.Nudge() }
		a.desk.short = a.missed
	}
	return nil
}

// blockRequest is what leaves the host with a call for blocks.
func (a *Agent) blockRequest(l *enforcer.License, document []byte) plugin.Request {
	r := a.upstreamRequest(l, document)
	r.Usage, r.Emergencies = nil, nil // they are the vendor's to know
	return r
}

// demand says what is asked of a pool.
func (a *Agent) demand(pool string) budget.Demand {
	p, ok := a.desk.Pool(pool)
	if !ok {
		return budget.Demand{}
	}
	return budget.Demand{InUse: p.InUse, Waiting: p.Waiting, Capacity: int64(p.Budget.Plus(p.Overage)),
		Draining: a.desk.draining()}
}

// missed tells the keepers of an acquire that was denied for want of slots or draws.
func (a *Agent) missed(r *enforcer.Acquire) {
	if r.Pool != "" {
		a.budget.Missed(r.Pool, r.N)
		a.draws.Missed(r.Pool, r.N)
	}
	for _, it := range r.Items {
		a.budget.Missed(it.Pool, it.N)
		a.draws.Missed(it.Pool, it.N)
	}
}

// haveShares tells the keeper which licences there are: those in force. It returns whether the verdict is to be judged
// anew, for there are budgets that it did not know of. The court's lock is held.
func (a *Agent) haveShares(v *enforcer.Verdict) bool {
	var out []budget.Licence
	for _, j := range v.Licenses {
		if !j.InForce {
			continue
		}
		if u := a.budgeters[j.License.System]; u != nil {
			out = append(out, budget.Licence{License: j.License, Document: a.court.document(j.Document), Upstream: u})
		}
	}
	return a.budget.Set(out)
}

// reshare has what may be handed out of site pools counted anew: by the judge, unless only the time changes until which
// it holds.
func (c *court) reshare() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if budgets, fence := c.budgets(); c.ready && maps.Equal(budgets, c.facts.Budgets) &&
		maps.Equal(c.draws(), c.facts.Draws) {
		c.desk.setFence(fence)
		return
	}
	c.judge()
}

// setFence sets until when the verdict's grants hold.
func (d *desk) setFence(fence time.Duration) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.fence = fence; fence != 0 {
		d.rouse()
	}
}
