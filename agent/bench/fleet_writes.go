package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/usher-agent/usher/agent/fleet"
	usher "github.com/usher-agent/usher/client"
)

// The load of the row of etcd's writes: so many agents share a pool in which 240 of 600 slots are in use on the
// average, since 120 acquires a second hold a slot for two seconds each.
const (
	writingAgents  = 6
	writingLimit   = 600
	writingHold    = 2 * time.Second
	writingArrival = time.Second / 20 // between two acquires at one agent, on the average
	writingPrefix  = "/bench-writes/"
)

// writes measures how many writes to etcd an acquire causes in a steady state: all agents of a fleet, and nobody else,
// write to this etcd meanwhile, so its revision counts them.
func (s *suite) writes(ctx context.Context, store fleet.Store, etcd string) error {
	return s.onSite(ctx, func(first *site) error {
		out, err := first.signBeside(ctx, "writes", "site", fmt.Sprint("streams=", writingLimit))
		if err != nil {
			return err
		}
		if err := copyInto(first.folder, "bench.lic", out); err != nil {
			return err
		}
		var sockets []string
		for i := range writingAgents {
			a := *first // of the same licence and keys
			a.dir = filepath.Join(first.dir, fmt.Sprint("a", i))
			a.run, a.disk = filepath.Join(first.run, fmt.Sprint(i)), a.dir
			a.socket = filepath.Join(first.dir, fmt.Sprint("s", i))
			a.config = filepath.Join(first.dir, fmt.Sprint("c", i))
			if err := a.configureAs(first, fmt.Sprintf("fleet: {endpoints: [%q], prefix: %s, ttl: 5s, name: agent%d}\n",
				etcd, writingPrefix, i)); err != nil {
				return err
			}
			cmd, _, err := a.start(ctx)
			if err != nil {
				return err
			}
			defer stop(cmd)
			sockets = append(sockets, a.socket)
		}
		return s.countWrites(ctx, store, sockets)
	})
}

// countWrites has all agents' callers come and go, and counts once that is steady.
func (s *suite) countWrites(ctx context.Context, store fleet.Store, sockets []string) error {
	warm, span := 6*time.Second, 15*time.Second
	if s.share > 0 {
		warm, span = time.Second, 2*time.Second
	}
	ctx, cancel := context.WithCancel(ctx)
	var all sync.WaitGroup
	defer all.Wait()
	defer cancel()
	var acquired atomic.Int64
	for i, socket := range sockets {
		session, err := usher.Open(ctx, usher.WithSocket(socket))
		if err != nil {
			return err
		}
		defer session.Close()
		if err := until(func() (bool, error) {
			l, err := session.Acquire(ctx, usher.Slots("streams", 1))
			if err != nil {
				return false, ctx.Err() // a new store gives nothing for a moment
			}
			return true, l.Close()
		}, "the fleet gives each agent a slot"); err != nil {
			return err
		}
		all.Go(func() { comeAndGo(ctx, session, rand.New(rand.NewPCG(uint64(i), 7)), &acquired) })
	}
	var before, after int64
	for _, phase := range []struct {
		wait time.Duration
		to   *int64
	}{{warm, &before}, {span, &after}} {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(phase.wait):
		}
		got, err := store.Txn(ctx, &fleet.Txn{Then: []fleet.Op{{Get: writingPrefix + "none"}}})
		if err != nil {
			return err
		}
		*phase.to = got.Rev
		if phase.to == &before {
			acquired.Store(0)
		}
	}
	n := acquired.Load()
	if n == 0 {
		return errors.New("fleet: no slot was acquired in a steady state")
	}
	s.add("fleet: writes to etcd an acquire, in a steady state", "", atMost(0.01),
		plain(float64(after-before)/float64(n)))
	return nil
}

// comeAndGo acquires a slot every now and then, holds each for a while, and counts those it got. The times between and
// the times held are exponentially distributed.
func comeAndGo(ctx context.Context, s *usher.Session, rng *rand.Rand, acquired *atomic.Int64) {
	var held sync.WaitGroup
	defer held.Wait()
	for ctx.Err() == nil {
		hold := time.Duration(rng.ExpFloat64() * float64(writingHold))
		held.Go(func() {
			l, err := s.Acquire(ctx, usher.Slots("streams", 1))
			if err != nil {
				return // a denial is none that counts
			}
			acquired.Add(1)
			select {
			case <-ctx.Done():
			case <-time.After(hold):
			}
			l.Close()
		})
		select {
		case <-ctx.Done():
		case <-time.After(time.Duration(rng.ExpFloat64() * float64(writingArrival))):
		}
	}
}
