package desk

import (
	"context"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/usher-agent/usher/agent/bubble"
	"github.com/usher-agent/usher/enforcer"
)

// runningDesk is a desk that runs, by the clocks of a synctest bubble.
func runningDesk(t *testing.T) *Desk {
	t.Helper()
	d := newDesk(testOptions(time.Now))
	start, up := time.Now(), d.boot()
	d.boot = func() time.Duration { return up + time.Since(start) }
	ctx, stop := context.WithCancel(t.Context())
	var run sync.WaitGroup
	run.Go(func() {
		if err := d.Run(ctx); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(func() {
		stop()
		run.Wait()
	})
	return d
}

// Acquires that wait for draws of a meter, which the agent takes more of, have them in the order in which they came: a
// large one is not passed by small ones behind it, and one that gives up is in nobody's way.
func TestDrawsInTurn(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		d := runningDesk(t)
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
		awaited := func() int64 {
			p, _ := d.Pool("renders")
			return p.Waiting
		}
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

// siteRenders is a verdict on a site's meter of which the agent has taken n draws.
func siteRenders(n enforcer.Limit) *enforcer.Verdict {
	return &enforcer.Verdict{State: enforcer.StateValid, Code: enforcer.Valid,
		Meters: map[string]enforcer.MeterGrant{"renders": {Name: "renders", Key: "l/renders", Limit: 200, Budget: n,
			Most: 200, Taken: true}}}
}

// A want is waited for or drawn, and never both, also while the answer waits for the disk: else the agent takes its
// draws twice.
func TestGrantedIsWaitedForNoMore(t *testing.T) {
	d := newDesk(testOptions(time.Now))
	demand := func() [3]int64 {
		p, _ := d.Pool("renders")
		return [3]int64{p.InUse, p.Waiting, int64(p.Budget)}
	}
	d.SetVerdict(siteRenders(0), 0)
	a := d.begin(&enforcer.Acquire{Pool: "renders", N: 20, Wait: time.Hour}, nil)
	if got, want := demand(), [3]int64{0, 20, 0}; !a.waits() || got != want {
		t.Errorf("%v are drawn, waited for and taken, want %v", got, want)
	}
	d.SetVerdict(siteRenders(21), 0)
	if got, want := demand(), [3]int64{20, 0, 21}; got != want {
		t.Errorf("%v are drawn, waited for and taken, want %v", got, want)
	}
}

// A caller that has gone wants nothing: the agent is not told of its want of draws or slots, and nobody waits behind
// it.
func TestGoneCallersWantNothing(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		d := runningDesk(t)
		var short []int64
		d.signals.Short = func(r *enforcer.Acquire) { short = append(short, r.N) }
		v := siteRenders(2)
		v.Pools = map[string]enforcer.PoolGrant{"streams": {Name: "streams", Limit: 9, Most: 9}}
		d.SetVerdict(v, 0)
		ctx, hangUp := context.WithCancel(t.Context())
		gone := d.begin(&enforcer.Acquire{Pool: "renders", N: 5, Wait: time.Hour}, nil)
		slots := d.begin(&enforcer.Acquire{Pool: "streams", N: 1, Wait: time.Hour}, nil)
		behind := d.begin(&enforcer.Acquire{Pool: "renders", N: 2, Wait: time.Hour}, nil)
		hangUp()
		if _, denial := d.finish(ctx, &gone); denial == nil || denial.Code != enforcer.MeterEmpty {
			t.Errorf("gone: %+v", denial)
		}
		if _, denial := d.finish(ctx, &slots); denial == nil || denial.Code != enforcer.NoSlots {
			t.Errorf("gone: %+v", denial)
		}
		if _, denial := d.finish(t.Context(), &behind); denial != nil {
			t.Errorf("behind it: %v", denial)
		}
		if len(short) > 0 {
			t.Errorf("the agent is told of %v", short)
		}
		late := d.begin(&enforcer.Acquire{Pool: "renders", N: 7, Wait: time.Minute}, nil)
		_, denial := d.finish(t.Context(), &late)
		if denial == nil || denial.Code != enforcer.MeterEmpty || denial.Waited != time.Minute || len(short) != 1 {
			t.Errorf("when its time is up: %+v, and the agent is told of %v", denial, short)
		}
	})
}

// A drain turns those away that wait for draws, and nobody begins to wait once it has.
func TestDrainTurnsDrawsAway(t *testing.T) {
	d := newDesk(testOptions(time.Now))
	d.SetVerdict(siteRenders(0), 0)
	r := func() *enforcer.Acquire { return &enforcer.Acquire{Pool: "renders", N: 1, Wait: time.Hour} }
	first := d.begin(r(), nil)
	d.signals.FencePassed = func() {
		d.SetFence(0)
		d.Drain()
	}
	d.SetFence(1)               // passed long ago
	second := d.begin(r(), nil) // the drain comes while it is under way
	for name, a := range map[string]*pending{"waiting": &first, "coming": &second} {
		if a == &second && a.waits() {
			t.Error("one begins to wait when the others have been turned away")
			continue
		}
		if _, denial := d.finish(t.Context(), a); denial == nil || denial.Code != enforcer.Draining {
			t.Errorf("%s: %v", name, denial)
		}
	}
	if p, _ := d.Pool("renders"); p.Waiting != 0 {
		t.Errorf("%d draws are waited for", p.Waiting)
	}
}

// Who waits with a client token that has got its draws meanwhile is told of them once they are on the disk, and they
// are drawn once.
func TestWaitingReplayWaitsForTheDisk(t *testing.T) {
	k := openKept(t)
	k.SetVerdict(siteRenders(0), 0)
	r := func() *enforcer.Acquire {
		return &enforcer.Acquire{Pool: "renders", N: 3, Wait: time.Hour, Token: "t"}
	}
	a, b := k.Desk.begin(r(), nil), k.Desk.begin(r(), nil)
	k.SetVerdict(siteRenders(3), k.boot()+time.Hour) // enough for one of them
	one, two := <-a.answer, <-b.answer
	if one.Lease == nil || two.Lease == nil || one.Lease.ID != two.Lease.ID || !two.Replayed {
		t.Fatalf("got %+v and %+v", one, two)
	}
	if one.written == nil || two.written == nil {
		t.Error("an answer does not wait for the disk")
	}
	if one.fence != 0 || two.fence != 0 {
		t.Error("a draw, which never comes back, is withdrawn when the share of a pool is over")
	}
	if p, _ := k.Pool("renders"); p.InUse != 3 || p.Waiting != 0 {
		t.Errorf("%d are drawn, and %d waited for", p.InUse, p.Waiting)
	}
}
