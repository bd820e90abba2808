package enforcer

import (
	"cmp"
	"slices"
	"time"
)

// pass lets time pass to now: what is due ends.
func (m *model) pass(now time.Time) {
	m.leases = slices.DeleteFunc(m.leases, func(l modelLease) bool {
		return !l.expires.IsZero() && !l.expires.After(now)
	})
	m.eased()
	m.passRules(now)
	m.eased()
	m.leases = slices.DeleteFunc(m.leases, func(l modelLease) bool {
		at := m.revoked(l.of)
		return !at.IsZero() && !at.After(now)
	})
	m.eased()
	for _, p := range poolNames {
		since, ok := m.shrunk[p]
		if !ok || since.Add(RevokeDelay).After(now) {
			continue
		}
		young := slices.Clone(m.leases)
		slices.SortStableFunc(young, func(x, y modelLease) int {
			return cmp.Or(y.at.Compare(x.at), slices.Compare(y.id[:], x.id[:]))
		})
		for _, l := range young {
			if m.isOver(p) && has(l.items, p) {
				m.drop(l.id)
			}
		}
		delete(m.shrunk, p)
	}
	m.eased()
	m.holdOffs = slices.DeleteFunc(m.holdOffs, func(h modelHoldOff) bool { return !h.until.After(now) })
	for t, tok := range m.tokens {
		if tok.until.After(now) {
			continue
		}
		if delete(m.tokens, t); m.find(tok.id) >= 0 {
			tok.until = now.Add(TokenKept)
			m.tokens[t] = tok
		}
	}
	m.queue = slices.DeleteFunc(m.queue, func(w modelWaiter) bool { return !w.until.After(now) })
}

// revoked returns when the leases of a licence that has ended are revoked; zero: never.
func (m *model) revoked(l *License) time.Time {
	since, ended := m.over[l.ID]
	switch {
	case !ended || l.OnExpiry == Keep:
		return time.Time{}
	case l.OnExpiry == Revoke:
		return since.Add(RevokeDelay)
	case l.Expires.IsZero():
		return time.Time{}
	default:
		return later(since.Add(RevokeDelay), l.Expires)
	}
}

// fate says what becomes of a licence when another is the base in force: "ended", "stands" or "replaced".
func fate(v *Verdict, l *License) string {
	by := v.base()
	weaker := by.Role == RoleFree && l.Role != RoleFree
	newer := !weaker && (by.Issued.After(l.Issued) || l.Role == RoleFree && by.Role != RoleFree)
	i := slices.IndexFunc(v.Licenses, func(j Judged) bool { return j.License == l })
	switch {
	case i < 0 && newer, i >= 0 && newer &&
		slices.Contains([]Code{Superseded, Expired, NotYetValid}, v.Licenses[i].Code):
		return "replaced"
	case i >= 0 && !weaker && v.Licenses[i].Code == Superseded && !v.Licenses[i].Spare &&
		slices.Contains(by.Supersedes, l.ID):
		return "replaced"
	case i >= 0 && v.Licenses[i].Spare:
		return "stands"
	}
	return "ended"
}

// succeed has each licence's leases go on, or end, under a new verdict. It reports whether some were replaced that said
// revoke.
func (m *model) succeed(v *Verdict, now time.Time) (revoke bool) {
	for i := range m.leases {
		l := &m.leases[i]
		became := "ended"
		if v.Good() && l.of == v.base() {
			became = "stands"
		} else if v.Good() {
			became = fate(v, l.of)
		}
		switch _, ended := m.over[l.of.ID]; {
		case became == "ended" && !ended:
			m.over[l.of.ID] = now
		case became == "stands":
			delete(m.over, l.of.ID)
		case became == "replaced":
			revoke = revoke || l.of.OnExpiry == Revoke
			l.of = v.base()
		}
	}
	for id := range m.over {
		if !slices.ContainsFunc(m.leases, func(l modelLease) bool {
			return l.of.ID == id
		}) || v.Good() && id == v.base().ID {
			delete(m.over, id)
		}
	}
	return revoke
}

func (m *model) judge(v *Verdict, now time.Time) {
	m.verdict = v
	revoke := m.succeed(v, now)
	for _, p := range poolNames {
		g, ok := v.Pools[p]
		if !ok {
			g = PoolGrant{CountBy: m.pools[p].CountBy, HoldersBy: m.pools[p].HoldersBy, Quantum: m.pools[p].Quantum}
		}
		m.pools[p] = g
		over := m.isOver(p)
		if m.hard[p] = over && (m.hard[p] || revoke); !m.hard[p] {
			delete(m.hard, p)
		}
		if _, ok := m.shrunk[p]; !over || !m.good() || v.OnExpiry != Revoke && !m.hard[p] && !g.Bounded {
			delete(m.shrunk, p)
		} else if !ok {
			m.shrunk[p] = now
		}
	}
}
