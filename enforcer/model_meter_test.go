package enforcer

import (
	"cmp"
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

// counting returns the period that a meter counts in: one that lies ahead, because the time was set back, goes on.
func (m *model) counting(g MeterGrant, now time.Time) time.Time {
	p := period(g.Resets, now.Add(-m.unproved))
	for _, d := range m.draws {
		if d.key == g.Key && d.period.After(p) {
			p = d.period
		}
	}
	return p
}

// drawn adds up what was drawn in the period, or since an admin set it.
func (m *model) drawn(g MeterGrant, now time.Time) (sum int64) {
	for _, d := range m.draws {
		switch {
		case d.key != g.Key || !d.period.Equal(m.counting(g, now)):
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
