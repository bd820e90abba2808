package enforcer

import (
	"cmp"
	"math"
	"reflect"
	"slices"
	"time"
)

// modelLinger is what is kept for a user that has released it.
type modelLinger struct {
	lease  LeaseID // that was released
	item   Item
	who    User
	until  time.Time
	rule   string
	length time.Duration
}

// known reports whether there is a pool, or a meter, that rules may be asked of.
func (m *model) known(pool string) bool {
	if m.pools[pool].Name != "" || m.verdict != nil && m.verdict.Meters[pool].Name != "" {
		return true
	}
	return slices.ContainsFunc(m.leases, func(l modelLease) bool { return has(l.items, pool) }) ||
		slices.ContainsFunc(m.queue, func(w modelWaiter) bool { return !w.draws && has(w.items, pool) })
}

// concerned returns the rules of a pool that concern a holder.
func (m *model) concerned(pool string, c Caller, labels map[string]string) (out []Policy) {
	if !m.known(pool) {
		return nil
	}
	for _, p := range m.rules {
		if p.Of(pool) && p.Concerns(&Holder{Caller: c, Labels: labels}) {
			out = append(out, p)
		}
	}
	return out
}

func (m *model) ofLease(pool string, l modelLease) []Policy {
	return m.concerned(pool, l.holders[0], l.labels)
}

// alike reports whether two rules are of the same holders.
func alike(a, b Policy) bool {
	return reflect.DeepEqual(a.Match, b.Match) && reflect.DeepEqual(a.Not, b.Not) && a.Per == b.Per
}

// whose is whose limit a rule's Max is, of a holder's.
func (m *model) whose(p Policy, c Caller) string {
	if p.Per == "" {
		return ""
	}
	return "of " + m.group(p.Per, c, nil)
}

// only is the model with those leases alone that are kept.
func (m *model) only(keep func(modelLease) bool) *model {
	out := *m
	out.leases = nil
	for _, l := range m.leases {
		if keep(l) {
			out.leases = append(out.leases, l)
		}
	}
	return &out
}

// under is the model with those leases alone that count in a rule's Max beside a holder's.
func (m *model) under(pool string, p Policy, c Caller) *model {
	return m.only(func(l modelLease) bool {
		return m.whose(p, l.holders[0]) == m.whose(p, c) &&
			slices.ContainsFunc(m.ofLease(pool, l), func(o Policy) bool { return alike(o, p) })
	})
}

// tightest returns how much a holder's own limits leave to it, and the rule that leaves the least. Of rules that are of
// the same holders only the strictest counts.
func (m *model) tightest(pool string, c Caller, labels map[string]string, costless bool) (room int64, by *Policy) {
	room = math.MaxInt64
	var seen []Policy
	for _, p := range m.concerned(pool, c, labels) {
		if p.Max == 0 || slices.ContainsFunc(seen, func(o Policy) bool { return alike(o, p) }) {
			continue
		}
		seen = append(seen, p)
		most := p.Max
		for _, o := range m.concerned(pool, c, labels) {
			if o.Max > 0 && alike(o, p) {
				most = min(most, o.Max)
			}
		}
		with := m.under(pool, p, c)
		left := max(0, most*m.per(pool)-with.used(pool))
		if costless {
			left = with.reach(pool, c, labels, left)
		}
		if left < room {
			room, by = left, &p
		}
	}
	return room, by
}

// draws on: the place of the first reserve that concerns a holder; -1: none does.
func (m *model) reserveOf(pool string, c Caller, labels map[string]string) int {
	for _, p := range m.concerned(pool, c, labels) {
		if p.Reserve > 0 {
			return slices.IndexFunc(m.rules, func(o Policy) bool { return o.Name == p.Name })
		}
	}
	return -1
}

// unused returns how much of a pool a reserve keeps that is not in use.
func (m *model) unused(pool string, rule int) int64 {
	if rule < 0 {
		return 0
	}
	left := int64(m.pools[pool].Budget) * m.per(pool)
	var kept int64
	for i := range rule + 1 {
		kept = 0
		if p := m.rules[i]; p.Of(pool) {
			kept = min(p.Reserve*m.per(pool), left)
			left -= kept
		}
	}
	in := m.only(func(l modelLease) bool { return m.reserveOf(pool, l.holders[0], l.labels) == rule })
	return max(0, kept-in.used(pool))
}

// lingering returns how much of a pool is kept for a user that has released it; nil: for all users.
func (m *model) lingering(pool string, u *User) (n int64) {
	for _, x := range m.lingers {
		if x.item.Pool == pool && (u == nil || x.who == *u) {
			n += m.weigh(x.item)
		}
	}
	return n
}

// keptFromOthers is how much of a pool is kept for others than a holder.
func (m *model) keptFromOthers(pool string, c Caller, labels map[string]string) int64 {
	u := c.Who()
	n := m.lingering(pool, nil) - m.lingering(pool, &u)
	for i := range m.rules {
		if i != m.reserveOf(pool, c, labels) {
			n += m.unused(pool, i)
		}
	}
	return n
}

// overageRoom is how much of a pool the rules leave to a holder for its overage.
func (m *model) overageRoom(pool string, c Caller, labels map[string]string, now time.Time) int64 {
	g := m.pools[pool]
	if v := m.at(now); v != m.verdict {
		if next := v.Pools[pool]; next.Budget+next.Overage < g.Budget+g.Overage {
			g = next
		}
	}
	room := int64(math.MaxInt64)
	for _, p := range m.concerned(pool, c, labels) {
		if p.OverageMax != nil {
			room = min(room, max(0, (int64(g.Budget)+min(int64(g.Overage), *p.OverageMax))*m.per(pool)-m.used(pool)))
		}
	}
	return room
}

// fitRuled is fit of one item under rules.
func (m *model) fitRuled(r *Acquire, it Item, now time.Time) (Item, DenialCode) {
	least := m.weigh(it.least(r))
	own, _ := m.tightest(it.Pool, r.Caller, r.Labels, true)
	if least > own {
		return it, DeniedByPolicy
	}
	waits := slices.ContainsFunc(m.queue, func(w modelWaiter) bool { return w.r.ID == r.ID })
	if !waits && m.weigh(it) > m.own(it.Pool, r) && m.blocked(r, it, LeaseID{}, m.ruleRank(r, now)) {
		return it, NoSlots
	}
	room := m.room(it.Pool, r, now)
	reach := func(spare int64) int64 { return m.reach(it.Pool, r.Caller, r.Labels, spare) }
	kept := reach(max(0, m.cap(it.Pool, now)-m.used(it.Pool)-m.keptFromOthers(it.Pool, r.Caller, r.Labels)))
	all := min(room, own, kept, reach(m.overageRoom(it.Pool, r.Caller, r.Labels, now)))
	got := it
	for got.N > 0 && m.weigh(got) > all {
		got.N--
	}
	switch {
	case got.N == it.N, r.MinN > 0 && got.N >= r.MinN:
		return got, ""
	case least > room:
		return it, NoSlots
	}
	return it, DeniedByPolicy
}

// ruledOut reports whether the rules can never give a request what it asks for of a pool.
func (m *model) ruledOut(r *Acquire, it Item) bool {
	if len(m.rules) == 0 {
		return false
	}
	least := m.weigh(it.least(r))
	g := m.pools[it.Pool]
	for _, p := range m.concerned(it.Pool, r.Caller, r.Labels) {
		if p.Max > 0 && least > p.Max*m.per(it.Pool) || p.OverageMax != nil &&
			least > (int64(g.Budget)+min(int64(g.Overage), *p.OverageMax))*m.per(it.Pool) {
			return true
		}
	}
	nobody := m.only(func(modelLease) bool { return false })
	most := m.cap(it.Pool, time.Time{})
	for i := range m.rules {
		if i != m.reserveOf(it.Pool, r.Caller, r.Labels) {
			most -= nobody.withKnown(m).unused(it.Pool, i)
		}
	}
	return least > most
}

// withKnown is the model with the pools of another.
func (m *model) withKnown(*model) *model { return m }

// ruleDenies reports whether a rule gives a request nothing of a pool or meter.
func (m *model) ruleDenies(pool string, r *Acquire) bool {
	return slices.ContainsFunc(m.concerned(pool, r.Caller, r.Labels), func(p Policy) bool { return p.Deny })
}

// ruleKeeps reports whether the rules keep a request from borrowing, and whether that is for good.
func (m *model) ruleKeeps(r *Acquire, now time.Time) (keeps, forGood bool) {
	if r.Lifetime != LifetimeBorrow {
		return false, false
	}
	for _, it := range itemsOf(r) {
		for _, p := range m.concerned(it.Pool, r.Caller, r.Labels) {
			if p.MaxBorrow != nil && r.Until.Sub(now) > *p.MaxBorrow {
				return true, true
			}
		}
		if most, waters := m.mayBorrow(it.Pool, r); waters && m.pools[it.Pool].Name+"x" != "" {
			n := m.weigh(it.least(r))
			if m.borrowed(it.Pool)+n > most {
				return true, n > most
			}
		}
	}
	return false, false
}

func (m *model) mayBorrow(pool string, r *Acquire) (most int64, limited bool) {
	var water int64
	for _, p := range m.concerned(pool, r.Caller, r.Labels) {
		water = max(water, p.LowWater)
	}
	return max(0, int64(m.pools[pool].Budget)-water) * m.per(pool), water > 0
}

func (m *model) borrowed(pool string) (n int64) {
	for _, l := range m.leases {
		for _, it := range l.items {
			if it.Pool == pool && l.lifetime == LifetimeBorrow {
				n += m.weigh(it)
			}
		}
	}
	return n
}

// modelBar is what keeps a waiter from being served whatever the pool has free.
type modelBar struct {
	rule  *Policy // nil: a low water
	whose string
	pool  string
}

func (m *model) barred(w modelWaiter) *modelBar {
	for _, it := range w.items {
		if w.draws {
			break
		}
		least := m.weigh(it.least(w.r))
		if room, by := m.tightest(it.Pool, w.r.Caller, w.r.Labels, true); least > room {
			return &modelBar{by, m.whose(*by, w.r.Caller), it.Pool}
		}
		if most, waters := m.mayBorrow(it.Pool, w.r); waters && w.r.Lifetime == LifetimeBorrow &&
			m.borrowed(it.Pool)+least > most {
			return &modelBar{pool: it.Pool}
		}
	}
	return nil
}

// blocked reports whether waiters before a request keep it from an item; id is its own among them.
func (m *model) blocked(r *Acquire, it Item, id LeaseID, rank time.Time) bool {
	others := false
	kept := map[string]int64{}
	u := r.Caller.Who()
	own := m.reserveOf(it.Pool, r.Caller, r.Labels)
	kept["lingering"], kept["reserved"] = m.lingering(it.Pool, &u), m.unused(it.Pool, own)
	for _, w := range m.queue {
		if w.r.ID == id || id == (LeaseID{}) && w.rank.After(rank) {
			break
		}
		if w.draws || !has(w.items, it.Pool) {
			continue
		}
		if b := m.barred(w); b != nil {
			for _, own := range itemsOf(r) {
				if own.Pool != b.pool {
					continue
				}
				for _, p := range m.concerned(own.Pool, r.Caller, r.Labels) {
					if b.rule != nil && p.Max > 0 && alike(p, *b.rule) && m.whose(p, r.Caller) == b.whose ||
						b.rule == nil && p.LowWater > 0 && r.Lifetime == LifetimeBorrow {
						return true
					}
				}
			}
			continue
		}
		others = true
		if w.r.Caller.Who() == u {
			kept["lingering"] = 0
		}
		if m.reserveOf(it.Pool, w.r.Caller, w.r.Labels) == own {
			kept["reserved"] = 0
		}
	}
	return others && m.weigh(it) > kept["lingering"]+kept["reserved"]
}

// ruleRank is the instant by which a request has its place: a minute earlier for each step of priority.
func (m *model) ruleRank(r *Acquire, since time.Time) time.Time {
	least := math.MaxInt
	for _, it := range itemsOf(r) {
		priority := 0
		for _, p := range m.concerned(it.Pool, r.Caller, r.Labels) {
			priority = cmp.Or(priority, p.Priority)
		}
		least = min(least, priority)
	}
	return since.Add(-time.Duration(least) * time.Minute)
}

func (m *model) enqueue(w modelWaiter) {
	w.rank = m.ruleRank(w.r, w.since)
	m.queue = append(m.queue, w)
	slices.SortStableFunc(m.queue, func(a, b modelWaiter) int { return a.rank.Compare(b.rank) })
}
