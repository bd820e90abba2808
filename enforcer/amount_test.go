package enforcer

import "testing"

// The disk of a host is counted in bytes, and may be many terabytes. However much is asked of a pool without a limit,
// no sum overflows.
func TestLargeAmounts(t *testing.T) {
	e := New(Options{})
	grant := func(limit Limit) PoolGrant {
		return PoolGrant{Name: "disk", Limit: limit, Budget: limit, Most: limit}
	}
	set := func(limit Limit) {
		for _, ev := range e.Decide(&SetVerdict{&Verdict{State: StateValid, Code: Valid,
			Pools: map[string]PoolGrant{"disk": grant(limit)}}}, noon).Events {
			e.Apply(ev)
		}
	}
	taken := 0
	take := func(n int64) *Denial {
		taken++
		d := e.Decide(&Acquire{ID: LeaseID{byte(taken), byte(taken >> 8)}, Caller: Caller{UID: 1}, Pool: "disk", N: n,
			Lifetime: LifetimeHeld}, noon)
		for _, ev := range d.Events {
			e.Apply(ev)
		}
		return d.Denial
	}
	set(7 << 40)
	if d := take(5 << 40); d != nil {
		t.Fatalf("5 TiB of 7: %+v", d)
	}
	if d := take(3 << 40); d == nil || d.Code != NoSlots {
		t.Errorf("3 TiB of the 2 that are left: %+v", d)
	}
	if d := take(MaxSlots + 1); d == nil || d.Code != BadRequest {
		t.Errorf("more than one item may have: %+v", d)
	}
	set(Unlimited)
	for range maxInUse/MaxSlots + 2 {
		take(MaxSlots)
	}
	if d := take(MaxSlots); d == nil || d.Code != NoSlots {
		t.Errorf("beyond what is ever in use: %+v", d)
	}
	if n := e.pools["disk"].inUse; n < maxInUse || n > maxInUse+MaxSlots {
		t.Errorf("%d are in use", n)
	}
}
