package desk

import (
	"fmt"
	"testing"
	"time"

	"github.com/usher-agent/usher/enforcer"
)

// The leases that bear a label are at hand, of whichever caller they are: those that there are when it is first
// followed, after each grant and end, and over compactions and restarts. Nobody keeps those of other labels.
func TestLabelledLeases(t *testing.T) {
	t.Parallel()
	k := openKept(t)
	now := 0
	get := func(uid uint32, life enforcer.Lifetime, labels map[string]string) enforcer.LeaseID {
		t.Helper()
		k.wall = k.wall.Add(time.Second)
		l, _, d := k.get(enforcer.Acquire{Pool: "streams", Lifetime: life, Caller: enforcer.Caller{UID: uid},
			Labels: labels})
		if d != nil {
			t.Fatal(d)
		}
		return l.ID
	}
	want := func(jobs ...string) {
		t.Helper()
		got := []string{}
		for _, l := range k.Labelled("job") {
			got = append(got, l.Holder.Labels["job"])
		}
		if fmt.Sprint(got) != fmt.Sprint(jobs) {
			t.Errorf("the jobs are %v, and should be %v", got, jobs)
		}
	}
	first := get(1000, enforcer.LifetimeHeld, map[string]string{"job": "7", "team": "a"})
	if want(); k.labels != nil {
		t.Error("a label is kept that nobody follows")
	}
	k.Follow("job", func() { now++ })
	want("7")
	second := get(1001, enforcer.LifetimeTTL, map[string]string{"job": "6"})
	get(1001, enforcer.LifetimeHeld, map[string]string{"team": "b"})
	if want("7", "6"); now != 1 || len(k.Labelled("team")) != 0 {
		t.Errorf("%d changes were told; by a label that nobody follows there are %d", now, len(k.Labelled("team")))
	}
	k.restart(true, false)
	if want(); len(k.labels) != 0 {
		t.Error("a new desk keeps a label that nobody follows yet")
	}
	k.Follow("job", nil)
	k.Follow("job", func() { now++ })
	want("7", "6")
	if d := k.Release(&enforcer.Release{ID: first, Caller: enforcer.Caller{UID: 1000}}); d != nil {
		t.Fatal(d)
	}
	want("6")
	if d := k.Release(&enforcer.Release{ID: second, Caller: enforcer.Caller{UID: 1001}}); d != nil {
		t.Fatal(d)
	}
	if want(); now != 3 {
		t.Errorf("%d changes were told", now)
	}
}
