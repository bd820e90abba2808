package desk

import (
	"context"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/usher-agent/usher/enforcer"
)

// Acquires that wait for draws of a meter, which the agent takes more of, have them in the order in which they came: a
// large one is not passed by small ones behind it, and one that gives up is in nobody's way.
func TestDrawsInTurn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDesk(testOptions(time.Now))
		d.signals.Short = func(*enforcer.Acquire) {}
		budget := func(n enforcer.Limit) {
			d.SetVerdict(&enforcer.Verdict{State: enforcer.StateValid, Code: enforcer.Valid,
				Meters: map[string]enforcer.MeterGrant{"renders": {Name: "renders", Key: "l/renders", Limit: 100,
					Budget: n, Most: 100, Taken: true}}}, 0)
		}
		budget(2)
		var mu sync.Mutex
		var order []string
		ask := func(name string, n int64, wait time.Duration) {
			a := d.begin(&enforcer.Acquire{Pool: "renders", N: n, Wait: wait}, nil)
			go func() {
				if _, denial := d.finish(context.Background(), &a); denial != nil {
					name += " " + string(denial.Code)
				}
				mu.Lock()
				defer mu.Unlock()
				order = append(order, name)
			}()
		}
		ask("first, of 3", 3, time.Hour)
		ask("second, of 1", 1, time.Hour)
		ask("third, for a minute", 5, time.Minute)
		ask("fourth, of 2", 2, time.Hour)
		synctest.Wait()
		awaited := func() int64 { return d.DrawDemand("renders").Waiting }
		if n := awaited(); n != 11 || len(order) > 0 {
			t.Fatalf("%d draws are waited for, and answered were %v", n, order)
		}
		// Callers that are answered in the same step may say so in any order.
		answered := func(what string, want ...string) {
			t.Helper()
			synctest.Wait()
			mu.Lock()
			defer mu.Unlock()
			if got := slices.Sorted(slices.Values(order)); !slices.Equal(got, want) {
				t.Errorf("%s, answered are %v, want %v", what, got, want)
			}
		}
		budget(4)
		answered("with enough for the first two", "first, of 3", "second, of 1")
		budget(6)
		answered("with enough for the fourth, were it its turn", "first, of 3", "second, of 1")
		time.Sleep(2 * time.Minute)
		answered("when the third has given up", "first, of 3", "fourth, of 2", "second, of 1",
			"third, for a minute meter_empty")
		if n := awaited(); n != 0 {
			t.Errorf("%d are waited for", n)
		}
	})
}

// A want is waited for or drawn, and never both, also while the answer waits for the disk: else the agent takes its
// draws twice.
func TestGrantedIsWaitedForNoMore(t *testing.T) {
	d := newDesk(testOptions(time.Now))
	d.signals.Short = func(*enforcer.Acquire) {}
	budget := func(n enforcer.Limit) {
		d.SetVerdict(&enforcer.Verdict{State: enforcer.StateValid, Code: enforcer.Valid,
			Meters: map[string]enforcer.MeterGrant{"renders": {Name: "renders", Key: "l/renders", Limit: 200, Budget: n,
				Most: 200, Taken: true}}}, 0)
	}
	budget(0)
	a := d.begin(&enforcer.Acquire{Pool: "renders", N: 20, Wait: time.Hour}, nil)
	if got, want := d.DrawDemand("renders"), (DrawDemand{Waiting: 20}); got != want {
		t.Errorf("%+v, want %+v", got, want)
	}
	budget(21)
	d.mu.Lock()
	next := d.decideInTurn(&a)
	d.mu.Unlock()
	if got, want := d.DrawDemand("renders"), (DrawDemand{Drawn: 20, Capacity: 21}); !next || got != want {
		t.Errorf("%+v, want %+v", got, want)
	}
}
