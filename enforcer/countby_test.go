package enforcer

import (
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// TestCountByForms: what a licence may count by, and what is told of the rest.
func TestCountByForms(t *testing.T) {
	for _, by := range []CountBy{"", "lease", "process", "user+host", "user/3", "label:a.b_c-D+pod", "label:x/1",
		"process+user+host+pod+label:1+label:2+label:3+label:4/1000000"} {
		if err := by.Check(); err != nil {
			t.Errorf("%s: %v", by, err)
		}
	}
	for by, says := range map[CountBy]string{
		"moon": "is not one of lease", "user+": "is not one of", "+user": "is not one of", "User": "is not one of",
		"user+lease": "lease stands alone", "lease/2": "lease stands alone", "user+host+user": "names user twice",
		"label:": "names a label of other", "label:a/b": "at most, from 1", "user/0": "from 1", "user/-1": "from 1",
		"user/03": "from 1", "user/1000001": "from 1", "user/": "from 1", "user/x": "from 1",
		"label:session":      "would let all callers share one slot",
		"label:session+host": "would let all callers share one slot",
		"user+label:a+label:b+label:c+label:d+label:e+label:f+label:g+label:h": "has 9 words",
		CountBy(strings.Repeat("x", 1000)):                                     "…",
	} {
		if err := by.Check(); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%q: %v, want %q", by, err, says)
		}
	}
}

// TestUsesByUserAndHost: leases of one user count as one, and of another as another (FlexNet's DUP_GROUP=UH).
func TestUsesByUserAndHost(t *testing.T) {
	c := newCounted(t, 5, "host+user")
	for id, uid := range []uint32{7, 7, 8, 7, 8} {
		c.acquire(byte(id+1), Caller{UID: uid, Host: "berlin", PID: int32(id + 1), Start: 1}, 0)
	}
	c.inUse(2)
	c.acquire(9, Caller{UID: 7, Host: "oslo", PID: 9, Start: 1}, 0) // named by a dialect
	c.inUse(3)
}

// TestUsesOfOddNames: no choice of names has two users at two hosts count as one.
func TestUsesOfOddNames(t *testing.T) {
	c := newCounted(t, 9, "user+host")
	for i, of := range []Caller{{User: "a", Host: "b+host c"}, {User: "a+host b", Host: "c"}, {User: "a", Host: "b"},
		{User: `a"+"host b`, Host: "c"}, {User: "a", Host: `b""host c`}} {
		of.UID, of.PID, of.Start = 7, int32(i+1), 1
		c.acquire(byte(i+1), of, 0)
		c.inUse(int64(i + 1))
	}
}

// TestMostOfAUse: as many leases as the licence says share one use (RLM's share=u:3); the next takes another, and one
// that ends leaves its place to the next.
func TestMostOfAUse(t *testing.T) {
	c := newCounted(t, 2, "user/3")
	for id := byte(1); id <= 6; id++ {
		if d := c.acquire(id, proc(int32(id)), 0); d.Denial != nil {
			t.Fatal(d.Denial)
		}
		c.inUse(int64(id+2) / 3)
	}
	if d := c.acquire(7, proc(7), 0).Denial; d == nil || d.Code != NoSlots {
		t.Errorf("a seventh: %v", d)
	}
	if d := c.acquire(8, proc(8), time.Minute); d.Waiter == nil {
		t.Errorf("one that waits: %+v", d)
	}
	c.do(&Release{ID: LeaseID{1}, Caller: proc(1)})
	if d := c.do(&Serve{Among: []string{"a"}}); d.Lease == nil || d.Lease.ID != (LeaseID{8}) {
		t.Errorf("a place in a use comes free, and %+v is served", d)
	}
	// Under a licence that lets two share, six take three; under one without that limit, one.
	c.limit(2, "user/2")
	c.inUse(3)
	c.limit(2, CountUser)
	c.inUse(1)
}

// TestUsesByLabel: leases share by a label where the licence names it, of one user alone. One without the label, or
// with an empty one, counts for itself; a co-holder states none, and counts by the lease's.
func TestUsesByLabel(t *testing.T) {
	c := newCounted(t, 9, "user+label:display")
	take := func(id byte, uid uint32, display string) {
		t.Helper()
		d := c.do(&Acquire{ID: LeaseID{id}, Caller: Caller{UID: uid, PID: int32(id), Start: 1}, Pool: "a", N: 1,
			Lifetime: LifetimeProcess, Labels: map[string]string{"display": display, "job": string(rune(id))}})
		if d.Denial != nil {
			t.Fatal(d.Denial)
		}
	}
	take(1, 7, ":0")
	take(2, 7, ":0")
	c.inUse(1)
	take(3, 7, ":1")
	c.inUse(2)
	take(4, 8, ":0")
	c.inUse(3)
	take(5, 7, "")
	take(6, 7, "")
	c.inUse(5)
	if d := c.do(&Join{ID: LeaseID{1}, Caller: Caller{UID: 7, PID: 20, Start: 1}}).Denial; d != nil {
		t.Error(d)
	}
	c.do(&Leave{ID: LeaseID{1}, Holder: Caller{UID: 7, PID: 1, Start: 1}})
	c.inUse(5)
}

// TestSharersDoNotWait: a waiter whose unit has got the slots meanwhile is served at once, though others wait before
// it, with and without rules of the site; it takes nothing from them.
func TestSharersDoNotWait(t *testing.T) {
	for _, ruled := range []bool{false, true} {
		c := newCounted(t, 1, "user+label:display")
		if ruled {
			c.do(&SetPolicies{NewPolicies([]Policy{{Name: "far", Match: Match{User: []Glob{{Text: "x"}}}, Max: 9}})})
		}
		wait := func(id byte, uid uint32, display string) {
			d := c.do(&Acquire{ID: LeaseID{id}, Caller: Caller{UID: uid, PID: int32(id), Start: 1}, Pool: "a", N: 1,
				Lifetime: LifetimeProcess, Labels: map[string]string{"display": display}, Wait: time.Hour})
			if id > 1 && d.Waiter == nil {
				t.Fatalf("%+v", d)
			}
		}
		wait(1, 9, ":9")
		wait(2, 7, ":0")
		wait(3, 8, ":0")
		wait(4, 7, ":1")
		wait(5, 7, ":0")
		c.do(&Release{ID: LeaseID{1}, Caller: Caller{UID: 9, PID: 1, Start: 1}})
		var served []LeaseID
		for d := c.do(&Serve{Among: []string{"a"}}); d.Lease != nil; d = c.do(&Serve{Among: []string{"a"}}) {
			served = append(served, d.Lease.ID)
		}
		if len(served) != 2 || served[0] != (LeaseID{2}) || served[1] != (LeaseID{5}) {
			t.Errorf("with rules %v: %v are served", ruled, served)
		}
		c.inUse(1)
	}
}

// TestGroupsCountAlike: a group counts the fewest slots that its leases fit in, whatever order they came in, and reach
// is what costs no more than is free.
func TestGroupsCountAlike(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		g := group{most: rapid.Int64Range(0, 3).Draw(t, "most")}
		var all []int64
		for range rapid.IntRange(1, 12).Draw(t, "steps") {
			if len(all) > 1 && rapid.IntRange(0, 2).Draw(t, "ends") == 0 {
				i := rapid.IntRange(0, len(all)-1).Draw(t, "which")
				g.change(all[i], -1)
				all = append(all[:i], all[i+1:]...)
			} else {
				n := rapid.Int64Range(1, 5).Draw(t, "n")
				g.change(n, 1)
				all = append(all, n)
			}
			m := model{pools: map[string]PoolGrant{"a": {CountBy: CountUser}}}
			if g.most > 0 {
				m.pools["a"] = PoolGrant{CountBy: CountUser + CountBy("/"+string(rune('0'+g.most)))}
			}
			if want := m.shared("a", append([]int64{}, all...)); g.total != want {
				t.Fatalf("%v by %d count %d, want %d", all, g.most, g.total, want)
			}
			spare := rapid.Int64Range(0, 4).Draw(t, "spare")
			n := g.reach(spare)
			if g.with(n, 1)-g.total > spare && n > 0 || g.with(n+1, 1)-g.total <= spare {
				t.Fatalf("%v by %d reach %d of %d", all, g.most, n, spare)
			}
		}
	})
}
