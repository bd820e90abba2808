package agent

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/usher-agent/usher/agent/clock"
	"github.com/usher-agent/usher/agent/config"
	"github.com/usher-agent/usher/agent/fleet"
	"github.com/usher-agent/usher/agent/fleetway"
	"github.com/usher-agent/usher/agent/seals"
	"github.com/usher-agent/usher/agent/shares"
	"github.com/usher-agent/usher/enforcer"
	"github.com/usher-agent/usher/plugin"
)

// giveUpWithin bounds how long an agent that stops takes to say that it waits for no more slots.
const giveUpWithin = 2 * time.Second

// openFleet joins the fleet that the configuration names, and has the keeper take shares from it.
func (o *opening) openFleet(c *shares.Config) error {
	cfg := o.cfg.Fleet
	if len(cfg.Endpoints) == 0 {
		return nil
	}
	way := fleetWay(o.cfg)
	store, err := way.Dial()
	if err != nil {
		return configured(err)
	}
	counts := fleetway.Count()
	o.metrics.WithFleet(counts)
	o.running.closing(store.Close)
	record := seals.Sealed(o.seals.Runtime, seals.Nothing)
	path := filepath.Join(o.cfg.State.RuntimeDir, seals.FleetFile)
	name := cfg.Name
	if name == "" {
		name, _ = os.Hostname()
	}
	var keep time.Duration
	if cfg.OnPartition == config.PartitionKeep {
		keep = cfg.KeepHeld.Duration()
	}
	o.fleet, err = fleet.New(fleet.Config{Store: store, Agent: o.keyID, Prefix: cfg.Prefix, TTL: cfg.TTL.Duration(),
		Keep: keep, Revokes: enforcer.OnExpiry(o.cfg.License.OnExpiry) == enforcer.Revoke,
		Member: fleet.Member{Name: name, Version: o.options.Version,
			Labels: cfg.Labels}, Now: clock.Fence, Epoch: clock.Epoch(),
		Load: func() ([]byte, error) { return absentIsNothing(record.Read(path)) },
		Save: func(b []byte) error { return record.Write(path, b) }, Time: o.desk.Counted, Log: o.log,
		Observer: fleetway.Counted{FleetCounts: counts}, OnDrain: func() { o.shares.Nudge() },
		InUse: func(pool string) int64 { return o.poolDemand(pool).InUse },
		OnChange: func(err error) {
			if err != nil {
				o.log.Warn("the agent is not in the fleet; retrying", "reason", err)
			} else {
				o.log.Info("the agent is in the fleet", "agent", o.keyID)
			}
		}})
	if err != nil {
		return configured(fmt.Errorf("fleet: %w", err))
	}
	f, shared := o.fleet, func(pool string) bool { return isFleets(cfg, pool) }
	c.Giver = func(pool string) string {
		if shared(pool) {
			return "the fleet"
		}
		return ""
	}
	c.Fleet = func(l *enforcer.License, document []byte, b plugin.Budgeter, d plugin.Drawer) (
		plugin.Budgeter, plugin.Drawer) {
		var up plugin.Upstream
		if d != nil {
			up = d
		}
		return f.For(l, document, b, shared), f.DrawerFor(l, up, d, shared)
	}
	o.running.task("fleet", func(ctx context.Context) error {
		err := f.Run(ctx)
		stops, cancel := context.WithTimeout(context.WithoutCancel(ctx), giveUpWithin)
		defer cancel()
		f.GiveUp(stops)
		return err
	})
	o.running.task("files of the fleet", func(ctx context.Context) error {
		return way.Renew(ctx, store, func(err error) {
			if o.named.fileRefused("fleet", err); err == nil {
				o.log.Info("renewed files of the fleet are used from now on")
			}
		})
	})
	return nil
}

// DialFleet makes a client of the etcd that a configuration names. It connects when it is used. Its error is one of the
// configuration.
func DialFleet(c *config.Config) (*fleet.Etcd, error) { return fleetWay(c).Dial() }

// FleetIsSecure reports whether any address of the etcd that a configuration names is one of TLS.
func FleetIsSecure(c *config.Config) bool { return fleetWay(c).Secure() }

// fleetWay returns the way to the etcd that a configuration names.
func fleetWay(c *config.Config) *fleetway.Way {
	f := c.Fleet
	return &fleetway.Way{Endpoints: f.Endpoints, User: f.User,
		Password: fleetway.File{Setting: "fleet.password_file", Path: f.PasswordFile},
		CA:       fleetway.File{Setting: "fleet.ca_file", Path: f.CAFile},
		Cert:     fleetway.File{Setting: "fleet.cert_file", Path: f.CertFile},
		Key:      fleetway.File{Setting: "fleet.key_file", Path: f.KeyFile},
		Read:     func(path string) ([]byte, error) { return c.ReadFile(path, maxNamed) }}
}

// absentIsNothing returns nothing for a file that is not there.
func absentIsNothing(b []byte, err error) ([]byte, error) {
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	return b, err
}

// isFleets reports whether a pool or meter of a site is the fleet's.
func isFleets(cfg config.Fleet, pool string) bool {
	return len(cfg.Endpoints) > 0 && (len(cfg.Pools) == 0 || slices.Contains(cfg.Pools, pool))
}

// fleetDrains reports whether an operator has this host give its idle slots of a pool back to the fleet.
func (a *Agent) fleetDrains(pool string) bool {
	return a.fleet != nil && a.fleet.Drained() && isFleets(a.settings().Fleet, pool)
}

// fleetDrained returns what ends that an operator has this host drain a pool; empty: none has.
func (a *Agent) fleetDrained(pool string) string {
	if !a.fleetDrains(pool) {
		return ""
	}
	return a.fleet.UndoDrain()
}

// FleetRemarks returns what may not be meant so about the fleet of a configuration: pools that no licence has, and keys
// that have no effect, or a bad one, beside others.
func FleetRemarks(c *config.Config, v *enforcer.Verdict) (out []string) {
	has := slices.Concat(slices.Collect(maps.Keys(v.Pools)), slices.Collect(maps.Keys(v.Meters)))
	slices.Sort(has)
	for i, name := range c.Fleet.Pools {
		if len(has) == 0 || slices.Contains(has, name) {
			continue
		}
		key := fmt.Sprintf("fleet.pools[%d]", i)
		out = append(out, c.At(key, fmt.Errorf(
			"%s is %q, and no licence here has a pool or meter of that name; there are %s", key, name,
			strings.Join(has, ", "))).Error())
	}
	return append(out, fleetBeside(c)...)
}

// fleetBeside returns which keys of a fleet do not go with the others.
func fleetBeside(c *config.Config) (out []string) {
	f := c.Fleet
	say := func(key, text string) { out = append(out, c.At(key, errors.New(key+" "+text)).Error()) }
	if len(f.Endpoints) > 0 && !FleetIsSecure(c) {
		const unused = "is for TLS, and is not used: no address of fleet.endpoints begins with https://"
		if f.CAFile != "" {
			say("fleet.ca_file", unused)
		}
		if f.CertFile != "" {
			say("fleet.cert_file", unused)
		}
		if f.PasswordFile != "" && slices.ContainsFunc(f.Endpoints, isElsewhere) {
			say("fleet.password_file", "is read, and the password goes through the network in the clear; "+
				"have etcd speak TLS, and give addresses with https://")
		}
	}
	if f.OnPartition == config.PartitionStop && f.KeepHeld != config.Default().Fleet.KeepHeld {
		say("fleet.keep_held", "is not used: fleet.on_partition is stop, and no keep_held")
	}
	return out
}

// isElsewhere reports whether an address is of another host.
func isElsewhere(address string) bool {
	at, err := url.Parse(address)
	if err != nil {
		return false
	}
	ip := net.ParseIP(at.Hostname())
	return at.Hostname() != "localhost" && (ip == nil || !ip.IsLoopback())
}
