package main

import (
	"strings"
	"testing"
	"time"

	"github.com/usher-agent/usher/agent/fleet"
)

// A site server refuses flags of a fleet that could only fail later, as an agent does with the keys of its
// configuration; also those that nothing would look at.
func TestFlagsOfAServersFleet(t *testing.T) {
	t.Parallel()
	for want, change := range map[string]func(*fleetFlags){
		"": func(*fleetFlags) {},
		`--fleet-endpoint has "etcd-1:2379", and needs`:    func(o *fleetFlags) { o.endpoints[0] = "etcd-1:2379" },
		`--fleet-endpoint has "https://e:99999", and`:      func(o *fleetFlags) { o.endpoints[0] = "https://e:99999" },
		"must speak TLS, or none":                          func(o *fleetFlags) { o.endpoints[1] = "https://e-2:2379" },
		`--fleet-prefix is "usher", and must begin`:        func(o *fleetFlags) { o.prefix = "usher" },
		"--fleet-ttl is 1h, and must be from 5s to 10m":    func(o *fleetFlags) { o.ttl = time.Hour },
		"--fleet-name is":                                  func(o *fleetFlags) { o.name = "a\nb" },
		"--fleet-endpoint is missing, and the other flags": func(o *fleetFlags) { o.endpoints = nil },
	} {
		o := fleetFlags{endpoints: []string{"http://e-1:2379", "http://e-2:2379"}, prefix: "/u/",
			ttl: fleet.DefaultTTL, name: "site-1"}
		change(&o)
		life := time.Hour
		way, err := o.open(true, &life, true)
		if want == "" && (err != nil || way.Name != "site-1") || want != "" && (err == nil ||
			!strings.Contains(err.Error(), want)) {
			t.Errorf("%v, want %q", err, want)
		}
	}
}
