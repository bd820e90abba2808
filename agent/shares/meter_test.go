package shares

import (
	"encoding/json"
	"fmt"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// What is taken: nothing until somebody asks, what is missing or waited for at once, and then some seconds' worth
// ahead.
func TestNext(t *testing.T) {
	for _, row := range []struct {
		what string
		m    Meter
		d    MeterDemand
		want int64
	}{
		{"nobody draws", Meter{total: 100}, MeterDemand{}, 0},
		{"somebody did in the period before", Meter{total: 100, asked: [2]bool{1: true}}, MeterDemand{}, 1},
		{"nobody draws, and one is there", Meter{total: 100, Taken: 1}, MeterDemand{Capacity: 1}, 0},
		{"the one is drawn", Meter{total: 100, Taken: 1}, MeterDemand{Drawn: 1, Capacity: 1}, 1},
		{"the licence has none", Meter{}, MeterDemand{Waiting: 3}, 0},
		{"5 were drawn lately", Meter{total: 100, Taken: 5, recent: [2]int64{5}, window: window},
			MeterDemand{Drawn: 5, Capacity: 5}, 5},
		{"half of those are there", Meter{total: 100, Taken: 8, recent: [2]int64{5}, window: window},
			MeterDemand{Drawn: 5, Capacity: 8}, 0},
		{"never more than a sixteenth ahead", Meter{total: 160, Taken: 50, recent: [2]int64{50}, window: window},
			MeterDemand{Drawn: 50, Capacity: 50}, 10},
		{"nor more than a few", Meter{total: 1600, Taken: 50, recent: [2]int64{50}, window: window},
			MeterDemand{Drawn: 50, Capacity: 50}, mostAhead},
		{"a denied acquire of 7", Meter{total: 100, Taken: 1, missed: 7, missedUntil: time.Minute},
			MeterDemand{Capacity: 1},
			7},
		{"one that was denied long ago", Meter{total: 100, Taken: 1, missed: 7}, MeterDemand{Capacity: 1}, 0},
		{"7 are waited for", Meter{total: 100, Taken: 1}, MeterDemand{Waiting: 7, Capacity: 1}, 7},
		{"7 are waited for, and one of those was denied before",
			Meter{total: 100, Taken: 1, missed: 7, missedUntil: time.Minute}, MeterDemand{Waiting: 7, Capacity: 1}, 7},
		{"what was taken, and the verdict does not know of yet", Meter{total: 100, Taken: 8},
			MeterDemand{Waiting: 7, Capacity: 1, Taken: 8}, 0},
		{"more is waited for than there is", Meter{total: 5, Taken: 1}, MeterDemand{Waiting: 7, Capacity: 1}, 4},
		{"fewer were left", Meter{total: 100, Taken: 1, most: 3}, MeterDemand{Waiting: 7, Capacity: 1}, 3},
		{"all are taken", Meter{total: 5, Taken: 5}, MeterDemand{Drawn: 5, Capacity: 5, Waiting: 1}, 0},
		{"more was drawn than taken, by an admin's word", Meter{total: 100, Taken: 1},
			MeterDemand{Drawn: 50, Capacity: 1, Waiting: 1}, 0},
		{"a call without an answer", Meter{total: 100, Taken: 90, Pending: &Pending{"t", 12}},
			MeterDemand{Capacity: 90},
			12},
		{"such a call, when the rest was taken", Meter{total: 5, Taken: 5, Pending: &Pending{"t", 2}},
			MeterDemand{Capacity: 5}, 2},
		{"not yet", Meter{total: 100, notBefore: time.Minute}, MeterDemand{Waiting: 1}, 0},
	} {
		if n, again := row.m.Next(time.Second, row.d); n != row.want || n > 0 && again != 0 ||
			row.m.notBefore > 0 && again != row.m.notBefore {
			t.Errorf("%s: %d, again at %s; want %d", row.what, n, again, row.want)
		}
	}
}

// site is a meter in simulated time: its upstream, the verdict on what was taken, and callers.
type site struct {
	m              *Meter
	now            time.Duration
	up             map[string]int64 // taken upstream, by token
	drawn, allowed int64
	waiting        []int64
	misses, draws  []amount
	ever           bool // somebody has asked
	calling        bool
}

type amount struct {
	at time.Duration
	n  int64
}

func (s *site) draw(n int64) {
	s.drawn, s.ever, s.draws = s.drawn+n, true, append(s.draws, amount{s.now, n})
	for i := range s.misses {
		s.misses[i].n -= n
	}
}

// serve grants what the verdict allows to those that wait, in their turn.
func (s *site) serve() {
	for len(s.waiting) > 0 && s.waiting[0] <= s.allowed-s.drawn {
		s.draw(s.waiting[0])
		s.waiting = s.waiting[1:]
	}
}

func (s *site) awaited() (n int64) {
	for _, w := range s.waiting {
		n += w
	}
	return n
}

// allowance is what the documentation allows an agent to have taken and not drawn: what is waited for or was denied
// lately, and ahead of that as many as were drawn in two seconds lately, at least one of a meter in use, at most 32 or
// a sixteenth.
func (s *site) allowance() int64 {
	want, last := int64(0), s.now
	for _, miss := range slices.Backward(s.misses) {
		if last-miss.at >= missedFor {
			break
		}
		want, last = max(want, miss.n), miss.at
	}
	lately := int64(0)
	for i, first := range s.draws {
		n := int64(0)
		for _, d := range s.draws[i:] {
			if s.now-first.at < 4*time.Second && d.at-first.at < 2*time.Second {
				n += d.n
			}
		}
		lately = max(lately, n)
	}
	ahead := max(1, min(lately, 32, s.m.total/16))
	if !s.ever {
		ahead = 0
	}
	return max(s.awaited(), want) + ahead
}

// pass is what the keeper does of its own accord, by the plan.
func (s *site) pass(t *rapid.T) {
	d := MeterDemand{Drawn: s.drawn, Waiting: s.awaited(), Capacity: s.allowed, Taken: s.m.Taken}
	s.m.look(s.now, d)
	if s.calling {
		return
	}
	n, _ := s.m.Next(s.now, d)
	if s.calling = n > 0; !s.calling || s.m.Pending != nil {
		return
	}
	if ahead := s.m.Taken + n - s.drawn; ahead > s.allowance() || s.m.Taken+n > s.m.total {
		t.Fatalf("%d more are taken of %d: then %d are ahead, and %d may be", n, s.m.total, ahead, s.allowance())
	}
	s.m.Pending = &Pending{fmt.Sprint(len(s.up), s.now, n), n}
}

// answer is what the upstream makes of the call that is under way.
func (s *site) answer(how string) {
	if !s.calling {
		return
	}
	s.calling = false
	switch how {
	case "lost":
		s.up[s.m.Pending.Token] = s.m.Pending.N
		s.m.failed(s.now, true, false, 0, 0)
	case "dropped":
		s.m.failed(s.now, true, false, 0, 0)
	case "full", "refused":
		if s.up[s.m.Pending.Token] == 0 {
			s.m.failed(s.now, how == "full", how == "full", 0, 0)
			return
		}
		fallthrough
	default:
		s.up[s.m.Pending.Token] = s.m.Pending.N
		s.m.Taken, s.m.Pending = s.m.Taken+s.m.Pending.N, nil
		s.m.most, s.m.tries, s.m.notBefore = 0, 0, 0
	}
}

// restart leaves what is on the disk.
func (s *site) restart(t *rapid.T) {
	b, err := json.Marshal(s.m)
	if err != nil {
		t.Fatal(err)
	}
	total := s.m.total
	s.m = &Meter{}
	if err := json.Unmarshal(b, s.m); err != nil {
		t.Fatal(err)
	}
	s.m.total, s.calling, s.waiting, s.misses, s.draws, s.ever = total, false, nil, nil, nil, s.drawn > 0
}

// Whatever is asked, granted, denied and answered, over restarts, and however late the verdict knows: the agent never
// takes more ahead than the documentation says, takes each call once, and serves those that wait.
func TestNeverFarAhead(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		s := &site{m: &Meter{total: rapid.Int64Range(1, 2000).Draw(t, "total")}, up: map[string]int64{}}
		amounts := rapid.Int64Range(1, 40)
		t.Repeat(map[string]func(*rapid.T){
			"time": func(t *rapid.T) {
				s.now += time.Duration(rapid.Int64Range(0, int64(7*time.Second)).Draw(t, "passes"))
			},
			"draw": func(t *rapid.T) {
				if n := amounts.Draw(t, "n"); n <= s.allowed-s.drawn {
					s.draw(n)
				} else {
					s.m.miss(s.now, n)
					s.ever, s.misses = true, append(s.misses, amount{s.now, n})
				}
			},
			"wait": func(t *rapid.T) { s.ever, s.waiting = true, append(s.waiting, amounts.Draw(t, "n")) },
			"give up": func(t *rapid.T) {
				s.waiting = s.waiting[min(1, len(s.waiting)):]
			},
			"answer": func(t *rapid.T) {
				s.answer(rapid.SampledFrom([]string{"ok", "ok", "lost", "dropped", "full", "refused"}).Draw(t, "how"))
			},
			"judge":   func(t *rapid.T) { s.allowed = s.m.Taken },
			"restart": func(t *rapid.T) { s.restart(t) },
			"": func(t *rapid.T) {
				s.serve()
				s.pass(t)
				up, open := int64(0), int64(0)
				for _, n := range s.up {
					up += n
				}
				if s.m.Pending != nil {
					open = s.m.Pending.N
				}
				if up < s.m.Taken || up > s.m.Taken+open || s.drawn > s.m.Taken {
					t.Fatalf("%d are taken upstream and %d here, %d may be, and %d are drawn", up, s.m.Taken, open,
						s.drawn)
				}
			},
		})
		for range 100 {
			s.now += refusedWait
			s.answer("ok")
			s.allowed = s.m.Taken
			s.serve()
			s.pass(t)
		}
		if len(s.waiting) > 0 && s.waiting[0] <= s.m.total-s.drawn {
			t.Fatalf("%v are waited for, and %d of %d are drawn", s.waiting, s.drawn, s.m.total)
		}
	})
}

// Periods: what was taken, or may have been, is over with the period; a clock that was set back begins none.
func TestRoll(t *testing.T) {
	may, june := time.Date(2026, 5, 1, 0, 0, 0, 0, time.UTC), time.Date(2026, 6, 1, 0, 0, 0, 0, time.UTC)
	m := Meter{total: 9, Period: may, Taken: 3, Pending: &Pending{"t", 1}, notBefore: time.Hour}
	if m.roll(may) || m.Taken != 3 || m.Pending == nil {
		t.Errorf("the same period: %+v", m)
	}
	if !m.roll(june) || m.Taken != 0 || m.Pending != nil || m.total != 9 || !m.Period.Equal(june) || m.notBefore != 0 {
		t.Errorf("another: %+v", m)
	}
	if m.asked = [2]bool{true}; !m.roll(june.AddDate(0, 1, 0)) || m.asked != [2]bool{1: true} ||
		!m.roll(june.AddDate(0, 2, 0)) || m.asked[1] {
		t.Errorf("nobody has asked for two periods: %+v", m)
	}
	if m.Taken = 2; m.roll(may) || m.Taken != 2 || m.roll(time.Time{}) {
		t.Errorf("an earlier: %+v", m)
	}
}
