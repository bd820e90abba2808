package draws

import (
	"testing"
	"time"

	"pgregory.net/rapid"
)

// What is taken: one until somebody draws, what is missing or waited for at once, and then some seconds' worth ahead.
func TestNext(t *testing.T) {
	for _, row := range []struct {
		what string
		m    Meter
		d    Demand
		want int64
	}{
		{"nobody draws", Meter{total: 100}, Demand{}, 1},
		{"nobody draws, and one is there", Meter{total: 100, Taken: 1}, Demand{Capacity: 1}, 0},
		{"the one is drawn", Meter{total: 100, Taken: 1}, Demand{Drawn: 1, Capacity: 1}, 1},
		{"the licence has none", Meter{}, Demand{Waiting: 3}, 0},
		{"5 were drawn lately", Meter{total: 100, Taken: 5, recent: [2]int64{5}, window: window}, Demand{Drawn: 5, Capacity: 5}, 5},
		{"half of those are there", Meter{total: 100, Taken: 8, recent: [2]int64{5}, window: window}, Demand{Drawn: 5, Capacity: 8}, 0},
		{"never more than a sixteenth ahead", Meter{total: 160, Taken: 50, recent: [2]int64{50}, window: window}, Demand{Drawn: 50, Capacity: 50}, 10},
		{"nor more than a few", Meter{total: 1600, Taken: 50, recent: [2]int64{50}, window: window}, Demand{Drawn: 50, Capacity: 50}, mostAhead},
		{"a denied acquire of 7", Meter{total: 100, Taken: 1, missed: 7, missedUntil: time.Minute}, Demand{Capacity: 1}, 7},
		{"one that was denied long ago", Meter{total: 100, Taken: 1, missed: 7}, Demand{Capacity: 1}, 0},
		{"7 are waited for", Meter{total: 100, Taken: 1}, Demand{Waiting: 7, Capacity: 1}, 7},
		{"more is waited for than there is", Meter{total: 5, Taken: 1}, Demand{Waiting: 7, Capacity: 1}, 4},
		{"fewer were left", Meter{total: 100, Taken: 1, most: 3}, Demand{Waiting: 7, Capacity: 1}, 3},
		{"all are taken", Meter{total: 5, Taken: 5}, Demand{Drawn: 5, Capacity: 5, Waiting: 1}, 0},
		{"more was drawn than taken, by an admin's word", Meter{total: 100, Taken: 1}, Demand{Drawn: 50, Capacity: 1, Waiting: 1}, 0},
		{"a call without an answer", Meter{total: 100, Taken: 90, Pending: &Pending{"t", 12}}, Demand{Capacity: 90}, 12},
		{"such a call, when the rest was taken", Meter{total: 5, Taken: 5, Pending: &Pending{"t", 2}}, Demand{Capacity: 5}, 2},
		{"not yet", Meter{total: 100, notBefore: time.Minute}, Demand{Waiting: 1}, 0},
	} {
		if n, again := row.m.Next(time.Second, row.d); n != row.want || n > 0 && again != 0 || row.m.notBefore > 0 && again != row.m.notBefore {
			t.Errorf("%s: %d, again at %s; want %d", row.what, n, again, row.want)
		}
	}
}

// Over simulated time: whatever is drawn and denied, no more is ahead than some seconds' demand, or a sixteenth of all, and what
// was asked for.
func TestNeverFarAhead(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		m := Meter{total: rapid.Int64Range(1, 2000).Draw(t, "total")}
		var now time.Duration
		var drawn, asked, calls int64
		for range rapid.IntRange(1, 200).Draw(t, "steps") {
			now += time.Duration(rapid.Int64Range(0, int64(3*time.Second)).Draw(t, "passes"))
			if want := rapid.Int64Range(0, 20).Draw(t, "drawn"); want <= m.Taken-drawn {
				drawn += want
			} else {
				m.missed, m.missedUntil = want, now+missedFor
				asked = want
			}
			d := Demand{Drawn: drawn, Capacity: m.Taken}
			m.look(now, d)
			n, _ := m.Next(now, d)
			if m.Taken += n; n > 0 {
				m.missed, m.missedUntil = 0, 0
				calls++
			}
			if m.Taken > m.total {
				t.Fatalf("%d were taken of %d", m.Taken, m.total)
			}
			if n > 0 && m.Taken-drawn > asked+m.spare() {
				t.Fatalf("%d are ahead; %d were asked for, and %d are spare", m.Taken-drawn, asked, m.spare())
			}
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
	if m.Taken = 2; m.roll(may) || m.Taken != 2 || m.roll(time.Time{}) {
		t.Errorf("an earlier: %+v", m)
	}
}
