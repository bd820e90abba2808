package main

import (
	"context"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"runtime"
	"time"

	"github.com/usher-agent/usher/enforcer"
)

var epoch = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

// ids are the leases' ids: random, as an agent's are, and the same in every run.
var ids = rand.NewPCG(1, 2)

// filled returns an enforcer of one unlimited pool with n ttl leases of 1,000 holders.
func filled(n int) *enforcer.Enforcer {
	e := enforcer.New(enforcer.Options{})
	g := enforcer.PoolGrant{Name: "streams", Limit: enforcer.Unlimited, Budget: enforcer.Unlimited}
	e.Apply(
		enforcer.Event{Kind: enforcer.EventVerdict, At: epoch, Verdict: &enforcer.Verdict{State: enforcer.StateValid,
			Code: enforcer.Valid, Pools: map[string]enforcer.PoolGrant{"streams": g}}},
	)
	for i := range n {
		acquire(e, holderOf(uint64(i)+1), epoch)
	}
	return e
}

// holderOf is the number of the caller of the serial-th lease: 1,000 take turns.
func holderOf(serial uint64) uint64 { return serial % 1000 }

// newcomer is the same of callers that hold nothing before their turn, on whatever side: each side makes the same of
// them, and drops it.
func newcomer(serial uint64) uint64 { return 1000 + serial%1000 }

// acquire takes a lease for a caller.
func acquire(e *enforcer.Enforcer, caller uint64, now time.Time) *enforcer.Lease {
	r := enforcer.Acquire{
		Pool:   "streams",
		N:      1,
		TTL:    time.Hour,
		Caller: enforcer.Caller{UID: uint32(caller), PID: int32(caller)},
	}
	binary.BigEndian.PutUint64(r.ID[:], ids.Uint64())
	binary.BigEndian.PutUint64(r.ID[8:], ids.Uint64())
	d := e.Decide(&r, now)
	for _, ev := range d.Events {
		e.Apply(ev)
	}
	return d.Lease
}

// core measures the decision core alone: the heap that a lease takes after churn, and then an acquire and its release
// with many leases held, beside the same with few.
func (s *suite) core(context.Context) error {
	n := s.times(1_000_000)
	few := filled(10)
	before := heap()
	many := filled(n)
	for i, l := range many.Leases(nil) { // every second one goes and comes again
		if i%2 == 0 {
			for _, ev := range many.Decide(&enforcer.Release{ID: l.ID, Caller: l.Holder.Caller}, epoch).Events {
				many.Apply(ev)
			}
			acquire(many, holderOf(uint64(n+i)+1), epoch)
		}
	}
	s.add("core: memory of a lease (no labels, no token)", "B", atMost(400), plain((heap()-before)/float64(n)))
	serial := uint64(1 << 40)
	cost := func(e *enforcer.Enforcer, caller func(uint64) uint64) float64 {
		const batch = 200
		now := epoch.Add(time.Minute)
		start := time.Now()
		for range batch {
			serial++
			l := acquire(e, caller(serial), now)
			d := e.Decide(&enforcer.Release{ID: l.ID, Caller: l.Holder.Caller}, now)
			for _, ev := range d.Events {
				e.Apply(ev)
			}
		}
		return float64(time.Since(start)) / batch
	}
	s.add("core: acquire+release at 1,000,000 leases, beside 10", "ns", ratioAtMost(1.2),
		s.sideBySide(func() float64 { return cost(many, newcomer) }, func() float64 { return cost(few, newcomer) }))
	runtime.KeepAlive(many)
	ruled, unruled := filled(s.times(100_000)), filled(s.times(100_000))
	for _, ev := range ruled.Decide(&enforcer.SetPolicies{Policies: thousandRules()}, epoch).Events {
		ruled.Apply(ev)
	}
	s.add("core: acquire+release under 1,000 rules with 100,000 leases, beside none", "ns", ratioAtMost(1.3),
		s.sideBySide(func() float64 { return cost(ruled, holderOf) },
			func() float64 { return cost(unruled, holderOf) }))
	return nil
}

// sideBySide measures one beside the other in turn, so that both see the same machine.
func (s *suite) sideBySide(one, other func() float64) (runs []figure) {
	for range s.medianOf() {
		var a, b []float64
		for range s.times(500) {
			a = append(a, one())
			b = append(b, other())
		}
		runs = append(runs, against(a, b))
	}
	return runs
}

// thousandRules are a limit of each user, an end of each lease, and limits of single users and groups, of which a few
// concern any one caller.
func thousandRules() *enforcer.Policies {
	const most = 1 << 40
	rules := []enforcer.Policy{{Name: "each", Max: most, Per: enforcer.CountUser},
		{Name: "end", MaxHold: 1000 * time.Hour}}
	for i := uint32(len(rules)); i < 1000; i++ {
		p := enforcer.Policy{Name: fmt.Sprint("rule-", i), Max: most}
		if i%2 == 0 {
			p.Match.UID = []enforcer.UIDs{{First: i, Last: i + 1}}
		} else {
			p.Match.Group = []enforcer.Glob{{Text: fmt.Sprintf("group%d*", i)}}
		}
		rules = append(rules, p)
	}
	return enforcer.NewPolicies(rules)
}

// heap returns the bytes that the heap holds after a collection.
func heap() float64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.GC()
	runtime.ReadMemStats(&m)
	return float64(m.HeapAlloc)
}
