package fleet

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/usher-agent/usher/agent/bubble"
	"github.com/usher-agent/usher/plugin"
)

// The member that joined first deletes what was drawn in periods that are long past, however many agents drew; not that
// of a meter that has no later one, that never resets, or of whose period the licence's time alone says so.
func TestLongPastPeriods(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		r := newRig(t)
		a, _ := r.agent("a", new([]byte))
		r.join(a)
		for meter, periods := range map[string][]string{ // it is the 1st of January 2000
			"often": {"1999-08-01", "1999-09-01", "1999-10-01", "1999-12-01", "2000-01-01"},
			"once":  {"1999-08-01", "2000-02-01"}, "ever": {"ever"}} {
			for _, at := range periods {
				for i := range 150 {
					r.put(a.keys.draw(meter, at, fmt.Sprint(i)), text(lastDraw{Token: "t", N: 1, Sum: 1}))
				}
				r.put(a.keys.drawn(meter, at), text(drawn{150}))
			}
		}
		periods := func() (all []string) {
			for key := range r.sim.kvs {
				if strings.HasPrefix(key, "/u/m/") {
					all = append(all, strings.Join(strings.Split(key, "/")[3:5], " "))
				}
			}
			slices.Sort(all)
			return slices.Compact(all)
		}
		wall := a.cfg.Time
		a.cfg.Time = func() time.Time { return wall().AddDate(-1, 0, 0) }
		r.passes(20*time.Minute, a)
		a.cfg.Time = func() time.Time { return wall().AddDate(9, 0, 0) } // a false mark
		r.passes(7*time.Hour, a)
		want := "[ever ever often 1999-10-01 often 1999-12-01 often 2000-01-01 once 1999-08-01 once 2000-02-01]"
		if got := fmt.Sprint(periods()); got != want {
			t.Errorf("they leave %s, want %s", got, want)
		}
	})
}

// Nothing is drawn any more in a period of which the draws may have been deleted.
func TestNoDrawInTheLongPast(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		r := newRig(t)
		a, _ := r.agent("a", new([]byte))
		r.join(a)
		d := a.DrawerFor(metered(10), nil, nil, func(string) bool { return true })
		for days, want := range map[int]string{0: "", 60: "", 91: SystemPeriod, 400: SystemPeriod} {
			_, err := d.Draw(t.Context(), &plugin.Draw{Meter: "renders", N: 1, Token: fmt.Sprint(days),
				Period: time.Now().AddDate(0, 0, -days)})
			if code(err) != want || want == "" && err != nil {
				t.Errorf("in a period of %d days ago: %v", days, err)
			}
		}
	})
}
