package inspect

import (
	"strings"
	"testing"

	"github.com/usher-agent/usher/agent/config"
	"github.com/usher-agent/usher/enforcer"
)

// A check without an agent names a dialect that there is not.
func TestInspectNamesUnknownDialects(t *testing.T) {
	c, err := config.Load(config.Source{Data: []byte("listeners: [{address: /run/a, dialect: plain}]\n")})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Configured(c); err == nil ||
		!strings.Contains(err.Error(), `there is no dialect "plain" (known: `) {
		t.Errorf("a check says %v", err)
	}
}

// A check says of a site's pools that they cannot be handed out, unless a fleet gives them.
func TestFromFleet(t *testing.T) {
	v := &enforcer.Verdict{Pools: map[string]enforcer.PoolGrant{
		"streams": {Name: "streams", NotShared: "it is a whole site's"}, "own": {Name: "own"}},
		Meters: map[string]enforcer.MeterGrant{"renders": {Name: "renders", NotShared: "it is a whole site's"}}}
	for section, want := range map[string]bool{
		"{}":                                  false,
		"{endpoints: ['http://127.0.0.1:1']}": true,
		"{endpoints: ['http://127.0.0.1:1'], pools: [streams, renders]}": true,
		"{endpoints: ['http://127.0.0.1:1'], pools: [streams]}":          false,
	} {
		c, err := config.Load(config.Source{Data: []byte("fleet: " + section + "\n")})
		if err != nil {
			t.Fatal(err)
		}
		if got := fromFleet(c, v); got != want {
			t.Errorf("%s: %t", section, got)
		}
	}
}
