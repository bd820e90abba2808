package registrar

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/usher-agent/usher/agent/clock"
	"github.com/usher-agent/usher/agent/fleet"
	"github.com/usher-agent/usher/agent/fleetway"
	"github.com/usher-agent/usher/metrics"
	"github.com/usher-agent/usher/plugin"
	"github.com/usher-agent/usher/plugin/usher/registry"
)

// Fleet makes a site server a broker: it has its slots from a fleet, and gives them to its agents.
type Fleet struct {
	Way    fleetway.Way
	Store  fleet.Store // in the place of the one that Way leads to; nil: none is
	Prefix string
	TTL    time.Duration
	Name   string // of this broker; no other of the fleet has it
	// Labels are the broker's, by which rules of the fleet count what it and its agents have.
	Labels map[string]string
}

// leastTTLs is how many times as long as the fleet's TTL blocks of a broker's agents are at least: an agent whose
// broker has died finds another before its blocks are over.
const leastTTLs = 6

// LeastBlockTTL returns the shortest time of a broker's blocks.
func (f *Fleet) LeastBlockTTL() time.Duration { return leastTTLs * f.TTL }

// broker keeps stocks of slots from a fleet, for the blocks of a site server.
type broker struct {
	fleet    *fleet.Fleet
	etcd     *fleet.Etcd // nil: the store is another
	way      *fleetway.Way
	registry *registry.Registry
	pools    *registry.Blocks
	ttl      time.Duration
	now      func() time.Duration
	wake     chan struct{} // capacity 1
	wants    chan wanted
	heard    map[string]bool // the licences whose news are listened for
	log      *slog.Logger

	mu     turn                  // held over the calls of one pool; guards all below
	stocks map[[2]string]*supply // by licence and pool
	all    map[fleet.PoolKey]*supply
	left   *leaving // nil: the server lends
}

// turn is a lock that is held over calls to the store: who waits for it may give up.
type turn chan struct{}

func (t turn) Lock()   { t <- struct{}{} }
func (t turn) Unlock() { <-t }

// within takes the turn, and reports whether that came before ctx ended.
func (t turn) within(ctx context.Context) bool {
	select {
	case t <- struct{}{}:
		return true
	case <-ctx.Done():
		return false
	}
}

// adopt takes a block of another broker, which is gone or has stopped, over into the stock: see [registry.Broker].
func (b *broker) adopt(a *registry.Adoption) (unsure bool, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), b.ttl/3)
	defer cancel()
	if !b.mu.within(ctx) { // the agents of a server that has gone come all at once
		return false, plugin.Transiently("the site server takes over what other agents have")
	}
	defer b.mu.Unlock()
	s := b.stocks[[2]string{a.License.ID, a.Pool}]
	if s == nil || b.left != nil {
		return false, plugin.Transiently("the site server has not looked at the licence yet, or is being stopped")
	}
	sent := b.now()
	got, n, err := s.bound.Adopt(ctx, a.From, a.Pool, a.Part, fleet.BlockID(brokerToken), a.Slots, a.Reserve)
	if err != nil {
		var e *fleet.UnsureError
		return errors.As(err, &e), err
	}
	s.block, s.has, s.until = got.ID, got.Slots, sent+got.For
	x := s.of(a.License.ID)
	x.has = max(0, s.has-(s.given()-x.has))
	return true, a.Put(n, x.has, s.partOf(x.has), s.until)
}

// brokerToken is that of the one check-out of a broker for a pool.
const brokerToken = "broker"

// brokerID is a broker's name in the fleet: no agent's key has it.
func brokerID(site, name string) string {
	sum := sha256.Sum256([]byte("broker\x00" + site + "\x00" + name))
	return "broker-" + base64.RawURLEncoding.EncodeToString(sum[:24])
}

// newBroker makes a broker of a registry that serves pools.
func newBroker(c *Config, g *registry.Registry, site string, m *metrics.Registry) (*broker, error) {
	store := c.Fleet.Store
	var etcd *fleet.Etcd
	var err error
	if store == nil {
		if etcd, err = c.Fleet.Way.Dial(); err != nil {
			return nil, err
		}
		store = etcd
	}
	counts := fleetway.Count()
	m.WithFleet(counts)
	b := &broker{etcd: etcd, way: &c.Fleet.Way, registry: g, ttl: c.Fleet.TTL, now: c.Uptime,
		wake: make(chan struct{}, 1), log: c.Log,
		wants: make(chan wanted, 64), heard: map[string]bool{}, stocks: map[[2]string]*supply{},
		all: map[fleet.PoolKey]*supply{}, mu: make(turn, 1)}
	id := brokerID(site, c.Fleet.Name)
	if b.pools, err = g.ServeBroker(registry.Broker{Name: id, Report: b.report, Lacking: b.nudge,
		Adopt: b.adopt, Draw: b.draw}); err != nil {
		return nil, err
	}
	record := filepath.Join(c.RunDir, id+".fleet")
	keep := c.BlockTTL + c.BlockTTL/15 + 2*time.Second // clocks do not go alike
	b.fleet, err = fleet.New(fleet.Config{Store: store, Agent: id, Prefix: c.Fleet.Prefix, TTL: c.Fleet.TTL,
		Keep: keep, Lends: true,
		OnMoved: func(_ string, parts []string) error {
			return b.pools.Moved(parts)
		}, Member: fleet.Member{Name: c.Fleet.Name, Version: c.Version, Labels: c.Fleet.Labels},
		Observer: fleetway.Counted{FleetCounts: counts}, OnDrain: b.nudge, InUse: b.pools.Lent, Now: c.Uptime,
		Epoch: clock.Epoch(),
		Time:  time.Now,
		Load: func() ([]byte, error) {
			if c.RunDir == "" {
				return nil, nil
			}
			data, err := os.ReadFile(record)
			if errors.Is(err, fs.ErrNotExist) {
				return nil, nil
			}
			return data, err
		},
		Save: func(data []byte) error {
			if c.RunDir == "" {
				return nil
			}
			return replace(record, data)
		},
		OnChange: func(err error) {
			if err != nil {
				c.Log.Warn("the site server is not in the fleet; retrying", "reason", err)
			} else {
				c.Log.Info("the site server is in the fleet", "name", c.Fleet.Name, "agent", id)
			}
			b.nudge()
		}, Log: c.Log})
	return b, err
}

// replace writes a file of the run folder whole or not at all.
func replace(path string, data []byte) error {
	next := path + ".next"
	if err := os.WriteFile(next, data, 0o600); err != nil {
		return err
	}
	return os.Rename(next, path)
}

func (b *broker) nudge() {
	select {
	case b.wake <- struct{}{}:
	default:
	}
}

// run keeps the stocks until ctx ends. What agents have stays theirs until it is over.
func (b *broker) run(ctx context.Context) error {
	var running sync.WaitGroup
	running.Go(func() { b.fleet.Run(ctx) })
	if b.etcd != nil {
		running.Go(func() { b.way.Renew(ctx, b.etcd, b.renewed) })
		defer b.etcd.Close()
	}
	defer running.Wait()
	defer b.stop(ctx)
	for {
		wait := b.pass(ctx)
		select {
		case <-ctx.Done():
			return nil
		case <-b.wake:
			wait = 0
		case <-time.After(wait):
		}
		if wait == 0 { // many ask at once
			select {
			case <-ctx.Done():
				return nil
			case <-time.After(2 * time.Millisecond):
			}
		}
	}
}

// reportWithin bounds how long etcd is asked for a report.
const reportWithin = 5 * time.Second

// report says how the server stands in its fleet, and what etcd says of that.
func (b *broker) report() ([]byte, error) {
	ctx, cancel := context.WithTimeout(context.Background(), reportWithin)
	defer cancel()
	return json.Marshal(b.fleet.Report(ctx))
}

// why says in words for agents why the server's place in the fleet is not proved; empty: it is, or the reason is not
// known.
func why(s fleet.Standing) string {
	if len(s.Faults) > 0 {
		return "etcd " + s.Faults[0].Endpoint + ": " + s.Faults[0].Reason
	}
	return s.Reason
}

// renewed is told of each look at renewed files of the way to etcd.
func (b *broker) renewed(err error) {
	if err != nil {
		b.log.Warn("renewed files of the fleet are not used: the former ones stay in use", "reason", err)
		return
	}
	b.log.Info("renewed files of the fleet are used from now on")
}

// pass looks at each pool once, and returns how long to wait.
func (b *broker) pass(ctx context.Context) time.Duration {
	terms, err := b.registry.Terms()
	if err != nil {
		b.log.Error("the licences cannot be read", "error", err)
		return time.Second
	}
	b.hear()
	b.pools.Stands(b.fleet.Drained(), why(b.fleet.Standing()))
	b.know(ctx, terms)
	if b.drains(ctx) {
		return min(b.ttl/3, time.Second)
	}
	for _, s := range b.all {
		if !s.good() {
			continue
		}
		b.mu.Lock()
		call, cancel := context.WithTimeout(ctx, b.ttl/3)
		err := b.supply(call, s)
		cancel()
		b.mu.Unlock()
		b.said(s, err)
	}
	return min(b.ttl/3, time.Second)
}

// hear takes note of what the rest of the fleet wants.
func (b *broker) hear() {
	for {
		select {
		case w := <-b.wants:
			b.mu.Lock()
			s := b.stocks[w.of]
			if s != nil {
				s.wanted = max(s.wanted, w.n)
			}
			b.mu.Unlock()
			if s == nil || w.n <= 0 {
				continue
			}
			for _, x := range s.portions { // agents of all licences have what is wanted
				b.pools.Want(x.license, s.pool, w.n)
			}
		default:
			return
		}
	}
}

// said logs what is wrong with the supply of a pool, once.
func (b *broker) said(s *supply, err error) {
	fault := ""
	var e *plugin.Error
	if err != nil && !(errors.As(err, &e) && e.SystemCode == plugin.SystemFull) {
		fault = err.Error()
	}
	if fault != "" && fault != s.fault {
		b.log.Warn("the fleet gives the site server no slots", "pool", s.pool, "reason", fault)
	}
	s.fault = fault
}

// watchFor is how long one wait for news of the fleet is.
const watchFor = 20 * time.Second

// wanted is slots that the rest of the fleet wants.
type wanted struct {
	of [2]string // licence and pool
	n  int64
}

// listen hears what the rest of the fleet wants of a licence's pools, or has free for them.
func (b *broker) listen(ctx context.Context, license string, bound plugin.Budgeter) {
	w, ok := bound.(plugin.Watcher)
	for ok && ctx.Err() == nil {
		news, err := w.Watch(ctx, &plugin.Watch{For: watchFor})
		if err != nil {
			continue
		}
		for pool, n := range news.Pools {
			select {
			case b.wants <- wanted{[2]string{license, pool}, n.Wanted}:
			case <-ctx.Done():
			}
			b.nudge()
		}
	}
}
