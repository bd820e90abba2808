package fleet

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/usher-agent/usher/agent/bubble"
	"github.com/usher-agent/usher/enforcer"
	"github.com/usher-agent/usher/plugin"
)

func at(where string) map[string]string { return map[string]string{"site": where} }

func berlin(most, reserve int64) enforcer.SiteRules {
	return enforcer.SiteRules{{Name: "berlin", Match: enforcer.SiteMatch{Labels: at("berlin")}, Max: most,
		Reserve: reserve}}
}

// crowdRules are the rules of a crowd: its hosts of Berlin have most slots at most, and reserve are kept for them.
type crowdRules struct{ most, reserve int64 }

// checkRules adds up what the hosts of Berlin and the others might hand out. mu is held.
func (c *crowd) checkRules(all []*host) {
	if c.rules == nil || c.wrong != "" {
		return
	}
	var here, others int64
	for _, h := range all {
		if h.labels["site"] == "berlin" {
			here += h.usable()
		} else {
			others += h.usable()
		}
	}
	if here > c.rules.most {
		c.wrong = fmt.Sprintf("after %s the hosts of Berlin might hand out %d slots; their rule says %d",
			time.Since(c.begin), here, c.rules.most)
	}
	if others+c.rules.reserve > c.limit {
		c.wrong = fmt.Sprintf("after %s others might hand out %d slots of %d, of which %d are kept for Berlin",
			time.Since(c.begin), others, c.limit, c.rules.reserve)
	}
}

// The hosts of a rule never have more than its max together, and others get nothing of its reserve, whatever dies, is
// cut off, restored from a backup or changes its clock; when all is well again everybody is served.
func TestCrowdUnderRules(t *testing.T) {
	for i := range *seeds {
		seed := *from + i
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			bubble.Test(t, func(t *testing.T) {
				playAs(t, uint64(seed), func(y *history) {
					n := int64(0)
					for i, h := range y.agents {
						if h.labels = at("rome"); i%2 == 0 {
							h.labels, n = at("berlin"), n+1
						}
					}
					y.rules = &crowdRules{n + 1, min(n, 2)}
					o := &Operator{Store: &way{sim: y.sim}, Prefix: "/u/", Time: time.Now}
					if _, err := o.SetRules(t.Context(), berlin(y.rules.most, y.rules.reserve)); err != nil {
						t.Fatal(err)
					}
				})
			})
		})
		if t.Failed() {
			return
		}
	}
}

// labelled makes an agent with labels that is not run.
func (r *rig) labelled(id, where string, record *[]byte) (*Fleet, *hooked) {
	f, h := r.agent(id, record)
	f.cfg.Member.Labels = at(where)
	return f, h
}

func (r *rig) rules(rules enforcer.SiteRules) {
	r.t.Helper()
	o := &Operator{Store: &way{sim: r.sim}, Prefix: "/u/", Time: time.Now}
	if _, err := o.SetRules(r.t.Context(), rules); err != nil {
		r.t.Fatal(err)
	}
}

func ruleOf(err error) string {
	var e *plugin.Error
	if !errors.As(err, &e) || e.Elsewhere == nil {
		return fmt.Sprint(err)
	}
	return e.Elsewhere.Rule
}

func TestRulesOfAFleet(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		r := newRig(t)
		b1, _ := r.labelled("b1", "berlin", new([]byte))
		b2, _ := r.labelled("b2", "berlin", new([]byte))
		c, _ := r.labelled("c", "rome", new([]byte))
		old, _ := r.agent("old", new([]byte))
		r.join(b1, b2, c, old)
		r.rules(berlin(4, 3))
		first := r.must(r.checkOut(r.bound(b1, 10), "1", 9))
		if first.Slots != 4 {
			t.Errorf("of a rule with max 4 a host has %d", first.Slots)
		}
		more := &plugin.Extend{Block: first.ID, Slots: 6, For: time.Hour}
		for _, got := range []*plugin.Block{first, r.must(r.bound(b1, 10).Extend(t.Context(), more))} {
			if e := got.Elsewhere; e == nil || e.Rule != "berlin" || e.Out != 0 {
				t.Errorf("with fewer slots than asked the agent hears %+v", e)
			}
		}
		if _, err := r.checkOut(r.bound(b2, 10), "1", 1); ruleOf(err) != "berlin" {
			t.Errorf("beyond the max: %v", err)
		}
		r.must(r.bound(b1, 10).Extend(t.Context(), &plugin.Extend{Block: first.ID, Slots: 1, For: time.Hour}))
		time.Sleep(10 * time.Second) // b2 no longer waits
		b2.leaveTurn(t.Context(), func(string, *pool) bool { return true })
		// 9 are free, and 2 of those Berlin's.
		if got := r.must(r.checkOut(r.bound(c, 10), "1", 5)); got.Slots != 5 {
			t.Errorf("a host of Rome has %d of 5", got.Slots)
		}
		if got := r.must(r.checkOut(r.bound(old, 10), "1", 9)); got.Slots != 2 {
			t.Errorf("a host without labels has %d of the 2 that are not kept", got.Slots)
		}
		if _, err := r.checkOut(r.bound(c, 10), "2", 1); ruleOf(err) != "berlin" {
			t.Errorf("of the reserve: %v", err)
		}
		if got := r.must(r.checkOut(r.bound(b2, 10), "3", 9)); got.Slots != 2 {
			t.Errorf("Berlin has %d of its reserve", got.Slots)
		}
		got, err := (&Operator{Store: &way{sim: r.sim}, Prefix: "/u/"}).Rules(t.Context())
		if err != nil || len(got.Uses) != 1 || got.Uses[0] != (RuleUse{"berlin", "streams", 3}) || got.Digest == "" {
			t.Errorf("as operators see it: %+v, %v", got, err)
		}
		r.adds()
		r.put("/u/e/!rules", "{")
		if _, err := r.checkOut(r.bound(c, 10), "2", 1); err == nil ||
			!strings.Contains(err.Error(), "fleet rules set") {
			t.Errorf("under rules that cannot be read: %v", err)
		}
	})
}

// Between what an agent reads and what it writes, another of the same rule takes slots, an agent that knows no rules
// does, or an operator sets other rules: no more goes out than the rules say.
func TestRulesBetween(t *testing.T) {
	grows := func(x *Txn) bool { return x.Kind == KindChange && len(x.Then) > 0 }
	for name, do := range map[string]func(r *rig, b2 *Fleet){
		"another takes": func(r *rig, b2 *Fleet) { r.must(r.checkOut(r.bound(b2, 20), "1", 3)) },
		"other rules":   func(r *rig, _ *Fleet) { r.rules(berlin(1, 0)) },
		"an earlier version takes": func(r *rig, b2 *Fleet) {
			was := r.value("/u/p/" + poolName(site(20), "streams") + "/s")
			n, _ := read[total](KV{Value: was}, was != "")
			key := "/u/p/" + poolName(site(20), "streams")
			r.do(Op{Put: key + "/g/b2",
				Value: text(held{Incarnation: "x", Blocks: map[string]int64{"fleet-x": 3}, TTL: 10,
					Labels: at("berlin"), terms: terms{Limit: 20}})},
				Op{Put: key + "/s", Value: text(total{n.Out + 3})})
		},
	} {
		t.Run(name, func(t *testing.T) {
			bubble.Test(t, func(t *testing.T) {
				r := newRig(t)
				b1, way := r.labelled("b1", "berlin", new([]byte))
				b2, _ := r.labelled("b2", "berlin", new([]byte))
				r.join(b1, b2)
				r.rules(berlin(4, 0))
				happened := way.between(grows, func() { do(r, b2) })
				got := r.must(r.checkOut(r.bound(b1, 20), "1", 4))
				if got.Slots != 1 || !happened() {
					t.Errorf("the agent got %d slots, where the rules leave 1 (%v)", got.Slots, happened())
				}
				r.adds()
			})
		})
	}
}

// What an agent of another label had before its host was started again counts by that label until it is over.
func TestRulesAndFormerSlots(t *testing.T) {
	rules := berlin(5, 0)
	u := siteUse{rules: rules}
	u.count(&held{Blocks: map[string]int64{"a": 2}, Labels: at("rome"),
		Former: map[string]former{"x": {Slots: 3, TTL: 9, Labels: at("berlin")}}})
	if u.use.Max["berlin"] != 3 || u.use.Out != 5 {
		t.Errorf("counted: %+v", u.use)
	}
	if was := (former{Slots: 3, TTL: 9}); was.same(former{Slots: 3, TTL: 9, Labels: at("rome")}) {
		t.Error("other labels are the same")
	}
}
