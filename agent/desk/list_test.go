package desk

import (
	"fmt"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/usher-agent/usher/enforcer"
)

// A user that holds nothing has its list made in the same steps, however many leases others hold.
func TestListOfNothing(t *testing.T) {
	d := newDesk(testOptions(time.Now))
	d.SetVerdict(&enforcer.Verdict{State: enforcer.StateValid, Code: enforcer.Valid,
		Pools: map[string]enforcer.PoolGrant{"streams": {Name: "streams", Limit: enforcer.Unlimited,
			Budget: enforcer.Unlimited, Most: enforcer.Unlimited}}}, 0)
	list := func() {
		d.List(enforcer.Filter{User: &enforcer.User{UID: 1}}, enforcer.Cursor{}, func(some []*enforcer.Lease) bool {
			t.Errorf("%d leases of others are listed", len(some))
			return false
		})
	}
	took := func() (float64, time.Duration) {
		start := time.Now()
		allocs := testing.AllocsPerRun(1000, list)
		return allocs, time.Since(start) / 1000
	}
	few, quick := took()
	for range 50_000 {
		d.take(t, 2)
	}
	many, slow := took()
	t.Logf("%v with no leases, %v with 50,000", quick, slow)
	if few != many {
		t.Errorf("a list of nothing allocates %v times with no leases, and %v times with 50,000", few, many)
	}
}

// busyDesk is a desk with a pool without a limit.
func busyDesk() *Desk {
	d := newDesk(testOptions(time.Now))
	d.SetVerdict(&enforcer.Verdict{State: enforcer.StateValid, Code: enforcer.Valid,
		Pools: map[string]enforcer.PoolGrant{
			"streams": {Name: "streams", Limit: enforcer.Unlimited, Budget: enforcer.Unlimited}}}, 0)
	return d
}

type unseen struct{}

func (unseen) Observe(*enforcer.Event)                                {}
func (unseen) Acquired(string, time.Duration, *enforcer.Denial, bool) {}
func (unseen) Waited(time.Duration)                                   {}
func (d *Desk) take(t *testing.T, uid uint32) *enforcer.Lease {
	t.Helper()
	g, denial := d.Acquire(t.Context(),
		&enforcer.Acquire{Pool: "streams", N: 1, Lifetime: enforcer.LifetimeHeld, Caller: enforcer.Caller{UID: uid}})
	if denial != nil {
		t.Fatal(denial)
	}
	return g.Lease
}

// A list is made in portions, between which others are served.
func TestListServesOthersMeanwhile(t *testing.T) {
	d := busyDesk()
	want := map[enforcer.LeaseID]bool{}
	for range 3*listed + 5 {
		want[d.take(t, 1).ID] = true
	}
	d.take(t, 2)
	one := enforcer.User{UID: 1}
	parts := 0
	d.List(enforcer.Filter{User: &one}, enforcer.Cursor{}, func(some []*enforcer.Lease) bool {
		parts++
		if len(some) > listed {
			t.Errorf("a portion of %d", len(some))
		}
		for _, l := range some {
			delete(want, l.ID)
		}
		d.take(t, 1) // which would wait for ever, were the lock held
		return true
	})
	if len(want) != 0 || parts != 4 {
		t.Errorf("%d leases are not listed, in %d portions", len(want), parts)
	}
	users := map[string]int{}
	d.List(enforcer.Filter{}, enforcer.Cursor{}, func(some []*enforcer.Lease) bool {
		for _, l := range some {
			users[fmt.Sprint(l.Holder.Who())]++
		}
		return true
	})
	if users["uid 1"] != 3*listed+9 || users["uid 2"] != 1 {
		t.Errorf("of all: %v", users)
	}
	d.List(enforcer.Filter{User: &enforcer.User{UID: 3}}, enforcer.Cursor{}, func([]*enforcer.Lease) bool {
		t.Error("uid 3 has no leases, and is listed")
		return false
	})
}

// Neither a list of many leases nor the end of a process that holds many makes garbage of each: the heap would grow by
// all that the collector lets it, and the collector would work while others wait.
func TestManyLeasesMakeNoGarbage(t *testing.T) {
	d := busyDesk()
	by := enforcer.Caller{UID: 1, PID: 4711, Start: 1}
	var ids []enforcer.LeaseID
	for range 20_000 {
		g, denial := d.Acquire(t.Context(), &enforcer.Acquire{Pool: "streams", N: 1, Caller: by,
			Lifetime: enforcer.LifetimeProcess})
		if denial != nil {
			t.Fatal(denial)
		}
		ids = append(ids, g.Lease.ID)
	}
	bytes := func(f func()) uint64 {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		f()
		runtime.ReadMemStats(&after)
		return (after.TotalAlloc - before.TotalAlloc) / uint64(len(ids))
	}
	if n := bytes(func() {
		d.List(enforcer.Filter{}, enforcer.Cursor{}, func([]*enforcer.Lease) bool { return true })
	}); n > 8 {
		t.Errorf("a list makes %d bytes of garbage of each lease", n)
	}
	// What the tables shrink by is some 80 bytes of each. An event that is made for each alone is 200 more.
	if n := bytes(func() { d.Leave(ids, by) }); n > 160 || d.core.Len() != 0 {
		t.Errorf("the death of a holder makes %d bytes of garbage of each lease, and leaves %d", n, d.core.Len())
	}
}

// Pools are told a portion at a time, and each by itself as it is; of as many as a portion has, all are of one instant.
func TestPoolsAreToldInPortions(t *testing.T) {
	d := newDesk(testOptions(time.Now))
	v := &enforcer.Verdict{State: enforcer.StateValid, Code: enforcer.Valid, Pools: map[string]enforcer.PoolGrant{},
		Meters: map[string]enforcer.MeterGrant{"renders": {Name: "renders"}}}
	for i := range 2*poolsAtATime + 3 {
		name := fmt.Sprintf("p%04d", i)
		v.Pools[name] = enforcer.PoolGrant{Name: name, Limit: 1, Budget: 1}
	}
	d.SetVerdict(v, 0)
	all := d.Pools()
	if len(all) != 2*poolsAtATime+4 || !slices.IsSortedFunc(all, func(a, b enforcer.PoolStatus) int {
		return strings.Compare(a.Name, b.Name)
	}) || !all[len(all)-1].Meter {
		t.Errorf("%d pools are told, or not in their order", len(all))
	}
}
