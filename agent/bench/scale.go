package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// burden is something that has nothing to do with a call and should not make it slower.
type burden struct {
	name, goal string
	limits     []string                                 // of the licence, besides streams
	put        func(site *site) (end func(), err error) // nil: the licence is all
}

// burdens are the rows of the part scale, each beside the same without.
func (s *suite) burdens() []burden {
	pools := func(n int) (limits []string) {
		for i := range n {
			limits = append(limits, fmt.Sprintf("p%d=1", i))
		}
		return limits
	}
	many := s.times(1000)
	return []burden{
		{name: fmt.Sprintf("%d pools", 4*many), goal: "ratio ≤ 1.1", limits: pools(4 * many)},
		{name: fmt.Sprintf("%d pools with a waiter each", many), goal: "ratio ≤ 1.1", limits: pools(many),
			put: func(site *site) (func(), error) { return waiters(site, many) }},
		{name: fmt.Sprintf("%d sessions subscribed to their own events", many), goal: "ratio ≤ 1.1",
			put: func(site *site) (func(), error) { return subscribers(site, many, `{"mine":true}`) }},
		{name: "100 subscribers of everything", goal: "ratio ≤ 2",
			put: func(site *site) (func(), error) { return subscribers(site, 100, `{}`) }},
	}
}

// scale measures what should cost a call nothing: each burden beside an agent without it, and then the longest call
// while something great happens.
func (s *suite) scale(ctx context.Context) error {
	for _, b := range s.burdens() {
		if err := s.burdened(ctx, b); err != nil {
			return fmt.Errorf("%s: %w", b.name, err)
		}
	}
	if err := s.moments(ctx); err != nil {
		return err
	}
	return s.bodies(ctx)
}

// burdened measures pairs with a burden, beside an agent without it.
func (s *suite) burdened(ctx context.Context, b burden) error {
	return s.withAgent(ctx, func(bare *site, _ *exec.Cmd) error {
		return s.onSite(ctx, func(site *site) error {
			if err := site.sign(ctx, "pools.lic", append(b.limits, "streams=1000")...); err != nil {
				return err
			}
			return site.serve(ctx, func(*exec.Cmd) error {
				if b.put != nil {
					end, err := b.put(site)
					defer end()
					if err != nil {
						return err
					}
				}
				values, limits, err := s.beside(10, func() (float64, error) { return pairsOf(site.socket) },
					func() (float64, error) { return pairsOf(bare.socket) })
				if err != nil {
					return err
				}
				s.add("scale: acquire+release, p50, with "+b.name, "µs", b.goal, values, limits)
				return nil
			})
		})
	})
}

// waiters fills n pools of one slot and has one acquire wait for each.
func waiters(site *site, n int) (end func(), err error) {
	t, err := dial(site.socket)
	if err != nil {
		return func() {}, err
	}
	end = func() { t.conn.Close() }
	waiting, err := dial(site.socket)
	if err != nil {
		return end, err
	}
	end = func() { t.conn.Close(); waiting.conn.Close() }
	const form = `{"jsonrpc":"2.0","id":%d,"method":"lease.acquire","params":{"pool":"p%d"%s}}` + "\n"
	for i := range n {
		if _, err := t.ask(fmt.Sprintf(form, i, i, "")); err != nil {
			return end, err
		}
		if i%50 == 0 && i > 0 { // a session has a bound on what waits
			next, err := dial(site.socket)
			if err != nil {
				return end, err
			}
			was, before := end, waiting
			end, waiting = func() { was(); before.conn.Close() }, next
		}
		if _, err := fmt.Fprintf(waiting.conn, form, i, i, `,"wait_seconds":3600`); err != nil {
			return end, err
		}
	}
	last := waiting
	was := end
	return func() { was(); last.conn.Close() }, nil
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
		if _, err := t.ask(`{"jsonrpc":"2.0","id":1,"method":"events.subscribe","params":` + params + "}\n"); err !=
			nil {
			return end, err
		}
		go io.Copy(io.Discard, t.conn)
	}
	return end, nil
}

// longest makes pairs while f runs, and returns the longest of them in ms.
func longest(socket string, f func() error) (float64, error) {
	t, err := dial(socket)
	if err != nil {
		return 0, err
	}
	defer t.conn.Close()
	over := make(chan error, 1)
	go func() { over <- f() }()
	var most time.Duration
	for {
		select {
		case err := <-over:
			return millis(most), err
		default:
		}
		begin := time.Now()
		if err := t.pair(); err != nil {
			return 0, errors.Join(err, <-over)
		}
		most = max(most, time.Since(begin))
	}
}

// moments measures the longest pair while something happens to an agent with a million leases.
func (s *suite) moments(ctx context.Context) error {
	return s.onSite(ctx, func(site *site) error {
		if err := site.sign(ctx, "many.lic", "seats=unlimited", "streams=1000", "none=1"); err != nil {
			return err
		}
		return site.serve(ctx, func(agent *exec.Cmd) error {
			n := s.times(1_000_000)
			if err := fill(site.socket, n); err != nil {
				return err
			}
			held := fmt.Sprintf(", %d held", n)
			for _, m := range []struct {
				name, goal string
				f          func() error
			}{
				{"the journal is compacted" + held, "≤ 30", func() error { return compact(site) }},
				{"a licence is replaced" + held, "≤ 10", func() error { return replaced(ctx, site) }},
				{"somebody without leases lists them" + held, "≤ 5", func() error {
					return list(site, "?pool=none", nil)
				}},
				{"all leases are listed" + held, "≤ 5", func() error { return list(site, "", nil) }},
				{"a holder of 100,000 leases dies" + held, "≤ 10", func() error { return s.crash(site) }},
			} {
				before, err := resident(agent.Process.Pid)
				if err != nil {
					return err
				}
				var most []float64
				for range min(3, s.medianOf()) {
					ms, err := longest(site.socket, m.f)
					if err != nil {
						return fmt.Errorf("%s: %w", m.name, err)
					}
					most = append(most, ms)
				}
				s.add("scale: longest acquire+release while "+m.name, "ms", m.goal, most, nil)
				after, err := resident(agent.Process.Pid)
				if err != nil {
					return err
				}
				if m.name == "all leases are listed"+held {
					s.add("scale: growth of resident memory by that list", "MiB", "≤ 16",
						[]float64{max(0.001, after-before) / 1024}, nil)
				}
			}
			return nil
		})
	})
}

// compact makes pairs until the runtime journal has been rewritten.
func compact(site *site) error {
	journal := filepath.Join(site.run, "leases.journal")
	t, err := dial(site.socket)
	if err != nil {
		return err
	}
	defer t.conn.Close()
	was := int64(0)
	for begin := time.Now(); time.Since(begin) < time.Minute; {
		for range 1000 {
			if err := t.pair(); err != nil {
				return err
			}
		}
		i, err := os.Stat(journal)
		if err != nil || i.Size() < was {
			return err
		}
		was = i.Size()
	}
	return errors.New("the journal is not rewritten after a minute")
}

func replaced(ctx context.Context, site *site) error {
	for i := range 5 {
		if err := site.sign(ctx, "many.lic", "seats=unlimited", fmt.Sprintf("streams=%d", 2000+i), "none=1"); err !=
			nil {
			return err
		}
		c := client(site.socket)
		for begin := time.Now(); ; time.Sleep(5 * time.Millisecond) {
			var p struct{ Limit int }
			if err := call(c, "GET", "/v1/pools/streams", nil, &p); err != nil {
				return err
			}
			if p.Limit == 2000+i {
				break
			}
			if time.Since(begin) > 10*time.Second {
				return errors.New("the licence is not in force after 10 s")
			}
		}
		c.CloseIdleConnections()
	}
	return nil
}

// list reads a list of leases whole, and says in took how long that was.
func list(site *site, query string, took *time.Duration) error {
	c := client(site.socket)
	defer c.CloseIdleConnections()
	begin := time.Now()
	res, err := c.Get("http://usher/v1/leases" + query)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		return errors.New(res.Status)
	}
	_, err = io.Copy(io.Discard, res.Body)
	if took != nil {
		*took = time.Since(begin)
	}
	return err
}

// crash has a process take leases, kills it, and waits until they are free.
func (s *suite) crash(site *site) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	n := s.times(100_000)
	c := client(site.socket)
	defer c.CloseIdleConnections()
	inUse := func() (int, error) {
		var p struct {
			InUse int `json:"in_use"`
		}
		err := call(c, "GET", "/v1/pools/seats", nil, &p)
		return p.InUse, err
	}
	before, err := inUse()
	if err != nil {
		return err
	}
	cmd := exec.Command(self, "-holder", site.socket, "-leases", fmt.Sprint(n))
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		return err
	}
	if _, err := out.Read(make([]byte, 1)); err != nil {
		return errors.Join(err, cmd.Wait())
	}
	cmd.Process.Kill()
	cmd.Wait()
	for begin := time.Now(); ; time.Sleep(5 * time.Millisecond) {
		now, err := inUse()
		if err != nil || now <= before {
			return err
		}
		if time.Since(begin) > time.Minute {
			return fmt.Errorf("%d leases of a dead process are held after a minute", now-before)
		}
	}
}

// bodies measures what a lease of a process, a pool and a session take, and what is left after a mass release.
func (s *suite) bodies(ctx context.Context) error {
	grown := func(name, unit, goal string, n int, limits []string, put func(*site) (func(), error)) error {
		return s.onSite(ctx, func(site *site) error {
			if err := site.sign(ctx, "many.lic", "seats=unlimited"); err != nil {
				return err
			}
			return site.serve(ctx, func(agent *exec.Cmd) error {
				before, err := resident(agent.Process.Pid)
				if err != nil {
					return err
				}
				if limits != nil {
					if err := site.sign(ctx, "many.lic", append(limits, "seats=unlimited")...); err != nil {
						return err
					}
				}
				end, err := put(site)
				defer end()
				if err != nil {
					return err
				}
				after, err := resident(agent.Process.Pid)
				if err != nil {
					return err
				}
				per := (after - before) / float64(n)
				if unit == "B" {
					per *= 1024
				}
				s.add(name, unit, goal, []float64{per}, nil)
				return nil
			})
		})
	}
	leases := s.times(500_000)
	pools := s.times(2000)
	sessions := s.times(2000)
	var limits []string
	for i := range pools {
		limits = append(limits, fmt.Sprintf("p%d=1", i))
	}
	return errors.Join(
		grown("scale: resident memory of a process lease", "B", "≤ 500", leases, nil, func(site *site) (func(), error) {
			return func() {}, take(site.socket, leases, `{"pool":"seats"}`)
		}),
		grown("scale: resident memory of a pool", "KiB", "≤ 4", pools, limits, func(site *site) (func(), error) {
			c := client(site.socket)
			defer c.CloseIdleConnections()
			for begin := time.Now(); ; time.Sleep(5 * time.Millisecond) {
				if call(c, "GET", "/v1/pools/p0", nil, nil) == nil {
					return func() {}, nil
				}
				if time.Since(begin) > 10*time.Second {
					return func() {}, errors.New("the licence is not in force after 10 s")
				}
			}
		}),
		grown("scale: resident memory of a session", "KiB", "≤ 16", sessions, nil, func(site *site) (func(), error) {
			var all []*talk
			end := func() {
				for _, t := range all {
					t.conn.Close()
				}
			}
			for range sessions {
				t, err := dial(site.socket)
				if err == nil {
					all = append(all, t)
					_, err = t.ask(strings.Replace(acquireLine, "streams", "seats", 1))
				}
				if err != nil {
					return end, err
				}
			}
			return end, nil
		}),
		s.released(ctx, leases),
		s.scrape(ctx),
	)
}

// take takes n leases in a session that ends.
func take(socket string, n int, params string) error {
	return fillWith(socket, n, `{"jsonrpc":"2.0","id":1,"method":"lease.acquire","params":`+params+"}\n")
}

// released measures the memory that is left within seconds after a session gave back many leases.
func (s *suite) released(ctx context.Context, n int) error {
	return s.onSite(ctx, func(site *site) error {
		if err := site.sign(ctx, "many.lic", "seats=unlimited"); err != nil {
			return err
		}
		return site.serve(ctx, func(agent *exec.Cmd) error {
			if err := take(site.socket, n, `{"pool":"seats","lifetime":"connection"}`); err != nil {
				return err
			}
			c := client(site.socket)
			defer c.CloseIdleConnections()
			for begin := time.Now(); time.Since(begin) < time.Minute; time.Sleep(5 * time.Millisecond) {
				var p struct {
					InUse int `json:"in_use"`
				}
				if err := call(c, "GET", "/v1/pools/seats", nil, &p); err != nil {
					return err
				}
				if p.InUse == 0 {
					break
				}
			}
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-time.After(10 * time.Second):
			}
			kib, err := resident(agent.Process.Pid)
			s.add(fmt.Sprintf("scale: resident memory 10 s after %d leases were given back", n), "MiB", "≤ 60",
				[]float64{kib / 1024}, nil)
			return err
		})
	})
}

// scrape measures the longest pair while the metrics of many pools are read.
func (s *suite) scrape(ctx context.Context) error {
	return s.onSite(ctx, func(site *site) error {
		var limits []string
		for i := range s.times(1000) {
			limits = append(limits, fmt.Sprintf("p%d=1", i))
		}
		if err := site.sign(ctx, "many.lic", append(limits, "streams=1000")...); err != nil {
			return err
		}
		return site.serve(ctx, func(*exec.Cmd) error {
			c := client(site.socket)
			defer c.CloseIdleConnections()
			var most, took []float64
			for range s.medianOf() {
				ms, err := longest(site.socket, func() error {
					begin := time.Now()
					res, err := c.Get("http://usher/metrics")
					if err != nil {
						return err
					}
					defer res.Body.Close()
					_, err = io.Copy(io.Discard, res.Body)
					took = append(took, millis(time.Since(begin)))
					return err
				})
				if err != nil {
					return err
				}
				most = append(most, ms)
			}
			s.add(fmt.Sprintf("scale: longest acquire+release while metrics of %d pools are read", len(limits)), "ms",
				"",
				most, nil)
			s.add(fmt.Sprintf("scale: metrics of %d pools", len(limits)), "ms", "", took, nil)
			return nil
		})
	})
}
