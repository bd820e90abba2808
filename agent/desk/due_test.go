package desk

import (
	"testing"
	"time"

	"github.com/usher-agent/usher/enforcer"
)

// crowded is a desk with a pool that is full of leases that end together, and one, later in the order, of one slot.
func crowded(t *testing.T, n int) *hostOf {
	t.Helper()
	d := newHostOf(t)
	d.SetVerdict(&enforcer.Verdict{State: enforcer.StateValid, Code: enforcer.Valid,
		Pools: map[string]enforcer.PoolGrant{
			"many": {Name: "many", Limit: enforcer.Limit(n), Budget: enforcer.Limit(n), Most: enforcer.Limit(n)},
			"one":  {Name: "one", Limit: 1, Budget: 1, Most: 1}}}, 0)
	for i := range n + 1 {
		pool := "many"
		if i == 0 {
			pool = "one"
		}
		if _, denial := d.Acquire(t.Context(), &enforcer.Acquire{Pool: pool, N: 1, Lifetime: enforcer.LifetimeTTL,
			TTL: time.Minute}); denial != nil {
			t.Fatal(denial)
		}
	}
	return d
}

// Leases that are over together end in steps, so that the lock is never held for long. An acquire that would be denied
// between two steps is decided again; who reads sees nothing that is over.
func TestWhatIsDueEndsInSteps(t *testing.T) {
	const n = 5 * enforcer.Batch
	pass := func(d *hostOf) {
		d.run(2 * time.Minute)
		d.mu.Lock()
		defer d.mu.Unlock()
		if more := d.tick(d.licenceTime()); !more || d.core.Len() != n+1-enforcer.Batch {
			t.Errorf("a step leaves %d of %d leases, more: %t", d.core.Len(), n+1, more)
		}
	}
	d := crowded(t, n)
	pass(d)
	g, denial := d.Acquire(t.Context(), &enforcer.Acquire{Pool: "many", N: 1, Lifetime: enforcer.LifetimeHeld})
	if denial != nil || d.core.Len() < n-3*enforcer.Batch {
		t.Errorf("an acquire that the next step has room for: %v, %d leases are held", denial, d.core.Len())
	}
	if _, denial = d.Acquire(t.Context(), &enforcer.Acquire{Pool: "one", N: 1,
		Lifetime: enforcer.LifetimeHeld}); denial != nil {
		t.Error("an acquire of the slot that comes free in the last step:", denial)
	}
	if p, _ := d.Pool("many"); p.InUse != 1 || d.core.Len() != 2 {
		t.Errorf("in the end %d slots are in use, and %d leases held", p.InUse, d.core.Len())
	}
	if d.Do(&enforcer.End{ID: g.ID, Cause: enforcer.CauseForced}); d.core.Len() != 1 {
		t.Error("the lease that was granted between two steps is not held")
	}

	d = crowded(t, n)
	pass(d)
	if _, held := d.Lease(g.ID); held || d.core.Len() != 0 {
		t.Errorf("a reader sees %d leases that are over", d.core.Len())
	}
}

// A process that dies leaves all of its leases, and waiters get its slots.
func TestLeaveOfMany(t *testing.T) {
	const n = 2*enforcer.Batch + 3
	d := crowded(t, n)
	var ids []enforcer.LeaseID
	for _, l := range d.core.Leases(nil) {
		ids = append(ids, l.ID)
	}
	finish, waits := d.Begin(&enforcer.Acquire{Pool: "many", N: n, Wait: time.Hour, Lifetime: enforcer.LifetimeHeld},
		nil)
	if !waits {
		t.Fatal("it does not wait")
	}
	d.Leave(ids, enforcer.Caller{})
	if g, denial := finish(t.Context()); denial != nil || d.core.Len() != 1 || g.Items[0].N != n {
		t.Errorf("%v, %d leases are held", denial, d.core.Len())
	}
}

// Holders are told that their leases are to be revoked a portion at a time, by Run and not under the desk's lock, and
// each is told once.
func TestTheRevokedAreToldInPortions(t *testing.T) {
	w := &toldOf{told: map[enforcer.LeaseID]int{}}
	d := crowded(t, 2*portion+5)
	d.watcher, w.desk = w, d.Desk
	d.SetVerdict(&enforcer.Verdict{State: enforcer.StateValid, Code: enforcer.Valid, OnExpiry: enforcer.Revoke,
		Pools: map[string]enforcer.PoolGrant{
			"many": {Name: "many"}, "one": {Name: "one", Limit: 1, Budget: 1, Most: 1}}}, 0)
	if len(w.told) != 0 {
		t.Errorf("a verdict waits for %d holders to be told", len(w.told))
	}
	rounds := 0
	for d.telling {
		d.tell()
		rounds++
	}
	for id, times := range w.told {
		if times != 1 {
			t.Errorf("lease %s is told of %d times", id, times)
		}
	}
	if len(w.told) != 2*portion+5 || w.most > portion || rounds < 3 {
		t.Errorf("%d are told in %d rounds, at most %d in one", len(w.told), rounds, w.most)
	}
}

// toldOf is a watcher that notes which leases it is told of.
type toldOf struct {
	nobody
	desk *Desk
	told map[enforcer.LeaseID]int
	most int
}

func (w *toldOf) Revoking(_ time.Time, leases []*enforcer.Lease) {
	w.desk.Now() // which would wait for ever, were the lock held
	w.most = max(w.most, len(leases))
	for _, l := range leases {
		w.told[l.ID]++
	}
}
