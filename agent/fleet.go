package agent

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/usher-agent/usher/agent/clock"
	"github.com/usher-agent/usher/agent/config"
	"github.com/usher-agent/usher/agent/fleet"
	"github.com/usher-agent/usher/agent/seals"
	"github.com/usher-agent/usher/agent/shares"
	"github.com/usher-agent/usher/enforcer"
	"github.com/usher-agent/usher/metrics"
	"github.com/usher-agent/usher/plugin"
)

// openFleet joins the fleet that the configuration names, and has the keeper take shares from it.
func (o *opening) openFleet(c *shares.Config) error {
	cfg := o.cfg.Fleet
	if len(cfg.Endpoints) == 0 {
		return nil
	}
	store, err := DialFleet(o.cfg)
	if err != nil {
		return configured(err)
	}
	o.metrics.WithFleet(texts(fleet.Kinds), texts(fleet.Outcomes), texts(fleet.Faults))
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
		Observer: fleetObserver{o.metrics}, OnDrain: func() { o.shares.Nudge() },
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
	c.Fleet = func(l *enforcer.License, document []byte, b plugin.Budgeter, d plugin.Drawer) (
		plugin.Budgeter, plugin.Drawer) {
		var up plugin.Upstream
		if d != nil {
			up = d
		}
		return f.For(l, document, b, shared), f.DrawerFor(l, up, d, shared)
	}
	o.running.task("fleet", f.Run)
	o.running.task("files of the fleet", func(ctx context.Context) error { return o.renewFleet(ctx, store) })
	return nil
}

// DialFleet makes a client of the etcd that a configuration names. It connects when it is used. Its error is one of the
// configuration.
func DialFleet(c *config.Config) (*fleet.Etcd, error) {
	password, way, err := fleetWay(c)
	if err != nil {
		return nil, err
	}
	return fleet.Dial(c.Fleet.Endpoints, c.Fleet.User, password, way), nil
}

// fleetFilesEvery is how often the files that the way to etcd needs are looked at.
const fleetFilesEvery = 3 * time.Second

// renewFleet has the way to etcd use renewed files once they are good together, until ctx ends.
func (o *opening) renewFleet(ctx context.Context, store *fleet.Etcd) error {
	files := func() config.Contents {
		one := config.Config{Fleet: o.cfg.Fleet}
		return one.Contents()
	}
	used, refused := files(), false
	tick := time.NewTicker(fleetFilesEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		is := files()
		if maps.Equal(is, used) && !refused {
			continue
		}
		password, way, err := fleetWay(o.cfg)
		o.named.fileRefused("fleet", err)
		if refused = err != nil; refused {
			continue
		}
		used = is
		store.Use(password, way)
		o.log.Info("renewed files of the fleet are used from now on")
	}
}

// absentIsNothing returns nothing for a file that is not there.
func absentIsNothing(b []byte, err error) ([]byte, error) {
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	return b, err
}

// fleetWay reads the files that the way to etcd needs.
func fleetWay(c *config.Config) (password string, way *tls.Config, err error) {
	cfg := c.Fleet
	if cfg.PasswordFile != "" {
		b, err := c.ReadFile(cfg.PasswordFile, maxNamed)
		if err != nil {
			return "", nil, fmt.Errorf("fleet.password_file: %w", err)
		}
		password = strings.TrimSpace(string(b))
	}
	if !slices.ContainsFunc(cfg.Endpoints, func(at string) bool { return strings.HasPrefix(at, "https://") }) {
		return password, nil, nil
	}
	way = &tls.Config{MinVersion: tls.VersionTLS12}
	if cfg.CAFile != "" {
		b, err := c.ReadFile(cfg.CAFile, maxNamed)
		if err != nil {
			return "", nil, fmt.Errorf("fleet.ca_file: %w", err)
		}
		way.RootCAs = x509.NewCertPool()
		if !way.RootCAs.AppendCertsFromPEM(b) {
			return "", nil, errors.New("fleet.ca_file: " + cfg.CAFile + " holds no certificate in PEM")
		}
	}
	if cfg.CertFile != "" {
		cert, err := tls.LoadX509KeyPair(cfg.CertFile, cfg.KeyFile)
		if err != nil {
			return "", nil, fmt.Errorf("fleet.cert_file and fleet.key_file: %w", err)
		}
		way.Certificates = []tls.Certificate{cert}
	}
	return password, way, nil
}

// isFleets reports whether a pool or meter of a site is the fleet's.
func isFleets(cfg config.Fleet, pool string) bool {
	return len(cfg.Endpoints) > 0 && (len(cfg.Pools) == 0 || slices.Contains(cfg.Pools, pool))
}

// fleetDrains reports whether an operator has this host give its idle slots of a pool back to the fleet.
func (a *Agent) fleetDrains(pool string) bool {
	return a.fleet != nil && a.fleet.Drained() && isFleets(a.settings().Fleet, pool)
}

// fleetObserver counts what happens in a fleet.
type fleetObserver struct{ *metrics.Metrics }

func (o fleetObserver) Called(kind fleet.Kind, outcome fleet.Outcome, took time.Duration) {
	o.FleetCalled(string(kind), string(outcome), took)
}

func (o fleetObserver) Failed(f fleet.Fault) { o.FleetFailed(string(f)) }

func (o fleetObserver) Reaped(slots int64) { o.FleetReaped(slots) }

func (o fleetObserver) WatchEnded() { o.FleetWatchEnded() }

// fleetMetrics is what the metrics have of the fleet; nil: there is none.
func (a *Agent) fleetMetrics() *metrics.Fleet {
	if a.fleet == nil {
		return nil
	}
	s := a.fleet.Standing()
	out := &metrics.Fleet{State: string(s.State), States: texts(fleet.States), Fence: s.Fence, Members: s.Members,
		Quarantine: s.State == fleet.StateQuarantine, CutOff: s.Cut}
	for _, p := range s.Pools {
		out.Pools = append(out.Pools, metrics.FleetPool{Pool: p.Pool, Slots: p.Slots, Out: p.Out, Limit: p.Limit})
	}
	return out
}

// texts returns the values of a closed set as text.
func texts[T ~string](set []T) (out []string) {
	for _, v := range set {
		out = append(out, string(v))
	}
	return out
}
