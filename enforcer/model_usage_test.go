package enforcer

import (
	"math/big"
	"time"

	"pgregory.net/rapid"
)

// modelUsage counts what is in use naively: it looks at the pools behind each event, and adds up the time since its
// last look.
type modelUsage struct {
	seen  map[string]modelSeen
	hours map[modelHour]*modelSum
	taken map[modelHour]*modelSum
	takes int64
	users modelUsers
}

type modelSeen struct {
	at                time.Time
	inUse, over, each int64 // in parts, and how many of them make a slot
}

type modelHour struct {
	pool string
	hour time.Time
}

type modelSum struct {
	slots, over    big.Rat // slot-milliseconds
	overFor        time.Duration
	peak, overPeak int64
	grants         int64
}

// begin begins to count, as an agent does when it starts.
func (u *modelUsage) begin(e *Enforcer, now time.Time) {
	*u = modelUsage{seen: map[string]modelSeen{}, hours: map[modelHour]*modelSum{}, taken: map[modelHour]*modelSum{},
		users: newModelUsers()}
	e.TakeUsage(e.PoolNames(), now)
	for _, name := range e.PoolNames() {
		u.look(e, name, now)
	}
}

func sumOf(in map[modelHour]*modelSum, pool string, at time.Time) *modelSum {
	k := modelHour{pool, at.UTC().Truncate(time.Hour)}
	if in[k] == nil {
		in[k] = &modelSum{}
	}
	return in[k]
}

// look counts a pool up to an instant, and takes note of what is in use.
func (u *modelUsage) look(e *Enforcer, name string, now time.Time) {
	u.pass(name, now)
	p := e.pools[name]
	if p == nil {
		delete(u.seen, name)
		delete(u.users.seen, name)
		return
	}
	s, _ := e.Pool(name, now)
	is := modelSeen{at: now, inUse: s.InUse, each: 1}
	if s.Quantum > 1 {
		is.inUse, is.each = s.Parts, s.Quantum
	}
	if s.Budget != Unlimited {
		is.over = max(0, is.inUse-int64(s.Budget)*is.each)
	}
	u.seen[name] = is
	u.users.look(e, p, is.each, now)
	sum := sumOf(u.hours, name, now)
	sum.peak = max(sum.peak, (is.inUse+is.each-1)/is.each)
	sum.overPeak = max(sum.overPeak, (is.over+is.each-1)/is.each)
}

func (u *modelUsage) pass(name string, now time.Time) {
	was, ok := u.seen[name]
	if !ok {
		return
	}
	from := was.at
	if now.Sub(from) > 7*24*time.Hour {
		from = now.Add(-7 * 24 * time.Hour)
	}
	for from.Before(now) {
		to := from.Truncate(time.Hour).Add(time.Hour)
		if to.After(now) {
			to = now
		}
		sum, d := sumOf(u.hours, name, from), to.Sub(from)
		add := func(to *big.Rat, parts int64) {
			r := new(big.Rat).SetFrac64(parts, was.each*int64(time.Millisecond))
			to.Add(to, r.Mul(r, new(big.Rat).SetInt64(int64(d))))
		}
		u.users.pass(name, was.each, from, to)
		add(&sum.slots, was.inUse)
		add(&sum.over, was.over)
		if was.over > 0 {
			sum.overFor += d
		}
		sum.peak = max(sum.peak, (was.inUse+was.each-1)/was.each)
		sum.overPeak = max(sum.overPeak, (was.over+was.each-1)/was.each)
		from = to
	}
	was.at = now
	u.seen[name] = was
}

// saw counts an event that has been applied.
func (u *modelUsage) saw(e *Enforcer, ev Event) {
	switch {
	case ev.Kind == EventStepped && ev.By != 0: // the time that it adds has not passed
		for name, was := range u.seen {
			u.pass(name, ev.At.Add(-ev.By))
			was = u.seen[name]
			was.at = ev.At
			u.seen[name] = was
		}
	case ev.Kind == EventVerdict:
		for name := range u.seen {
			u.look(e, name, ev.At)
		}
		for _, name := range e.PoolNames() {
			u.look(e, name, ev.At)
		}
	case ev.Lease != nil:
		for _, it := range ev.Lease.Items {
			u.look(e, it.Pool, ev.At)
			if ev.Kind == EventGranted {
				sumOf(u.hours, it.Pool, ev.At).grants++
				dayIn(u.users.days, it.Pool, ev.Lease.Holder.Who(), ev.At).grants++
			}
		}
	}
}

// agree wants that the enforcer has counted the same.
func (u *modelUsage) agree(t *rapid.T, e *Enforcer, now time.Time) {
	u.users.all = true
	for name := range u.seen {
		u.look(e, name, now)
	}
	u.users.all = false
	all, lost := e.TakeUsage(e.PoolNames(), now)
	if lost > 0 {
		t.Fatalf("UsageAgrees: %d hours are lost", lost)
	}
	u.takes++
	u.users.agree(t, e, u.takes, now)
	for _, a := range all {
		sum := sumOf(u.taken, a.Pool, a.Hour)
		sum.slots.Add(&sum.slots, new(big.Rat).SetInt64(a.Slots))
		sum.over.Add(&sum.over, new(big.Rat).SetInt64(a.Over))
		sum.overFor += a.OverFor
		sum.grants += a.Grants
		sum.peak, sum.overPeak = max(sum.peak, a.Peak), max(sum.overPeak, a.OverPeak)
	}
	for k, want := range u.hours {
		got := sumOf(u.taken, k.pool, k.hour)
		for _, pair := range [][2]*big.Rat{{&got.slots, &want.slots}, {&got.over, &want.over}} {
			diff, _ := new(big.Rat).Sub(pair[0], pair[1]).Float64()
			if most := float64(2 * (u.takes + 1)); diff > most || diff < -most {
				t.Fatalf("UsageAgrees: %s at %v: %v slot-milliseconds, and the model has %v", k.pool, k.hour, pair[0],
					pair[1])
			}
		}
		if got.overFor != want.overFor || got.peak != want.peak || got.overPeak != want.overPeak ||
			got.grants != want.grants {
			t.Fatalf("UsageAgrees: %s at %v: over for %v, peak %d, %d over, %d grants; the model has %v, %d, %d, %d",
				k.pool, k.hour, got.overFor, got.peak, got.overPeak, got.grants, want.overFor, want.peak,
				want.overPeak, want.grants)
		}
	}
	for k, got := range u.taken {
		if u.hours[k] == nil && got.peak > 0 {
			t.Fatalf("UsageAgrees: %s at %v: %+v, and the model has nothing", k.pool, k.hour, got)
		}
	}
}
