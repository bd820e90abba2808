package agent

import (
	"fmt"
	"maps"
	"path/filepath"
	"time"

	"github.com/usher-agent/usher/agent/clock"
	"github.com/usher-agent/usher/agent/seals"
	"github.com/usher-agent/usher/agent/shares"
	"github.com/usher-agent/usher/enforcer"
)

// SinceBoot returns for how long the host has been up, suspension included, where the host says so.
func SinceBoot() time.Duration { return clock.Boot() }

// openShares makes the keeper of what this agent may hand out of site pools and meters.
func (a *Agent) openShares(wants *shares.Wants) error {
	cfg := a.config
	blocks, draws := seals.Sealed(a.seals.Runtime, seals.Nothing), seals.Sealed(a.seals.State, seals.LastKnown)
	offset, _ := clock.Offset()
	c := shares.Config{
		Blocks: shares.File{Path: filepath.Join(cfg.State.RuntimeDir, seals.BlocksFile), Read: blocks.Read,
			Write: blocks.Write},
		Draws:  shares.File{Path: filepath.Join(cfg.State.Dir, seals.DrawsFile), Read: draws.Read, Write: draws.Write},
		BootID: clock.Epoch(), Offset: offset != 0, Now: clock.Fence, Time: a.desk.Counted,
		CallWithin: cfg.Upstream.Timeout.Duration(), Upstreams: a.upstreams, Request: a.requests.ForShares,
		Pool:  a.poolDemand,
		Meter: a.meterDemand, Wants: wants, OnChange: a.court.reshare, Stopping: a.desk.Drain,
		Called: func(call, result string) { a.metrics.UpstreamCalled(call, result, a.desk.Now()) }, Log: a.log}
	if at := cfg.Upstream.PoolsURL; at != "" {
		opener, err := a.opener()
		if err != nil {
			return err
		}
		if c.SiteServer, err = opener.Native(at); err != nil {
			return fmt.Errorf("upstream.pools_url: %w", err)
		}
	}
	var err error
	if a.shares, err = shares.New(c); err != nil {
		return err
	}
	a.court.budgets, a.court.draws = a.shares.Budgets, a.shares.Taken
	a.court.shares = func(v *enforcer.Verdict) bool { return a.shares.See(&a.court.facts, v, a.court.document) }
	return nil
}

// poolDemand says what is asked of a pool.
func (a *Agent) poolDemand(pool string) shares.PoolDemand {
	p, ok := a.desk.Pool(pool)
	if !ok {
		return shares.PoolDemand{}
	}
	return shares.PoolDemand{InUse: p.InUse, Waiting: p.Waiting, Capacity: int64(p.Budget.Plus(p.Overage)),
		Draining: a.desk.Draining()}
}

// meterDemand says what is asked of a meter.
func (a *Agent) meterDemand(meter string) shares.MeterDemand {
	d := a.desk.DrawDemand(meter)
	return shares.MeterDemand{Drawn: d.Drawn, Waiting: d.Waiting, Capacity: d.Capacity}
}

// reshare has what may be handed out of site pools counted again: by the judge, unless only the time changes until
// which it holds.
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
