package agent

import (
	"fmt"
	"maps"
	"path/filepath"
	"time"

	"github.com/usher-agent/usher/agent/budget"
	"github.com/usher-agent/usher/agent/clock"
	"github.com/usher-agent/usher/agent/seals"
	"github.com/usher-agent/usher/enforcer"
	"github.com/usher-agent/usher/plugin"
)

// SinceBoot returns for how long the host has been up, suspension included, where the host says so.
func SinceBoot() time.Duration { return clock.Boot() }

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
	file := seals.Sealed(a.seals.Runtime, seals.Nothing)
	offset, _ := clock.Offset()
	a.budget, err = budget.New(budget.Config{File: filepath.Join(cfg.State.RuntimeDir, seals.BlocksFile),
		Read:  file.Read,
		Write: file.Write, BootID: clock.Epoch(), Offset: offset != 0, CallWithin: cfg.Upstream.Timeout.Duration(),
		Now: clock.Fence, Request: a.blockRequest, Demand: a.demand, OnChange: a.court.reshare, Stopping: a.desk.Drain,
		Called: func(call, result string) { a.metrics.UpstreamCalled(call, result, a.desk.Now()) }, Log: a.log})
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
		Draining: a.desk.Draining()}
}

// demandChanged has the keepers look again at what is asked for.
func (a *Agent) demandChanged() {
	if len(a.budgeters)+len(a.drawers) > 0 {
		a.budget.Nudge()
		a.draws.Nudge()
	}
}

// missed tells the keepers of an acquire that was denied for want of slots or draws.
func (a *Agent) missed(r *enforcer.Acquire) {
	if len(a.budgeters)+len(a.drawers) == 0 {
		return
	}
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
		c.desk.SetFence(fence)
		return
	}
	c.judge()
}
