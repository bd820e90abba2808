package metrics

import (
	"fmt"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/usher-agent/usher/enforcer"
)

// A scrape that stands still keeps nobody from counting, nor a verdict from coming in force.
func TestScrapeHoldsNoLock(t *testing.T) {
	m := full()
	scrape := make(chan prometheus.Metric)
	over := make(chan struct{})
	go func() {
		defer close(over)
		poolCollector{m}.Collect(scrape)
	}()
	<-scrape // it has more to tell, and nobody listens
	m.Acquired("streams", time.Microsecond, &enforcer.Denial{Code: enforcer.NoSlots}, false)
	m.Observe(&enforcer.Event{Kind: enforcer.EventEnded, Cause: enforcer.CauseReleased,
		Lease: &enforcer.Lease{Items: []enforcer.Item{{Pool: "streams", N: 1}}}})
	m.Observe(&enforcer.Event{Kind: enforcer.EventDrawn,
		Lease: &enforcer.Lease{Items: []enforcer.Item{{Pool: "renders", N: 1}}}})
	m.Observe(&enforcer.Event{Kind: enforcer.EventVerdict, Verdict: verdict()})
	for {
		select {
		case <-scrape:
		case <-over:
			return
		}
	}
}

// A pool costs one small piece of memory, whatever is told of it, and all its series are there, at zero, before
// anything is counted: a rate would miss what a series begins with.
func TestPoolIsSmall(t *testing.T) {
	const pools = 200
	v := &enforcer.Verdict{Pools: map[string]enforcer.PoolGrant{},
		Meters: map[string]enforcer.MeterGrant{"renders": {Name: "renders"}}}
	for i := range pools {
		v.Pools[fmt.Sprint("p", i)] = enforcer.PoolGrant{}
	}
	m := full()
	if n := testing.AllocsPerRun(2, func() {
		m.pools.Store(nil)
		m.setPools(v)
	}); n > 1.5*pools {
		t.Errorf("%v pieces of memory for %d pools", n, pools)
	}
	for name, want := range map[string]int{"usher_acquires_total": 3, "usher_denials_total": len(denialCodes),
		"usher_releases_total": len(causes)} {
		if n := series(t, m, name); n != want*(pools+2) { // and the meter, and the pool ""
			t.Errorf("%d series of %s, want %d for each of %d pools", n, name, want, pools+2)
		}
	}
	if n := series(t, m, "usher_draws_total"); n != 1 {
		t.Errorf("%d series of draws", n)
	}
}
