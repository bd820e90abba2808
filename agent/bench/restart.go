package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os/exec"
	"strings"
	"syscall"
	"time"
)

// restart measures an agent that is killed: with a million leases in its journal, and with a session that attaches
// again.
func (s *suite) restart(ctx context.Context) error {
	err := s.onSite(ctx, func(site *site) error {
		if err := site.sign(ctx, "many.lic", "seats=unlimited"); err != nil {
			return err
		}
		cmd, _, err := site.start(ctx)
		if err != nil {
			return err
		}
		defer func() { stop(cmd) }()

		var attached []float64
		for range s.medianOf() {
			took, err := s.attach(ctx, site, &cmd)
			if err != nil {
				return err
			}
			attached = append(attached, millis(took))
		}
		s.add("restart: to a lease that is attached again", "ms", atMost(100), plain(attached...))
		return nil
	})
	if err != nil {
		return err
	}
	for _, kind := range []struct{ name, params string }{
		{"ttl", `{"pool":"seats","ttl_seconds":86400}`},
		{"process", `{"pool":"seats"}`},
	} {
		if err := s.million(ctx, kind.name, kind.params); err != nil {
			return fmt.Errorf("%s leases: %w", kind.name, err)
		}
	}
	return nil
}

// million measures an agent that holds a million leases of a kind, and its restart. The holder is this process.
func (s *suite) million(ctx context.Context, kind, params string) error {
	return s.onSite(ctx, func(site *site) error {
		if err := site.sign(ctx, "many.lic", "seats=unlimited"); err != nil {
			return err
		}
		cmd, _, err := site.start(ctx)
		if err != nil {
			return err
		}
		defer func() { stop(cmd) }()
		before, err := settled(cmd.Process.Pid)
		if err != nil {
			return err
		}
		n := s.times(1_000_000)
		if err := take(site.socket, n, params); err != nil {
			return err
		}
		after, err := resident(cmd.Process.Pid)
		if err != nil {
			return err
		}
		most := map[string]float64{"ttl": 400, "process": 500}[kind]
		s.add(fmt.Sprintf("process: resident memory of a %s lease, of %d by one holder", kind, n), "B", atMost(most),
			plain((after-before)*1024/float64(n)))
		var ready []float64
		for range min(3, s.medianOf()) {
			if err := kill(cmd); err != nil {
				return err
			}
			next, took, err := site.start(ctx)
			if err != nil {
				return err
			}
			cmd = next
			ready = append(ready, millis(took))
			if took > 10*time.Second {
				break // it is far from the goal: once is enough
			}
		}
		s.add(fmt.Sprintf("process: ready after start with %d %s leases in the journal", n, kind), "ms", atMost(1000),
			plain(ready...))
		return nil
	})
}

func kill(cmd *exec.Cmd) error {
	err := cmd.Process.Signal(syscall.SIGKILL)
	cmd.Wait()
	return err
}

// attach acquires in a session, kills the agent, and returns how long after the start of the next one the lease is
// attached.
func (s *suite) attach(ctx context.Context, site *site, cmd **exec.Cmd) (time.Duration, error) {
	t, err := dial(site.socket)
	if err != nil {
		return 0, err
	}
	answer, err := t.ask(strings.Replace(acquireLine, "streams", "seats", 1))
	_, rest, ok := strings.Cut(answer, `"result":{"id":"`)
	if err != nil || !ok {
		return 0, fmt.Errorf("%s: %w", answer, err)
	}
	t.conn.Close()
	if err := kill(*cmd); err != nil {
		return 0, err
	}
	next := site.command(ctx)
	begin := time.Now()
	if err := next.Start(); err != nil {
		return 0, err
	}
	*cmd = next
	for time.Since(begin) < 10*time.Second {
		t, err := dial(site.socket)
		if err != nil {
			time.Sleep(200 * time.Microsecond)
			continue
		}
		answer, err := t.ask(
			`{"jsonrpc":"2.0","id":1,"method":"lease.attach","params":{"id":"` + rest[:32] + `"}}` + "\n",
		)
		took := time.Since(begin)
		if err != nil || !strings.Contains(answer, `"result"`) {
			return 0, fmt.Errorf("attach: %s: %w", answer, err)
		}
		_, err = t.ask(`{"jsonrpc":"2.0","id":2,"method":"lease.release","params":{"id":"` + rest[:32] + `"}}` + "\n")
		t.conn.Close()
		return took, err
	}
	return 0, errors.New("the lease is not attached after 10 s")
}

// take takes n leases in a session that ends, many requests at a time.
func take(socket string, n int, params string) error {
	return fillWith(socket, n, `{"jsonrpc":"2.0","id":1,"method":"lease.acquire","params":`+params+"}\n")
}

// fillWith makes the same request n times, many at a time.
func fillWith(socket string, n int, request string) error {
	t, err := dial(socket)
	if err != nil {
		return err
	}
	defer t.conn.Close()
	line := []byte(request)
	const batch = 200
	lines := bytes.Repeat(line, batch)
	written := make(chan error, 1)
	go func() {
		for i := 0; i < n; i += batch {
			if _, err := t.conn.Write(lines[:len(line)*min(batch, n-i)]); err != nil {
				written <- err
				return
			}
		}
		written <- nil
	}()
	for range n {
		answer, err := t.in.ReadSlice('\n')
		if err != nil {
			return err
		}
		if !bytes.Contains(answer, []byte(`"result"`)) {
			return fmt.Errorf("acquire: %s", answer)
		}
	}
	return <-written
}
