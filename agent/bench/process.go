package main

import (
	"bufio"
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
	"strconv"
	"strings"
	"time"

	"github.com/usher-agent/usher/client/wire"
)

// process measures a whole agent: start to ready, and its resident memory when idle.
func (s *suite) process(ctx context.Context) error {
	return s.onSite(ctx, func(site *site) error {
		if err := site.install(0); err != nil {
			return err
		}
		var starts, rss []float64
		for range s.medianOf() {
			cmd, took, err := site.start(ctx)
			if err != nil {
				return err
			}
			starts = append(starts, millis(took))
			kib, err := settled(cmd.Process.Pid)
			if err := errors.Join(err, stop(cmd)); err != nil {
				return err
			}
			rss = append(rss, kib/1024)
		}
		s.add("process: ready after start", "ms", atMost(50), plain(starts...))
		s.add("process: resident memory when idle", "MiB", atMost(20), plain(rss...))
		return nil
	})
}

// settled returns the resident memory of a process once it is the same for half a second: what only the start needed
// is given back after the agent is ready.
func settled(pid int) (kib float64, err error) {
	last, since := 0.0, time.Now()
	for begin := time.Now(); time.Since(since) < 500*time.Millisecond && time.Since(begin) < 5*time.Second; {
		if kib, err = resident(pid); err != nil {
			return 0, err
		}
		if kib != last {
			last, since = kib, time.Now()
		}
		time.Sleep(10 * time.Millisecond)
	}
	return kib, nil
}

// resident returns the resident memory of a process.
func resident(pid int) (kib float64, err error) { return memoryOf(pid, "VmRSS:") }

// memoryOf returns a line of the status of a process (proc(5)).
func memoryOf(pid int, what string) (kib float64, err error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(b)) {
		if f := strings.Fields(line); len(f) > 1 && f[0] == what {
			return strconv.ParseFloat(f[1], 64)
		}
	}
	return 0, fmt.Errorf("process %d has no %s", pid, what)
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

// folder measures how long after its rename into the folder a licence is in force, as a subscriber to the events sees
// it.
func (s *suite) folder(ctx context.Context) error {
	return s.onSite(ctx, func(site *site) error {
		return site.serve(ctx, func(*exec.Cmd) error { return s.renames(site) })
	})
}

func (s *suite) renames(site *site) error {
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
	<-changed // the state at the beginning, which every subscriber gets
	var p50s, p99s []float64
	for range s.medianOf() {
		var took []float64
		for i := range s.times(300) {
			d, err := site.inForce(i%2, changed)
			if err != nil {
				return fmt.Errorf("renamed %d times: %w", len(took)+1, err)
			}
			took = append(took, millis(d))
		}
		p50s, p99s = append(p50s, quantile(took, 0.5)), append(p99s, quantile(took, 0.99))
	}
	s.add("folder: rename to in force, p50", "ms", goal{}, plain(p50s...))
	s.add("folder: rename to in force, p99", "ms", atMost(5), plain(p99s...))
	return nil
}

// inForce renames a licence into the folder and returns how long it took until an event reported it.
func (s *site) inForce(licence int, changed <-chan time.Time) (time.Duration, error) {
	tmp := filepath.Join(s.folder, ".next")
	b, err := os.ReadFile(s.licences[licence])
	if err != nil {
		return 0, err
	}
	if err := os.WriteFile(tmp, b, 0o600); err != nil {
		return 0, err
	}
	begin := time.Now()
	if err := os.Rename(tmp, filepath.Join(s.folder, "bench.lic")); err != nil {
		return 0, err
	}
	select {
	case at := <-changed:
		return at.Sub(begin), nil
	case <-time.After(5 * time.Second):
	}
	var l wire.License
	if err := call(client(s.socket), "GET", "/v1/license", nil, &l); err != nil {
		return 0, err
	}
	return 0, fmt.Errorf("the licence is not in force after 5 s: %s, %s", l.Code, l.Reason)
}

// http measures an acquire over HTTP beside a bare handler in a process of its own that reads and answers the same
// JSON.
func (s *suite) http(ctx context.Context) error {
	return s.withAgent(ctx, func(site *site, agent *exec.Cmd) error {
		socket := filepath.Join(site.dir, "b")
		c := client(socket)
		defer c.CloseIdleConnections()
		bare, err := startServer(ctx, "bare", socket, func() bool { return call(c, "GET", "/", nil, nil) == nil })
		if err != nil {
			return err
		}
		defer end(bare)
		got, err := s.single(ctx, 12, "http-caller", [2]string{site.socket, socket},
			[2]int{agent.Process.Pid, bare.Process.Pid})
		if err != nil {
			return err
		}
		s.add("http: acquire, p50, beside a bare handler", "µs", ratioAtMost(1.2), got.figures(p50))
		s.addCPU("http: acquire+release", got)
		return nil
	})
}

// serveBare answers every request with a lease, after reading the body as strictly as encoding/json does.
func serveBare(socket string) error {
	l, err := net.Listen("unix", socket)
	if err != nil {
		return err
	}
	at := epoch.Add(123456789) // as long as an agent's times are
	lease := wire.Lease{
		ID:         strings.Repeat("0", 32),
		Pool:       "streams",
		N:          1,
		Items:      []wire.Item{{Pool: "streams", N: 1}},
		Lifetime:   "ttl",
		Liveness:   "ttl",
		State:      "held",
		AcquiredAt: at,
		ExpiresAt:  &at,
		Holder:     &wire.Holder{UID: 0, GID: 0, PID: 12345, Exe: "/usr/local/bin/bench"},
	}
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
		json.NewEncoder(w).Encode(lease)
	}))
}
