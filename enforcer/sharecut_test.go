package enforcer

import (
	"strings"
	"testing"
	"time"
)

// Where an operator has the host take no slots, a denial for want of a share says so, and does not have anybody wait.
func TestDenialOfADrainedHost(t *testing.T) {
	const end = "`usher fleet drain --undo k`"
	for name, d := range map[string]*Denial{
		"a share": {Code: NoSlots, Site: 4, Detail: "full", Hint: "wait"}, "none": {Code: NotShared, Detail: "full"},
	} {
		if said := d.Drained(end); !strings.Contains(said.Detail, "full; an operator has this host give its slots") ||
			!strings.HasSuffix(said.Hint, end) || strings.Contains(said.Hint, "wait (") || said.Code != d.Code {
			t.Errorf("%s: %+v", name, said)
		}
	}
	for _, d := range []*Denial{{Code: NoSlots, Detail: "full"}, {Code: Forbidden, Site: 4}} {
		if d.Drained(end) != d {
			t.Errorf("%+v is none for want of a share", d)
		}
	}
}

// Of a licence whose pools have their shares from different sides, a denial and a warning name the one that fails, and
// of which pools, and say nothing of the others.
func TestWhoFailsIsNamed(t *testing.T) {
	f := factsWith(doc("a.lic", unbound, streams(4), func(l *License) {
		l.Pools["seats"], l.Pools["cores"] = l.Pools["streams"], l.Pools["streams"]
	}))
	f.Budgets = map[Share]Limit{{"usher/L1", "streams"}: 0, {"usher/L1", "seats"}: 0, {"usher/L1", "cores"}: 0}
	fails := Failing{"transient", "no leader", "", noon, "the fleet"}
	f.SharesFailing = map[Share]Failing{{"usher/L1", "streams"}: fails, {"usher/L1", "cores"}: fails}
	v := Judge(f, noon)
	if got := warned(v, WarnSiteServer); len(got) != 1 ||
		!strings.Contains(got[0], "cores, streams: calls to the fleet fail since") {
		t.Errorf("the warnings are %q", got)
	}
	e := New(Options{})
	for _, ev := range e.Decide(&SetVerdict{v}, noon).Events {
		e.Apply(ev)
	}
	for pool, fails := range map[string]bool{"streams": true, "cores": true, "seats": false} {
		d := e.Decide(&Acquire{ID: LeaseID{1}, Pool: pool, N: 1, Lifetime: LifetimeHeld}, noon).Denial
		if d == nil || strings.Contains(d.Detail, "the fleet fail") != fails {
			t.Errorf("%s: %+v", pool, d)
		}
	}
}

// That a share cannot be asked for changes nothing of how long a verdict holds, and of what comes then.
func TestFailingSharesChangeNoTimes(t *testing.T) {
	f := factsWith(doc("a.lic", unbound, streams(4), func(l *License) { l.Expires = noon.AddDate(0, 0, 60) }))
	f.Budgets = map[Share]Limit{{"usher/L1", "streams"}: 0}
	want := Judge(f, noon)
	f.SharesFailing = map[Share]Failing{{"usher/L1", "streams"}: {"transient", "no leader", "", noon, ""}}
	is := Judge(f, noon)
	if want.Until.IsZero() || !is.Until.Equal(want.Until) || len(is.Next) != len(want.Next) {
		t.Errorf("until %v with %d to come, want %v with %d", is.Until, len(is.Next), want.Until, len(want.Next))
	}
}

// Where whoever gives the share of a site cannot be asked, a denial says so: since when, why, and what to do.
func TestDenialNamesWhoIsCutOff(t *testing.T) {
	for name, c := range map[string]struct {
		budgets map[Share]Limit
		code    DenialCode
	}{
		"the share is used up": {map[Share]Limit{{"usher/L1", "streams"}: 0}, NoSlots},
		"there was never any":  {nil, NotShared},
	} {
		t.Run(name, func(t *testing.T) {
			f := factsWith(doc("a.lic", unbound, streams(4)))
			f.Budgets = c.budgets
			says := "of the site fail since 2026-01-05 11:59 UTC: https://etcd-1:2379: nobody listens there; start it"
			for _, failing := range []Failing{{}, {"transient", "https://etcd-1:2379: nobody listens there", "start it",
				noon.Add(-time.Minute), ""}} {
				f.SharesFailing = map[Share]Failing{{"usher/L1", "streams"}: failing}
				e := New(Options{})
				for _, ev := range e.Decide(&SetVerdict{Judge(f, noon)}, noon).Events {
					e.Apply(ev)
				}
				d := e.Decide(&Acquire{ID: LeaseID{1}, Pool: "streams", N: 1, Lifetime: LifetimeHeld}, noon).Denial
				if d == nil || d.Code != c.code || strings.Contains(d.Detail, says) != (failing.Class != "") {
					t.Errorf("of %+v: %+v", failing, d)
				}
				if d.Code == NotShared && strings.Contains(d.Hint, "use a site server") != (failing.Class == "") {
					t.Errorf("of %+v the hint is %q", failing, d.Hint)
				}
			}
		})
	}
}
