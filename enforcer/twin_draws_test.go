package enforcer

import (
	"maps"
	"testing"
	"time"

	"pgregory.net/rapid"
)

func (s *twin) draw(t *rapid.T) {
	r := &Acquire{Pool: rapid.SampledFrom(append(meterNames, "m", "a")).Draw(t, "meter"),
		N: rapid.Int64Range(1, 6).Draw(t, "n"), Lifetime: LifetimeDraw, Wait: patience(t)}
	if rapid.IntRange(0, 3).Draw(t, "part") == 0 {
		r.MinN = rapid.Int64Range(1, r.N).Draw(t, "min_n")
	}
	s.acquire(t, r)
}

func (s *twin) drawItems(t *rapid.T) {
	s.acquire(t, &Acquire{Items: []Item{{Pool: "m", N: rapid.Int64Range(1, 2).Draw(t, "m")},
		{Pool: rapid.SampledFrom([]string{"weekly", "monthly", "weekly", "a"}).Draw(t, "other"), N: 2}},
		Lifetime: LifetimeDraw, Wait: patience(t)})
}

// patience draws for how long an acquire waits for draws; half of them wait.
func patience(t *rapid.T) time.Duration {
	return max(0, time.Duration(rapid.Int64Range(-30, 30).Draw(t, "patience"))*time.Second)
}

// meter draws what is granted of a meter: all of it, or a share of a site's, which was taken for this period or
// another.
func (s *twin) meter(t *rapid.T, name string) MeterGrant {
	limit := Limit(rapid.OneOf(rapid.Int64Range(-1, 9), rapid.Int64Range(6, 14)).Draw(t, "limit"))
	g := MeterGrant{Name: name, Key: "L/" + name, Limit: limit, Budget: limit, Most: limit,
		Adjustable: rapid.Bool().Draw(t, "adjustable"),
		Resets:     map[string]Resets{"weekly": ResetsWeekly, "monthly": ResetsMonthly}[name]}
	if limit < 0 || rapid.IntRange(0, 2).Draw(t, "own") == 0 {
		return g
	}
	g.Budget, g.Taken = Limit(rapid.Int64Range(0, int64(limit)).Draw(t, "taken")), true
	if g.Period = s.m.counting(g, s.now); g.Resets != ResetsNever && rapid.IntRange(0, 3).Draw(t, "old") == 0 {
		g.Period = g.Period.AddDate(0, 0, -1)
	}
	return g
}

// drawsArrive has the agent take more of the site's meters, as the verdict in force grants them.
func (s *twin) drawsArrive(t *rapid.T) {
	if !s.m.good() {
		return
	}
	v := *s.m.verdict
	v.Meters, v.Next, v.Until = maps.Clone(v.Meters), nil, time.Time{}
	for _, name := range meterNames {
		g, ok := v.Meters[name]
		if !ok || !g.Taken || g.Budget >= g.Most {
			continue
		}
		g.Budget = min(g.Most, g.Budget+Limit(rapid.Int64Range(0, 3).Draw(t, "more of "+name)))
		g.Period = s.m.counting(g, s.now)
		v.Meters[name] = g
	}
	s.judge(t, &v)
}

// TestDrawsAgainstModel is TestAgainstModel of draws alone, most of which wait for the agent to take more of a site's.
func TestDrawsAgainstModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := newTwin(t)
		s.licence(t)
		seldom := func(do func(*rapid.T)) func(*rapid.T) {
			return func(t *rapid.T) {
				if rapid.IntRange(0, 4).Draw(t, "seldom") == 0 {
					do(t)
				}
			}
		}
		t.Repeat(map[string]func(*rapid.T){
			"draw": s.draw, "draw 2": s.draw, "draw 3": s.draw, "draw items": s.drawItems, "draw items 2": s.drawItems,
			"draws arrive": s.drawsArrive, "draws arrive 2": s.drawsArrive, "give up": s.giveUp,
			"a moment": func(t *rapid.T) {
				s.pass(t, time.Duration(rapid.Int64Range(0, 9).Draw(t, "seconds"))*time.Second)
			},
			"adjust": seldom(s.adjust), "shift": s.shift, "time": seldom(s.wait), "step": seldom(s.step),
			"licence": seldom(s.licence), "crash": seldom(s.away), "crash in the next": seldom(s.crashNext),
			"compact": seldom(s.compact), "": s.check,
		})
	})
}
