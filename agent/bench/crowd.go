package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/usher-agent/usher/client/wire"
)

// callers is how many acquire and release at once.
const callers = 64

// pairs acquires and releases until end is closed, and returns how often it did.
func (t *talk) pairs(d time.Duration) (n int, err error) {
	for end := time.Now().Add(d); time.Now().Before(end); n++ {
		if err := t.pair(); err != nil {
			return n, err
		}
	}
	return n, nil
}

// sessions is many callers in this process.
type sessions [callers]*talk

// attend opens the sessions. Each acquires once, so that a session's first costs do not count.
func attend(socket string) (s sessions, err error) {
	for i := range s {
		if s[i], err = dial(socket); err != nil {
			return s, err
		}
		if err := s[i].pair(); err != nil {
			return s, err
		}
	}
	return s, nil
}

func (s sessions) leave() {
	for _, t := range s {
		if t != nil {
			t.conn.Close()
		}
	}
}

// work returns the pairs a second of all of them.
func (s sessions) work(d time.Duration) (float64, error) {
	var wg sync.WaitGroup
	var counts [callers]int
	var errs [callers]error
	begin := time.Now()
	for i, t := range s {
		wg.Go(func() { counts[i], errs[i] = t.pairs(d) })
	}
	wg.Wait()
	took := time.Since(begin).Seconds()
	all := 0
	for _, n := range counts {
		all += n
	}
	return float64(all) / took, errors.Join(errs[:]...)
}

// caller is this program again, as one client process. It dials. For every line on its standard input, a duration, it
// acquires and releases for so long and answers how often it did.
func caller(socket string, in io.Reader, out io.Writer) error {
	t, err := dial(socket)
	if err != nil {
		return err
	}
	if err := t.pair(); err != nil { // a session's first costs do not count
		return err
	}
	fmt.Fprintln(out, "ready")
	for lines := bufio.NewScanner(in); lines.Scan(); {
		d, err := time.ParseDuration(lines.Text())
		if err != nil {
			return err
		}
		n, err := t.pairs(d)
		if err != nil {
			return err
		}
		fmt.Fprintln(out, n)
	}
	return nil
}

// crew is many client processes on one socket.
type crew struct {
	in   []io.WriteCloser
	out  []*bufio.Reader
	cmds []*exec.Cmd
}

func hire(ctx context.Context, socket string) (*crew, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	c := &crew{}
	for range callers {
		cmd := exec.CommandContext(ctx, self, "-caller", socket)
		cmd.Stderr = os.Stderr
		in, err := cmd.StdinPipe()
		if err != nil {
			return nil, errors.Join(err, c.dismiss())
		}
		out, err := cmd.StdoutPipe()
		if err == nil {
			err = cmd.Start()
		}
		if err != nil {
			return nil, errors.Join(err, c.dismiss())
		}
		c.in, c.out, c.cmds = append(c.in, in), append(c.out, bufio.NewReader(out)), append(c.cmds, cmd)
	}
	for _, out := range c.out {
		if _, err := out.ReadString('\n'); err != nil {
			return nil, errors.Join(err, c.dismiss())
		}
	}
	return c, nil
}

func (c *crew) dismiss() (err error) {
	for i := range c.cmds {
		c.in[i].Close()
		err = errors.Join(err, c.cmds[i].Wait())
	}
	return err
}

func (c *crew) work(d time.Duration) (float64, error) {
	begin := time.Now()
	for _, in := range c.in {
		if _, err := fmt.Fprintf(in, "%dns\n", d.Nanoseconds()); err != nil {
			return 0, err
		}
	}
	all := 0
	for _, out := range c.out {
		line, err := out.ReadString('\n')
		if err != nil {
			return 0, err
		}
		n, err := strconv.Atoi(strings.TrimSpace(line))
		if err != nil {
			return 0, err
		}
		all += n
	}
	return float64(all) / time.Since(begin).Seconds(), nil
}

// crowd measures the throughput of many callers, as goroutines and as processes, beside the canned server's.
func (s *suite) crowd(ctx context.Context, socket, canned string) (err error) {
	var crews [2]*crew
	var crowds [2]sessions
	for i, at := range []string{socket, canned} {
		if crews[i], err = hire(ctx, at); err != nil {
			return err
		}
		defer func() { err = errors.Join(err, crews[i].dismiss()) }()
		crowds[i], err = attend(at)
		defer crowds[i].leave()
		if err != nil {
			return err
		}
	}
	for _, way := range []struct {
		name       string
		real, bare func(time.Duration) (float64, error)
	}{
		{"goroutines", crowds[0].work, crowds[1].work},
		{"processes", crews[0].work, crews[1].work},
	} {
		values, limits, err := s.beside(10, func() (float64, error) { return way.real(100 * time.Millisecond) },
			func() (float64, error) { return way.bare(100 * time.Millisecond) })
		if err != nil {
			return err
		}
		s.add(
			fmt.Sprintf("session: acquire+release of %d %s, beside a canned server", callers, way.name),
			"1/s",
			"ratio ≥ 0.7",
			values,
			limits,
		)
	}
	return nil
}

// idle measures the processor time of an agent with many live holders that call nothing.
func (s *suite) idle(ctx context.Context) error {
	return s.withAgent(ctx, func(site *site, agent *exec.Cmd) error {
		end, err := s.hold(ctx, site, s.times(1000))
		defer end()
		if err != nil {
			return err
		}
		window := 20 * time.Second
		if s.quick {
			window = 2 * time.Second
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
		s.add("process: CPU when idle with 1,000 live holders", "% of a core", "≤ 0.1", shares, nil)
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
			h := exec.CommandContext(
				ctx,
				s.usher,
				"run",
				"--socket",
				site.socket,
				"--pool",
				"streams",
				"--",
				"sleep",
				"1000",
			)
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

// cpuTime returns a process's user and system time, from proc(5), in whose stat a tick is a hundredth of a second.
func cpuTime(pid int) (time.Duration, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, err
	}
	_, rest, _ := strings.Cut(string(b), ") ") // the name may have blanks
	f := strings.Fields(rest)
	if len(f) < 13 {
		return 0, errors.New("no times in /proc/PID/stat")
	}
	user, err1 := strconv.Atoi(f[11])
	system, err2 := strconv.Atoi(f[12])
	return time.Duration(user+system) * 10 * time.Millisecond, errors.Join(err1, err2)
}
