package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
)

// site is a folder with a vendor's key, two licences and a configuration, all made by the binary's own commands.
type site struct {
	dir, usher, socket, folder, config string
	run                                string // the runtime folder, in memory where that is possible, as /run is
	licences                           [2]string
	through                            []string // starts the agent; nil: nothing does
	env                                []string // of the agent; nil: ours
}

// sign signs a licence with limits into the folder.
func (s *site) sign(ctx context.Context, name string, limits ...string) error {
	out := filepath.Join(s.dir, name)
	args := []string{"vendor", "sign", "--key", filepath.Join(s.dir, "bench.key"), "--product", "bench",
		"--licensee", "Bench", "--id", name, "--scope", "host", "--force", "--out", out}
	for _, l := range limits {
		args = append(args, "--limit", l)
	}
	b, err := exec.CommandContext(ctx, s.usher, args...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("usher vendor sign: %w: %s", err, b)
	}
	return copyInto(s.folder, name, out)
}

// command is the agent, not started yet.
func (s *site) command(ctx context.Context) *exec.Cmd {
	args := append(slices.Clip(s.through), s.usher, "agent", "--config", s.config)
	cmd := exec.CommandContext(ctx, args[0], args[1:]...)
	cmd.Env, cmd.Stderr = s.env, os.Stderr
	return cmd
}

// setUp makes a site. Its sockets' paths must be short, so it lies in the system's temporary folder.
func setUp(ctx context.Context, usher string) (*site, error) {
	dir, err := os.MkdirTemp("", "u")
	if err != nil {
		return nil, err
	}
	run := filepath.Join(dir, "run")
	if mem, err := os.MkdirTemp("/dev/shm", "usher"); err == nil {
		run = mem
	}
	s := &site{
		run:    run,
		dir:    dir,
		usher:  usher,
		socket: filepath.Join(dir, "s"),
		folder: filepath.Join(dir, "l"),
		config: filepath.Join(dir, "usher.yaml"),
	}
	if err := os.Mkdir(s.folder, 0o700); err != nil {
		return nil, err
	}
	usherRun := func(args ...string) error {
		if out, err := exec.CommandContext(ctx, usher, args...).CombinedOutput(); err != nil {
			return fmt.Errorf("usher %s: %w: %s", strings.Join(args, " "), err, out)
		}
		return nil
	}
	if err := usherRun("vendor", "keygen", "--kid", "bench", "--out", dir); err != nil {
		return nil, err
	}
	for i := range s.licences {
		s.licences[i] = filepath.Join(dir, fmt.Sprintf("%d.lic", i))
		if err := usherRun("vendor", "sign", "--key", filepath.Join(dir, "bench.key"), "--product", "bench",
			"--licensee", "Bench",
			"--id", fmt.Sprintf("bench-%d", i), "--limit", fmt.Sprintf("streams=%d", 1000+i), "--scope", "host",
			"--out", s.licences[i]); err != nil {
			return nil, err
		}
	}
	return s, os.WriteFile(s.config, fmt.Appendf(nil, `product: bench
license:
  path: %s
  trust:
    - {system: usher, kid: bench, key_file: %s}
socket: {path: %s, mode: "0600"}
state: {dir: %s, runtime_dir: %s}
log: {level: error}
`, s.folder, filepath.Join(dir, "bench.pub"), s.socket, filepath.Join(dir, "state"), run), 0o600)
}

// onSite runs f in a site of its own, which is gone afterwards. Without a binary to measure it does nothing.
func (s *suite) onSite(ctx context.Context, f func(*site) error) error {
	if s.usher == "" {
		return nil
	}
	site, err := setUp(ctx, s.usher)
	if err != nil {
		return err
	}
	defer os.RemoveAll(site.dir)
	defer os.RemoveAll(site.run)
	return f(site)
}

// withAgent runs f beside an agent that is ready and has the first licence.
func (s *suite) withAgent(ctx context.Context, f func(*site, *exec.Cmd) error) error {
	return s.onSite(ctx, func(site *site) error {
		if err := site.install(0); err != nil {
			return err
		}
		return site.serve(ctx, func(cmd *exec.Cmd) error { return f(site, cmd) })
	})
}

// serve runs f beside an agent of the site that is ready.
func (s *site) serve(ctx context.Context, f func(*exec.Cmd) error) error {
	cmd, _, err := s.start(ctx)
	if err != nil {
		return err
	}
	defer stop(cmd)
	return f(cmd)
}

// install puts one of the site's licences into its folder.
func (s *site) install(i int) error { return copyInto(s.folder, "bench.lic", s.licences[i]) }

// beside measures two ways in slices by turns, as often as the suite has runs, and returns the median of each run.
func (s *suite) beside(slices int, real, bare func() (float64, error)) (values, limits []float64, err error) {
	for range s.medianOf() {
		var a, b []float64
		for range s.times(slices) {
			x, err := real()
			if err != nil {
				return nil, nil, err
			}
			y, err := bare()
			if err != nil {
				return nil, nil, err
			}
			a, b = append(a, x), append(b, y)
		}
		values, limits = append(values, median(a)), append(limits, median(b))
	}
	return values, limits, nil
}

// startSelf starts this program again with flags, and returns once ready says that it serves.
func startSelf(ctx context.Context, ready func() bool, flags ...string) (end func(), err error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, self, flags...)
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	end = func() {
		cmd.Process.Kill()
		cmd.Wait()
	}
	for begin := time.Now(); !ready(); time.Sleep(time.Millisecond) {
		if time.Since(begin) > 5*time.Second {
			end()
			return nil, fmt.Errorf("%s does not answer", strings.Join(flags, " "))
		}
	}
	return end, nil
}

// client speaks HTTP on a Unix socket over one kept-open connection.
func client(socket string) *http.Client {
	return &http.Client{
		Transport: &http.Transport{
			MaxConnsPerHost: 1,
			DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
				return (&net.Dialer{}).DialContext(ctx, "unix", socket)
			},
		},
	}
}

func call(c *http.Client, method, path string, in, out any) error {
	var body io.Reader
	if in != nil {
		b, err := json.Marshal(in)
		if err != nil {
			return err
		}
		body = bytes.NewReader(b)
	}
	req, err := http.NewRequest(method, "http://usher"+path, body)
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/json")
	res, err := c.Do(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	b, err := io.ReadAll(io.LimitReader(res.Body, 1<<20))
	if err != nil {
		return err
	}
	if res.StatusCode >= 300 {
		return fmt.Errorf("%s %s: %s: %s", method, path, res.Status, b)
	}
	if out == nil {
		return nil
	}
	return json.Unmarshal(b, out)
}

// start starts an agent and returns how long it took to say that it was ready.
func (s *site) start(ctx context.Context) (*exec.Cmd, time.Duration, error) {
	cmd := s.command(ctx)
	begin := time.Now()
	if err := cmd.Start(); err != nil {
		return nil, 0, err
	}
	c := client(s.socket)
	defer c.CloseIdleConnections()
	for time.Since(begin) < time.Minute {
		if call(c, "GET", "/v1/ready", nil, nil) == nil {
			return cmd, time.Since(begin), nil
		}
		time.Sleep(time.Millisecond)
	}
	return nil, 0, errors.Join(errors.New("the agent is not ready after a minute"), stop(cmd))
}

func stop(cmd *exec.Cmd) error {
	if cmd == nil {
		return nil
	}
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		return err
	}
	return cmd.Wait()
}
