package fleet

import (
	"errors"
	"testing"
	"time"

	"github.com/usher-agent/usher/agent/bubble"
	"github.com/usher-agent/usher/enforcer"
	"github.com/usher-agent/usher/plugin"
)

// An agent behind several servers asks for a draw until it is answered, of whichever server. A token is one draw, an
// old or late request takes nothing, and a period is the one that the agent states.
func TestDrawsBehindServers(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		r := newRig(t)
		a, _ := r.agent("a", new([]byte))
		b, _ := r.agent("b", new([]byte))
		r.join(a, b)
		l := metered(10)
		da, db := a.Meters(l), b.Meters(l)
		draw := func(d *Drawer, agent, after, token string, n int64) (int64, string) {
			t.Helper()
			got, err := d.DrawFor(t.Context(), agent, after, &plugin.Draw{Meter: "renders", N: n, Token: token})
			var order *OrderError
			switch {
			case errors.As(err, &order):
				return 0, "after " + order.Last
			case err != nil:
				return 0, code(err)
			}
			return got.N, ""
		}
		total := func() int64 {
			t.Helper()
			d, err := read[drawn](r.sim.kvs["/u/m/"+poolName(l, "renders")+"/ever/s"], true)
			if err != nil {
				t.Fatal(err)
			}
			return d.Drawn
		}
		type step struct {
			d            *Drawer
			agent, after string
			token        string
			n, want      int64
			refused      string
			total        int64
		}
		for i, s := range []step{
			{da, "x", "", "1", 3, 3, "", 3},
			{db, "x", "", "1", 3, 3, "", 3},        // the answer was lost: the other server has the same
			{db, "y", "", "1", 2, 2, "", 5},        // another agent's tokens are its own
			{db, "x", "1", "2", 1, 1, "", 6},       // the next one
			{da, "x", "", "1", 3, 0, "after 2", 6}, // the first server comes to the first one late
			{da, "x", "?", "3", 1, 0, "after 2", 6},
			{da, "z", "?", "3", 1, 0, "after ", 6},
			{da, "x", "2", "3", 9, 4, "", 10},
			{db, "x", "3", "4", 1, 0, plugin.SystemFull, 10},
		} {
			if n, refused := draw(s.d, s.agent, s.after, s.token, s.n); n != s.want || refused != s.refused ||
				total() != s.total {
				t.Errorf("step %d: %d draws, %q, of the meter %d", i, n, refused, total())
			}
		}
		l.Meters["renders"] = enforcer.MeterTerm{Max: 20, Resets: enforcer.ResetsMonthly}
		now := time.Now() // the first minute of a month
		start, before := enforcer.ResetsMonthly.Start(now), enforcer.ResetsMonthly.Start(now).AddDate(0, -1, 0)
		periods := func(want map[time.Time]string) {
			t.Helper()
			for at, want := range want {
				_, err := da.DrawFor(t.Context(), "x", "",
					&plugin.Draw{Meter: "renders", N: 1, Token: at.String(), Period: at})
				if got := code(err); got != want || want == "" && err != nil {
					t.Errorf("a draw in the period of %s on %s: %v", at, time.Now(), err)
				}
			}
		}
		periods(map[time.Time]string{start: "", before: "", {}: SystemPeriod, start.Add(time.Hour): SystemPeriod,
			start.AddDate(0, 1, 0): SystemPeriod})
		time.Sleep(time.Hour)
		periods(map[time.Time]string{start: "", before: SystemPeriod})
	})
}

// A server has a draw's transaction under way when the agent gives it up, asks another one, and draws on: the
// transaction fails, and the server takes nothing more for that draw.
func TestDrawsOvertaken(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		r := newRig(t)
		a, way := r.agent("a", new([]byte))
		b, _ := r.agent("b", new([]byte))
		r.join(a, b)
		l := metered(10)
		happened := way.between(writesTotal, func() {
			for _, x := range [][2]string{{"", "1"}, {"1", "2"}} {
				if _, err := b.Meters(l).DrawFor(t.Context(), "x", x[0],
					&plugin.Draw{Meter: "renders", N: 1, Token: x[1]}); err != nil {
					t.Error(err)
				}
			}
		})
		_, err := a.Meters(l).DrawFor(t.Context(), "x", "", &plugin.Draw{Meter: "renders", N: 1, Token: "1"})
		var order *OrderError
		if !happened() || !errors.As(err, &order) || order.Last != "2" {
			t.Errorf("a draw that was overtaken: %v", err)
		}
		if d, err := read[drawn](r.sim.kvs["/u/m/"+poolName(l, "renders")+"/ever/s"], true); err != nil ||
			d.Drawn != 2 {
			t.Errorf("two draws are %d: %v", d.Drawn, err)
		}
	})
}
