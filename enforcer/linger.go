package enforcer

import (
	"bytes"
	"cmp"
	"slices"
	"time"
)

// Linger keeps slots for a while for the user that has released them, by a rule of the site. They are in nobody's use,
// and nobody else gets them. A Linger outlives the agent, and a verdict that does not name its pool. It never changes
// once made.
type Linger struct {
	Lease        LeaseID // that was released
	Item         Item
	Who          User
	Since, Until time.Time
	Rule         string // its name
}

// Resumed returns the linger after a recovery at the instant now. It goes on while the agent is away. It lasts no
// longer than it was to last, whatever clock had set its end.
func (x *Linger) Resumed(now time.Time) *Linger {
	if left := x.Until.Sub(x.Since); x.Until.Sub(now) > left {
		is := *x
		is.Since, is.Until = now, now.Add(left)
		return &is
	}
	return x
}

// lingering is a Linger in force.
type lingering struct {
	*Linger
	at int // in the timetable of their ends
}

func (l *lingering) due() time.Time { return l.Until }
func (l *lingering) place() *int    { return &l.at }

// lingers are those of one pool. They are made with the first.
type lingers struct {
	list  []*lingering // in the order of their beginning
	parts int64
	of    map[User]int64 // parts
}

// all returns how many parts linger. Lingers that were never needed are nil, and none.
func (l *lingers) all() int64 {
	if l == nil {
		return 0
	}
	return l.parts
}

// listed returns them in the order of their beginning.
func (l *lingers) listed() []*lingering {
	if l == nil {
		return nil
	}
	return l.list
}

func (l *lingers) first(not User) (rule string, until time.Time) {
	for _, x := range l.listed() {
		if x.Who != not && (until.IsZero() || x.Until.Before(until)) {
			rule, until = x.Rule, x.Until
		}
	}
	return rule, until
}

// linger returns the events by which the slots of a lease that its holder gives back linger.
func (e *Enforcer) linger(h *held, now time.Time) (out []Event) {
	l := h.Lease
	if e.policies == nil || l.Lifetime == LifetimeBorrow || l.Holder.Who().nobody() {
		return nil
	}
	for _, it := range l.Items {
		p := e.pool(it.Pool)
		s := p.rules.says(h.shared, l.Holder)
		if s == nil || s.linger == nil || p.capacity() == Unlimited || !p.named {
			continue
		}
		if n := p.frees(l, p.grant.parts(it)); n > 0 {
			out = append(out, Event{Kind: EventLingers, At: now, Linger: &Linger{Lease: l.ID, Item: p.amount(n),
				Who: l.Holder.Who(), Since: now, Until: now.Add(s.linger.Linger), Rule: s.linger.Name}})
		}
	}
	return out
}

// amount returns a number of parts as an item.
func (p *pool) amount(parts int64) Item {
	it := Item{Pool: p.name, N: parts}
	if p.grant.per() > 1 {
		it.Of = p.grant.per()
	}
	return it
}

// frees returns by how many parts less of a pool are in use once a lease of n parts has ended.
func (p *pool) frees(l *Lease, n int64) (less int64) {
	u := p.grant.units(l)
	less = u.alone * n
	for _, unit := range u.groups {
		g := p.groups[unit]
		less += g.total - g.with(n, -1)
	}
	return less
}

// returns are the events by which a user's lingering slots are used up by a lease that is granted to it.
func (e *Enforcer) returns(l *Lease, now time.Time) (out []Event) {
	if len(e.lingering.heap) == 0 {
		return nil
	}
	u := l.Holder.Who()
	for _, it := range l.Items {
		p := e.pool(it.Pool)
		if p.lingers == nil || p.lingers.of[u] == 0 {
			continue
		}
		left := p.costs(unitOf(p.grant.CountBy, l.Holder), p.grant.parts(it))
		for _, x := range p.lingers.list {
			if left <= 0 {
				break
			}
			if x.Who != u {
				continue
			}
			n := p.grant.parts(x.Item)
			out = append(out, Event{Kind: EventLingerOver, At: now, Linger: x.Linger, Cause: CauseReleased})
			if n > left {
				rest := *x.Linger
				rest.Item = p.amount(n - left)
				out = append(out, Event{Kind: EventLingers, At: now, Linger: &rest})
			}
			left -= n
		}
	}
	return out
}

func (e *Enforcer) applyLingers(x *Linger) {
	p := e.pools[x.Item.Pool]
	if p == nil { // recovery: the linger is known before the licence is
		p = e.newPool(x.Item.Pool, PoolGrant{Name: x.Item.Pool, CountBy: CountLease})
	}
	l := &lingering{Linger: x}
	e.lingering.add(l)
	if p.lingers == nil {
		p.lingers = &lingers{}
	}
	p.lingers.list = append(p.lingers.list, l)
	p.count1(l, 1)
}

func (e *Enforcer) applyLingerOver(x *Linger) {
	p := e.pools[x.Item.Pool]
	if p == nil || p.lingers == nil {
		return
	}
	i := slices.IndexFunc(p.lingers.list, func(l *lingering) bool { return l.Lease == x.Lease })
	if i < 0 {
		return
	}
	l := p.lingers.list[i]
	e.lingering.remove(l)
	p.count1(l, -1)
	p.lingers.list = slices.Delete(p.lingers.list, i, i+1)
	e.drop(p.name, p)
}

// count1 counts a lingering in or out.
func (p *pool) count1(l *lingering, sign int64) {
	n := sign * p.grant.parts(l.Item)
	p.lingers.parts += n
	if p.lingers.of == nil {
		p.lingers.of = map[User]int64{}
	}
	if p.lingers.of[l.Who] += n; p.lingers.of[l.Who] == 0 {
		delete(p.lingers.of, l.Who)
	}
}

// reviewLingers returns the events that end what lingers by rules that are no longer there under the policies ps.
func (e *Enforcer) reviewLingers(ps *Policies, now time.Time) (out []Event) {
	if len(e.lingering.heap) == 0 {
		return nil
	}
	stays := map[string]bool{}
	if ps != nil {
		for _, p := range ps.Rules {
			stays[p.Name] = stays[p.Name] || p.Linger > 0
		}
	}
	for _, x := range e.Lingers() {
		if !stays[x.Rule] {
			out = append(out, Event{Kind: EventLingerOver, At: now, Linger: x, Cause: CauseRevoked})
		}
	}
	return out
}

// Lingers returns what lingers, the one that ends first before the others. Apply of an EventLingers of each makes the
// same state.
func (e *Enforcer) Lingers() []*Linger {
	if len(e.lingering.heap) == 0 {
		return nil
	}
	out := make([]*Linger, 0, len(e.lingering.heap))
	for _, l := range e.lingering.heap {
		out = append(out, l.Linger)
	}
	slices.SortFunc(out, func(a, b *Linger) int {
		return cmp.Or(a.Until.Compare(b.Until), bytes.Compare(a.Lease[:], b.Lease[:]),
			cmp.Compare(a.Item.Pool, b.Item.Pool))
	})
	return out
}

// relinger counts a pool's lingering slots again, in the parts that its slots have now.
func (p *pool) relinger() {
	if p.lingers == nil {
		return
	}
	p.lingers.parts, p.lingers.of = 0, nil
	for _, l := range p.lingers.list {
		p.count1(l, 1)
	}
}

// lingersDue ends what has lingered long enough by now.
func (e *Enforcer) lingersDue(now time.Time, most int) (out []Event) {
	for _, l := range e.lingering.until(now, most) {
		out = append(out, Event{Kind: EventLingerOver, At: now, Linger: l.Linger, Cause: CauseExpired})
	}
	return out
}

// stepLingers has what lingers do so for as long as it was to when the time is set.
func (e *Enforcer) stepLingers(by time.Duration) {
	for _, l := range e.lingering.heap { // all by as much, so that their order stays
		moved := *l.Linger
		moved.Since, moved.Until = moved.Since.Add(by), moved.Until.Add(by)
		l.Linger = &moved
	}
}
