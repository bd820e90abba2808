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

// Keys that have no effect, or a bad one, beside others are told of, each with its place.
func TestFleetKeysBesideOthers(t *testing.T) {
	for _, row := range [][2]string{
		{"{endpoints: ['https://e:1'], ca_file: a, cert_file: b, key_file: c, user: u, password_file: p}", ""},
		{"{endpoints: ['http://127.0.0.1:1', 'http://localhost:1'], user: u, password_file: p}", ""},
		{"{endpoints: ['http://e:1'], user: u, password_file: p}", "fleet.password_file is read"},
		{"{endpoints: ['http://e:1'], ca_file: a}", "fleet.ca_file is for TLS, and is not used"},
		{"{endpoints: ['http://e:1'], cert_file: b, key_file: c}", "fleet.cert_file is for TLS, and is not used"},
		{"{endpoints: ['http://e:1'], keep_held: 5m}", "fleet.keep_held is not used"},
		{"{endpoints: ['http://e:1'], keep_held: 5m, on_partition: keep_held}", ""},
	} {
		section, want := row[0], row[1]
		c, err := config.Load(config.Source{File: "u.yaml", Data: []byte("fleet: " + section + "\n")})
		if err != nil {
			t.Fatal(err)
		}
		got := strings.Join(FleetRemarks(c, &enforcer.Verdict{}), "; ")
		if want == "" && got != "" || want != "" && !strings.HasPrefix(got, "u.yaml:1: "+want) {
			t.Errorf("%s: %q, want %q", section, got, want)
		}
	}
}
