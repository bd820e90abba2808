package agent

import (
	"strings"
	"testing"

	"github.com/usher-agent/usher/agent/config"
	"github.com/usher-agent/usher/enforcer"
)

// A pool of the fleet that no licence has is told of, with its place and the pools that there are; without a licence
// nothing is known.
func TestFleetRemarks(t *testing.T) {
	c, err := config.Load(config.Source{File: "u.yaml", Data: []byte(
		"fleet:\n  endpoints: ['http://127.0.0.1:1']\n  pools: [streams, stremas]\n")})
	if err != nil {
		t.Fatal(err)
	}
	v := &enforcer.Verdict{Pools: map[string]enforcer.PoolGrant{"streams": {}},
		Meters: map[string]enforcer.MeterGrant{"renders": {}}}
	got := FleetRemarks(c, v)
	if len(got) != 1 || !strings.Contains(got[0], `u.yaml:3: fleet.pools[1] is "stremas"`) ||
		!strings.Contains(got[0], "renders, streams") {
		t.Errorf("%q", got)
	}
	if got := FleetRemarks(c, &enforcer.Verdict{}); got != nil {
		t.Errorf("without a licence: %q", got)
	}
}
