package enforcer

import "time"

// step is the time being set: what is counted from an instant of before is as far off as it was.
func (m *model) step(by, unproved time.Duration, unsure bool) {
	m.unproved, m.unsure = unproved, unsure
	m.stepRules(by)
	for i := range m.leases {
		if l := &m.leases[i]; !l.expires.IsZero() && l.lifetime != LifetimeBorrow {
			l.expires = l.expires.Add(by)
		}
	}
	for i := range m.queue {
		m.queue[i].until = sooner(m.queue[i].until.Add(by), m.queue[i].r.Until)
	}
	for t, tok := range m.tokens {
		tok.until = tok.until.Add(by)
		m.tokens[t] = tok
	}
	for i := range m.holdOffs {
		m.holdOffs[i].until = m.holdOffs[i].until.Add(by)
	}
	for _, times := range []map[string]time.Time{m.shrunk, m.over} {
		for k, at := range times {
			times[k] = at.Add(by)
		}
	}
}

// resume gives leases that end by themselves their time again.
func (m *model) resume(now time.Time) {
	for i := range m.leases {
		if l := &m.leases[i]; !l.expires.IsZero() && l.lifetime != LifetimeBorrow {
			l.expires = later(l.expires, now.Add(max(l.ttl, 15*time.Second)))
		}
	}
	for i := range m.holdOffs {
		if h := &m.holdOffs[i]; h.until.After(now.Add(h.length)) {
			h.until = now.Add(h.length)
		}
	}
	for i := range m.lingers {
		if x := &m.lingers[i]; x.until.After(now.Add(x.length)) {
			x.until = now.Add(x.length)
		}
	}
}

// crash is what the agent's death changes: nobody waits any more, the verdict is as new, and tokens are forgotten by
// when their leases were granted, unless a snapshot knew better.
func (m *model) crash(now time.Time) {
	m.queue, m.pools, m.shrunk = nil, map[string]PoolGrant{}, map[string]time.Time{}
	m.reviewLingers()
	m.over, m.hard = map[string]time.Time{}, map[string]bool{}
	for i := range m.leases {
		l := &m.leases[i]
		l.of, l.began, l.renewed = l.stored, l.at, now
	}
	for t, tok := range m.tokens {
		tok.until = tok.stored
		m.tokens[t] = tok
	}
	if m.verdict != nil {
		m.judge(m.verdict, now)
	}
}
