package main

import (
	"bufio"
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
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/usher-agent/usher/client/wire"
)

// site is a folder with a vendor's key, two licences and a configuration, all made by the binary's own commands.
type site struct {
	dir, usher, socket, folder, config string
	licences                           [2]string
	through                            []string // what starts the agent; nil: nothing does
	env                                []string // of the agent; nil: ours
}

// sign signs a licence with one limit into the folder.
func (s *site) sign(ctx context.Context, name, limit string) error {
	out := filepath.Join(s.dir, name)
	b, err := exec.CommandContext(ctx, s.usher, "vendor", "sign", "--key", filepath.Join(s.dir, "bench.key"), "--product", "bench", "--licensee", "Bench",
		"--limit", limit, "--scope", "host", "--out", out).CombinedOutput()
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
	s := &site{dir: dir, usher: usher, socket: filepath.Join(dir, "s"), folder: filepath.Join(dir, "l"), config: filepath.Join(dir, "usher.yaml")}
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
		if err := usherRun("vendor", "sign", "--key", filepath.Join(dir, "bench.key"), "--product", "bench", "--licensee", "Bench",
			"--id", fmt.Sprintf("bench-%d", i), "--limit", fmt.Sprintf("streams=%d", 1000+i), "--scope", "host", "--out", s.licences[i]); err != nil {
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
`, s.folder, filepath.Join(dir, "bench.pub"), s.socket, filepath.Join(dir, "state"), filepath.Join(dir, "run")), 0o600)
}

// client speaks HTTP on a Unix socket over one kept-open connection.
func client(socket string) *http.Client {
	return &http.Client{Transport: &http.Transport{MaxConnsPerHost: 1, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", socket)
	}}}
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

// start starts an agent and returns how long it took until it said it was ready.
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

// process measures a whole agent: start to ready, and its resident memory when idle.
func (s *suite) process(ctx context.Context) error {
	if s.usher == "" {
		return nil
	}
	site, err := setUp(ctx, s.usher)
	if err != nil {
		return err
	}
	defer os.RemoveAll(site.dir)
	if err := copyInto(site.folder, "bench.lic", site.licences[0]); err != nil {
		return err
	}
	var starts, rss []float64
	for range s.medianOf() {
		cmd, took, err := site.start(ctx)
		if err != nil {
			return err
		}
		starts = append(starts, millis(took))
		kib, err := resident(cmd.Process.Pid)
		if err != nil {
			return errors.Join(err, stop(cmd))
		}
		rss = append(rss, kib/1024)
		if err := stop(cmd); err != nil {
			return err
		}
	}
	s.add("process: ready after start", "ms", "≤ 50", starts, nil)
	s.add("process: resident memory when idle", "MiB", "≤ 20", rss, nil)
	return nil
}

func resident(pid int) (kib float64, err error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(b)) {
		if f := strings.Fields(line); len(f) > 1 && f[0] == "VmRSS:" {
			return strconv.ParseFloat(f[1], 64)
		}
	}
	return 0, errors.New("no VmRSS")
}

// copyInto puts a file into a folder by rename.
func copyInto(dir, name, from string) error {
	b, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	tmp := filepath.Join(dir, "."+name)
	if err := os.WriteFile(tmp, b, 0o600); err != nil {
		return err
	}
	return os.Rename(tmp, filepath.Join(dir, name))
}

// folder measures how long after its rename into the folder a licence is in force, as a subscriber to the events sees it.
func (s *suite) folder(ctx context.Context) error {
	if s.usher == "" {
		return nil
	}
	site, err := setUp(ctx, s.usher)
	if err != nil {
		return err
	}
	defer os.RemoveAll(site.dir)
	cmd, _, err := site.start(ctx)
	if err != nil {
		return err
	}
	defer stop(cmd) //nolint:errcheck // it is only told to end
	res, err := client(site.socket).Get("http://usher/v1/events")
	if err != nil {
		return err
	}
	defer res.Body.Close()
	changed := make(chan time.Time, 64)
	go func() {
		lines := bufio.NewScanner(res.Body)
		for lines.Scan() {
			if strings.HasPrefix(lines.Text(), "event: license.changed") {
				changed <- time.Now()
			}
		}
	}()
	<-changed // the state at the beginning, which every subscriber is told
	var p50s, p99s []float64
	for range s.medianOf() {
		var took []float64
		for i := range s.times(300) {
			tmp := filepath.Join(site.folder, ".next")
			b, err := os.ReadFile(site.licences[i%2])
			if err != nil {
				return err
			}
			if err := os.WriteFile(tmp, b, 0o600); err != nil {
				return err
			}
			begin := time.Now()
			if err := os.Rename(tmp, filepath.Join(site.folder, "bench.lic")); err != nil {
				return err
			}
			select {
			case at := <-changed:
				took = append(took, millis(at.Sub(begin)))
			case <-time.After(5 * time.Second):
				var l wire.License
				err := call(client(site.socket), "GET", "/v1/license", nil, &l)
				return fmt.Errorf("a licence renamed into the folder (the %dth) is not in force after 5 s: %s, %s, %w", len(took)+1, l.Code, l.Reason, err)
			}
		}
		p50s, p99s = append(p50s, quantile(took, 0.5)), append(p99s, quantile(took, 0.99))
	}
	s.add("folder: rename to in force, p50", "ms", "", p50s, nil)
	s.add("folder: rename to in force, p99", "ms", "≤ 5", p99s, nil)
	return nil
}

// http measures an acquire over HTTP beside a bare handler in a process of its own that reads and answers the same JSON.
func (s *suite) http(ctx context.Context) error {
	if s.usher == "" {
		return nil
	}
	site, err := setUp(ctx, s.usher)
	if err != nil {
		return err
	}
	defer os.RemoveAll(site.dir)
	if err := copyInto(site.folder, "bench.lic", site.licences[0]); err != nil {
		return err
	}
	cmd, _, err := site.start(ctx)
	if err != nil {
		return err
	}
	defer stop(cmd) //nolint:errcheck // it is only told to end
	self, err := os.Executable()
	if err != nil {
		return err
	}
	bareSocket := filepath.Join(site.dir, "b")
	bare := exec.CommandContext(ctx, self, "-bare", bareSocket)
	if err := bare.Start(); err != nil {
		return err
	}
	defer bare.Process.Kill() //nolint:errcheck // it has nothing to lose

	real, canned := client(site.socket), client(bareSocket)
	for begin := time.Now(); call(canned, "GET", "/", nil, nil) != nil; {
		if time.Since(begin) > 5*time.Second {
			return errors.New("the bare handler does not answer")
		}
		time.Sleep(time.Millisecond)
	}
	one := int64(1)
	slice := func(c *http.Client) (p50 float64, err error) {
		var took []float64
		for end := time.Now().Add(100 * time.Millisecond); time.Now().Before(end); {
			var l wire.Lease
			begin := time.Now()
			if err := call(c, "POST", "/v1/leases", wire.AcquireRequest{Pool: "streams", N: &one, TTLSeconds: 60}, &l); err != nil {
				return 0, err
			}
			took = append(took, micros(time.Since(begin)))
			if err := call(c, "DELETE", "/v1/leases/"+l.ID, nil, nil); err != nil {
				return 0, err
			}
		}
		return median(took), nil
	}
	var values, limits []float64
	for range s.medianOf() {
		var a, b []float64
		for range s.times(10) {
			x, err := slice(real)
			if err != nil {
				return err
			}
			y, err := slice(canned)
			if err != nil {
				return err
			}
			a, b = append(a, x), append(b, y)
		}
		values, limits = append(values, median(a)), append(limits, median(b))
	}
	s.add("http: acquire, p50, beside a bare handler", "µs", "ratio ≤ 1.2", values, limits)
	return nil
}

// serveBare answers every request with a lease, after reading the body as strictly as encoding/json does.
func serveBare(socket string) error {
	l, err := net.Listen("unix", socket)
	if err != nil {
		return err
	}
	lease := wire.Lease{ID: strings.Repeat("0", 32), Pool: "streams", N: 1, Items: []wire.Item{{Pool: "streams", N: 1}}, Lifetime: "ttl",
		Liveness: "ttl", State: "held", AcquiredAt: epoch, ExpiresAt: &epoch, Holder: &wire.Holder{UID: 0, GID: 0, PID: 12345, Exe: "/usr/local/bin/bench"}}
	return http.Serve(l, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodDelete {
			w.WriteHeader(http.StatusNoContent)
			return
		}
		if r.Method == http.MethodPost {
			var in wire.AcquireRequest
			if err := json.NewDecoder(io.LimitReader(r.Body, 64<<10)).Decode(&in); err != nil {
				http.Error(w, err.Error(), http.StatusBadRequest)
				return
			}
		}
		w.Header().Set("Content-Type", "application/json")
		json.NewEncoder(w).Encode(lease) //nolint:errcheck // the reader is ours
	}))
}
