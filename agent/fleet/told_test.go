package fleet

import (
	"slices"
	"testing"
	"time"

	"github.com/usher-agent/usher/agent/bubble"
	"github.com/usher-agent/usher/client/wire"
	"github.com/usher-agent/usher/enforcer"
	"github.com/usher-agent/usher/plugin"
)

// Operators read a pool's name as the licence has it, and tell pools of one name apart by product and add-on. What
// hosts of a rule have is counted under that name, too.
func TestPoolsAreNamedAsInTheLicence(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		r := newRig(t)
		a, way := r.agent("a", new([]byte))
		r.join(a)
		odd := map[string]enforcer.PoolTerm{"a/b": {Max: 4}}
		for i, l := range []*enforcer.License{
			{ID: "L1", System: "usher", Product: "acme", Pools: odd},
			{ID: "L2", System: "usher", Product: "acme", Pools: odd, Role: enforcer.RoleAddOn},
			{ID: "L3", System: "usher", Product: "other", Pools: odd},
		} {
			b := a.For(l, []byte(l.ID), nil, func(string) bool { return true })
			r.must(b.CheckOut(t.Context(), &plugin.CheckOut{Pool: "a/b", Slots: int64(i) + 1, AtLeast: 1,
				For: time.Hour, Token: l.ID}))
		}
		o := &Operator{Store: way, Prefix: "/u/", Now: a.cfg.Now, Time: time.Now}
		f, err := o.Look(t.Context(), false)
		if err != nil {
			t.Fatal(err)
		}
		var got []wire.FleetPool
		for _, p := range f.Pools {
			got = append(got, wire.FleetPool{Pool: p.Pool, Product: p.Product, AddOn: p.AddOn, Out: p.Out})
		}
		for _, want := range []wire.FleetPool{{Pool: "a/b", Product: "acme", Out: 1},
			{Pool: "a/b", Product: "acme", AddOn: "L2", Out: 2}, {Pool: "a/b", Product: "other", Out: 3}} {
			if !slices.ContainsFunc(got, func(p wire.FleetPool) bool {
				return p.Pool == want.Pool && p.Product == want.Product && p.AddOn == want.AddOn && p.Out == want.Out
			}) {
				t.Errorf("there is no %+v in %+v", want, got)
			}
		}
		few := enforcer.SiteRules{{Name: "few", Pools: []string{"a/b"}, Max: 9}}
		if _, err := o.SetRules(t.Context(), few); err != nil {
			t.Fatal(err)
		}
		ruled, err := o.Rules(t.Context())
		if err != nil || len(ruled.Uses) != 1 || ruled.Uses[0] != (RuleUse{"few", "a/b", 6}) {
			t.Errorf("what the rule's hosts have: %+v, %v", ruled.Uses, err)
		}
	})
}

// A host without slots of a pool says what limit its own licence has; one that waits for another with its key says
// nothing of that one's fence.
func TestReportOfOneself(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		r := newRig(t)
		a, _ := r.agent("a", new([]byte))
		b, _ := r.agent("b", new([]byte))
		r.join(a, b)
		b.cfg.InUse = func(string) int64 { return 0 }
		r.must(r.checkOut(r.bound(a, 3), "1", 1))
		r.bound(b, 10)
		f := b.Report(t.Context())
		at := -1
		if len(f.Pools) == 1 {
			at = slices.IndexFunc(f.Pools[0].Agents, func(s wire.FleetShare) bool { return s.Agent == "b" })
		}
		if at < 0 || f.Pools[0].Limit != 3 || f.Pools[0].Agents[at].Limit != 10 || f.Pools[0].Agents[at].Slots != 0 {
			t.Errorf("a host with a limit of 10 and no slots sees %+v", f.Pools)
		}
		other, _ := r.agent("a", new([]byte))
		other.cfg.InUse = b.cfg.InUse
		if _, err := other.ready(t.Context(), true); err == nil {
			t.Fatal("two agents have one key")
		}
		other.stands(StateWaiting)
		if f := other.Report(t.Context()); len(f.Agents) == 0 || f.Agents[0].FenceSeconds != nil {
			t.Errorf("the fence of another with this agent's key: %+v", f.Agents)
		}
	})
}
