package enforcer

import (
	"cmp"
	"maps"
	"math"
	"reflect"
	"slices"
	"time"
)

// plus adds what another licence gives of a meter to what the licences before it give. The base's terms hold for the
// whole, but each licence's draws count in its own periods.
func (g MeterGrant) plus(more MeterGrant) MeterGrant {
	out := g
	out.Parts = append(g.parts(), more.parts()...)
	out.Limit, out.Budget, out.Overage, out.Most = g.Limit.Plus(more.Limit), g.Budget.Plus(more.Budget),
		g.Overage.Plus(more.Overage), g.Most.Plus(more.Most)
	if out.Unit == "" {
		out.Unit = more.Unit
	}
	out.Cut = cmp.Or(out.Cut, more.Cut)
	if out.NotShared == "" {
		out.NotShared = more.NotShared
	}
	out.Taken, out.Period = g.Taken || more.Taken, later(g.Period, more.Period)
	return out
}

// parts returns what each licence gives of the meter; at least one part.
func (g MeterGrant) parts() []MeterPart {
	if len(g.Parts) > 0 {
		return g.Parts[:len(g.Parts):len(g.Parts)]
	}
	return []MeterPart{{g.Key, g.Budget.Plus(g.Overage), g.Resets, g.Taken, g.Period}}
}

func (g MeterGrant) equal(o MeterGrant) bool { return reflect.DeepEqual(g, o) }

// room returns what may be drawn in a draw's period. Where there are periods, draws taken upstream for another one are
// no good in this.
func (p MeterPart) room(d Draw) Limit {
	if p.Taken && !p.Resets.Start(d.Period).IsZero() && !p.Period.Equal(d.Period) {
		return 0
	}
	return p.Limit
}

// stand is the state of a meter: for each of its parts what may be drawn, and what has been drawn, in the part's
// present period.
type stand struct {
	parts []MeterPart
	draws []Draw
	taken bool // some come from a former version, or from a false period, and are not recorded yet
}

// counted returns the time by which the periods of meters are counted at the instant now: the proved part of it.
func (e *Enforcer) counted(now time.Time) time.Time { return now.Add(-e.unproved) }

// stand returns the present state of a meter.
func (e *Enforcer) stand(g MeterGrant, now time.Time) stand {
	now = e.counted(now)
	s := stand{parts: g.parts()}
	var fresh []int
	for i, p := range s.parts {
		m, known := e.meters[p.Key]
		if !known {
			fresh = append(fresh, i)
		}
		d := m.at(p.Key, p.Resets, now, e.sureAt.IsZero())
		s.draws, s.taken = append(s.draws, d), s.taken || m.period.After(d.Period)
	}
	// A former version counted all parts under the base's id. The base takes as many of those draws as it gives, and
	// the add-ons take the rest.
	if former, ok := e.meters[g.Former]; ok && g.Former != "" && len(fresh) > 0 && fresh[0] == 0 {
		d := former.at(s.draws[0].Key, s.parts[0].Resets, now, e.sureAt.IsZero())
		rest := d.Drawn
		s.draws[0].Period, s.taken = d.Period, true
		for _, i := range fresh {
			n := min(rest, s.most(i))
			s.draws[i].Drawn, rest = n, rest-n
		}
		s.draws[0].Drawn += rest
	}
	return s
}

// TakeOver records the counts of former versions for the verdict's meters in the present form, and the draws of a false
// period in the present one, if that has not been done. It follows each SetVerdict and each Step, so that the draws of
// an add-on stay drawn whichever base comes next, and those of a false period count in one true period.
type TakeOver struct{}

func (*TakeOver) decide(e *Enforcer, now time.Time) Decision {
	if e.verdict == nil {
		return Decision{}
	}
	var draws []Draw
	for _, name := range slices.Sorted(maps.Keys(e.verdict.Meters)) {
		if s := e.stand(e.verdict.Meters[name], now); s.taken {
			draws = append(draws, s.draws...)
		}
	}
	if len(draws) == 0 {
		return Decision{}
	}
	return Decision{Events: []Event{{Kind: EventSet, At: now, Draws: draws}}}
}

// at returns what has been drawn in the period at the instant now. The next period goes on where it has begun (the
// clock was set back by a little). A later one was begun by a false clock: its draws count in the present one. sure
// says that the first clock is proved; until then the meter stays in the period that it was drawn in, for a clock that
// is set to and fro must open no period.
func (m meter) at(key string, resets Resets, now time.Time, sure bool) Draw {
	d := Draw{Key: key, Drawn: m.drawn, Period: resets.Start(now)}
	switch end := resets.end(now); {
	case m.period.Equal(d.Period):
	case m.period.IsZero():
		d.Drawn = 0
	case !sure, m.period.After(d.Period) && !(IsSet(now) && !end.IsZero() && m.period.After(end)):
		d.Period = m.period
	case m.period.Before(d.Period):
		d.Drawn = 0
	}
	return d
}

// drawn returns what has been drawn of all parts of a meter.
func (e *Enforcer) drawn(g MeterGrant, now time.Time) Draw {
	s := e.stand(g, now)
	return Draw{Key: g.Key, Drawn: s.drawn(), Period: s.draws[0].Period}
}

// most returns how many draws of a part may have been made in all. The count fits an int64 even where there is no
// limit.
func (s stand) most(i int) int64 { return int64(s.parts[i].room(s.draws[i]).Min(math.MaxInt64)) }

func (s stand) drawn() int64 {
	sum := Limit(0)
	for _, d := range s.draws {
		sum = sum.Plus(Limit(d.Drawn))
	}
	return int64(sum)
}

// room returns what may be drawn in all.
func (s stand) room() (sum Limit) {
	for i, p := range s.parts {
		sum = sum.Plus(p.room(s.draws[i]))
	}
	return sum
}

// left returns how many draws are left. Draws of a part beyond what it gives, made before it gave less, are no debt of
// the other parts.
func (s stand) left() int64 {
	sum := Limit(0)
	for i, d := range s.draws {
		sum = sum.Plus(Limit(max(0, s.most(i)-d.Drawn)))
	}
	return int64(sum)
}

// draw returns the draws after n more; as many must be left. It takes from the base first, whose periods give more,
// then from the add-ons.
func (s stand) draw(n int64) []Draw {
	return s.changed(func(i int, d Draw) int64 {
		k := min(n, max(0, s.most(i)-d.Drawn))
		n -= k
		return d.Drawn + k
	})
}

// takeBack returns the draws after n have been taken back; as many must have been made. It begins with the last part.
func (s stand) takeBack(n int64) []Draw {
	keep := s.drawn() - n
	return s.changed(func(_ int, d Draw) int64 {
		k := min(keep, d.Drawn)
		keep -= k
		return k
	})
}

// set returns the draws for a total of n. The base counts what exceeds the limit.
func (s stand) set(n int64) []Draw {
	beyond := n
	for i := range s.parts {
		beyond -= min(beyond, s.most(i))
	}
	n -= beyond
	return s.changed(func(i int, _ Draw) int64 {
		k := min(n, s.most(i))
		n -= k
		if i == 0 {
			k += beyond
		}
		return k
	})
}

// changed returns the draws that change or are not recorded yet; at least the base's.
func (s stand) changed(to func(i int, d Draw) int64) (out []Draw) {
	for i, d := range s.draws {
		was := d.Drawn
		if d.Drawn = to(i, d); d.Drawn != was || s.taken || len(s.draws) == 1 {
			out = append(out, d)
		}
	}
	if out == nil {
		out = s.draws[:1]
	}
	return out
}
