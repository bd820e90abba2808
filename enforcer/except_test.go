package enforcer

import (
	"strings"
	"testing"
)

// TestExcept: a rule is of no pool that it excepts, whatever pools says; explain says so, and a review tells where
// nothing is left, and does not take a rule for idle that another excepts.
func TestExcept(t *testing.T) {
	rules := func(s ...string) (out []Glob) {
		for _, one := range s {
			out = append(out, Glob{Text: one})
		}
		return out
	}
	c := newCounted(t, 4, CountLease)
	c.do(&SetPolicies{NewPolicies([]Policy{{Name: "but a", Except: rules("a"), Deny: true},
		{Name: "b too", Pools: rules("*"), Except: rules("b?"), Max: 1}})})
	if d := c.acquire(1, proc(1), 0); d.Denial != nil {
		t.Error(d.Denial)
	}
	if d := c.acquire(2, proc(1), 0).Denial; d == nil || d.Rule != "b too" {
		t.Errorf("the rule that is of the pool: %v", d)
	}
	why := c.e.Explain(&Holder{Caller: proc(1)}, "a", c.now).Rules
	if why[0].Concerns || why[0].Why != "it is of other pools" || !why[1].Concerns {
		t.Errorf("%+v", why)
	}
	for _, x := range []struct {
		says  string // empty: nothing
		rules []Policy
	}{
		{"except has \"z\", which no pool", []Policy{{Name: "r", Except: rules("z"), Max: 1}}},
		{"it is of no pool of the licence", []Policy{{Name: "r", Pools: rules("a"), Except: rules("?"), Max: 1}}},
		{"", []Policy{{Name: "q", Except: rules("a"), Deny: true}, {Name: "r", Pools: rules("a"), Max: 1}}},
		{"it can never do anything", []Policy{{Name: "q", Except: rules("b"), Deny: true},
			{Name: "r", Pools: rules("a"), Max: 1}}},
		{"it can never do anything", []Policy{{Name: "q", Except: rules("b"), Deny: true},
			{Name: "r", Except: rules("b"), Max: 1}}},
		{"", []Policy{{Name: "q", Except: rules("b"), Deny: true}, {Name: "r", Max: 1}}},
	} {
		pool := PoolGrant{Name: "a", Limit: 4, Budget: 4}
		v := &Verdict{State: StateValid, Code: Valid, Pools: map[string]PoolGrant{"a": pool, "b": pool}}
		got := NewPolicies(x.rules).Review(v)
		if x.says == "" && len(got) > 0 || x.says != "" && (len(got) == 0 || !strings.Contains(got[0].Detail, x.says)) {
			t.Errorf("%+v: %+v, want %q", x.rules, got, x.says)
		}
	}
}
