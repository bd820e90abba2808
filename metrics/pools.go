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
	meter atomic.Bool             // a verdict has named it as one
	made  atomic.Pointer[tallies] // with the first count, which most pools of many never have; nil: all are zero
}

// tallies are the counts of a pool.
type tallies struct {
	granted, denied, replayed, drawn atomic.Uint64
	// others counts denials, as denialCodes has them, and behind these ends, as causes has them. It is made with the
	// first; nil: all are zero.
	others atomic.Pointer[[]atomic.Uint64]
}

var (
	denialCodes = enforcer.DenialCodes()
	causes      = enforcer.Causes()
)

// nothing is the counts of a pool that has none.
var nothing tallies

// told returns the counts to be read.
func (p *poolCounts) told() *tallies {
	if c := p.made.Load(); c != nil {
		return c
	}
	return &nothing
}

// counts returns the counts to be added to.
func (p *poolCounts) counts() *tallies {
	if c := p.made.Load(); c != nil {
		return c
	}
	p.made.CompareAndSwap(nil, &tallies{}) // somebody else's may be there by now
	return p.made.Load()
}

// countDenial and countEnd count one of a closed set's values; others are not counted.
func (p *tallies) countDenial(code enforcer.DenialCode) {
	p.count(slices.Index(denialCodes, code), 0)
}

func (p *tallies) countEnd(cause enforcer.Cause) {
	p.count(slices.Index(causes, cause), len(denialCodes))
}

func (p *tallies) count(i, from int) {
	if i < 0 {
		return
	}
	if p.others.Load() == nil {
		all := make([]atomic.Uint64, len(denialCodes)+len(causes))
		p.others.CompareAndSwap(nil, &all) // somebody else's may be there by now
	}
	(*p.others.Load())[from+i].Add(1)
}

// denials returns how often a code of denialCodes was counted, ends the same of a cause of causes.
func (p *tallies) denials(i int) uint64 { return p.other(i) }
func (p *tallies) ends(i int) uint64    { return p.other(len(denialCodes) + i) }

func (p *tallies) other(i int) uint64 {
	if all := p.others.Load(); all != nil {
		return (*all)[i].Load()
	}
	return 0
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
			p = &poolCounts{}
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
