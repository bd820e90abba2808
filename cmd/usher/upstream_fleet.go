package main

import (
	"cmp"
	"os"
	"time"

	"github.com/spf13/pflag"

	"github.com/usher-agent/usher/agent/config"
	"github.com/usher-agent/usher/agent/fleet"
	"github.com/usher-agent/usher/agent/fleetway"
	"github.com/usher-agent/usher/agent/naming"
	"github.com/usher-agent/usher/agent/registrar"
	"github.com/usher-agent/usher/enforcer"
)

// fleetFlags are the flags of a site server that has its slots from a fleet.
type fleetFlags struct {
	endpoints         []string
	prefix, name      string
	ttl               time.Duration
	user, password    string
	ca, cert, certKey string
	labels            []string
}

func (o *fleetFlags) add(f *pflag.FlagSet) {
	f.StringArrayVar(&o.endpoints, "fleet-endpoint", nil,
		"a member of the etcd of a fleet, from which this site server has its slots; may be repeated (default: the "+
			"server has all that licences grant)")
	f.StringVar(&o.prefix, "fleet-prefix", naming.FleetPrefix(), "what the names of the fleet's keys begin with")
	spanVar(f, &o.ttl, "fleet-ttl", fleet.DefaultTTL, fleet.MinTTL,
		"how long the server may go on without etcd; --block-ttl is at least six times as long")
	f.StringVar(&o.name, "fleet-name", "", "this server's name, which no other of the fleet has (default: the host's)")
	f.StringArrayVar(&o.labels, "fleet-label", nil,
		"a label of this server, such as site=berlin, by which the fleet's rules count what it and its agents have; "+
			"may be repeated")
	f.StringVar(&o.user, "fleet-user", "", "the user of etcd (default: none)")
	f.StringVar(&o.password, "fleet-password-file", "", "a file with its password")
	f.StringVar(&o.ca, "fleet-ca", "", "the CA of etcd's certificates, in PEM (default: those of the system)")
	f.StringVar(&o.cert, "fleet-cert", "", "a client certificate for etcd, in PEM")
	f.StringVar(&o.certKey, "fleet-key", "", "the key of --fleet-cert")
}

// open makes the way to the fleet; nil: there is none. Where blockTTL was not stated, it becomes as long as it must be.
func (o *fleetFlags) open(pools bool, blockTTL *time.Duration, stated bool) (*registrar.Fleet, error) {
	if len(o.endpoints) == 0 {
		if len(o.labels) > 0 || o.name+o.user+o.password+o.ca+o.cert+o.certKey != "" {
			return nil, usage("--fleet-endpoint is missing, and the other flags of a fleet are for it; give it, or " +
				"leave them out")
		}
		return nil, nil
	}
	if err := o.check(); err != nil {
		return nil, err
	}
	out := &registrar.Fleet{Prefix: o.prefix, TTL: o.ttl, Name: o.name}
	var err error
	if out.Labels, err = labelsFrom(o.labels); err != nil {
		return nil, err
	}
	least := out.LeastBlockTTL()
	if !stated {
		*blockTTL = max(*blockTTL, least)
	}
	switch {
	case !pools:
		return nil, usage("--fleet-endpoint is for a site server: add --serve-pools")
	case *blockTTL < least:
		return nil, usage("--block-ttl is %s, and must be at least six times --fleet-ttl, %s: an agent whose site "+
			"server has died finds another within it", enforcer.Span(*blockTTL), enforcer.Span(least))
	case (o.cert == "") != (o.certKey == ""):
		return nil, usage("--fleet-cert and --fleet-key go together")
	case (o.user == "") != (o.password == ""):
		return nil, usage("--fleet-user and --fleet-password-file go together")
	}
	if out.Name == "" {
		out.Name, _ = os.Hostname()
	}
	out.Way = fleetway.Way{Endpoints: o.endpoints, User: o.user,
		Password: fleetway.File{Setting: "--fleet-password-file", Path: o.password},
		CA:       fleetway.File{Setting: "--fleet-ca", Path: o.ca},
		Cert:     fleetway.File{Setting: "--fleet-cert", Path: o.cert},
		Key:      fleetway.File{Setting: "--fleet-key", Path: o.certKey},
		Read:     readText}
	_, _, err = out.Way.Open()
	return out, err
}

// check looks at the flags that say how etcd is reached, as an agent does at the same keys of its configuration.
func (o *fleetFlags) check() error {
	flags := map[string]string{"endpoints": "--fleet-endpoint"}
	is := config.Fleet{Endpoints: o.endpoints, Prefix: o.prefix, TTL: config.Duration(o.ttl), Name: o.name}
	for _, x := range is.Faults() {
		return usage("%s", x.Of(cmp.Or(flags[x.Key], "--fleet-"+x.Key)))
	}
	return nil
}
