package agent

import (
	"fmt"
	"path/filepath"
	"time"

	"github.com/usher-agent/usher/agent/clock"
	"github.com/usher-agent/usher/agent/seals"
	"github.com/usher-agent/usher/agent/shares"
	"github.com/usher-agent/usher/plugin/usher/online"
)

// SinceBoot returns for how long the host has been up, suspension included, where the host says so.
func SinceBoot() time.Duration { return clock.Boot() }

// openShares makes the keeper of what this agent may hand out of site pools and meters.
func (o *opening) openShares() error {
	blocks, draws := seals.Sealed(o.seals.Runtime, seals.Nothing), seals.Sealed(o.seals.State, seals.LastKnown)
	offset, _ := clock.Offset()
	c := shares.Config{
		Blocks: shares.File{Path: filepath.Join(o.cfg.State.RuntimeDir, seals.BlocksFile), Read: blocks.Read,
			Write: blocks.Write},
		Draws: shares.File{Path: filepath.Join(o.cfg.State.Dir, seals.DrawsFile), Read: draws.Read,
			Write: draws.Write},
		BootID: clock.Epoch(), Offset: offset != 0, Now: clock.Fence, Time: o.desk.Counted,
		CallWithin: o.cfg.Upstream.Timeout.Duration(), Upstreams: o.upstreams, Request: o.requests.ForShares,
		Pool:  o.poolDemand,
		Meter: o.meterDemand, Wants: o.wants, OnChange: func() { o.court.Reshare() }, Stopping: o.desk.Drain,
		Called: func(call, result string) { o.metrics.UpstreamCalled(call, result, o.desk.Now()) }, Log: o.log}
	if at := o.cfg.Upstream.PoolsURL; at != "" && len(o.cfg.Upstream.PoolsURLs) == 0 {
		opener, err := o.opener()
		if err != nil {
			return err
		}
		server, err := opener.Native(at)
		if err != nil {
			return fmt.Errorf("upstream.pools_url: %w", err)
		}
		c.SiteServer = online.NewSite(server)
	}
	if all := o.cfg.Upstream.PoolServers(); len(o.cfg.Upstream.PoolsURLs) > 0 {
		opener, err := o.opener()
		if err != nil {
			return err
		}
		if c.SiteServer, err = online.NewSeveral(all, opener.Native); err != nil {
			return fmt.Errorf("upstream.pools_urls: %w", err)
		}
	}
	if err := o.openFleet(&c); err != nil {
		return err
	}
	var err error
	if o.shares, err = shares.New(c); err != nil {
		return err
	}
	o.running.task("shares", o.shares.Run)
	return nil
}

// poolDemand says what is asked of a pool.
func (a *Agent) poolDemand(pool string) shares.PoolDemand {
	p, ok := a.desk.Pool(pool)
	if !ok {
		return shares.PoolDemand{}
	}
	return shares.PoolDemand{InUse: p.InUse, Waiting: p.Waiting, Capacity: int64(p.Budget.Plus(p.Overage)),
		Draining: a.desk.Draining() || a.fleetDrains(pool)}
}

// meterDemand says what is asked of a meter.
func (a *Agent) meterDemand(meter string) shares.MeterDemand {
	p, ok := a.desk.Pool(meter)
	if !ok {
		return shares.MeterDemand{}
	}
	return shares.MeterDemand{Drawn: p.InUse, Waiting: p.Waiting, Capacity: int64(p.Budget.Plus(p.Overage))}
}
