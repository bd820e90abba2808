package enforcer

import (
	"iter"
	"slices"
)

// sharers are the waiters of one pool by the unit that they count as. One whose lease would cost nothing, because its
// unit has the slots already, is served at once, whoever waits before it: it takes nothing from anybody.
type sharers struct {
	of map[string][]*waiting
	// have are those of the units that have had leases of the pool while somebody waits: no others can share.
	have map[string]bool
}

// join notes that units have a lease.
func (s *sharers) join(units []string) {
	for _, unit := range units {
		if len(s.of) > 0 && s.of[unit] != nil {
			s.have[unit] = true
		}
	}
}

// enter takes over a waiter for the i-th of its items.
func (p *pool) enter(w *waiting, i int) {
	unit := unitOf(p.grant.CountBy, w.holder)
	if unit == "" && w.units == nil {
		return
	}
	if w.units == nil {
		w.units = make([]string, len(w.Items))
	}
	if w.units[i] = unit; unit == "" {
		return
	}
	s := &p.queue.sharers
	if s.of == nil {
		s.of, s.have = map[string][]*waiting{}, map[string]bool{}
	}
	s.of[unit] = append(s.of[unit], w)
	if p.groups[unit] != nil {
		s.have[unit] = true
	}
}

// exit forgets a waiter for the i-th of its items.
func (p *pool) exit(w *waiting, i int) {
	unit := w.unit(i)
	if unit == "" {
		return
	}
	s := &p.queue.sharers
	at := slices.Index(s.of[unit], w)
	if s.of[unit] = slices.Delete(s.of[unit], at, at+1); len(s.of[unit]) == 0 {
		delete(s.of, unit)
		delete(s.have, unit)
	}
}

// reunite takes the waiters over again where the pool counts by another unit.
func (p *pool) reunite() {
	if p.queue == nil {
		return
	}
	p.queue.sharers = sharers{}
	for x := p.queue.Front(); x != nil; x = x.Next() {
		w := x.Value.(*waiting)
		p.enter(w, w.item(p.name))
	}
}

// unit returns the unit that a waiter counts as in the pool of its i-th item; empty: it is not known.
func (w *waiting) unit(i int) string {
	if w.units == nil {
		return ""
	}
	return w.units[i]
}

// item returns the place of a pool among a waiter's items.
func (w *waiting) item(pool string) int {
	return slices.IndexFunc(w.Items, func(it Item) bool { return it.Pool == pool })
}

// shares reports whether the i-th item of a waiter would cost nothing.
func (e *Enforcer) shares(w *waiting, i int) bool {
	unit := w.unit(i)
	if unit == "" {
		return false
	}
	p := e.pools[w.Items[i].Pool]
	return p.costs(unit, p.grant.parts(w.Items[i])) == 0
}

// sharing yields the waiters of a pool whose leases would cost nothing of it, in no particular order.
func (p *pool) sharing() iter.Seq[*waiting] {
	return func(yield func(*waiting) bool) {
		if p.queue == nil {
			return
		}
		for unit := range p.queue.sharers.have {
			g := p.groups[unit]
			if g == nil {
				continue
			}
			free := g.reach(0)
			for _, w := range p.queue.sharers.of[unit] {
				if p.grant.parts(w.Items[w.item(p.name)]) <= free && !yield(w) {
					return
				}
			}
		}
	}
}

// turns yields the waiters that may be served: the first of each queue of the pools among (all for nil) and of each
// meter's, and those that would share, in no particular order.
func (e *Enforcer) turns(among []string) iter.Seq[*waiting] {
	return func(yield func(*waiting) bool) {
		for w := range e.heads(among) {
			if !yield(w) {
				return
			}
		}
		for p := range e.stirred(among) {
			for w := range p.sharing() {
				if !yield(w) {
					return
				}
			}
		}
	}
}

// stirred yields the pools of some names, or every one for nil.
func (e *Enforcer) stirred(among []string) iter.Seq[*pool] {
	return func(yield func(*pool) bool) {
		if among == nil {
			for _, p := range e.pools {
				if !yield(p) {
					return
				}
			}
		}
		for _, name := range among {
			if p := e.pools[name]; p != nil && !yield(p) {
				return
			}
		}
	}
}
