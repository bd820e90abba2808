package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os/exec"
)

// burden is something that has nothing to do with a call and should not make it slower.
type burden struct {
	name   string
	goal   goal
	limits []string                                 // of the licence, besides streams
	put    func(site *site) (end func(), err error) // nil: the licence is all
}

// poolLimits are the limits of n pools of one slot.
func poolLimits(n int) (limits []string) {
	for i := range n {
		limits = append(limits, fmt.Sprintf("p%d=1", i))
	}
	return limits
}

// burdens are the rows of the part scale that measure pairs beside the same without.
func (s *suite) burdens() []burden {
	many := s.times(1000)
	return []burden{
		{name: fmt.Sprintf("%d pools", s.times(400)), goal: ratioAtMost(1.1), limits: poolLimits(s.times(400))},
		{name: fmt.Sprintf("%d pools", 4*many), goal: ratioAtMost(1.1), limits: poolLimits(4 * many)},
		{name: fmt.Sprintf("%d pools with a waiter each", many), goal: ratioAtMost(1.1), limits: poolLimits(many),
			put: func(site *site) (func(), error) { return waiters(site, many) }},
		{name: fmt.Sprintf("%d sessions subscribed to their own events", many), goal: ratioAtMost(1.1),
			put: func(site *site) (func(), error) { return subscribers(site, many, `{"mine":true}`) }},
		{name: "100 subscribers of everything", goal: ratioAtMost(2),
			put: func(site *site) (func(), error) { return subscribers(site, 100, `{}`) }},
	}
}

// scale measures what should cost a call nothing: each burden beside an agent without it, then the longest call while
// something great happens, and what is left in memory.
func (s *suite) scale(ctx context.Context) error {
	err := s.onSite(ctx, func(bare *site) error {
		if err := bare.sign(ctx, "bench.lic", "streams=1000", "other=1"); err != nil {
			return err
		}
		return bare.serve(ctx, func(agent *exec.Cmd) error {
			for _, b := range s.burdens() {
				if err := s.burdened(ctx, b, bare, agent.Process.Pid); err != nil {
					return fmt.Errorf("%s: %w", b.name, err)
				}
			}
			return nil
		})
	})
	for _, f := range []func(context.Context) error{s.moments, s.bodies, s.scrape} {
		if err == nil {
			err = f(ctx)
		}
	}
	return err
}

// burdened measures pairs with a burden, beside an agent of two pools without it.
func (s *suite) burdened(ctx context.Context, b burden, bare *site, bareAgent int) error {
	return s.onSite(ctx, func(site *site) error {
		if err := site.sign(ctx, "pools.lic", append(b.limits, "streams=1000", "other=1")...); err != nil {
			return err
		}
		return site.serve(ctx, func(agent *exec.Cmd) error {
			if b.put != nil {
				end, err := b.put(site)
				defer end()
				if err != nil {
					return err
				}
			}
			c, err := s.single(ctx, 8, "caller", [2]string{site.socket, bare.socket},
				[2]int{agent.Process.Pid, bareAgent})
			if err != nil {
				return err
			}
			s.add("scale: acquire+release, p50, with "+b.name, "µs", b.goal, c.figures(p50))
			s.addCPU("scale: acquire+release with "+b.name, c)
			return nil
		})
	})
}

// waiters fills n pools of one slot and has one acquire wait for each.
func waiters(site *site, n int) (end func(), err error) {
	var all []*talk
	end = func() {
		for _, t := range all {
			t.conn.Close()
		}
	}
	session := func() (*talk, error) {
		t, err := dial(site.socket)
		if err == nil {
			all = append(all, t)
		}
		return t, err
	}
	holder, err := session()
	if err != nil {
		return end, err
	}
	const form = `{"jsonrpc":"2.0","id":%d,"method":"lease.acquire","params":{"pool":"p%d"%s}}` + "\n"
	var waiting *talk
	for i := range n {
		if _, err := holder.ask(fmt.Sprintf(form, i, i, "")); err != nil {
			return end, err
		}
		if i%50 == 0 { // a session has a bound on what waits
			if waiting, err = session(); err != nil {
				return end, err
			}
		}
		if _, err := fmt.Fprintf(waiting.conn, form, i, i, `,"wait_seconds":3600`); err != nil {
			return end, err
		}
	}
	c := client(site.socket)
	defer c.CloseIdleConnections()
	return end, until(func() (bool, error) {
		var p struct{ Waiting int }
		err := call(c, "GET", fmt.Sprintf("/v1/pools/p%d", n-1), nil, &p)
		return p.Waiting == 1, err
	}, "all wait")
}

// subscribers opens n sessions that subscribe to events.
func subscribers(site *site, n int, params string) (end func(), err error) {
	var all []*talk
	end = func() {
		for _, t := range all {
			t.conn.Close()
		}
	}
	for range n {
		t, err := dial(site.socket)
		if err != nil {
			return end, err
		}
		all = append(all, t)
		answer, err := t.ask(`{"jsonrpc":"2.0","id":1,"method":"events.subscribe","params":` + params + "}\n")
		if err != nil {
			return end, err
		}
		if !succeeded(answer) {
			return end, errors.New(answer)
		}
		go io.Copy(io.Discard, t.conn)
	}
	return end, nil
}
