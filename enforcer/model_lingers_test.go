package enforcer

import (
	"fmt"
	"slices"
	"time"

	"pgregory.net/rapid"
)

// endedByRule returns when the rules end a lease; zero: never.
func (m *model) endedByRule(l modelLease) (at time.Time) {
	if l.lifetime == LifetimeBorrow {
		return at
	}
	for _, it := range l.items {
		for _, p := range m.ofLease(it.Pool, l) {
			if p.MaxHold > 0 {
				at = sooner(at, l.began.Add(p.MaxHold))
			}
			if p.IdleTimeout > 0 {
				at = sooner(at, l.renewed.Add(p.IdleTimeout))
			}
		}
	}
	return at
}

func (m *model) idles(l modelLease) bool {
	return l.lifetime != LifetimeBorrow && slices.ContainsFunc(l.items, func(it Item) bool {
		return slices.ContainsFunc(m.ofLease(it.Pool, l), func(p Policy) bool { return p.IdleTimeout > 0 })
	})
}

func (m *model) passRules(now time.Time) {
	m.leases = slices.DeleteFunc(m.leases, func(l modelLease) bool {
		at := m.endedByRule(l)
		return !at.IsZero() && !at.After(now)
	})
	m.lingers = slices.DeleteFunc(m.lingers, func(x modelLinger) bool { return !x.until.After(now) })
}

// rehand gives a lease other holders.
func (m *model) rehand(i int, holders []Caller, now time.Time) {
	l := &m.leases[i]
	if m.endedByRule(*l).IsZero() {
		l.began, l.renewed = l.at, now
	}
	l.holders = holders
}

// setRules puts rules in force.
func (m *model) setRules(rules []Policy, now time.Time) {
	for i := range m.leases {
		if l := &m.leases[i]; m.endedByRule(*l).IsZero() {
			l.began, l.renewed = l.at, now
		}
	}
	m.rules = rules
	m.reviewLingers()
	queue := m.queue
	// as they came
	slices.SortStableFunc(queue, func(a, b modelWaiter) int { return slices.Compare(a.r.ID[:], b.r.ID[:]) })
	m.queue = nil
	for _, w := range queue {
		m.enqueue(w)
	}
}

// reviewLingers ends what lingers by rules that are no longer there.
func (m *model) reviewLingers() {
	m.lingers = slices.DeleteFunc(m.lingers, func(x modelLinger) bool {
		return !slices.ContainsFunc(m.rules, func(p Policy) bool { return p.Name == x.rule && p.Linger > 0 })
	})
}

func (m *model) stepRules(by time.Duration) {
	for i := range m.leases {
		if l := &m.leases[i]; !m.endedByRule(*l).IsZero() {
			l.began, l.renewed = l.began.Add(by), l.renewed.Add(by)
		}
	}
	for i := range m.lingers {
		m.lingers[i].until = m.lingers[i].until.Add(by)
	}
	for i := range m.queue {
		m.queue[i].since, m.queue[i].rank = m.queue[i].since.Add(by), m.queue[i].rank.Add(by)
	}
}

// linger keeps what a lease frees for its user, as its holder gives it back.
func (m *model) linger(id LeaseID, now time.Time) {
	l := m.leases[m.find(id)]
	u := l.holders[0].Who()
	if l.lifetime == LifetimeBorrow || u.nobody() {
		return
	}
	without := m.only(func(o modelLease) bool { return o.id != id })
	for _, it := range l.items {
		n := m.used(it.Pool) - without.used(it.Pool)
		for _, p := range m.ofLease(it.Pool, l) {
			if p.Linger == 0 {
				continue
			}
			if n > 0 && m.pools[it.Pool].Name != "" {
				m.lingers = append(m.lingers,
					modelLinger{id, Item{it.Pool, n, m.per(it.Pool)}, u, now.Add(p.Linger), p.Name, p.Linger})
			}
			break
		}
	}
}

// takeBack has a user use up first what is kept for it.
func (m *model) takeBack(c Caller, labels map[string]string, items []Item) {
	for _, it := range items {
		left := m.costs(it.Pool, c, labels, m.weigh(it))
		var still, rest []modelLinger
		for _, x := range m.lingers {
			if n := m.weigh(x.item); x.item.Pool != it.Pool || x.who != c.Who() || left <= 0 {
				still = append(still, x)
			} else {
				if n > left {
					x.item = Item{it.Pool, n - left, m.per(it.Pool)}
					rest = append(rest, x)
				}
				left -= n
			}
		}
		m.lingers = append(still, rest...)
	}
}

// unlinger ends what lingers of one lease in one pool.
func (m *model) unlinger(over *Linger) {
	m.lingers = slices.DeleteFunc(m.lingers, func(x modelLinger) bool {
		return x.lease == over.Lease && x.item.Pool == over.Item.Pool
	})
}

// sameLingers: what lingers is the model's, and for as long.
func (s *twin) sameLingers(t *rapid.T, rule string) {
	var got, want []string
	for _, x := range s.e.Lingers() {
		got = append(got, fmt.Sprint(x.Item, x.Who, x.Rule, x.Until.Sub(x.Since), x.Until.Sub(s.now)))
	}
	for _, x := range s.m.lingers {
		it := x.item
		if it.Of == 1 {
			it.Of = 0
		}
		want = append(want, fmt.Sprint(it, x.who, x.rule, x.length, x.until.Sub(s.now)))
	}
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Fatalf("%s: what lingers is\n%s\nand the model has\n%s", rule, got, want)
	}
}

// mayGrow reports whether the rules let a lease count for more of a pool by a holder.
func (m *model) mayGrow(pool string, by Caller, labels map[string]string, i int, more int64, now time.Time) bool {
	rules := m.concerned(pool, by, m.growLabels(by, i))
	if slices.ContainsFunc(rules, func(p Policy) bool { return p.Deny }) {
		return false
	}
	own, _ := m.tightest(pool, by, m.growLabels(by, i), false)
	return more <= own && more <= m.overageRoom(pool, by, m.growLabels(by, i), now) &&
		m.used(pool)+more+m.keptFromOthers(pool, by, m.growLabels(by, i)) <= m.cap(pool, now)
}

// growLabels are the labels by which rules judge a further holder: a renewal and an attach keep the lease's.
func (m *model) growLabels(_ Caller, i int) map[string]string { return m.leases[i].labels }
