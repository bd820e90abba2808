package registry

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"go.etcd.io/bbolt"

	"github.com/usher-agent/usher/enforcer"
)

// The rules for hosts live with the pool: the server judges them, so that a host without rules of its own eats no
// reserve. A block carries the labels of its host, as they were bound to the host's key, and what hosts of a kind have
// is the sum of their blocks. So a limit holds whatever dies, as the licence's own does.

var metaRules = []byte("rules")

// Ruled is the rules in force, and when they were set.
type Ruled struct {
	Rules enforcer.SiteRules `json:"rules"`
	Set   time.Time          `json:"set,omitzero"`
	Uses  []RuleUse          `json:"uses,omitempty"`
}

// RuleUse is what the hosts that a rule concerns have of one pool of one licence.
type RuleUse struct {
	Rule    string `json:"rule"`
	License string `json:"license"`
	Pool    string `json:"pool"`
	Slots   int64  `json:"slots"`
}

// rulesOf reads the rules in force.
func rulesOf(tx *bbolt.Tx) (enforcer.SiteRules, error) {
	r, err := get[Ruled](tx.Bucket(meta), metaRules)
	if r == nil || err != nil {
		return nil, err
	}
	return r.Rules, nil
}

// Rules returns the rules in force, and what each has in use.
func (g *Registry) Rules() (*Ruled, error) {
	var r *Ruled
	err := g.db.View(func(tx *bbolt.Tx) (err error) {
		r, err = get[Ruled](tx.Bucket(meta), metaRules)
		return err
	})
	if err != nil {
		return nil, err
	}
	if r == nil {
		r = &Ruled{}
	}
	if p, ok := g.cfg.Pools.(*Blocks); ok {
		r.Uses = p.ruleUses()
	}
	return r, nil
}

// SetRules puts rules in force in the place of the former ones, for all that is asked from now on. Agents keep what
// they have.
func (g *Registry) SetRules(rules enforcer.SiteRules) (*Ruled, error) {
	p, ok := g.cfg.Pools.(*Blocks)
	if !ok {
		return nil, errors.New("this upstream serves no slots, so that rules have no effect; run it with --serve-pools")
	}
	if g.broker.name != "" {
		return nil, errors.New("this site server has its slots from a fleet, and the fleet's rules hold: set them " +
			"with `usher fleet rules`")
	}
	if err := rules.Check(); err != nil {
		return nil, err
	}
	for i := range rules {
		if len(rules[i].Match.Host)+len(rules[i].Not.Host) > 0 {
			return nil, fmt.Errorf(
				"rules[%d] (%s): a site server does not know the names of hosts; match a label that "+
					"`usher upstream label` or an enrolment token binds to their keys", i, rules[i].Name)
		}
	}
	p.mu.Lock()
	r := &Ruled{Rules: rules, Set: p.now().UTC()}
	err := g.db.Update(func(tx *bbolt.Tx) error { return put(tx.Bucket(meta), metaRules, r) })
	if err == nil {
		p.blocks.rules = rules
		p.tellAll()
	}
	p.mu.Unlock()
	if err != nil {
		return nil, err
	}
	return g.Rules()
}

// SetLabels binds labels to the hosts of a licence whose keys' thumbprints begin so, in the place of former ones. What
// a host has counts by them at once.
func (g *Registry) SetLabels(id, agent string, labels map[string]string) (n int, err error) {
	if err := enforcer.CheckHostLabels(labels); err != nil {
		return 0, err
	}
	p, _ := g.cfg.Pools.(*Blocks)
	if p != nil {
		p.mu.Lock()
		defer p.mu.Unlock()
	}
	who := map[string]bool{}
	n, err = g.each(id, agent, func(tx *bbolt.Tx, a *Activation) error {
		who[a.AgentKey] = true
		a.Labels = labels
		faults := []error{put(tx.Bucket(activations), activationKey(a.License, a.AgentKey), a)}
		if p == nil {
			return faults[0]
		}
		for _, x := range p.blocks.by {
			if x.License == id && x.Agent == a.AgentKey {
				y := *x
				y.Labels = labels
				faults = append(faults, put(tx.Bucket(blocksBucket), []byte(x.ID), &y))
			}
		}
		return errors.Join(faults...)
	})
	if err != nil || p == nil {
		return n, err
	}
	for _, x := range p.blocks.by {
		if x.License == id && who[x.Agent] {
			x.Labels = labels
		}
	}
	for s, missing := range p.blocks.missing {
		for agent, w := range missing {
			if s.license == id && who[agent] {
				w.labels = labels
				missing[agent] = w
			}
		}
	}
	p.tell(id)
	return n, nil
}

// bound returns the labels that are bound to the key of a host.
func (p *Blocks) bound(license, agent string) (labels map[string]string, err error) {
	return labels, p.db.View(func(tx *bbolt.Tx) error {
		a, err := get[Activation](tx.Bucket(activations), activationKey(license, agent))
		if a != nil {
			labels = a.Labels
		}
		return err
	})
}

// tellAll answers the watches for which there is news. p.mu is held.
func (p *Blocks) tellAll() {
	for license := range p.watchers {
		p.tell(license)
	}
}

func (p *Blocks) ruleUses() (out []RuleUse) {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := p.up()
	for s, of := range p.blocks.of {
		for _, r := range p.blocks.rules.On(s.pool) {
			u := RuleUse{Rule: r.Name, License: s.license, Pool: s.pool}
			for _, x := range of {
				if x.until > now && r.Concerns(&enforcer.SiteHost{Labels: x.Labels}) {
					u.Slots += x.Slots
				}
			}
			out = append(out, u)
		}
	}
	slices.SortFunc(out, func(a, b RuleUse) int {
		return cmp.Or(cmp.Compare(a.Rule, b.Rule), cmp.Compare(a.License, b.License), cmp.Compare(a.Pool, b.Pool))
	})
	return out
}

// classes remembers what rules say of hosts, by their labels.
type classes struct {
	rules enforcer.SiteRules
	memo  map[string]enforcer.SiteClass
}

func classesOf(rules enforcer.SiteRules) classes {
	return classes{rules, map[string]enforcer.SiteClass{}}
}

func (c classes) of(labels map[string]string) enforcer.SiteClass {
	key := ""
	for _, k := range slices.Sorted(maps.Keys(labels)) {
		key += k + "=" + labels[k] + " "
	}
	class, known := c.memo[key]
	if !known {
		class = c.rules.Class(&enforcer.SiteHost{Labels: labels})
		c.memo[key] = class
	}
	return class
}

// use counts what hosts have of a pool beside one block.
func (b *blocks) use(c classes, s share, but string, now time.Duration) (u enforcer.SiteUse) {
	for id, x := range b.of[s] {
		if id != but && x.until > now {
			u.Add(c.of(x.Labels), x.Slots)
		}
	}
	return u
}

// roomFor returns how many slots of a pool a block of a host can have beside the others, of at most total, and the rule
// that leaves it the least; empty: none does.
func (b *blocks) roomFor(s share, but string, labels map[string]string, total enforcer.Limit, now time.Duration) (
	n int64, rule string) {
	rules := b.rules.On(s.pool)
	if len(rules) == 0 {
		return b.room(s, but, total, now), ""
	}
	c := classesOf(rules)
	u := b.use(c, s, but, now)
	return rules.Room(b.unheld(s, total), &u, c.of(labels))
}

// letting returns how many slots rules let an agent have that waits.
func (b *blocks) letting(s share, w want, now time.Duration) int64 {
	n, _ := b.roomFor(s, "", w.labels, b.totals[s], now)
	return n
}

// useful returns how many slots others would get if an agent gave some back.
func (b *blocks) useful(s share, agent string, now time.Duration) int64 {
	if len(b.rules.On(s.pool)) == 0 {
		return enforcer.MaxN
	}
	return b.wanted(s, agent, now)
}

// wantedOf is wanted under rules: those that wait get what is free in their order, and of what they lack then counts
// what they would get of the agent's slots; empty: of anybody's.
func (b *blocks) wantedOf(rules enforcer.SiteRules, s share, agent string, now time.Duration) (n int64) {
	c, total, missing := classesOf(rules), b.totals[s], b.missing[s]
	u := b.use(c, s, "", now)
	from := c.of(b.labelsOf(s, agent))
	var lacking []enforcer.SiteWant
	for _, who := range slices.SortedFunc(maps.Keys(missing), func(x, y string) int {
		return cmp.Or(cmp.Compare(missing[x].since, missing[y].since), cmp.Compare(x, y))
	}) {
		w := missing[who]
		if w.until <= now {
			delete(missing, who)
			continue
		}
		if who == agent {
			continue
		}
		class := c.of(w.labels)
		room, _ := rules.Room(total, &u, class)
		got := min(room, w.slots)
		u.Add(class, got)
		if got < w.slots {
			lacking = append(lacking, enforcer.SiteWant{Class: class, Slots: w.slots - got})
		}
	}
	for _, w := range lacking {
		if agent == "" || rules.Helps(total, &u, from, w.Class) {
			n += w.Slots
		}
	}
	return max(0, n-live(b.recalls[s], agent, now))
}

// labelsOf returns the labels of an agent that has slots of a pool.
func (b *blocks) labelsOf(s share, agent string) map[string]string {
	for _, x := range b.of[s] {
		if x.Agent == agent {
			return x.Labels
		}
	}
	return nil
}
