package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
)

// beside measures an acquire and its release of a pool that is a fleet's, where the agent has slots of it, beside the
// same of a pool that is the host's.
func (s *suite) beside(ctx context.Context, etcd string) error {
	return s.onSite(ctx, func(shared *site) error {
		if err := shared.join(ctx, etcd); err != nil {
			return err
		}
		return shared.serve(ctx, func(member *exec.Cmd) error {
			if err := until(func() (bool, error) {
				t, err := dial(shared.socket)
				if err != nil {
					return false, err
				}
				defer t.conn.Close()
				return t.pair() == nil, nil
			}, "the fleet gives the agent a slot"); err != nil {
				return err
			}
			return s.withAgent(ctx, func(own *site, agent *exec.Cmd) error {
				c, err := s.single(ctx, 6, "caller", [2]string{shared.socket, own.socket},
					[2]int{member.Process.Pid, agent.Process.Pid})
				s.add("fleet: acquire+release of a fleet's pool, p50, beside a host's", "µs", ratioAtMost(1.05),
					c.figures(p50))
				return err
			})
		})
	})
}

// join has the site's agent be of a fleet, with a licence whose pool is the fleet's.
func (s *site) join(ctx context.Context, etcd string) error {
	out, err := s.signBeside(ctx, "bench-fleet", "site", "streams=1000")
	if err != nil {
		return err
	}
	if err := copyInto(s.folder, "bench.lic", out); err != nil {
		return err
	}
	f, err := os.OpenFile(s.config, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = fmt.Fprintf(f, "fleet: {endpoints: [%q], prefix: /bench-local/, ttl: 5s}\n", etcd)
	return err
}
