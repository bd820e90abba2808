package metrics

import (
	"slices"
	"sync/atomic"

	"github.com/usher-agent/usher/enforcer"
)

// poolCounts counts what becomes of the acquires of one pool. The series are made at a scrape alone: most of them stay
// zero, and an agent may have thousands of pools. All of them are told from the first scrape on, so that a rate knows
// what they began with.
type poolCounts struct {
	granted, denied, replayed atomic.Uint64
	drawn                     atomic.Uint64
	byCode                    []atomic.Uint64 // as denialCodes has them
	byCause                   []atomic.Uint64 // as causes has them
	meter                     atomic.Bool     // a verdict has named it as one
}

var (
	denialCodes = enforcer.DenialCodes()
	causes      = enforcer.Causes()
)

func newPoolCounts() *poolCounts {
	all := make([]atomic.Uint64, len(denialCodes)+len(causes))
	return &poolCounts{byCode: all[:len(denialCodes):len(denialCodes)], byCause: all[len(denialCodes):]}
}

// count counts one of a closed set's values; others are not counted.
func count[T comparable](counts []atomic.Uint64, set []T, value T) {
	if i := slices.Index(set, value); i >= 0 {
		counts[i].Add(1)
	}
}

// mostPools bounds the pools whose counts are kept.
const mostPools = 256

// setPools has the pools and meters counted that a verdict names. The counts of others stay, so that no counter begins
// from zero where a licence is gone for a moment, until there are too many.
func (m *Metrics) setPools(v *enforcer.Verdict) {
	m.mu.Lock()
	defer m.mu.Unlock()
	was := map[string]*poolCounts{}
	if p := m.pools.Load(); p != nil {
		was = *p
	}
	now := make(map[string]*poolCounts, len(was))
	name := func(name string, meter bool) {
		p := was[name]
		if p == nil {
			p = newPoolCounts()
		}
		if meter {
			p.meter.Store(true)
		}
		now[name] = p
	}
	name("", false)
	if v != nil {
		for pool := range v.Pools {
			name(pool, false)
		}
		for pool := range v.Meters {
			name(pool, true)
		}
	}
	if len(was) <= mostPools {
		for name, p := range was {
			if now[name] == nil {
				now[name] = p
			}
		}
	}
	m.pools.Store(&now)
}
