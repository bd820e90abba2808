package shares

import (
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
// others have all.
func TestFailingIsTold(t *testing.T) {
	at := func(n int) time.Time { return time.Unix(int64(n), 0) }
	e := &entry[*Pool]{named: true}
	l := ledger[*Pool]{entries: map[enforcer.Ref]*entry[*Pool]{"usher/L1": e}}
	e.heard(&plugin.Error{Class: plugin.Transient, Reason: "connection refused"}, at(1))
	e.heard(&plugin.Error{Class: plugin.Transient, Reason: "no route", Hint: "start it"}, at(2))
	out := map[enforcer.Ref]enforcer.Failing{}
	l.faults(out)
	if got := out["usher/L1"]; got != (enforcer.Failing{Class: "transient", Reason: "no route", Hint: "start it",
		Since: at(1)}) {
		t.Errorf("failing %+v", got)
	}
	e.heard(&plugin.Error{Class: plugin.Misconfigured, SystemCode: plugin.SystemFull}, at(3))
	clear(out)
	if l.faults(out); len(out) != 0 {
		t.Errorf("a server that answers is failing: %+v", out)
	}
}
