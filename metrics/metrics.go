// Package metrics is what operators scrape: a registry of its own, fed by the enforcer's events and, at each scrape, by
// a snapshot. Nothing else knows Prometheus, and no decision reads a metric. docs/metrics.md describes each.
//
// Label values are closed sets: states, codes and causes of the enforcer, and the pools that the licence in force
// names. A pool that a caller makes up is counted under the pool "".
package metrics

import (
	"math"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"github.com/usher-agent/usher/enforcer"
)

// Options is what New needs.
type Options struct {
	Version, Revision string
	Anchors           string // "embedded" or "config"
	Product           string
	Now               time.Time       // when the configuration was read
	Snapshot          func() Snapshot // called once a scrape
	// Pools returns every pool and meter; called once a scrape. nil: there are none.
	Pools func() []enforcer.PoolStatus
	// GiveWay is called between two chunks of a long answer, to let others go on; nil: nothing is to be done.
	GiveWay func()
	// MeasureHolds is called when a scrape begins, and longest when it ends: for how long the lock that decisions take
	// was held at one time meanwhile. nil: nobody measures.
	MeasureHolds func() (longest func() time.Duration)
}

// Snapshot is the state of an agent at one instant. The zero value is an agent that has judged nothing.
type Snapshot struct {
	Verdict           *enforcer.Verdict // nil before the first
	Now               time.Time         // licence time
	Holders           map[string]int    // leases by how the agent learns that their holder is gone
	Unconfirmed       int               // leases whose holder is not known to live
	WatchMode         string
	ClockBehind       time.Duration
	ClockAhead        time.Duration // how far the wall clock is beyond what is believed at once
	StateFree         float64       // bytes; negative: not known
	RevokedStillAlive int
	Plugins           map[string]bool // whether each configured plugin runs
	// Contacts are the licence's duties, by call: heartbeat, check_in.
	Contacts   map[string]Contact
	Tampered   map[string]bool   // whether each kind of state file differs from what the agent left
	Unfit      map[string]bool   // whether each vital part is not as it must be
	LogDropped uint64            // lines that the log's output did not take
	LeaseLog   map[string]uint64 // entries of the log of leases, by what became of them
	Draining   bool              // an operator has the agent grant nothing new
	Fleet      *Fleet            // nil: the configuration names none
}

// Contact is one duty of the licence in force towards its upstream.
type Contact struct {
	Last   time.Time     // when the upstream was last heard of
	Period time.Duration // how often it must be
	Next   time.Time     // when the agent has planned the next call; zero: at once
	Due    time.Time     // when the contact is late, and its grace begins
	Ends   time.Time     // when the licence falls without it
}

// Metrics is one agent's metrics.
type Metrics struct {
	rest        *prometheus.Registry // all but what is told of pools
	ofPool      *prometheus.Registry
	states      func() []enforcer.PoolStatus // nil: there are none
	giveWay     func()
	measure     func() (longest func() time.Duration)
	held        prometheus.Gauge
	duration    prometheus.Histogram
	wait        prometheus.Histogram
	upstream    *prometheus.CounterVec
	success     *prometheus.GaugeVec
	emergencies prometheus.Counter
	reloadOK    prometheus.Gauge
	reloadAt    prometheus.Gauge
	// pools has the counts of each pool that a verdict has named. The map is never changed.
	pools atomic.Pointer[map[string]*poolCounts]
	mu    sync.Mutex // one verdict at a time
}

// The results of an acquire.
const (
	resultGranted  = "granted"
	resultDenied   = "denied"
	resultReplayed = "replayed"
)

// New returns metrics that have counted nothing yet.
func New(o Options) *Metrics {
	m := &Metrics{rest: prometheus.NewRegistry(), ofPool: prometheus.NewRegistry(), states: o.Pools,
		giveWay: o.GiveWay, measure: o.MeasureHolds}
	if m.giveWay == nil {
		m.giveWay = func() {}
	}
	if m.measure == nil {
		m.measure = func() func() time.Duration { return func() time.Duration { return 0 } }
	}
	counter := func(name, help string, labels ...string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Name: "usher_" + name, Help: help}, labels)
	}
	m.upstream = counter("upstream_requests_total", "Calls to an upstream, by call and result.", "call", "result")
	m.emergencies = prometheus.NewCounter(prometheus.CounterOpts{Name: "usher_emergencies_total",
		Help: "Emergencies that operators have begun."})
	m.success = prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "usher_upstream_last_success_timestamp_seconds",
		Help: "When an upstream last answered a call well. Absent when none has."}, []string{"call"})
	m.duration = prometheus.NewHistogram(prometheus.HistogramOpts{Name: "usher_acquire_duration_seconds",
		Help:    "How long deciding an acquire took, waiting aside.",
		Buckets: []float64{2e-6, 5e-6, 1e-5, 2e-5, 5e-5, 1e-4, 2e-4, 5e-4, 1e-3, 5e-3, 2.5e-2, 0.1, 1}})
	m.wait = prometheus.NewHistogram(prometheus.HistogramOpts{Name: "usher_wait_duration_seconds",
		Help:    "How long acquires waited, whatever the outcome.",
		Buckets: []float64{1e-3, 1e-2, 0.1, 0.5, 1, 5, 15, 60, 300, 1800, 7200}})
	m.held = prometheus.NewGauge(prometheus.GaugeOpts{Name: "usher_scrape_longest_hold_seconds",
		Help: "For how long the lock that decisions take was held at one time, at the longest, during the scrape " +
			"before this one."})
	m.reloadOK = prometheus.NewGauge(prometheus.GaugeOpts{Name: "usher_config_last_reload_successful",
		Help: "Whether the configuration was good when last read."})
	m.reloadOK.Set(1) // what the agent has started with was read
	m.reloadAt = prometheus.NewGauge(prometheus.GaugeOpts{Name: "usher_config_last_reload_success_timestamp_seconds",
		Help: "When a good configuration was last read."})
	build := prometheus.NewGauge(prometheus.GaugeOpts{Name: "usher_build_info",
		Help: "Always 1; the labels say what runs.",
		ConstLabels: prometheus.Labels{"version": o.Version, "revision": o.Revision, "goversion": runtime.Version(),
			"anchors": o.Anchors, "product": o.Product}})
	build.Set(1)
	m.ofPool.MustRegister(poolCollector{m})
	m.rest.MustRegister(m.upstream, m.emergencies, m.success,
		m.duration, m.wait, m.held, m.reloadOK, m.reloadAt, build,
		&state{snapshot: o.Snapshot}, collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	m.setPools(nil)
	m.Reloaded(true, o.Now) // it was good when the agent started
	return m
}

// Gatherer returns what a scrape reads.
func (m *Metrics) Gatherer() prometheus.Gatherer { return prometheus.Gatherers{m.rest, m.ofPool} }

// Reloaded counts a reading of the configuration.
func (m *Metrics) Reloaded(ok bool, at time.Time) {
	if !ok {
		m.reloadOK.Set(0)
		return
	}
	m.reloadOK.Set(1)
	m.reloadAt.Set(stamp(at))
}

// UpstreamCalled counts a call to an upstream: result is "ok" or the class of its error.
func (m *Metrics) UpstreamCalled(call, result string, at time.Time) {
	m.upstream.WithLabelValues(call, result).Inc()
	if result == "ok" {
		m.success.WithLabelValues(call).Set(stamp(at))
	}
}

// EmergencyBegan counts an emergency.
func (m *Metrics) EmergencyBegan() { m.emergencies.Inc() }

// of returns the counts of a pool, or those of the pool "".
func (m *Metrics) of(pool string) *poolCounts {
	all := *m.pools.Load()
	if s := all[pool]; s != nil {
		return s
	}
	return all[""]
}

// Observe counts an event. It allocates nothing, except for a new verdict, and for what is the first of its
// kind in a pool.
func (m *Metrics) Observe(ev *enforcer.Event) {
	switch ev.Kind {
	case enforcer.EventVerdict:
		m.setPools(ev.Verdict)
	case enforcer.EventEnded:
		for _, it := range ev.Lease.Items {
			m.of(it.Pool).counts().countEnd(ev.Cause)
		}
	case enforcer.EventDrawn:
		for _, it := range ev.Lease.Items {
			m.of(it.Pool).counts().drawn.Add(uint64(max(0, it.N)))
		}
	case enforcer.EventGranted, enforcer.EventRenewed, enforcer.EventForgot, enforcer.EventChanged,
		enforcer.EventQueued, enforcer.EventLeft, enforcer.EventSet, enforcer.EventNoted, enforcer.EventRemembered,
		enforcer.EventHeldOff, enforcer.EventLifted, enforcer.EventPolicies, enforcer.EventLingers,
		enforcer.EventLingerOver, enforcer.EventUsed:
	}
}

// Acquired counts an acquire and how long it took. It allocates nothing, except for the first of a pool and its first
// denial.
func (m *Metrics) Acquired(pool string, took time.Duration, d *enforcer.Denial, replayed bool) {
	m.duration.Observe(took.Seconds())
	s := m.of(pool).counts()
	switch {
	case d != nil:
		s.denied.Add(1)
		s.countDenial(d.Code)
	case replayed:
		s.replayed.Add(1)
	default:
		s.granted.Add(1)
	}
}

// Waited counts an acquire that waited.
func (m *Metrics) Waited(d time.Duration) { m.wait.Observe(d.Seconds()) }

func stamp(t time.Time) float64 { return float64(t.UnixMilli()) / 1000 }

// forever is a time that never comes.
func forever(t time.Time) float64 {
	if t.IsZero() {
		return math.Inf(1)
	}
	return stamp(t)
}

func limit(l enforcer.Limit) float64 {
	if l == enforcer.Unlimited {
		return math.Inf(1)
	}
	return float64(l)
}
