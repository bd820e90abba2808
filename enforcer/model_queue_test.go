package enforcer

import (
	"fmt"
	"slices"
	"time"
)

// mayWait reports whether the queue has room for a request, or why it has none.
func (m *model) mayWait(r *Acquire) (waits bool, why DenialCode) {
	if u := r.Caller.Who(); m.tooMany(u, m.options.MaxWaiters, 1, m.waitersOf) || m.tooMuch(u, keptWaiting(r)) {
		return false, RateLimited
	}
	return true, ""
}

// serve answers the first waiter that can be answered, and says how; empty: none can be.
func (m *model) serve(now time.Time) string {
	for i, w := range m.queue {
		if m.waitsOn(w) {
			continue
		}
		granted, how := m.turn(w, now)
		if how == "" {
			continue
		}
		m.queue = slices.Delete(m.queue, i, i+1)
		if granted != nil {
			m.grant(w.r, granted, now)
		}
		return fmt.Sprint(w.r.ID, " ", how)
	}
	return ""
}

// waitsOn reports whether others keep a waiter from its turn: where it would share, nobody does.
func (m *model) waitsOn(w modelWaiter) bool {
	return slices.ContainsFunc(w.items, func(it Item) bool {
		switch {
		case w.draws:
			return m.ahead(it.Pool, w.r.ID)
		case m.weigh(it) <= m.own(it.Pool, w.r):
			return false
		case len(m.rules) > 0:
			return m.blocked(w.r, it, w.r.ID, w.rank)
		}
		return m.ahead(it.Pool, w.r.ID)
	})
}

// turn says what becomes of a waiter whose turn it is; how is empty: it waits on.
func (m *model) turn(w modelWaiter, now time.Time) (granted []Item, how string) {
	if _, known := m.tokens[tokenText(w.r)]; w.r.Token != "" && known {
		return nil, "has it already"
	}
	if !m.at(now).Good() || m.denyBorrow(w.r, now) != "" {
		return nil, ""
	}
	if no, _ := m.ruleKeeps(w.r, now); no {
		return nil, ""
	}
	var why DenialCode
	if w.draws {
		var grows bool
		if granted, grows, why = m.draw(w.r, now); why != "" && !grows {
			return nil, "is turned away"
		}
	} else {
		granted, why = m.fit(w.r, now)
	}
	if why != "" {
		return nil, ""
	}
	return granted, fmt.Sprint(granted)
}

// vain reports whether a waiter can never be granted what it waits for.
func (m *model) vain(w modelWaiter, now time.Time) bool {
	if !m.at(now).Good() || m.denyBorrow(w.r, now) != "" {
		return true
	} else if slices.ContainsFunc(w.items, func(it Item) bool { return m.ruleDenies(it.Pool, w.r) }) {
		return true
	} else if no, forGood := m.ruleKeeps(w.r, now); no && forGood {
		return true
	} else if !w.draws {
		return m.never(w.r) ||
			slices.ContainsFunc(w.items, func(it Item) bool { return !m.divides(it) })
	}
	_, grows, why := m.draw(w.r, now)
	return why != "" && !grows
}
