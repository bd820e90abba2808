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
			kib, err := resident(cmd.Process.Pid)
			if err := errors.Join(err, stop(cmd)); err != nil {
				return err
			}
			rss = append(rss, kib/1024)
		}
		s.add("process: ready after start", "ms", "≤ 50", starts, nil)
		s.add("process: resident memory when idle", "MiB", "≤ 24", rss, nil)
		return nil
	})
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
	s.add("folder: rename to in force, p50", "ms", "", p50s, nil)
	s.add("folder: rename to in force, p99", "ms", "≤ 5", p99s, nil)
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
	return s.withAgent(ctx, func(site *site, _ *exec.Cmd) error {
		socket := filepath.Join(site.dir, "b")
		real, bare := client(site.socket), client(socket)
		end, err := startSelf(ctx, func() bool { return call(bare, "GET", "/", nil, nil) == nil }, "-bare", socket)
		if err != nil {
			return err
		}
		defer end()
		values, limits, err := s.beside(
			10,
			func() (float64, error) { return acquires(real) },
			func() (float64, error) { return acquires(bare) },
		)
		s.add("http: acquire, p50, beside a bare handler", "µs", "ratio ≤ 1.2", values, limits)
		return err
	})
}

// acquires returns the median time of an acquire over HTTP in a slice of 100 ms, in µs.
func acquires(c *http.Client) (p50 float64, err error) {
	one := int64(1)
	var took []float64
	for end := time.Now().Add(100 * time.Millisecond); time.Now().Before(end); {
		var l wire.Lease
		begin := time.Now()
		if err := call(c, "POST", "/v1/leases", wire.AcquireRequest{Pool: "streams", N: &one, TTLSeconds: 60},
			&l); err != nil {
			return 0, err
		}
		took = append(took, micros(time.Since(begin)))
		if err := call(c, "DELETE", "/v1/leases/"+l.ID, nil, nil); err != nil {
			return 0, err
		}
	}
	return median(took), nil
}

// serveBare answers every request with a lease, after reading the body as strictly as encoding/json does.
func serveBare(socket string) error {
	l, err := net.Listen("unix", socket)
	if err != nil {
		return err
	}
	lease := wire.Lease{
		ID:         strings.Repeat("0", 32),
		Pool:       "streams",
		N:          1,
		Items:      []wire.Item{{Pool: "streams", N: 1}},
		Lifetime:   "ttl",
		Liveness:   "ttl",
		State:      "held",
		AcquiredAt: epoch,
		ExpiresAt:  &epoch,
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
