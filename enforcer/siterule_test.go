package enforcer

import (
	"strings"
	"testing"

	"pgregory.net/rapid"
)

func TestSiteRuleConcerns(t *testing.T) {
	berlin := map[string]string{"site": "berlin", "rack": "4"}
	for _, c := range []struct {
		rule  SiteRule
		host  SiteHost
		yes   bool
		pools string // that it is about, of gpu, gpu-test and cad
	}{
		{SiteRule{}, SiteHost{}, true, "gpu gpu-test cad"},
		{SiteRule{Match: SiteMatch{Labels: map[string]string{"site": "ber*"}}, Pools: []string{"gpu*"}},
			SiteHost{Labels: berlin}, true, "gpu gpu-test"},
		{SiteRule{Match: SiteMatch{Labels: map[string]string{"site": "berlin", "rack": "5"}}}, SiteHost{Labels: berlin},
			false, "gpu gpu-test cad"},
		{SiteRule{Match: SiteMatch{Host: []string{"a*", "b?"}}, Pools: []string{"gpu*"}, Except: []string{"*-test"}},
			SiteHost{Name: "b1"}, true, "gpu"},
		{SiteRule{Match: SiteMatch{Host: []string{"*"}}, Except: []string{"gpu*"}}, SiteHost{}, false, "cad"},
		{SiteRule{Not: SiteMatch{Labels: map[string]string{"site": "berlin"}}}, SiteHost{Labels: berlin}, false,
			"gpu gpu-test cad"},
		{SiteRule{Not: SiteMatch{Labels: map[string]string{"site": "berlin"}}}, SiteHost{Name: "x"}, true,
			"gpu gpu-test cad"},
		{SiteRule{Match: SiteMatch{Labels: map[string]string{"site": "berlin"}}, Not: SiteMatch{Host: []string{"b*"}}},
			SiteHost{Name: "b1", Labels: berlin}, false, "gpu gpu-test cad"},
	} {
		if got := c.rule.Concerns(&c.host); got != c.yes {
			t.Errorf("%+v concerns %+v: %v", c.rule, c.host, got)
		}
		var about []string
		for _, pool := range []string{"gpu", "gpu-test", "cad"} {
			if c.rule.Of(pool) {
				about = append(about, pool)
			}
		}
		if got := strings.Join(about, " "); got != c.pools {
			t.Errorf("%+v is about %q", c.rule, got)
		}
	}
}

// Whatever hosts take in turn what Room says that they may, no rule's hosts have more than its max, and the reserves
// stay free for theirs: hosts of each reserve could have it filled up at any time. Room is no less than that: one slot
// more would break one of it.
func TestSiteRoom(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var rules SiteRules
		for _, name := range []string{"one", "two", "three"}[:rapid.IntRange(0, 3).Draw(t, "rules")] {
			r := SiteRule{Name: name, Max: rapid.Int64Range(0, 9).Draw(t, "max"),
				Reserve: rapid.Int64Range(0, 9).Draw(t, "reserve")}
			r.Match.Labels = map[string]string{rapid.SampledFrom([]string{"a", "b"}).Draw(t, "label"): "x"}
			rules = append(rules, r)
		}
		hosts := []SiteHost{{}, {Labels: map[string]string{"a": "x"}}, {Labels: map[string]string{"b": "x"}},
			{Labels: map[string]string{"a": "x", "b": "x"}}}
		has, total := make([]int64, len(hosts)), Limit(rapid.Int64Range(0, 20).Draw(t, "total"))
		// good is the rules told without Room.
		good := func() bool {
			out, left, unused := int64(0), int64(total), int64(0)
			for _, n := range has {
				out += n
			}
			for i := range rules {
				var counts, own int64
				for j := range hosts {
					first := ""
					for k := range rules {
						if rules[k].Reserve > 0 && rules[k].Concerns(&hosts[j]) && first == "" {
							first = rules[k].Name
						}
					}
					if rules[i].Concerns(&hosts[j]) {
						counts += has[j]
					}
					if first == rules[i].Name {
						own += has[j]
					}
				}
				if rules[i].Max > 0 && counts > rules[i].Max {
					return false
				}
				kept := min(rules[i].Reserve, left)
				left -= kept
				unused += max(0, kept-own)
			}
			return out+unused <= int64(total)
		}
		for range rapid.IntRange(1, 30).Draw(t, "steps") {
			i := rapid.IntRange(0, len(hosts)-1).Draw(t, "host")
			if rapid.Bool().Draw(t, "gives back") {
				has[i] -= rapid.Int64Range(0, has[i]).Draw(t, "n")
				continue
			}
			var use SiteUse
			for j := range hosts {
				use.Add(rules.Class(&hosts[j]), has[j])
			}
			room, rule := rules.Room(total, &use, rules.Class(&hosts[i]))
			if has[i] += room; !good() {
				t.Fatalf("%+v of %d: host %d got %d and rules are broken: %v", rules, total, i, room, has)
			}
			if has[i]++; good() {
				t.Fatalf("%+v of %d: host %d got %d (%s), and one more would do: %v", rules, total, i, room, rule, has)
			}
			has[i]--
			has[i] -= rapid.Int64Range(0, room).Draw(t, "not taken")
		}
	})
}

// A rule whose hosts have all that it lets them have is named also where no slot is free: one that comes free is not
// for them. Another rule is not.
func TestSiteRuleIsNamedWhereNoneAreFree(t *testing.T) {
	berlin, rome := SiteHost{Labels: map[string]string{"site": "berlin"}}, SiteHost{}
	rules := SiteRules{{Name: "few", Match: SiteMatch{Labels: berlin.Labels}, Max: 1}}
	for _, c := range []struct {
		berlin, rome int64
		to           SiteHost
		rule         string
	}{{1, 1, berlin, "few"}, {1, 0, berlin, "few"}, {0, 2, berlin, ""}, {1, 1, rome, ""}} {
		var use SiteUse
		use.Add(rules.Class(&berlin), c.berlin)
		use.Add(rules.Class(&rome), c.rome)
		if room, rule := rules.Room(2, &use, rules.Class(&c.to)); room != 0 && c.rule != "" || rule != c.rule {
			t.Errorf("%+v: %d by rule %q", c, room, rule)
		}
	}
}

// A slot that is given back helps a waiter where it may take it, and those that wait are served in their order.
func TestSiteHelps(t *testing.T) {
	berlin, rome := SiteHost{Labels: map[string]string{"site": "berlin"}},
		SiteHost{Labels: map[string]string{"site": "rome"}}
	rules := SiteRules{{Name: "berlin", Match: SiteMatch{Labels: berlin.Labels}, Max: 3, Reserve: 2}}
	b, r := rules.Class(&berlin), rules.Class(&rome)
	var use SiteUse
	use.Add(b, 3)
	use.Add(r, 1)
	if rules.Helps(10, &use, r, b) || !rules.Helps(10, &use, b, b) {
		t.Error("Berlin has its limit, and only its own hosts can help it")
	}
	use.Add(b, -2)
	use.Add(r, 7)
	if rules.Helps(9, &use, b, r) || !rules.Helps(9, &use, r, b) {
		t.Error("what Berlin gives back of its reserve is kept for it")
	}
	use = SiteUse{}
	after := rules.After(10, &use, []SiteWant{{r, 9}, {b, 5}, {r, 1}})
	if after.Out != 10 || after.Max["berlin"] != 2 || after.Kept["berlin"] != 2 {
		t.Errorf("after all that wait: %+v", after)
	}
}
