package main

import (
	"context"
	"fmt"
	"os/exec"
	"time"

	"github.com/usher-agent/usher/client/wire"
)

// idle measures the processor time of an agent with many live holders that call nothing.
func (s *suite) idle(ctx context.Context) error {
	if !hasCPUTime {
		return nil
	}
	return s.withAgent(ctx, func(site *site, agent *exec.Cmd) error {
		end, err := s.hold(ctx, site, s.times(1000))
		defer end()
		if err != nil {
			return err
		}
		window := 6 * time.Second
		if s.share > 0 {
			window = time.Second
		}
		var shares []float64
		for range s.medianOf() {
			before, err := cpuTime(agent.Process.Pid)
			if err != nil {
				return err
			}
			begin := time.Now()
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-time.After(window):
			}
			after, err := cpuTime(agent.Process.Pid)
			if err != nil {
				return err
			}
			shares = append(shares, 100*float64(after-before)/float64(time.Since(begin)))
		}
		s.add("process: CPU when idle with 1,000 live holders", "% of a core", atMost(0.1), plain(shares...))
		return nil
	})
}

// hold starts n processes that hold a slot each, and returns when all have theirs. end ends them; it is never nil.
func (s *suite) hold(ctx context.Context, site *site, n int) (end func(), err error) {
	var holders []*exec.Cmd
	end = func() {
		for _, h := range holders {
			h.Process.Kill()
			h.Wait()
		}
	}
	c := client(site.socket)
	defer c.CloseIdleConnections()
	for len(holders) < n {
		for batch := min(n, len(holders)+20); len(holders) < batch; {
			h := exec.CommandContext(ctx, s.usher, "run", "--socket", site.socket, "--pool", "streams", "--", "sleep",
				"1000")
			if err := h.Start(); err != nil {
				return end, err
			}
			holders = append(holders, h)
		}
		for begin := time.Now(); ; time.Sleep(5 * time.Millisecond) {
			var p wire.Pool
			if err := call(c, "GET", "/v1/pools/streams", nil, &p); err != nil {
				return end, err
			}
			if p.InUse == int64(len(holders)) {
				break
			}
			if time.Since(begin) > time.Minute {
				return end, fmt.Errorf("of %d holders only %d have a slot after a minute", len(holders), p.InUse)
			}
		}
	}
	return end, nil
}
