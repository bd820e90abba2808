package metrics

import (
	"sync"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
)

// spare is memory for one metric of pools at a time, as the library's writer takes it. It is used for one metric after
// the other, so that a scrape makes no garbage of each series. The zero value is ready.
type spare struct {
	of               dto.MetricFamily
	gauges, counters []*dto.Metric // as many as a metric has ever needed
}

// spares are kept for further scrapes.
var spares = sync.Pool{New: func() any { return new(spare) }}

// family returns a metric of pools for the library's writer; nil where it has no series. It is good until the next
// call, and refers to pools. It calls breathe now and then.
func (s *spare) family(f *poolFamily, pools []pool, breathe func()) *dto.MetricFamily {
	kind, kept, add := dto.MetricType_GAUGE, &s.gauges, newGauge
	if f.kind == prometheus.CounterValue {
		kind, kept, add = dto.MetricType_COUNTER, &s.counters, newCounter
	}
	n := 0
	for i := range f.values {
		breathe()
		for j := range pools {
			v, ok := f.of(pools[j], i)
			if !ok {
				continue
			}
			if n == len(*kept) {
				*kept = append(*kept, add())
			}
			m := (*kept)[n]
			m.Label = labelled(m.Label[:cap(m.Label)], f, &pools[j].name, i)
			if f.kind == prometheus.CounterValue {
				*m.Counter.Value = v
			} else {
				*m.Gauge.Value = v
			}
			n++
		}
	}
	if n == 0 {
		return nil
	}
	s.of.Name, s.of.Help, s.of.Type, s.of.Metric = &f.full, &f.help, &kind, (*kept)[:n]
	return &s.of
}

func newGauge() *dto.Metric {
	return &dto.Metric{Label: []*dto.LabelPair{{}, {}}, Gauge: &dto.Gauge{Value: new(float64)}}
}

func newCounter() *dto.Metric {
	return &dto.Metric{Label: []*dto.LabelPair{{}, {}}, Counter: &dto.Counter{Value: new(float64)}}
}

var poolLabel = "pool"

// labelled makes the labels of a series of two pairs. They are sorted by name.
func labelled(pairs []*dto.LabelPair, f *poolFamily, pool *string, value int) []*dto.LabelPair {
	at, other := 0, 1
	if f.label != "" && f.label < poolLabel {
		at, other = 1, 0
	}
	pairs[at].Name, pairs[at].Value = &poolLabel, pool
	if f.label == "" {
		return pairs[:1]
	}
	pairs[other].Name, pairs[other].Value = &f.label, &f.values[value]
	return pairs
}
