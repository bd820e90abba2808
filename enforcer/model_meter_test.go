package enforcer

import (
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

func (m *model) draw(r *Acquire, now time.Time) (granted []Item, why DenialCode) {
	if r.Lifetime != "" && r.Lifetime != LifetimeDraw {
		return nil, BadRequest
	}
	for _, it := range itemsOf(r) {
		g, ok := m.at(now).Meters[it.Pool]
		if !ok {
			return nil, BadRequest
		}
		if it.Of > 1 {
			return nil, BadRequest
		}
		n := it.N
		if left := max(0, int64(g.Budget)+int64(g.Overage)-m.drawn(g, now)); g.Budget != Unlimited && left < n {
			if r.MinN == 0 || left < r.MinN {
				return nil, MeterEmpty
			}
			n = left
		}
		granted = append(granted, Item{Pool: it.Pool, N: n})
	}
	return granted, ""
}
