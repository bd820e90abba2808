package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"os/exec"
	"strconv"
	"strings"
	"time"
)

// bodies measures what a pool, a session and a lease of a process take, and what is left after a mass release.
func (s *suite) bodies(ctx context.Context) error {
	for _, f := range []func(context.Context) error{s.pools, s.sessions, s.released} {
		if err := f(ctx); err != nil {
			return err
		}
	}
	return nil
}

// grown measures how much resident memory put takes for each of n things, in KiB, after prepare; nil: nothing is
// prepared.
func (s *suite) grown(ctx context.Context, name string, g goal, n int, prepare func(*site) error,
	put func(*site) (end func(), err error)) error {
	return s.onSite(ctx, func(site *site) error {
		if err := site.sign(ctx, "many.lic", "seats=unlimited"); err != nil {
			return err
		}
		return site.serve(ctx, func(agent *exec.Cmd) error {
			if prepare != nil {
				if err := prepare(site); err != nil {
					return err
				}
			}
			before, err := settled(agent.Process.Pid)
			if err != nil {
				return err
			}
			end, err := put(site)
			defer end()
			if err != nil {
				return err
			}
			after, err := resident(agent.Process.Pid)
			s.add(name, "KiB", g, plain((after-before)/float64(n)))
			return err
		})
	})
}

// pools measures a licence of many pools. Before it, a licence of one pool takes the place of the first, so that what a
// change of licences maps of the program's own file is there on both sides: it is 2 to 4 MiB, as the page cache has it.
func (s *suite) pools(ctx context.Context) error {
	replaced := func(site *site, n int, wait time.Duration) error {
		if err := site.sign(ctx, "many.lic", append(poolLimits(n), "seats=unlimited")...); err != nil {
			return err
		}
		c := client(site.socket)
		defer c.CloseIdleConnections()
		err := until(func() (bool, error) {
			return call(c, "GET", fmt.Sprintf("/v1/pools/p%d", n-1), nil, nil) == nil, nil
		}, "the licence is in force")
		return errors.Join(err, rest(wait))
	}
	n := s.times(4000)
	return s.grown(ctx, "scale: resident memory of a pool", atMost(4), n,
		func(site *site) error { return replaced(site, 1, time.Second) },
		func(site *site) (func(), error) {
			return func() {}, replaced(site, n, 3*time.Second) // what reading it has left is given back within seconds
		})
}

// sessions measures many sessions with a lease each. Before them one comes and goes, so that the code that it runs is
// mapped on both sides.
func (s *suite) sessions(ctx context.Context) error {
	opened := func(site *site, n int) (end func(), err error) {
		var all []*talk
		end = func() {
			for _, t := range all {
				t.conn.Close()
			}
		}
		for range n {
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
	}
	n := s.times(2000)
	return s.grown(ctx, "scale: resident memory of a session", atMost(16), n, func(site *site) error {
		end, err := opened(site, 1)
		end()
		return err
	}, func(site *site) (func(), error) { return opened(site, n) })
}

// released measures a process that holds many leases, and the memory that is left within seconds after it gave them all
// back by its death.
func (s *suite) released(ctx context.Context) error {
	n := s.times(500_000)
	return s.onSite(ctx, func(site *site) error {
		if err := site.sign(ctx, "many.lic", "seats=unlimited"); err != nil {
			return err
		}
		return site.serve(ctx, func(agent *exec.Cmd) error {
			before, err := settled(agent.Process.Pid)
			if err != nil {
				return err
			}
			holder, err := begin(ctx, "-socket", site.socket, "-leases", fmt.Sprint(n))
			if err != nil {
				return err
			}
			after, err := resident(agent.Process.Pid)
			end(holder)
			if err != nil {
				return err
			}
			s.add("scale: resident memory of a process lease", "B", atMost(500),
				plain((after-before)*1024/float64(n)))
			c := client(site.socket)
			defer c.CloseIdleConnections()
			if err := until(func() (bool, error) {
				used, err := seats(c)
				return used == 0, err
			}, "all leases are given back"); err != nil {
				return err
			}
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-time.After(5 * time.Second):
			}
			kib, err := resident(agent.Process.Pid)
			s.add(fmt.Sprintf("scale: resident memory 5 s after %d leases were given back", n), "MiB", atMost(60),
				plain(kib/1024))
			return err
		})
	})
}

// scrape measures for how long the lock that decisions take is held while the metrics of many pools are read, as the
// agent itself says in the reading after, and the longest pair meanwhile, in which each wait for a processor is, too.
func (s *suite) scrape(ctx context.Context) error {
	return s.onSite(ctx, func(site *site) error {
		n := s.times(1000)
		if err := site.sign(ctx, "many.lic", append(poolLimits(n), "streams=1000")...); err != nil {
			return err
		}
		return site.serve(ctx, func(*exec.Cmd) error {
			pairs, err := calm(ctx, site.socket)
			if err != nil {
				return err
			}
			c := client(site.socket)
			defer c.CloseIdleConnections()
			var runs []figure
			var took, holds []float64
			for range s.times(20) {
				var d time.Duration
				with, err1 := longest(pairs, func() (err error) {
					begin := time.Now()
					err = read(c.Get("http://usher/metrics"))
					d = time.Since(begin)
					return err
				})
				hold, err2 := longestHold(c)
				without, err3 := longest(pairs, func() error { return rest(d) })
				if err := errors.Join(err1, err2, err3); err != nil {
					return errors.Join(err, pairs.dismiss())
				}
				runs, took = append(runs, figure{with, without, with / without}), append(took, millis(d))
				holds = append(holds, hold)
			}
			s.add(fmt.Sprintf("scale: longest that the lock is held while metrics of %d pools are read", n), "ms",
				atMost(1), plain(holds...))
			s.add(fmt.Sprintf("scale: longest acquire+release while metrics of %d pools are read", n), "ms", goal{},
				runs)
			s.add(fmt.Sprintf("scale: time in which metrics of %d pools are read", n), "ms", goal{}, plain(took...))
			return pairs.dismiss()
		})
	})
}

// longestHold returns for how long, in ms, the lock that decisions take was held at one time in the last reading of the
// metrics.
func longestHold(c *http.Client) (ms float64, err error) {
	const name = "usher_scrape_longest_hold_seconds "
	var text bytes.Buffer
	res, err := c.Get("http://usher/metrics?name[]=" + strings.TrimSpace(name))
	if err := readTo(&text, res, err); err != nil {
		return 0, err
	}
	for line := range strings.Lines(text.String()) {
		if value, is := strings.CutPrefix(line, name); is {
			seconds, err := strconv.ParseFloat(strings.TrimSpace(value), 64)
			return 1000 * seconds, err
		}
	}
	return 0, errors.New("the metrics have no " + name)
}
