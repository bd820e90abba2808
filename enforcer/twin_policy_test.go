package enforcer

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// rules has other rules, some of which name the same holders.
func (s *twin) rules(t *rapid.T) {
	var out []Policy
	for i := range rapid.IntRange(0, 4).Draw(t, "rules") {
		p := Policy{Name: fmt.Sprint("rule ", i)}
		match := Match{}
		switch rapid.SampledFrom([]string{"", "uid", "uid", "group", "label", "pod"}).Draw(t, "match") {
		case "uid":
			match.UID = []UIDs{{1, rapid.Uint32Range(1, 2).Draw(t, "to")}}
		case "group":
			match.Group = []Glob{{Text: "c?d"}}
		case "label":
			match.Labels = map[string]Glob{"job": {Text: "*"}}
		case "pod":
			match.Pod = []Glob{{Text: "p*"}}
		default:
		}
		if rapid.IntRange(0, 3).Draw(t, "not") == 0 {
			p.Not = match
		} else {
			p.Match = match
		}
		if rapid.Bool().Draw(t, "pools") {
			p.Pools = []Glob{{Text: rapid.SampledFrom(append(meterNames, poolNames...)).Draw(t, "pool")}}
		}
		if rapid.IntRange(0, 4).Draw(t, "except") == 0 {
			p.Except = []Glob{{Text: rapid.SampledFrom([]string{"a", "?"}).Draw(t, "but")}}
		}
		s.verb(t, &p)
		out = append(out, p)
	}
	_, lost := s.do(t, &SetPolicies{NewPolicies(out)})
	lingers := slices.Clone(s.m.lingers)
	s.m.setRules(out, s.now)
	if s.crashed {
		if lost { // the next start has the new rules
			s.m.lingers = lingers
		}
		return
	}
	s.serve(t, true)
}

func (s *twin) verb(t *rapid.T, p *Policy) {
	second := func(label string) time.Duration {
		return time.Duration(rapid.IntRange(1, 60).Draw(t, label)) * time.Second
	}
	for range rapid.IntRange(1, 2).Draw(t, "verbs") {
		switch rapid.SampledFrom([]string{"deny", "max", "max", "max", "reserve", "reserve", "priority", "linger",
			"max_hold", "idle", "overage", "borrow", "water"}).Draw(t, "verb") {
		case "deny":
			p.Deny = rapid.IntRange(0, 2).Draw(t, "deny") == 0
		case "max":
			p.Max = rapid.Int64Range(1, 4).Draw(t, "max")
			p.Per = rapid.SampledFrom([]CountBy{"", "", CountUser, CountPod}).Draw(t, "per")
		case "reserve":
			p.Reserve = rapid.Int64Range(1, 4).Draw(t, "reserve")
		case "priority":
			p.Priority = rapid.IntRange(1, 3).Draw(t, "priority")
		case "linger":
			p.Linger = second("linger")
		case "max_hold":
			p.MaxHold = second("hold")
		case "idle":
			p.IdleTimeout = second("idle")
		case "overage":
			p.OverageMax = new(rapid.Int64Range(0, 1).Draw(t, "overage"))
		case "borrow":
			p.MaxBorrow = new(rapid.SampledFrom([]time.Duration{0, 10 * time.Second}).Draw(t, "borrow"))
		case "water":
			p.LowWater = rapid.Int64Range(1, 4).Draw(t, "water")
		}
	}
}

// NarrowsOnly: what is granted under rules would be granted without them, too, were nobody waiting.
func (s *twin) narrowsOnly(t *rapid.T, r *Acquire) {
	without := *s.m
	without.rules, without.lingers, without.queue = nil, nil, nil
	if _, _, _, why := without.answer(r, s.now); why != "" {
		t.Fatalf("NarrowsOnly: %+v is granted under rules, and without them it is %s", r, why)
	}
}

// explains: what Explain says that a holder could have is what an acquire gets. It is called before the acquire, and
// what it returns after it.
func (s *twin) explains(r *Acquire) func(t *rapid.T, got Decision) {
	v := s.m.at(s.now)
	meter := v != nil && v.Meters[r.Pool].Name != ""
	if r.Pool == "" || r.Of > 0 || r.MinN > 0 || r.Token != "" || r.Data != nil || r.Lifetime == LifetimeBorrow ||
		meter != (r.Lifetime == LifetimeDraw) || slices.ContainsFunc(s.m.queue, func(w modelWaiter) bool {
		return has(w.items, r.Pool)
	}) {
		return func(*rapid.T, Decision) {}
	}
	x := s.e.Explain(&Holder{Caller: r.Caller, Labels: r.Labels}, r.Pool, s.now)
	return func(t *rapid.T, got Decision) {
		if (got.Lease != nil) != x.Room.Covers(r.N) {
			t.Fatalf("ExplainSaysWhatAnAcquireGets: %+v got %v, %v, and the explanation is %s, %v", r, got.Lease,
				got.Denial, x.Room, x.Denial)
		}
		if x.Room == 0 && r.N == 1 && r.Wait == 0 && got.Denial != nil && got.Denial.Code != x.Denial.Code {
			t.Fatalf("ExplainSaysWhatAnAcquireGets: %+v is denied by %s, and the explanation is %s", r, got.Denial.Code,
				x.Denial.Code)
		}
	}
}

// sameRules: what is used by rule, kept and lingering is the model's.
func (s *twin) sameRules(t *rapid.T) {
	s.sameLingers(t, "SameRules")
	for name, p := range s.e.pools {
		if !p.named {
			continue
		}
		if got, want := p.lingers.all(), s.m.lingering(name, nil); got != want {
			t.Fatalf("SameRules: %d of %s linger, the model has %d", got, name, want)
		}
		if p.rules == nil {
			continue
		}
		var unused int64
		for i := range s.m.rules {
			unused += s.m.unused(name, i)
		}
		if p.rules.unused != unused {
			t.Fatalf("SameRules: %d of %s are reserved and not in use, the model has %d", p.rules.unused, name, unused)
		}
	}
	for _, w := range s.m.queue {
		if got := s.e.waiters[w.r.ID]; !got.rank.Equal(w.rank) {
			t.Fatalf("SameRules: %+v has its place by %v, the model says %v", w.r, got.rank, w.rank)
		}
	}
	for _, l := range s.m.leases {
		var at time.Time
		if x := s.e.must(l.id).timer; x != nil {
			at = x.ends
		}
		if want := s.m.endedByRule(l); !at.Equal(want) {
			t.Fatalf("SameRules: lease %v ends by a rule at %v, the model says %v", l.id, at, want)
		}
	}
}

// noOvertaking: nobody is served before one that has its place before, but where that one's own limit bars it or what
// is kept for nobody else is enough; and nobody has its place before one that has waited for all the steps of a
// priority.
func (s *twin) noOvertaking(t *rapid.T) {
	for i, w := range s.m.queue {
		for _, o := range s.m.queue[i+1:] {
			if w.since.Sub(o.since) > MaxPriority*PriorityStep {
				t.Fatalf("NobodyStarves: one that came at %v has its place before one that came at %v", w.since,
					o.since)
			}
		}
	}
}

// TestPoliciesAgainstModel: TestAgainstModel under rules, which change as everything else does.
func TestPoliciesAgainstModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := newTwin(t)
		pool := rapid.SampledFrom(poolNames)
		one := func(t *rapid.T) {
			r := &Acquire{Pool: pool.Draw(t, "pool"), N: rapid.Int64Range(1, 4).Draw(t, "n"),
				Of: rapid.SampledFrom([]int64{0, 0, 0, 2}).Draw(t, "of")}
			if rapid.IntRange(0, 3).Draw(t, "part") == 0 {
				r.MinN = rapid.Int64Range(1, r.N).Draw(t, "min_n")
			}
			s.acquire(t, r)
		}
		s.rules(t)
		s.licence(t)
		t.Repeat(map[string]func(*rapid.T){
			"acquire": one, "acquire 2": one, "acquire 3": one, "acquire 4": one, "acquire 5": one,
			"acquire items": func(t *rapid.T) {
				s.acquire(t, &Acquire{Items: []Item{{Pool: "a", N: rapid.Int64Range(1, 3).Draw(t, "a")},
					{Pool: "b", N: rapid.Int64Range(1, 3).Draw(t, "b")}}})
			},
			"draw": s.draw, "renew": s.renew, "release": s.release, "release 2": s.release, "join": s.join,
			"leave": s.leave, "doubt": s.doubt, "attach": s.attach, "holder dies": s.holderDies, "give up": s.giveUp,
			"gone": s.gone, "licence": s.licence, "rules": s.rules, "step": s.step, "crash": s.away,
			"compact": s.compact, "crash in the next": s.crashNext, "time": func(t *rapid.T) {
				s.pass(t, time.Duration(rapid.Int64Range(0, 30).Draw(t, "seconds"))*time.Second)
			},
			"": s.check,
		})
	})
}
