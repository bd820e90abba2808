package main

import (
	"context"
	"encoding/binary"
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
		acquire(e, uint64(i)+1, epoch)
	}
	return e
}

// acquire takes a lease. The callers are 1,000 that take turns, however many leases are held.
func acquire(e *enforcer.Enforcer, serial uint64, now time.Time) *enforcer.Lease {
	r := enforcer.Acquire{
		Pool:   "streams",
		N:      1,
		TTL:    time.Hour,
		Caller: enforcer.Caller{UID: uint32(serial % 1000), PID: int32(serial % 1000)},
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
			acquire(many, uint64(n+i)+1, epoch)
		}
	}
	s.add("core: memory of a lease (no labels, no token)", "B", atMost(400), plain((heap()-before)/float64(n)))
	serial := uint64(1 << 40)
	cost := func(e *enforcer.Enforcer) time.Duration {
		const batch = 200
		now := epoch.Add(time.Minute)
		start := time.Now()
		for range batch {
			serial++
			l := acquire(e, serial, now)
			d := e.Decide(&enforcer.Release{ID: l.ID, Caller: l.Holder.Caller}, now)
			for _, ev := range d.Events {
				e.Apply(ev)
			}
		}
		return time.Since(start) / batch
	}
	var runs []figure
	for range s.medianOf() {
		var a, b []float64
		for range s.times(500) { // in turn, so that both see the same machine
			a = append(a, float64(cost(many)))
			b = append(b, float64(cost(few)))
		}
		runs = append(runs, against(a, b))
	}
	s.add("core: acquire+release at 1,000,000 leases, beside 10", "ns", ratioAtMost(1.2), runs)
	runtime.KeepAlive(many)
	return nil
}

// heap returns the bytes that the heap holds after a collection.
func heap() float64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.GC()
	runtime.ReadMemStats(&m)
	return float64(m.HeapAlloc)
}
