package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"time"

	"github.com/usher-agent/usher/agent/fleet"
	"github.com/usher-agent/usher/enforcer"
	"github.com/usher-agent/usher/plugin"
)

// fleetAgents is how many agents the keys in etcd are measured with.
const fleetAgents = 200

// fleet measures what agents ask of an etcd on this host.
func (s *suite) fleet(ctx context.Context) error {
	program, err := exec.LookPath("etcd")
	if err != nil {
		fmt.Fprintln(os.Stderr, "fleet: there is no etcd (apt-get install etcd-server): nothing is measured")
		return nil
	}
	dir, err := os.MkdirTemp("", "bench-etcd")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	address, cmd, err := startEtcd(ctx, program, dir)
	if err != nil {
		return err
	}
	defer func() { cmd.Process.Kill(); cmd.Wait() }()
	store := fleet.Dial([]string{address}, "", "", nil)
	defer store.Close()
	if err := until(func() (bool, error) { return bareTxn(ctx, store, "0") == nil, nil }, "etcd answers"); err != nil {
		return err
	}
	b, err := s.joined(ctx, store, 0)
	if err != nil {
		return err
	}
	if err := s.growing(ctx, store, b); err != nil {
		return err
	}
	if err := s.beside(ctx, address); err != nil {
		return err
	}
	if err := s.writes(ctx, store, address); err != nil {
		return err
	}
	if err := s.returning(ctx, store, b, cmd); err != nil {
		return err
	}
	return s.perAgent(ctx, store)
}

// startEtcd starts one member on loopback.
func startEtcd(ctx context.Context, program, dir string) (address string, cmd *exec.Cmd, err error) {
	var at [2]string
	for i := range at {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return "", nil, err
		}
		at[i] = "http://" + l.Addr().String()
		l.Close()
	}
	cmd = exec.CommandContext(ctx, program, "--data-dir", dir, "--listen-client-urls", at[0], "--advertise-client-urls",
		at[0], "--listen-peer-urls", at[1], "--initial-advertise-peer-urls", at[1], "--initial-cluster",
		"default="+at[1],
		"--log-level", "fatal")
	return at[0], cmd, cmd.Start()
}

// fleetPrefix begins all keys of the part.
const fleetPrefix = "/bench/"

// bareTxn is one transaction that compares and writes one key.
func bareTxn(ctx context.Context, store fleet.Store, value string) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	none := fleetPrefix + "none"
	_, err := store.Txn(ctx, &fleet.Txn{If: []fleet.Is{{Key: none, Absent: true}},
		Then: []fleet.Op{{Put: fleetPrefix + "bare", Value: value}}})
	return err
}

// joined makes agent i of the fleet, with one slot of the pool streams.
func (s *suite) joined(ctx context.Context, store fleet.Store, i int) (plugin.Budgeter, error) {
	began := time.Now()
	f, err := fleet.New(fleet.Config{Store: store, Agent: fmt.Sprint("agent", i), Prefix: fleetPrefix,
		TTL: fleet.MinTTL,
		Now: func() time.Duration { return time.Hour + time.Since(began) }, Time: time.Now,
		Load: func() ([]byte, error) { return nil, nil }, Save: func([]byte) error { return nil }})
	if err != nil {
		return nil, err
	}
	l := &enforcer.License{ID: "L1", System: "usher", Product: "bench",
		Pools: map[string]enforcer.PoolTerm{"streams": {Max: 1_000_000}}}
	b := f.For(l, []byte("bench"), nil, func(string) bool { return true })
	return b, until(func() (bool, error) {
		_, err := b.CheckOut(ctx, &plugin.CheckOut{Pool: "streams", Slots: 1, For: time.Hour, Token: "bench"})
		var e *plugin.Error
		if errors.As(err, &e) && e.Class == plugin.Transient {
			return false, nil // a new store gives nothing for a moment
		}
		return err == nil, err
	}, "the fleet gives a slot")
}

// growing measures a block that grows, beside one bare transaction.
func (s *suite) growing(ctx context.Context, store fleet.Store, b plugin.Budgeter) error {
	var runs []figure
	slots := int64(1)
	for range s.medianOf() {
		var grown, bare []float64
		for i := range s.times(100) {
			began := time.Now()
			if err := bareTxn(ctx, store, fmt.Sprint(i)); err != nil {
				return err
			}
			bare = append(bare, micros(time.Since(began)))
			began, slots = time.Now(), slots+1
			if _, err := b.Extend(ctx, &plugin.Extend{Block: fleet.BlockID("bench"), Slots: slots,
				For: time.Hour}); err != nil {
				return err
			}
			grown = append(grown, micros(time.Since(began)))
		}
		runs = append(runs, figure{median(grown), median(bare), median(grown) / median(bare)})
	}
	s.add("fleet: a block grows, p50, beside one transaction", "µs", ratioAtMost(1.5), runs)
	return nil
}

// returning measures how soon after etcd's return a block grows again.
func (s *suite) returning(ctx context.Context, store fleet.Store, b plugin.Budgeter, etcd *exec.Cmd) error {
	if err := etcd.Process.Signal(stopSignal); err != nil {
		return err
	}
	err := until(func() (bool, error) {
		call, cancel := context.WithTimeout(ctx, 200*time.Millisecond)
		defer cancel()
		_, err := store.Txn(call, &fleet.Txn{Then: []fleet.Op{{Get: fleetPrefix + "bare"}}})
		return err != nil, nil
	}, "etcd stands still")
	if err := errors.Join(err, etcd.Process.Signal(goOnSignal)); err != nil {
		return err
	}
	began := time.Now()
	err = until(func() (bool, error) {
		call, cancel := context.WithTimeout(ctx, 2*time.Second)
		defer cancel()
		_, err := b.CheckOut(call, &plugin.CheckOut{Pool: "streams", Slots: 1, For: time.Hour, Token: "again"})
		return err == nil, nil
	}, "the fleet gives slots again")
	if err == nil {
		s.add("fleet: a slot after etcd goes on, having stood still", "ms", goal{}, plain(millis(time.Since(began))))
	}
	return err
}

// perAgent measures what one agent keeps in etcd.
func (s *suite) perAgent(ctx context.Context, store fleet.Store) error {
	n := s.times(fleetAgents)
	for i := range n {
		if _, err := s.joined(ctx, store, i+1); err != nil {
			return err
		}
	}
	res, err := store.Txn(ctx, &fleet.Txn{Then: []fleet.Op{{List: fleetPrefix}}})
	if err != nil {
		return err
	}
	bytes := 0
	for _, kv := range res.Got[0] {
		bytes += len(kv.Key) + len(kv.Value)
	}
	s.add("fleet: keys of an agent with slots of one pool in etcd", "B", goal{}, plain(float64(bytes)/float64(n+1)))
	return nil
}
