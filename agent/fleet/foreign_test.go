package fleet

import (
	"testing"
	"time"

	"github.com/usher-agent/usher/agent/bubble"
	"github.com/usher-agent/usher/enforcer"
	"github.com/usher-agent/usher/plugin"
)

// Keys below the prefix that no agent has written, with values that none can read, keep nobody from taking slots, and
// nobody from looking at the fleet, draining a host and putting one out.
func TestForeignKeys(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		r := newRig(t)
		a, way := r.agent("a", new([]byte))
		for _, key := range []string{"a/", "a/x/y", "c/x", "e/", "e/!!", "e//drain", "e/x/y", "f", "m/", "m/x", "m//",
			"o/", "o/x/y", "p/", "p/x", "p//", "p//s", "p//g/", "p/x/", "p/x/g", "p/x/g/", "p/x/g/y/z", "p/x/w",
			"p/x/w/", "p/x/f", "p/x/f/y", "p/x/s/y", "p/x/t/y", "p/x/z", "p/x/z/y", "q/x", "r/", "r/x", "r/x/", "r//x",
			"u/", "x"} {
			r.put("/u/"+key, "not{json")
		}
		r.join(a)
		l := &enforcer.License{ID: "L1", System: "usher", Product: "acme",
			Pools: map[string]enforcer.PoolTerm{"streams": {Max: 4}}}
		b := a.For(l, []byte(l.ID), nil, func(string) bool { return true })
		r.must(b.CheckOut(t.Context(), &plugin.CheckOut{Pool: "streams", Slots: 3, AtLeast: 3, For: time.Hour,
			Token: "t"}))
		o := &Operator{Store: way, Prefix: "/u/", Now: a.cfg.Now, Time: time.Now}
		f, err := o.Look(t.Context(), true)
		if err != nil {
			t.Fatal(err)
		}
		for _, at := range f.Agents {
			if at.Agent == "" {
				t.Error("an agent without a key is shown")
			}
		}
		streams := false
		for _, p := range f.Pools {
			streams = streams || p.Pool == "streams" && p.Out == 3
			if p.Key == "" {
				t.Errorf("a pool without a name is shown: %+v", p)
			}
		}
		if !streams {
			t.Errorf("the pools are %+v", f.Pools)
		}
		if _, err := o.Rules(t.Context()); err != nil {
			t.Error(err)
		}
		if _, err := o.Drain(t.Context(), a.cfg.Agent, false); err != nil {
			t.Error(err)
		}
		if done, err := o.Evict(t.Context(), a.cfg.Agent, time.Hour); err != nil || !done.Done {
			t.Errorf("%+v, %v", done, err)
		}
	})
}
