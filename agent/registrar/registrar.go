// Package registrar runs the reference upstream as a server of its own: the registry, its listener and its metrics. It
// is no part of an agent, and shares only the binary with one. Start reading at [Run].
package registrar

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/usher-agent/usher/agent/clock"
	"github.com/usher-agent/usher/agent/fleetway"
	"github.com/usher-agent/usher/metrics"
	"github.com/usher-agent/usher/plugin"
	"github.com/usher-agent/usher/plugin/usher/issue"
	"github.com/usher-agent/usher/plugin/usher/registry"
)

// Socket is the name of the operators' socket in the data folder.
const Socket = "upstream.sock"

// Config is what Run needs.
type Config struct {
	Dir               string // of all files that the server keeps; made if missing
	Listen            string // host:port for agents
	MetricsListen     string // host:port for metrics, over plain HTTP; empty: none
	CertFile, KeyFile string // TLS; empty: plain HTTP
	Mutual            bool   // agents must show a certificate of their own key
	Signer            *issue.Signer
	Anchors           []plugin.Anchor // further keys that licences are signed with
	Machines          int64           // hosts of a licence that states no number; 0: any number
	RequireEnrolment  bool            // a new host needs a token; see registry.Config
	Site              bool            // Signer is a site server's own; see registry.Config
	Pools             bool            // serve blocks of slots
	BlockTTL          time.Duration   // the longest life of a block; zero: registry.DefaultBlockTTL
	Licences          string          // a file, or a folder of files, of licences to admit; empty: none
	Uptime            func() time.Duration
	Fleet             *Fleet // its slots are from a fleet; nil: it has all that licences grant
	Version           string // of this program, for people
	RunDir            string // does not outlive a start of the host; empty: see registry.Config
	Log               *slog.Logger
}

// Run serves until ctx ends.
func Run(ctx context.Context, c Config) (err error) {
	if err := os.MkdirAll(c.Dir, 0o700); err != nil {
		return fmt.Errorf("data folder: %w", err)
	}
	var g *registry.Registry
	var lends *broker
	m := metrics.NewRegistry(func() metrics.Kept { return kept(g, lends) })
	g, err = registry.Open(registry.Config{Dir: c.Dir, Signer: c.Signer, Anchors: c.Anchors, Site: c.Site,
		Machines: c.Machines, RequireEnrolment: c.RequireEnrolment, Log: c.Log, Answered: m.Answered,
		RunDir: c.RunDir, BootID: clock.BootID()})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, g.Close()) }()
	if c.Pools {
		if err := g.ServePools(c.BlockTTL, c.Uptime); err != nil {
			return err
		}
	}
	if c.Fleet != nil {
		if lends, err = newBroker(&c, g, c.Signer.Anchor.KeyID, m); err != nil {
			return fmt.Errorf("fleet: %w", err)
		}
	}
	dropped := folder{path: c.Licences, registry: g, log: c.Log, seen: map[[sha256.Size]byte]bool{}}
	if err := dropped.read(); err != nil {
		return err
	}
	l, err := net.Listen("tcp", c.Listen)
	if err != nil {
		return fmt.Errorf("listen on %s: %w; choose another address", c.Listen, err)
	}
	var scraped net.Listener
	if c.MetricsListen != "" {
		if scraped, err = net.Listen("tcp", c.MetricsListen); err != nil {
			return errors.Join(fmt.Errorf("listen on %s for metrics: %w; choose another address", c.MetricsListen, err),
				l.Close())
		}
		c.Log.Info("metrics are served", "address", scraped.Addr().String())
	}
	if at, ok := l.Addr().(*net.TCPAddr); ok && c.CertFile == "" && !at.IP.IsLoopback() {
		c.Log.Warn(
			"requests come in the clear, and carry licence documents; give --tls-cert and --tls-key, or have a "+
				"proxy speak TLS before this address", "address", l.Addr().String())
	}
	c.Log.Info("the upstream listens", "address", l.Addr().String(), "tls", c.CertFile != "", "data", c.Dir, "key",
		c.Signer.Anchor.KeyID)
	group, ctx := errgroup.WithContext(ctx)
	serving, end := context.WithCancel(context.WithoutCancel(ctx))
	group.Go(func() error { return dropped.run(ctx) })
	group.Go(func() error {
		defer end()
		if lends != nil { // agents are answered until it has told the fleet, and them, that it stops
			return lends.run(ctx)
		}
		<-ctx.Done()
		return nil
	})
	group.Go(func() error {
		return g.Serve(serving, registry.ServeConfig{Listener: l, CertFile: c.CertFile, KeyFile: c.KeyFile,
			Mutual: c.Mutual,
			Admin:  filepath.Join(c.Dir, Socket), Metrics: m.Handler(), MetricsListener: scraped, Log: c.Log})
	})
	return group.Wait()
}

// Lend has a registry that serves pools lend what it has from a fleet, until ctx ends: the part of Run that a
// simulation of many site servers needs. Agents may be answered once ready was called.
func Lend(ctx context.Context, c *Config, g *registry.Registry, ready func()) error {
	b, err := newBroker(c, g, c.Signer.Anchor.KeyID, metrics.NewRegistry(nil))
	if err != nil {
		return err
	}
	ready()
	return b.run(ctx)
}

// kept counts what a registry keeps, and how the server stands in its fleet; lends may be nil.
func kept(g *registry.Registry, lends *broker) metrics.Kept {
	k := metrics.Kept{Licences: map[string]int{}}
	if lends != nil {
		k.Fleet = fleetway.Snapshot(lends.fleet)
	}
	all, err := g.List()
	if err != nil {
		return k
	}
	k.Blocks = map[[2]string]metrics.Blocks{}
	for _, b := range g.OutBlocks() {
		of := k.Blocks[[2]string{b.License, b.Pool}]
		of.Count, of.Slots = of.Count+1, of.Slots+b.Slots
		k.Blocks[[2]string{b.License, b.Pool}] = of
	}
	for _, l := range all {
		k.Licences[l.State]++
		k.Hosts += len(l.Hosts)
		for _, h := range l.Hosts {
			if !h.ClonedAt.IsZero() {
				k.Cloned++
			}
		}
	}
	return k
}
