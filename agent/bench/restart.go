package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// restart measures an agent that is killed: with a million leases in its journal, and with a session that attaches
// again.
func (s *suite) restart(ctx context.Context) error {
	return s.onSite(ctx, func(site *site) error {
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
		s.add("restart: to a lease that is attached again", "ms", "≤ 100", attached, nil)
		return s.million(ctx, site, &cmd)
	})
}

// million measures an agent that holds a million leases, and its restart.
func (s *suite) million(ctx context.Context, site *site, cmd **exec.Cmd) error {
	before, err := resident((*cmd).Process.Pid)
	if err != nil {
		return err
	}
	n := s.times(1_000_000)
	if err := fill(site.socket, n); err != nil {
		return err
	}
	after, err := resident((*cmd).Process.Pid)
	if err != nil {
		return err
	}
	s.add(
		fmt.Sprintf("process: resident memory of a lease, of %d by one holder", n),
		"B",
		"≤ 400",
		[]float64{(after - before) * 1024 / float64(n)},
		nil,
	)
	var ready []float64
	for range min(3, s.medianOf()) {
		if err := kill(*cmd); err != nil {
			return err
		}
		next, took, err := site.start(ctx)
		if err != nil {
			return err
		}
		*cmd = next
		ready = append(ready, millis(took))
	}
	s.add(fmt.Sprintf("process: ready after start with %d leases in the journal", n), "ms", "≤ 1000", ready, nil)
	return nil
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

// fill takes n leases of a day, many requests at a time.
func fill(socket string, n int) error {
	return fillWith(socket, n,
		`{"jsonrpc":"2.0","id":1,"method":"lease.acquire","params":{"pool":"seats","ttl_seconds":86400}}`+"\n")
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

// disk measures the slowest acquires while the state folder's disk is full, and while another program writes to it and
// syncs.
func (s *suite) disk(ctx context.Context) error {
	return s.onSite(ctx, func(site *site) error {
		if err := site.install(0); err != nil {
			return err
		}
		state, run := filepath.Join(site.dir, "state"), site.run
		if err := errors.Join(os.MkdirAll(state, 0o700), os.MkdirAll(run, 0o755)); err != nil {
			return err
		}
		mounted := mountMemory(state, 8)
		if mounted == nil {
			defer unmount(state)
		}
		return site.serve(ctx, func(*exec.Cmd) error {
			if mounted == nil {
				if err := s.diskFull(site, filepath.Join(state, "filler")); err != nil {
					return err
				}
			} else {
				fmt.Fprintln(os.Stderr, "no full disk can be made here:", mounted)
			}
			return s.diskBusy(site)
		})
	})
}

// slowest measures acquire and release while something is on, beside the same while it is off.
func (s *suite) slowest(site *site, name string, on, off func() error) error {
	t, err := dial(site.socket)
	if err != nil {
		return err
	}
	defer t.conn.Close()
	slice := func(took []float64, change func() error) ([]float64, error) {
		if err := change(); err != nil {
			return nil, err
		}
		for range s.times(2000) {
			begin := time.Now()
			if err := t.pair(); err != nil {
				return nil, err
			}
			took = append(took, micros(time.Since(begin)))
		}
		return took, nil
	}
	var values, limits []float64
	for range s.medianOf() {
		var with, without []float64
		for range 4 {
			if with, err = slice(with, on); err != nil {
				return err
			}
			if without, err = slice(without, off); err != nil {
				return err
			}
		}
		values, limits = append(values, quantile(with, 0.999)), append(limits, quantile(without, 0.999))
	}
	s.add("disk: acquire+release, p99.9, "+name+", beside without", "µs", "ratio ≤ 1.5", values, limits)
	return nil
}

func (s *suite) diskFull(site *site, filler string) error {
	fill := func() error {
		f, err := os.Create(filler)
		if err != nil {
			return err
		}
		for block := make([]byte, 64<<10); err == nil; {
			_, err = f.Write(block)
		}
		return f.Close()
	}
	return s.slowest(site, "disk full", fill, func() error { return os.Remove(filler) })
}

func (s *suite) diskBusy(site *site) error {
	var stop context.CancelFunc
	var done chan error
	begin := func() error {
		var ctx context.Context
		ctx, stop = context.WithCancel(context.Background())
		done = make(chan error, 1)
		go func() { done <- writeBack(ctx, filepath.Join(site.dir, "noise")) }()
		return nil
	}
	return s.slowest(site, "under write-back", begin, func() error { stop(); return <-done })
}

// writeBack writes to a file and syncs it until ctx ends.
func writeBack(ctx context.Context, path string) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	defer os.Remove(path)
	defer f.Close()
	w := bufio.NewWriterSize(f, 1<<20)
	block := make([]byte, 256<<10)
	for n := 0; ctx.Err() == nil; n++ {
		if _, err := w.Write(block); err != nil {
			return err
		}
		if n%16 == 15 {
			if err := errors.Join(w.Flush(), f.Sync()); err != nil {
				return err
			}
		}
		if n%256 == 255 {
			if _, err := f.Seek(0, 0); err != nil {
				return err
			}
		}
	}
	return nil
}
