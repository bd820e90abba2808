package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"time"

	"github.com/usher-agent/usher/agent/liveness/oldkernel"
	"github.com/usher-agent/usher/client/wire"
)

func init() { oldkernel.Main() } // before anything else: this program may have to become another

// holder is this program again, as a process that holds slots until it is killed, or as one that holds nothing. With
// leases it holds so many of one slot of the pool seats.
func holder(socket string, n int64, leases int, out io.Writer) error {
	if leases > 0 {
		if err := take(socket, leases, `{"pool":"seats"}`); err != nil {
			return err
		}
	} else if socket != "" {
		t, err := dial(socket)
		if err != nil {
			return err
		}
		answer, err := t.ask(
			fmt.Sprintf(`{"jsonrpc":"2.0","id":1,"method":"lease.acquire","params":{"pool":"streams","n":%d}}`+"\n", n),
		)
		if err != nil || !strings.Contains(answer, `"result"`) {
			return fmt.Errorf("%s: %w", answer, err)
		}
	}
	fmt.Fprintln(out, "ready")
	return nil
}

// begin starts a holder and returns when it is ready.
func begin(ctx context.Context, args ...string) (*exec.Cmd, error) {
	cmd, err := self(ctx, "holder", args...)
	if err != nil {
		return nil, err
	}
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		return nil, err
	}
	if _, err = io.ReadFull(out, make([]byte, len("ready\n"))); err != nil {
		end(cmd)
		return nil, fmt.Errorf("the holder does not come up: %w", err)
	}
	return cmd, nil
}

// waiter measures how soon a waiter gets the slot of a killed holder, by each path of the kernel, beside how soon a
// bare program can know of such a process's end.
func (s *suite) waiter(ctx context.Context) error {
	if s.usher == "" {
		return nil
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	for _, way := range []struct {
		path   string
		kernel string // of the agent's kernel; empty: this one
		run    bool   // the holder is usher run, whose client sends a pidfd of itself
	}{{"peerpidfd", "", false}, {"sentpidfd", "6.1", true}, {"pidfd", "6.1", false}, {"connection", "4.18", false}} {
		err := s.onSite(ctx, func(site *site) error {
			if way.kernel != "" {
				site.through = []string{self}
				site.env = append(os.Environ(), oldkernel.Env+"="+way.kernel)
			}
			if err := site.install(0); err != nil {
				return err
			}
			return site.serve(ctx, func(*exec.Cmd) error { return s.reclaim(ctx, site, way.path, way.run) })
		})
		if err != nil {
			return fmt.Errorf("%s: %w", way.path, err)
		}
	}
	return nil
}

// reclaim kills holders while a waiter waits for their slots.
func (s *suite) reclaim(ctx context.Context, site *site, path string, run bool) error {
	waiter, err := dial(site.socket)
	if err != nil {
		return err
	}
	defer waiter.conn.Close()
	c := client(site.socket)
	defer c.CloseIdleConnections()
	var p50s, p99s []figure
	for range s.medianOf() {
		var took, bare []float64
		for range s.times(40) {
			k, b, err := s.killOne(ctx, site, waiter, c, path, run)
			if err != nil {
				return err
			}
			took, bare = append(took, micros(k)), append(bare, micros(b))
		}
		// The two are no pair: each death is another. So the ratio is that of the quantiles.
		of := func(q float64) figure {
			v, l := quantile(took, q), quantile(bare, q)
			return figure{v, l, v / l}
		}
		p50s, p99s = append(p50s, of(0.5)), append(p99s, of(0.99))
	}
	name := "waiter: slot after kill -9 of the holder by " + path
	s.add(name+", p50, beside a pidfd", "µs", ratioAtMost(3), p50s)
	s.add(name+", p99, beside a pidfd", "µs", ratioAtMost(3), p99s)
	return nil
}

// allSlots is how many slots there are; the killed holder has them all.
const allSlots = 1000

// startHolder starts a holder of all slots: the product itself, or usher run.
func (s *suite) startHolder(ctx context.Context, site *site, run bool) (*exec.Cmd, error) {
	if !run {
		return begin(ctx, "-socket", site.socket, "-slots", strconv.Itoa(allSlots))
	}
	holder := exec.CommandContext(ctx, s.usher, "run", "--socket", site.socket, "--pool", "streams",
		"--n", strconv.Itoa(allSlots), "--", "sleep", "1000")
	if err := holder.Start(); err != nil {
		return nil, err
	}
	// usher run has the slots before it becomes the program. Killed before that, a larger process dies.
	for begin := time.Now(); program(holder.Process.Pid) != "sleep"; time.Sleep(time.Millisecond) {
		if time.Since(begin) > 10*time.Second {
			end(holder)
			return nil, errors.New("usher run has not become the program after 10 s")
		}
	}
	return holder, nil
}

// untilPool waits until the pool is as it should be.
func untilPool(c *http.Client, ok func(wire.Pool) bool) error {
	for begin := time.Now(); time.Since(begin) < 10*time.Second; time.Sleep(time.Millisecond) {
		var p wire.Pool
		if err := call(c, "GET", "/v1/pools/streams", nil, &p); err != nil {
			return err
		}
		if ok(p) {
			return nil
		}
	}
	return errors.New("the pool is not as it should be after 10 s")
}

// killOne kills a holder. It returns how long the waiter's answer took after that, and how long a bare pidfd takes.
func (s *suite) killOne(ctx context.Context, site *site, waiter *talk, c *http.Client, path string, run bool) (
	took, bare time.Duration, err error) {
	holder, err := s.startHolder(ctx, site, run)
	if err != nil {
		return 0, 0, err
	}
	if err := untilPool(c, func(p wire.Pool) bool { return p.InUse == allSlots }); err != nil {
		return 0, 0, err
	}
	var l wire.Leases
	if err := call(c, "GET", "/v1/leases", nil, &l); err != nil {
		return 0, 0, err
	}
	if len(l.Leases) != 1 || l.Leases[0].Liveness != path {
		return 0, 0, fmt.Errorf("the holder is known by %+v", l.Leases)
	}
	if _, err := waiter.conn.Write([]byte(strings.Replace(acquireLine, `"streams"}`,
		`"streams","wait_seconds":30}`, 1))); err != nil {
		return 0, 0, err
	}
	if err := untilPool(c, func(p wire.Pool) bool { return p.Waiting == 1 }); err != nil {
		return 0, 0, err
	}
	began := time.Now()
	if err := holder.Process.Kill(); err != nil {
		return 0, 0, err
	}
	answer, err := waiter.in.ReadString('\n')
	took = time.Since(began)
	holder.Wait()
	_, rest, ok := strings.Cut(answer, `"result":{"id":"`)
	if err != nil || !ok {
		return 0, 0, fmt.Errorf("the waiter got %q, %w", answer, err)
	}
	if _, err := waiter.ask(`{"jsonrpc":"2.0","id":2,"method":"lease.release","params":{"id":"` + rest[:32] +
		`"}}` + "\n"); err != nil {
		return 0, 0, err
	}
	bare, err = bareKill(ctx, run)
	return took, bare, err
}
