package fleet

import (
	"cmp"
	"context"
	"slices"
	"time"

	"github.com/usher-agent/usher/client/wire"
)

// reportWithin bounds how long the store is asked for a report.
const reportWithin = 2 * time.Second

// Operator returns what tells other agents what an operator wants, by way of this agent's store.
func (f *Fleet) Operator() *Operator { return f.operator }

// Report returns how the agent stands, and what the store says of all agents. Where the store does not answer in time,
// it returns what it last said; where it never did, what the agent knows of its own pools.
func (f *Fleet) Report(ctx context.Context) wire.Fleet {
	ctx, cancel := context.WithTimeout(ctx, reportWithin)
	defer cancel()
	out, err := f.operator.Look(ctx, true)
	now := f.cfg.Now()
	f.mu.Lock()
	if err == nil {
		f.report, f.reportAt = &out, now
	}
	if f.report != nil {
		out = *f.report
		age := (now - f.reportAt).Seconds()
		out.AgeSeconds, out.Current = &age, err == nil
	}
	f.mu.Unlock()
	if err != nil {
		_, out.Error = FaultOf(err)
	}
	s := f.Standing()
	if out.Pools == nil {
		out.Agents = []wire.FleetAgent{}
		out.Pools = f.ownPools(s)
	}
	out.Agent, out.Name, out.State, out.Reason, out.Hint = f.cfg.Agent, f.cfg.Member.Name, string(s.State), s.Reason,
		s.Hint
	out.FenceSeconds, out.WriteSeconds = s.Fence.Seconds(), s.Write.Seconds()
	for _, m := range s.Faults {
		out.Store = append(out.Store, wire.FleetFault{Endpoint: m.Endpoint, Fault: string(m.Fault), Reason: m.Reason,
			Hint: m.Fault.Mend()})
	}
	f.ownUse(&out, s)
	return out
}

// ownPools are the pools as the agent knows them without the store.
func (f *Fleet) ownPools(s Standing) []wire.FleetPool {
	pools := []wire.FleetPool{}
	for _, p := range s.Pools {
		pool := wire.FleetPool{Key: p.Key, Limit: p.Limit, Out: p.Out,
			Agents: []wire.FleetShare{{Agent: f.cfg.Agent, Name: f.cfg.Member.Name, Slots: p.Slots}}}
		f.title(p.Key).of(&pool)
		pools = append(pools, pool)
	}
	return pools
}

// ownUse adds what is in use here, which needs no answer.
func (f *Fleet) ownUse(out *wire.Fleet, s Standing) {
	out.Agents, out.Pools = slices.Clone(out.Agents), slices.Clone(out.Pools)
	for i := range out.Agents {
		if a := &out.Agents[i]; a.Agent == f.cfg.Agent && s.State != StateWaiting { // else it is another with its key
			fence := s.Fence.Seconds()
			a.FenceSeconds = &fence
		}
	}
	for i := range out.Pools {
		p := &out.Pools[i]
		p.Agents = slices.Clone(p.Agents)
		of := slices.IndexFunc(s.Pools, func(x PoolStanding) bool { return x.Key == p.Key })
		if of < 0 {
			continue
		}
		mine := slices.IndexFunc(p.Agents, func(x wire.FleetShare) bool { return x.Agent == f.cfg.Agent })
		if mine < 0 { // it has no slots, and its licence may have another limit nevertheless
			mine = len(p.Agents)
			p.Agents = append(p.Agents, wire.FleetShare{Agent: f.cfg.Agent, Name: f.cfg.Member.Name})
		}
		n := f.cfg.InUse(s.Pools[of].Pool)
		p.Agents[mine].InUse, p.Agents[mine].Limit = &n, cmp.Or(p.Agents[mine].Limit, s.Pools[of].Own)
	}
}
