// Package fleettest says what a store of the fleet must do, as a test: the simulated one, Debian's etcd and a current
// one are tried by it.
package fleettest

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/usher-agent/usher/agent/fleet"
)

func has(key, value string) fleet.Is { return fleet.Is{Key: key, Value: &value} }

func absent(key string) fleet.Is { return fleet.Is{Key: key, Absent: true} }

func still(key string, mod int64) fleet.Is { return fleet.Is{Key: key, Absent: mod == 0, Mod: mod} }

// Store tries a store that is empty below /c/ and /d/.
func Store(t *testing.T, s fleet.Store) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	do := func(x *fleet.Txn) *fleet.Result {
		t.Helper()
		res, err := s.Txn(ctx, x)
		if err != nil {
			t.Fatal(err)
		}
		return res
	}
	empty := do(&fleet.Txn{Then: []fleet.Op{{Get: "/c/a"}, {List: "/c/"}}})
	if !empty.Done || len(empty.Got) != 2 || len(empty.Got[0])+len(empty.Got[1]) != 0 {
		t.Fatalf("an empty store: %+v", empty)
	}
	changes := s.Watch(ctx, "/c/w/", empty.Rev)
	one := do(&fleet.Txn{If: []fleet.Is{absent("/c/b")},
		Then: []fleet.Op{{Put: "/c/b", Value: "1"}, {Put: "/c/w/x", Value: "y"}}})
	two := do(&fleet.Txn{If: []fleet.Is{has("/c/b", "1"), still("/c/b", one.Rev), absent("/c/a")},
		Then: []fleet.Op{{Put: "/c/a", Value: "2"}}})
	if !one.Done || !two.Done || two.Rev != one.Rev+1 || two.Cluster == 0 || two.Cluster != empty.Cluster {
		t.Fatalf("%+v, %+v", one, two)
	}
	got := do(&fleet.Txn{If: []fleet.Is{absent("/c/b")}, Then: []fleet.Op{{Put: "/c/b", Value: "no"}},
		Else: []fleet.Op{{List: "/c/"}, {List: "/c/", Most: 1}, {Get: "/c/a"}}})
	if got.Done || fmt.Sprint(got.Got) !=
		fmt.Sprintf("[[{/c/b 1 %d %[1]d 0} {/c/w/x y %[1]d %[1]d 0} {/c/a 2 %d %[2]d 0}] "+
			"[{/c/b 1 %[1]d %[1]d 0}] [{/c/a 2 %[2]d %[2]d 0}]]", one.Rev, two.Rev) {
		t.Fatalf("a refused transaction reads %v", got.Got)
	}
	if n := do(&fleet.Txn{Then: []fleet.Op{{Count: "/c/"}, {Count: "/d/"}, {Get: "/c/a"}}}); fmt.Sprint(n.Counted) !=
		"[3 0]" || len(n.Got) != 1 {
		t.Errorf("counts are %v, beside %v", n.Counted, n.Got)
	}
	for _, c := range []struct {
		is   fleet.Is
		done bool
	}{{has("/c/b", "2"), false}, {has("/c/none", ""), false}, {still("/c/b", one.Rev+1), false},
		{absent("/c/b"), false},
		{still("/c/none", 0), true}, {fleet.Is{Prefix: "/c/", Unchanged: two.Rev}, true},
		{fleet.Is{Prefix: "/c/", Unchanged: one.Rev}, false}, {fleet.Is{Prefix: "/d/", Unchanged: 1}, true}} {
		if res := do(&fleet.Txn{If: []fleet.Is{c.is}}); res.Done != c.done {
			t.Errorf("%+v: %v", c.is, res.Done)
		}
	}
	do(&fleet.Txn{Then: []fleet.Op{{Put: "/c/b", Value: "3"}, {Delete: "/c/none"}}})
	if kv := do(&fleet.Txn{Then: []fleet.Op{{Get: "/c/b"}}}).Got[0][0]; kv.Create != one.Rev || kv.Mod != two.Rev+1 {
		t.Errorf("a key that was changed: %+v", kv)
	}
	then := do(&fleet.Txn{Then: []fleet.Op{{Delete: "/c/a"}}})
	old := do(&fleet.Txn{Then: []fleet.Op{{Get: "/c/b", Rev: two.Rev}, {Get: "/c/a", Rev: one.Rev},
		{Get: "/c/a", Rev: two.Rev},
		{Get: "/c/a"}}})
	if fmt.Sprint(old.Got) != fmt.Sprintf("[[{/c/b 1 %d %[1]d 0}] [] [{/c/a 2 %d %[2]d 0}] []]", one.Rev, two.Rev) {
		t.Errorf("earlier revisions have %v", old.Got)
	}
	if _, err := s.Txn(ctx, &fleet.Txn{Then: []fleet.Op{{Get: "/c/a", Rev: then.Rev + 9}}}); err == nil {
		t.Error("a revision that is to come is read")
	}
	leases(t, ctx, s, do, changes)
}

// leases is what a store does with leases, and tells of in a watch.
func leases(t *testing.T, ctx context.Context, s fleet.Store, do func(*fleet.Txn) *fleet.Result,
	changes <-chan fleet.Change) {
	lease, ttl, err := s.Grant(ctx, 2*time.Second)
	if err != nil || ttl < 2*time.Second {
		t.Fatalf("a lease of %v s: %v", ttl.Seconds(), err)
	}
	do(&fleet.Txn{Then: []fleet.Op{{Put: "/c/w/leased", Value: "z", Lease: lease}}})
	if ttl, late, err := s.Renew(ctx, lease); err != nil || late < 0 || late > time.Minute || ttl < 2*time.Second {
		t.Fatalf("a lease of %v s: %v", ttl.Seconds(), err)
	}
	if _, err := s.Txn(ctx, &fleet.Txn{Then: []fleet.Op{{Put: "/c/x", Value: "z", Lease: 12345}}}); err == nil {
		t.Error("a lease that is not there is taken")
	}
	for _, want := range []string{"/c/w/x false", "/c/w/leased false", "/c/w/leased true"} { // the lease ends by itself
		for {
			if len(want) > 12 && want[len(want)-4:] == "true" {
				// the simulated store ends leases when it is asked
				do(&fleet.Txn{Then: []fleet.Op{{Get: "/c/w/leased"}}})
			}
			select {
			case c := <-changes:
				if got := fmt.Sprint(c.Key, " ", c.Deleted); got != want {
					t.Fatalf("the watch tells %s, want %s", got, want)
				}
			case <-time.After(50 * time.Millisecond):
				if ctx.Err() != nil {
					t.Fatal("the watch does not tell " + want)
				}
				continue
			}
			break
		}
	}
	if _, _, err := s.Renew(ctx, lease); !errors.Is(err, fleet.ErrLeaseGone) {
		t.Errorf("a lease that is over: %v", err)
	}
}
