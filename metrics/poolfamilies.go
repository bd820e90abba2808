package metrics

import (
	"math"
	"slices"
	"strings"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/usher-agent/usher/enforcer"
)

// pool is what is told of one pool or meter. Either counts or status may be nil: a pool that is no more has counts
// alone.
type pool struct {
	name   string
	counts *poolCounts
	status *enforcer.PoolStatus
}

// poolFamily is a metric of which each pool has a series, or one for each value of a second label.
type poolFamily struct {
	name, full, help string // the full name has the prefix
	desc             *prometheus.Desc
	kind             prometheus.ValueType
	label            string   // empty: the pool is the only one
	values           []string // of the label, sorted; one empty value where there is no label
	// of returns the value of a pool's series; ok is false where it has none.
	of func(p pool, value int) (v float64, ok bool)
}

// poolFamilies are the metrics of pools, sorted by name. A scrape hands them to the library's writer without its
// registry, which makes garbage of each series: see spare.go.
var poolFamilies = slices.SortedFunc(slices.Values(slices.Concat(countedOfPools(), statesOfPools())),
	func(a, b poolFamily) int { return strings.Compare(a.name, b.name) })

// countsOf makes a family of counters.
func countsOf(name, help, label string, values []string, of func(*tallies, int) uint64) poolFamily {
	return poolFamily{name: name, full: "usher_" + name, help: help, desc: desc(name, help, pairOf(label)...),
		kind:  prometheus.CounterValue,
		label: label, values: values, of: func(p pool, i int) (float64, bool) {
			if p.counts == nil {
				return 0, false
			}
			return float64(of(p.counts.told(), i)), true
		}}
}

// pairOf returns the labels of a family.
func pairOf(label string) []string {
	if label == "" {
		return []string{"pool"}
	}
	return []string{"pool", label}
}

// texts returns a closed set as label values, sorted, and the place of each in the set.
func texts[T ~string](set []T) (values []string, places []int) {
	for _, x := range set {
		values = append(values, string(x))
	}
	slices.Sort(values)
	for _, v := range values {
		places = append(places, slices.Index(set, T(v)))
	}
	return values, places
}

func countedOfPools() []poolFamily {
	codes, code := texts(denialCodes)
	ends, cause := texts(causes)
	drawn := countsOf("draws_total", "Draws from a meter.", "", []string{""},
		func(p *tallies, _ int) uint64 { return p.drawn.Load() })
	all := drawn.of
	drawn.of = func(p pool, i int) (v float64, ok bool) {
		v, ok = all(p, i)
		return v, ok && (p.counts.meter.Load() || v > 0)
	}
	return []poolFamily{
		countsOf("acquires_total", "Acquires, by pool and result.", "result",
			[]string{resultDenied, resultGranted, resultReplayed}, func(p *tallies, i int) uint64 {
				switch i {
				case 0:
					return p.denied.Load()
				case 1:
					return p.granted.Load()
				default:
					return p.replayed.Load()
				}
			}),
		countsOf("denials_total", "Acquires that were denied, by pool and code.", "code", codes,
			func(p *tallies, i int) uint64 { return p.denials(code[i]) }),
		countsOf("releases_total", "Leases that ended, by pool and cause.", "cause", ends,
			func(p *tallies, i int) uint64 { return p.ends(cause[i]) }),
		drawn,
	}
}

func statesOfPools() []poolFamily {
	gauge := func(name, help string, meter bool, of func(*enforcer.PoolStatus) float64) poolFamily {
		return poolFamily{name: name, full: "usher_" + name, help: help, desc: desc(name, help, "pool"),
			kind:   prometheus.GaugeValue,
			values: []string{""}, of: func(p pool, _ int) (float64, bool) {
				if p.status == nil || p.status.Meter != meter {
					return 0, false
				}
				return of(p.status), true
			}}
	}
	slots := func(name, help string, of func(*enforcer.PoolStatus) float64) poolFamily {
		return gauge("slots_"+name, help, false, of)
	}
	return []poolFamily{
		slots("limit", "Slots that the licence grants; +Inf if unlimited.",
			func(p *enforcer.PoolStatus) float64 { return limit(p.Limit) }),
		slots("budget", "Slots that this agent may hand out; +Inf if unlimited.",
			func(p *enforcer.PoolStatus) float64 { return limit(p.Budget) }),
		slots("in_use", "Slots held.", func(p *enforcer.PoolStatus) float64 { return float64(p.InUse) }),
		slots("waiting", "Slots waited for.", func(p *enforcer.PoolStatus) float64 { return float64(p.Waiting) }),
		slots("reserved", "Slots reserved.", func(p *enforcer.PoolStatus) float64 { return float64(p.Reserved) }),
		slots("peak", "The most slots held at one time since the agent started.",
			func(p *enforcer.PoolStatus) float64 { return float64(p.Peak) }),
		slots("borrowed", "Slots that are borrowed, until a date.",
			func(p *enforcer.PoolStatus) float64 { return float64(p.Borrowed) }),
		slots("overage", "Slots held beyond the budget, as the licence allows.",
			func(p *enforcer.PoolStatus) float64 { return float64(p.OverageInUse()) }),
		gauge("hold_offs", "Holders that an admin holds off from the pool's slots.", false,
			func(p *enforcer.PoolStatus) float64 { return float64(len(p.HoldOffs)) }),
		gauge("meter_remaining", "Draws left of a meter; +Inf if unlimited.", true,
			func(p *enforcer.PoolStatus) float64 {
				if p.Budget == enforcer.Unlimited {
					return math.Inf(1)
				}
				return max(0, float64(p.Budget)+limit(p.Overage)-float64(p.InUse))
			}),
	}
}

// poolCollector collects what is told of each pool. It holds no lock, so that counting never waits for a scrape.
type poolCollector struct{ m *Metrics }

func (poolCollector) Describe(ch chan<- *prometheus.Desc) {
	for _, f := range poolFamilies {
		ch <- f.desc
	}
}

func (c poolCollector) Collect(ch chan<- prometheus.Metric) {
	pools := c.m.ofPools()
	for _, f := range poolFamilies {
		for i, value := range f.values {
			for _, p := range pools {
				v, ok := f.of(p, i)
				switch {
				case !ok:
				case f.label == "":
					ch <- prometheus.MustNewConstMetric(f.desc, f.kind, v, p.name)
				default:
					ch <- prometheus.MustNewConstMetric(f.desc, f.kind, v, p.name, value)
				}
			}
		}
	}
}

// ofPools returns all pools of which something is told, by name.
func (m *Metrics) ofPools() (all []pool) {
	var states []enforcer.PoolStatus
	if m.states != nil {
		states = m.states()
	}
	counts := *m.pools.Load()
	all = make([]pool, 0, max(len(states), len(counts)))
	of := make(map[string]int, cap(all))
	for i := range states {
		p := &states[i]
		of[p.Name] = len(all)
		all = append(all, pool{name: p.Name, status: p})
	}
	for name, c := range counts {
		if i, ok := of[name]; ok {
			all[i].counts = c
		} else {
			all = append(all, pool{name: name, counts: c})
		}
	}
	slices.SortFunc(all, func(a, b pool) int { return strings.Compare(a.name, b.name) })
	return all
}
