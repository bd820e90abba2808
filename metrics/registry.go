package metrics

import (
	"net/http"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// Registry is the metrics of an upstream server, whose names begin with usher_upstream_server_.
type Registry struct {
	registry *prometheus.Registry
	requests *prometheus.CounterVec
}

// Kept is what an upstream server keeps, at one instant.
type Kept struct {
	Licences map[string]int // by state
	Hosts    int
	Cloned   int // of those, with a state from which another had gone on
	// Blocks is the blocks of slots that agents have, by licence and pool.
	Blocks map[[2]string]Blocks
	Fleet  *Fleet // how the server stands in its fleet; nil: it is in none
}

// Blocks is how many blocks are out of one pool, and their slots.
type Blocks struct{ Count, Slots int64 }

// NewRegistry returns metrics that have counted nothing yet. kept is called once a scrape.
func NewRegistry(kept func() Kept) *Registry {
	r := &Registry{registry: prometheus.NewRegistry(), requests: prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "usher_upstream_server_requests_total", Help: "Requests of agents, by call and result."},
		[]string{"call", "result"})}
	r.registry.MustRegister(r.requests, &registryState{kept}, collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return r
}

// WithFleet has the counts of a fleet among the metrics. It is called at most once.
func (r *Registry) WithFleet(c *FleetCounts) { c.register(r.registry) }

// Answered counts a request.
func (r *Registry) Answered(call, result string) { r.requests.WithLabelValues(call, result).Inc() }

// Handler answers scrapes.
func (r *Registry) Handler() http.Handler {
	return promhttp.HandlerFor(r.registry, promhttp.HandlerOpts{EnableOpenMetrics: true, MaxRequestsInFlight: 8})
}

type registryState struct{ kept func() Kept }

var (
	descServerLicences = desc("upstream_server_licenses", "Licences, by state.", "state")
	descServerHosts    = desc("upstream_server_hosts", "Hosts that licences are activated on.")
	descServerBlocks   = desc("upstream_server_blocks", "Blocks of slots that agents have.", "license", "pool")
	descServerSlots    = desc("upstream_server_block_slots", "Slots that agents have in blocks.", "license", "pool")
	descServerCloned   = desc("upstream_server_cloned_hosts", "Hosts of which a copy has been seen.")
)

func (s *registryState) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{descServerLicences, descServerHosts, descServerCloned, descServerBlocks,
		descServerSlots} {
		ch <- d
	}
	for _, d := range fleetDescs {
		ch <- d
	}
}

func (s *registryState) Collect(ch chan<- prometheus.Metric) {
	k := s.kept()
	for _, state := range []string{"active", "suspended", "revoked"} {
		ch <- prometheus.MustNewConstMetric(descServerLicences, prometheus.GaugeValue, float64(k.Licences[state]),
			state)
	}
	ch <- prometheus.MustNewConstMetric(descServerHosts, prometheus.GaugeValue, float64(k.Hosts))
	ch <- prometheus.MustNewConstMetric(descServerCloned, prometheus.GaugeValue, float64(k.Cloned))
	for of, b := range k.Blocks {
		ch <- prometheus.MustNewConstMetric(descServerBlocks, prometheus.GaugeValue, float64(b.Count), of[0], of[1])
		ch <- prometheus.MustNewConstMetric(descServerSlots, prometheus.GaugeValue, float64(b.Slots), of[0], of[1])
	}
	collectFleet(k.Fleet, func(d *prometheus.Desc, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	})
}
