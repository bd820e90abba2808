package enforcer

import (
	"testing"
	"time"
)

// Explain says why a holder could have nothing, whatever keeps it from the slots.
func TestExplainSaysWhyNothing(t *testing.T) {
	t.Parallel()
	c := newCounted(t, 4, CountLease)
	says := func(pool string, room Limit, code DenialCode) {
		t.Helper()
		x := c.e.Explain(&Holder{Caller: proc(1)}, pool, c.now)
		if x.Room != room || (x.Denial == nil) != (code == "") || x.Denial != nil && x.Denial.Code != code {
			t.Errorf("%s: %s, %v; want %s and %q", pool, x.Room, x.Denial, room, code)
		}
	}
	says("a", 4, "")
	says("z", 0, PoolUnknown)
	c.do(&SetPolicies{NewPolicies([]Policy{{Name: "no more", OverageMax: new(int64)}, {Name: "two", Max: 2}})})
	says("a", 2, "")
	if d := c.acquire(1, proc(1), 0); d.Denial != nil {
		t.Fatal(d.Denial)
	}
	says("a", 1, "")
	off := time.Minute
	c.do(&Release{ID: LeaseID{1}, Caller: Caller{Admin: true}, Force: true, HoldOff: &off})
	says("a", 0, HeldOff)
}
