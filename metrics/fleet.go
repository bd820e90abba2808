package metrics

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Fleet is how an agent stands in its fleet, at one instant.
type Fleet struct {
	State  string // one of States
	States []string
	// Fence is how long the agent may still use its blocks without an answer of etcd.
	Fence      time.Duration
	Members    int64 // agents that live, as last counted; 0: they were not
	Quarantine bool
	CutOff     bool // etcd does not answer
	Pools      []FleetPool
}

// FleetPool is one pool of the fleet, as the agent last saw it. Several licences may have a pool of one name.
type FleetPool struct {
	Pool              string
	Slots, Out, Limit int64 // in the agent's own blocks, with all agents, in force
}

var (
	descFleetState = desc("fleet_state", "1 for how the agent stands in its fleet, else 0. Absent without a fleet.",
		"state")
	descFleetFence = desc("fleet_fence_seconds",
		"How long the agent may still use its blocks without a further answer of etcd. Absent without a fleet.")
	descFleetMembers = desc("fleet_members",
		"Agents that live in the fleet, as this agent last counted. Absent before it has.")
	descFleetQuarantine = desc("fleet_quarantine",
		"1 while nobody gets more slots because the store may be an old copy, else 0. Absent without a fleet.")
	descFleetCut = desc("fleet_partitioned", "1 while etcd does not answer the agent, else 0. Absent without a fleet.")
	descFleetOwn = desc("fleet_block_slots", "Slots in this agent's blocks.", "pool")
	descFleetOut = desc("fleet_slots_out", "Slots in the blocks of all agents, as this agent last saw.", "pool")
	descFleetMax = desc("fleet_slots_limit", "The limit in force in the fleet, as this agent last saw.", "pool")
)

// fleetDescs are the metrics of a fleet that come from a snapshot.
var fleetDescs = []*prometheus.Desc{descFleetState, descFleetFence, descFleetMembers, descFleetQuarantine, descFleetCut,
	descFleetOwn, descFleetOut, descFleetMax}

// FleetCounts are the metrics of a fleet's member that are counted.
type FleetCounts struct {
	transactions *prometheus.CounterVec
	duration     *prometheus.HistogramVec
	errors       *prometheus.CounterVec
	reaps        prometheus.Counter
	reaped       prometheus.Counter
	watches      prometheus.Counter
}

// fleetCounted are their names.
var fleetCounted = []string{"usher_fleet_transactions_total", "usher_fleet_transaction_duration_seconds",
	"usher_fleet_errors_total", "usher_fleet_reaps_total", "usher_fleet_reaped_slots_total",
	"usher_fleet_watch_restarts_total"}

// NewFleetCounts returns counts that have counted nothing yet: kinds, outcomes and faults are all that there are.
func NewFleetCounts(kinds, outcomes, faults []string) *FleetCounts {
	counter := func(name, help string) prometheus.Counter {
		return prometheus.NewCounter(prometheus.CounterOpts{Name: "usher_fleet_" + name, Help: help})
	}
	counters := func(name, help string, labels ...string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Name: "usher_fleet_" + name, Help: help}, labels)
	}
	c := &FleetCounts{
		transactions: counters("transactions_total", "Calls to etcd, by kind and outcome.", "kind", "outcome"),
		errors:       counters("errors_total", "Calls to etcd that failed, by fault.", "fault"),
		reaps:        counter("reaps_total", "Blocks of dead agents that this agent has taken over."),
		reaped:       counter("reaped_slots_total", "Slots that were in them."),
		watches:      counter("watch_restarts_total", "Watches of etcd that ended, and were begun again."),
		duration: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "usher_fleet_transaction_duration_seconds", Help: "How long calls took that etcd answered, by kind.",
			Buckets: []float64{1e-3, 5e-3, 2.5e-2, 0.1, 0.5, 1, 5}}, []string{"kind"}),
	}
	for _, kind := range kinds { // so that a rate knows what they began with
		for _, outcome := range outcomes {
			c.transactions.WithLabelValues(kind, outcome)
		}
		c.duration.WithLabelValues(kind)
	}
	for _, fault := range faults {
		c.errors.WithLabelValues(fault)
	}
	return c
}

func (c *FleetCounts) register(r *prometheus.Registry) {
	r.MustRegister(c.transactions, c.errors, c.reaps, c.reaped, c.watches, c.duration)
}

// WithFleet has the counts of a fleet among the metrics. It is called at most once.
func (m *Metrics) WithFleet(c *FleetCounts) { c.register(m.rest) }

// failedCall is the outcome of a call that etcd has not answered, or refused.
const failedCall = "error"

// Called counts a call to etcd. How long a failed one took says when the agent lost patience, not how fast etcd is.
func (c *FleetCounts) Called(kind, outcome string, took time.Duration) {
	c.transactions.WithLabelValues(kind, outcome).Inc()
	if outcome != failedCall {
		c.duration.WithLabelValues(kind).Observe(took.Seconds())
	}
}

// Failed counts why a call to etcd failed.
func (c *FleetCounts) Failed(fault string) { c.errors.WithLabelValues(fault).Inc() }

// Reaped counts a dead agent's block that was taken over.
func (c *FleetCounts) Reaped(slots int64) {
	c.reaps.Inc()
	c.reaped.Add(float64(max(0, slots)))
}

// WatchEnded counts a watch that begins again.
func (c *FleetCounts) WatchEnded() { c.watches.Inc() }

func collectFleet(f *Fleet, set gauge) {
	if f == nil {
		return
	}
	for _, s := range f.States {
		set(descFleetState, one(s == f.State), s)
	}
	set(descFleetFence, f.Fence.Seconds())
	if f.Members > 0 {
		set(descFleetMembers, float64(f.Members))
	}
	set(descFleetQuarantine, one(f.Quarantine))
	set(descFleetCut, one(f.CutOff))
	byName := map[string]FleetPool{}
	for _, p := range f.Pools {
		was := byName[p.Pool]
		byName[p.Pool] = FleetPool{p.Pool, was.Slots + p.Slots, was.Out + p.Out, was.Limit + p.Limit}
	}
	for name, p := range byName {
		set(descFleetOwn, float64(p.Slots), name)
		set(descFleetOut, float64(p.Out), name)
		set(descFleetMax, float64(p.Limit), name)
	}
}
