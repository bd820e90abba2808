package registry

import (
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/usher-agent/usher/enforcer"
	"github.com/usher-agent/usher/plugin/usher/online"
)

func site(name string) map[string]string { return map[string]string{"site": name} }

// berlinRules let the hosts of Berlin have max slots at most, and keep some for them.
func berlinRules(most, reserve int64) enforcer.SiteRules {
	match := enforcer.SiteMatch{Labels: site("berlin")}
	var out enforcer.SiteRules
	if most > 0 {
		out = append(out, enforcer.SiteRule{Name: "berlin", Match: match, Max: most})
	}
	if reserve > 0 {
		out = append(out, enforcer.SiteRule{Name: "for-berlin", Match: match, Reserve: reserve})
	}
	return out
}

// In whatever order agents ask, with answers lost, the server restarted, rules changed and time passing, the hosts of a
// rule never get more slots together than its max, and others get none of its reserve.
func TestSiteRulesHold(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		c := &neverOver{b: newBlocks(), agents: map[string][]believed{"a": nil, "b": nil, "c": nil},
			labels: map[string]map[string]string{"a": site("berlin"), "b": site("berlin"), "c": site("rome")},
			total:  enforcer.Limit(rapid.Int64Range(0, 12).Draw(t, "limit"))}
		c.l = siteLicence(c.total, 0)
		usable := func(names ...string) (sum int64) {
			for _, who := range names {
				for _, x := range c.agents[who] {
					if x.until > c.now {
						sum += x.slots
					}
				}
			}
			return sum
		}
		out := func(where string) (sum int64) {
			for _, x := range c.b.by {
				if x.until > c.now && x.Labels["site"] == where {
					sum += x.Slots
				}
			}
			return sum
		}
		for range rapid.IntRange(1, 60).Draw(t, "steps") {
			if rapid.IntRange(0, 5).Draw(t, "other rules") == 0 {
				c.b.rules = berlinRules(rapid.Int64Range(0, 6).Draw(t, "max"),
					rapid.Int64Range(0, 6).Draw(t, "reserve"))
			}
			berlin, rome, at := max(usable("a", "b"), out("berlin")), max(usable("c"), out("rome")), c.total
			c.step(t)
			var most, reserve int64
			for _, r := range c.b.rules {
				most, reserve = max(most, r.Max), max(reserve, r.Reserve)
			}
			if n := usable("a", "b"); most > 0 && n > most && n > berlin {
				t.Fatalf("the hosts of Berlin may use %d slots, and the rule says %d", n, most)
			}
			n := usable("c")
			if kept := max(min(reserve, int64(c.total)), usable("a", "b")); n+kept > int64(c.total) && n > rome &&
				at == c.total {
				t.Fatalf("of %d slots Rome may use %d, where %d are for Berlin", c.total, n, kept)
			}
		}
	})
}

// With one rule or many, the agent that lacks slots gets them from those whose return helps it, and is told only of
// slots that it may have.
func TestSiteRulesRecall(t *testing.T) {
	b, now, l := newBlocks(), time.Second, siteLicence(20, 0)
	b.rules = berlinRules(5, 0)
	take := func(who, where string, n, least int64) (*Block, *online.Refusal) {
		x, c, refused := b.checkOut(&ask{agent: who, labels: site(where), license: l, newID: who + where, now: now,
			ttl: time.Minute, BlockRequest: &online.BlockRequest{Pool: "seats", Slots: n, AtLeast: least}})
		b.apply(c)
		return x, refused
	}
	if x, _ := take("b1", "berlin", 5, 1); x.Slots != 5 {
		t.Fatalf("a host of Berlin has %d slots, where 5 is the limit", x.Slots)
	}
	if x, _ := take("r1", "rome", 9, 1); x.Slots != 9 {
		t.Fatalf("a host of Rome has %d", x.Slots)
	}
	_, refused := take("b2", "berlin", 2, 1)
	if refused == nil || refused.Elsewhere.Rule != "berlin" || !strings.Contains(refused.Reason, "rule berlin") {
		t.Fatalf("over the limit of Berlin: %+v", refused)
	}
	b.state("b1", "L1", map[string]int64{"seats": 4}, now+time.Minute, now)
	b.state("r1", "L1", map[string]int64{"seats": 9}, now+time.Minute, now)
	news := b.news("L1", func(string) bool { return true }, now)
	if len(news["r1"]) != 0 || news["b1"]["seats"].Wanted != 2 || len(news["b2"]) != 0 {
		t.Errorf("one of Berlin lacks 2, and 6 are free for others: %+v", news)
	}
}

// A block that was over counts again after a restart of the server, which has not watched the clock. So one that is in
// the way of a rule is not kept, though the pool has room for it.
func TestSiteRulesAfterRestart(t *testing.T) {
	c := &neverOver{b: newBlocks(), now: time.Second, l: siteLicence(12, 0)}
	c.b.rules = berlinRules(5, 0)
	take := func(who string) *Block {
		x, change, refused := c.b.checkOut(&ask{agent: who, labels: site("berlin"), license: c.l, newID: who,
			now: c.now,
			ttl: blockTTL, BlockRequest: &online.BlockRequest{Pool: "seats", Slots: 5}})
		if refused != nil {
			t.Fatal(refused)
		}
		c.b.apply(change)
		return x
	}
	first := take("b1")
	c.now += 2 * blockTTL
	take("b2")
	c.restart()
	if x, _, refused := c.b.extend(&ask{agent: "b1", labels: site("berlin"), license: c.l, now: c.now, ttl: blockTTL,
		BlockRequest: &online.BlockRequest{ID: first.ID}}); refused == nil {
		t.Fatalf("two hosts of Berlin have 5 slots each, where 5 is the limit: %+v", x)
	}
}
