package enforcer

import (
	"strings"
	"testing"
	"time"
)

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
			says := "does not answer since 2026-01-05 11:59 UTC: https://etcd-1:2379: nobody listens there; start it"
			for _, failing := range []Failing{{}, {"transient", "https://etcd-1:2379: nobody listens there", "start it",
				noon.Add(-time.Minute)}} {
				f.SharesFailing = map[Ref]Failing{"usher/L1": failing}
				e := New(Options{})
				for _, ev := range e.Decide(&SetVerdict{Judge(f, noon)}, noon).Events {
					e.Apply(ev)
				}
				d := e.Decide(&Acquire{ID: LeaseID{1}, Pool: "streams", N: 1, Lifetime: LifetimeHeld}, noon).Denial
				if d == nil || d.Code != c.code || strings.Contains(d.Detail, says) != (failing.Class != "") {
					t.Errorf("of %+v: %+v", failing, d)
				}
			}
		})
	}
}
