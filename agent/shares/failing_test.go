package shares

import (
	"maps"
	"testing"
	"time"

	"github.com/usher-agent/usher/enforcer"
	"github.com/usher-agent/usher/plugin"
)

// TestResultOf: that others have all slots is an answer, and no fault of the caller's.
func TestResultOf(t *testing.T) {
	for want, e := range map[string]*plugin.Error{
		"ok":            nil,
		"no_slots":      {Class: plugin.Misconfigured, SystemCode: plugin.SystemFull},
		"settling":      {Class: plugin.Transient, SystemCode: plugin.SystemSettling},
		"block_lapsed":  {Class: plugin.Transient, SystemCode: plugin.SystemLapsed},
		"no_pools":      {Class: plugin.Misconfigured, SystemCode: plugin.SystemNoPools},
		"refused":       {Class: plugin.Refused, SystemCode: plugin.SystemCloned},
		"transient":     {Class: plugin.Transient, SystemCode: "E42"},
		"misconfigured": {Class: plugin.Misconfigured},
	} {
		if got := resultOf(e); got != want {
			t.Errorf("%+v is the result %q, want %q", e, got, want)
		}
	}
}

// TestFailingIsTold: a server that does not answer is told with the reason and since when, until it answers, be it that
// others have all. Of pools that another gives it says nothing, nor does what that one answers end it.
func TestFailingIsTold(t *testing.T) {
	at := func(n int) time.Time { return time.Unix(int64(n), 0) }
	e := &entry[*Pool]{named: true, plans: map[string]*Pool{"streams": {}, "seats": {}, "cores": {}}}
	cfg := Config{Giver: func(pool string) string {
		if pool == "cores" {
			return "the fleet"
		}
		return ""
	}}
	l := ledger[*Pool]{cfg: &cfg, entries: map[enforcer.Ref]*entry[*Pool]{"usher/L1": e}}
	e.heard("", &plugin.Error{Class: plugin.Transient, Reason: "connection refused"}, at(1))
	e.heard("", &plugin.Error{Class: plugin.Transient, Reason: "no route", Hint: "start it"}, at(2))
	e.heard("the fleet", nil, at(2))
	server := enforcer.Failing{Class: "transient", Reason: "no route", Hint: "start it", Since: at(1)}
	fleet := enforcer.Failing{Class: "transient", Reason: "no leader", Since: at(4), Who: "the fleet"}
	want := func(want map[enforcer.Share]enforcer.Failing) {
		t.Helper()
		out := map[enforcer.Share]enforcer.Failing{}
		if l.faults(out); !maps.Equal(out, want) {
			t.Errorf("failing %+v, want %+v", out, want)
		}
	}
	of := func(pool string) enforcer.Share { return enforcer.Share{License: "usher/L1", Pool: pool} }
	want(map[enforcer.Share]enforcer.Failing{of("streams"): server, of("seats"): server})
	e.heard("the fleet", &plugin.Error{Class: plugin.Transient, Reason: "no leader"}, at(4))
	want(map[enforcer.Share]enforcer.Failing{of("streams"): server, of("seats"): server, of("cores"): fleet})
	e.heard("", &plugin.Error{Class: plugin.Misconfigured, SystemCode: plugin.SystemFull}, at(5))
	want(map[enforcer.Share]enforcer.Failing{of("cores"): fleet})
}
