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

	"github.com/usher-agent/usher/enforcer"
)

// site is a folder with a vendor's key, two licences and a configuration, all made by the binary's own commands.
type site struct {
	dir, usher, socket, folder, config string
	run                                string // the runtime folder, in memory where that is possible, as /run is
	disk                               string // a folder on a disk, if there is one; the state folder is in it
	mode                               string // the socket's
	licences                           [2]string
	through                            []string // starts the agent; nil: nothing does
	env                                []string // of the agent; nil: ours
}

// sign signs a licence with limits into the folder.
func (s *site) sign(ctx context.Context, name string, limits ...string) error {
	out, err := s.signBeside(ctx, name, "host", limits...)
	if err != nil {
		return err
	}
	return copyInto(s.folder, name, out)
}

// signBeside signs a licence with limits for a host or a site, and returns where it is. It is in no force there.
func (s *site) signBeside(ctx context.Context, name, scope string, limits ...string) (string, error) {
	out := filepath.Join(s.dir, name)
	args := []string{"vendor", "sign", "--key", filepath.Join(s.dir, "bench.key"), "--product", "bench",
		"--licensee", "Bench", "--id", name, "--scope", scope, "--force", "--out", out}
	for _, l := range limits {
		args = append(args, "--limit", l)
	}
	b, err := exec.CommandContext(ctx, s.usher, args...).CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("usher vendor sign: %w: %s", err, b)
	}
	return out, nil
}

// command is the agent, not started yet.
func (s *site) command(ctx context.Context) *exec.Cmd {
	args := append(slices.Clip(s.through), s.usher, "agent", "--config", s.config)
	cmd := exec.CommandContext(ctx, args[0], args[1:]...)
	cmd.Env, cmd.Stderr = s.env, os.Stderr
	return cmd
}

// setUp makes a site. Its sockets' paths must be short, so it lies in the system's temporary folder.
func setUp(ctx context.Context, usher string) (s *site, err error) {
	s = &site{usher: usher, mode: "0600"}
	defer func() {
		if err != nil {
			s.remove()
		}
	}()
	if s.dir, err = os.MkdirTemp("", "u"); err != nil {
		return nil, err
	}
	if err := os.Chmod(s.dir, 0o711); err != nil { // another user calls, too
		return nil, err
	}
	s.run, s.disk = filepath.Join(s.dir, "run"), s.dir
	if mem, err := os.MkdirTemp("/dev/shm", "usher"); err == nil {
		s.run = mem
	}
	if isMemory(s.dir) {
		if dir, err := os.MkdirTemp("/var/tmp", "usher"); err == nil {
			s.disk = dir
		}
	}
	s.socket, s.folder, s.config = filepath.Join(s.dir, "s"), filepath.Join(s.dir, "l"),
		filepath.Join(s.dir, "usher.yaml")
	if err := os.Mkdir(s.folder, 0o700); err != nil {
		return nil, err
	}
	usherRun := func(args ...string) error {
		if out, err := exec.CommandContext(ctx, usher, args...).CombinedOutput(); err != nil {
			return fmt.Errorf("usher %s: %w: %s", strings.Join(args, " "), err, out)
		}
		return nil
	}
	if err := usherRun("vendor", "keygen", "--kid", "bench", "--out", s.dir); err != nil {
		return nil, err
	}
	for i := range s.licences {
		s.licences[i] = filepath.Join(s.dir, fmt.Sprintf("%d.lic", i))
		if err := usherRun("vendor", "sign", "--key", filepath.Join(s.dir, "bench.key"), "--product", "bench",
			"--licensee", "Bench",
			"--id", fmt.Sprintf("bench-%d", i), "--limit", fmt.Sprintf("streams=%d", 1000+i), "--scope", "host",
			"--out", s.licences[i]); err != nil {
			return nil, err
		}
	}
	return s, s.configure()
}

// state is the state folder.
func (s *site) state() string { return filepath.Join(s.disk, "state") }

// configure writes the configuration.
func (s *site) configure() error { return s.configureAs(s, "") }

// configureAs writes the configuration of an agent that trusts the key of another site, and more keys at its end.
func (s *site) configureAs(vendor *site, more string) error {
	return os.WriteFile(s.config, fmt.Appendf(nil, `product: bench
license:
  path: %s
  trust:
    - {system: usher, kid: bench, key_file: %s}
socket: {path: %s, mode: %q}
state: {dir: %s, runtime_dir: %s}
log: {level: error}
%s`, s.folder, filepath.Join(vendor.dir, "bench.pub"), s.socket, s.mode, s.state(), s.run, more), 0o600)
}

// moveRuntime moves the runtime folder of an agent that has not started to the disk.
func (s *site) moveRuntime() error {
	if isMemory(s.disk) {
		return errors.New("neither the temporary folder nor /var/tmp lies on a disk: set TMPDIR to a folder that does")
	}
	os.RemoveAll(s.run)
	s.run = filepath.Join(s.disk, "run")
	return s.configure()
}

func (s *site) remove() {
	for _, dir := range []string{s.dir, s.run, s.disk} {
		if dir != "" {
			os.RemoveAll(dir)
		}
	}
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
	defer site.remove()
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

// patience is how long an agent may take until it is ready.
const patience = 5 * time.Minute

// start starts an agent and returns how long it took to say that it was ready.
func (s *site) start(ctx context.Context) (*exec.Cmd, time.Duration, error) {
	cmd := s.command(ctx)
	begin := time.Now()
	if err := cmd.Start(); err != nil {
		return nil, 0, err
	}
	c := client(s.socket)
	defer c.CloseIdleConnections()
	for time.Since(begin) < patience {
		if call(c, "GET", "/v1/ready", nil, nil) == nil {
			return cmd, time.Since(begin), nil
		}
		time.Sleep(time.Millisecond)
	}
	return nil, 0, errors.Join(fmt.Errorf("the agent is not ready after %s", enforcer.Span(patience)), stop(cmd))
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
