package enforcer

import (
	"cmp"
	"slices"
	"time"
)

// period returns when the period of a meter that now lies in began, day by day backwards.
func period(resets Resets, now time.Time) time.Time {
	day := now.Truncate(24 * time.Hour)
	for resets == ResetsWeekly && day.Weekday() != time.Monday || resets == ResetsMonthly && day.Day() != 1 {
		day = day.Add(-24 * time.Hour)
	}
	if resets == ResetsNever {
		return time.Time{}
	}
	return day
}

// latest returns the latest period that a meter was drawn in, and whether it was.
func (m *model) latest(g MeterGrant) (p time.Time, ok bool) {
	for _, d := range m.draws {
		if d.key == g.Key && (!ok || d.period.After(p)) {
			p, ok = d.period, true
		}
	}
	return p, ok
}

// moved returns the period that the draws of a meter count in now, and of which period they are. Until the first clock
// is proved, that is the latest. Then the next period, too, goes on where it has begun, and those of a later one count
// in the present one.
func (m *model) moved(g MeterGrant, now time.Time) (to, from time.Time) {
	now = now.Add(-m.unproved)
	p := period(g.Resets, now)
	latest, ok := m.latest(g)
	switch {
	case !ok || latest.Equal(p) || latest.IsZero():
		return p, p
	case m.unsure || g.Resets == ResetsNever:
		return latest, latest
	case latest.Before(p):
		return p, p
	case now.Year() >= 2026 && latest.After(period(g.Resets, p.Add(map[Resets]time.Duration{ResetsWeekly: 7,
		ResetsMonthly: 31}[g.Resets]*24*time.Hour))):
		return p, latest
	default:
		return latest, latest
	}
}

// counting returns the period that a meter counts in.
func (m *model) counting(g MeterGrant, now time.Time) time.Time {
	to, _ := m.moved(g, now)
	return to
}

// record records n more draws of a meter, or that it has n.
func (m *model) record(g MeterGrant, n int64, set bool, now time.Time) {
	m.move(g, now)
	m.draws = append(m.draws, modelDraw{g.Key, n, m.counting(g, now), set})
}

// move has the draws of a false period count in the present one for good. What was drawn in that one before is among
// them no more: it was before the time was false.
func (m *model) move(g MeterGrant, now time.Time) {
	to, from := m.moved(g, now)
	if to.Equal(from) {
		return
	}
	m.draws = slices.DeleteFunc(m.draws, func(d modelDraw) bool { return d.key == g.Key && !d.period.Equal(from) })
	for i := range m.draws {
		if m.draws[i].key == g.Key {
			m.draws[i].period = to
		}
	}
}

// drawn adds up what was drawn in the period, or since an admin set it.
func (m *model) drawn(g MeterGrant, now time.Time) (sum int64) {
	_, from := m.moved(g, now)
	for _, d := range m.draws {
		switch {
		case d.key != g.Key || !d.period.Equal(from):
		case d.set:
			sum = d.n
		default:
			sum += d.n
		}
	}
	return sum
}

// drawRoom returns how many draws of a meter there may be in all in its period, and whether that has no end. Draws
// taken for another period are no good in this one.
func (m *model) drawRoom(g MeterGrant, now time.Time) (room int64, endless bool) {
	if g.Taken && g.Resets != ResetsNever && !g.Period.Equal(m.counting(g, now)) {
		return 0, false
	}
	return int64(g.Budget) + int64(g.Overage), g.Budget == Unlimited
}

// draw returns what a request gets of meters now, or why it gets nothing; grows says that waiting may help.
func (m *model) draw(r *Acquire, now time.Time) (granted []Item, grows bool, why DenialCode) {
	if r.Lifetime != "" && r.Lifetime != LifetimeDraw {
		return nil, false, BadRequest
	}
	for _, it := range itemsOf(r) {
		g, ok := m.at(now).Meters[it.Pool]
		if !ok {
			return nil, false, BadRequest
		}
		if it.Of > 1 {
			return nil, false, BadRequest
		}
		if m.at(now).Paused != "" {
			return nil, false, NoSlots
		}
		room, endless := m.drawRoom(g, now)
		drawn, least := m.drawn(g, now), cmp.Or(r.MinN, it.N)
		left := max(0, room-drawn)
		if endless {
			left = MaxN
		}
		switch {
		case left < least && (!g.Taken || drawn+least > int64(g.Most) || room == int64(g.Most)):
			return nil, false, MeterEmpty
		case left < least || m.ahead(it.Pool, r.ID):
			why = MeterEmpty
		default:
			granted = append(granted, Item{Pool: it.Pool, N: min(left, it.N)})
		}
	}
	if why != "" {
		return nil, true, why
	}
	return granted, false, ""
}
