package desk

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/usher-agent/usher/enforcer"
)

// queued is a desk where acquires wait for two pools that are full: of user n the nth, each third for both. The rules
// put user 5 first.
func queued(t *testing.T, n uint32) *hostOf {
	t.Helper()
	d := newHostOf(t)
	d.SetVerdict(&enforcer.Verdict{State: enforcer.StateValid, Code: enforcer.Valid,
		Pools: map[string]enforcer.PoolGrant{"a": {Name: "a", Limit: 1, Budget: 1, Most: 1},
			"b": {Name: "b", Limit: 1, Budget: 1, Most: 1}}}, 0)
	d.SetPolicies(enforcer.NewPolicies([]enforcer.Policy{{Name: "first", Priority: 7,
		Match: enforcer.Match{UID: []enforcer.UIDs{{First: 5, Last: 5}}}}}))
	for uid := range n + 1 {
		r := &enforcer.Acquire{Caller: enforcer.Caller{UID: uid}, Lifetime: enforcer.LifetimeHeld, Wait: time.Hour,
			Labels: map[string]string{"job": fmt.Sprint(uid)}, Items: []enforcer.Item{{Pool: "a", N: 1}}}
		if uid%3 == 0 {
			r.Items = append(r.Items, enforcer.Item{Pool: "b", N: 1})
		}
		if a := d.begin(r, nil); (a.answer == nil) != (uid == 0) {
			t.Fatalf("user %d: %+v", uid, a.out)
		}
	}
	return d
}

// told says what a list has: of each the user, the place and the places by item, and its priority.
func told(all []*enforcer.InQueue, more bool) (out []string) {
	for _, q := range all {
		out = append(out, fmt.Sprintf("%d at %d %v +%d", q.Request.Caller.UID, q.Position, q.Positions, q.Priority))
	}
	if more {
		out = append(out, "more")
	}
	return out
}

// Who waits is listed in the order of all queues, the first so many, and of some users alone at the places that they
// have among all.
func TestQueueIsListedInItsOrder(t *testing.T) {
	d := queued(t, 6)
	all := []string{"5 at 1 [1] +7", "1 at 2 [2] +0", "2 at 3 [3] +0", "3 at 4 [4 1] +0", "4 at 5 [5] +0",
		"6 at 6 [6 2] +0"}
	if got := told(d.Queue(nil, 6)); !slices.Equal(got, all) {
		t.Errorf("all: %q", got)
	}
	if got := told(d.Queue(nil, 2)); !slices.Equal(got, append(all[:2:2], "more")) {
		t.Errorf("two: %q", got)
	}
	own := func(w *enforcer.Waiter) bool { return w.Request.Caller.UID >= 4 }
	if got := told(d.Queue(own, 3)); !slices.Equal(got, []string{all[0], all[4], all[5]}) {
		t.Errorf("of some users: %q", got)
	}
	if got := told(d.Queue(own, 1)); !slices.Equal(got, []string{all[0], "more"}) {
		t.Errorf("one of some users: %q", got)
	}
}

// A list takes the lock for some at a time: who leaves meanwhile is not on it, new rules have it begun again, and it
// keeps few however many wait.
func TestQueueIsListedInSteps(t *testing.T) {
	const many = 5 * placesStep
	d := queued(t, many)
	met := 0
	meanwhile := func(of uint32, do func(w *enforcer.Waiter)) []string {
		met = 0
		return told(d.Queue(func(w *enforcer.Waiter) bool {
			if met++; w.Request.Caller.UID == of && do != nil { // the lock is free
				do(w)
				do = nil
			}
			return true
		}, 20))
	}
	got := meanwhile(5, func(w *enforcer.Waiter) { d.Do(&enforcer.Cancel{ID: w.ID}) })
	if len(got) != 20 || !strings.HasPrefix(got[0], "1 at 2 ") || got[19] != "more" {
		t.Errorf("when the first has left after it was met: %q", got)
	}
	got = meanwhile(7, func(*enforcer.Waiter) { d.SetPolicies(nil) })
	if len(got) != 21 || met < many || got[0] != "1 at 1 [1] +0" || got[20] != "more" {
		t.Errorf("under new rules, after %d were met: %q", met, got)
	}
}
