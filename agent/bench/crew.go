package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"runtime"
	"runtime/debug"
	"sync"
	"time"

	"github.com/usher-agent/usher/client/wire"
)

// work is what a process of callers answers for a slice: how many pairs it made, the median and the greatest of their
// times in µs, and when it began and ended, in ns.
type work struct {
	Pairs int     `json:"pairs"`
	P50   float64 `json:"p50"`
	Max   float64 `json:"max"`
	Begin int64   `json:"begin"`
	End   int64   `json:"end"`
}

// took is how long the work was, without the orders and the reports of many processes, which are no work of a server.
func (w work) took() time.Duration { return time.Duration(w.End - w.Begin) }

// toil reads slices' lengths, a line each, works for so long and answers with a line each.
func toil(in io.Reader, out io.Writer, f func(time.Duration) (work, error)) error {
	fmt.Fprintln(out, "ready")
	for lines := bufio.NewScanner(in); lines.Scan(); {
		d, err := time.ParseDuration(lines.Text())
		if err != nil {
			return err
		}
		w, err := f(d)
		if err != nil {
			return err
		}
		if err := json.NewEncoder(out).Encode(w); err != nil {
			return err
		}
	}
	return nil
}

// collect collects garbage, if there is much.
func collect() {
	var m runtime.MemStats
	if runtime.ReadMemStats(&m); m.HeapAlloc > 32<<20 {
		runtime.GC()
	}
}

// repeat calls pair, which says what time of it counts, until d is over.
func repeat(d time.Duration, pair func() (time.Duration, error)) (w work, err error) {
	took, began := make([]float64, 0, 1<<14), time.Now()
	for end := time.Now().Add(d); time.Now().Before(end); {
		t, err := pair()
		if err != nil {
			return work{}, err
		}
		took = append(took, micros(t))
	}
	return work{len(took), median(took), quantile(took, 1), began.UnixNano(), time.Now().UnixNano()}, nil
}

// caller is a client process that acquires and releases in so many sessions at once. Each session acquires once before
// it is ready, so that its first costs do not count. A calm one collects its garbage between slices alone, so that none
// of that is in a pair.
func caller(socket string, sessions int, calm bool, in io.Reader, out io.Writer) error {
	all := make([]*talk, sessions)
	for i := range all {
		t, err := dial(socket)
		if err == nil {
			err = t.pair()
		}
		if err != nil {
			return err
		}
		all[i] = t
	}
	if calm {
		debug.SetGCPercent(-1)
	}
	return toil(in, out, func(d time.Duration) (work, error) {
		var wg sync.WaitGroup
		works, errs := make([]work, sessions), make([]error, sessions)
		for i, t := range all {
			wg.Go(func() {
				works[i], errs[i] = repeat(d, func() (time.Duration, error) {
					begin := time.Now()
					err := t.pair()
					return time.Since(begin), err
				})
			})
		}
		wg.Wait()
		if calm {
			collect()
		}
		return sum(works), errors.Join(errs...)
	})
}

// httpCaller is a client process that acquires and releases over one kept HTTP connection. The acquire alone is timed,
// or the whole.
func httpCaller(socket string, whole bool, in io.Reader, out io.Writer) error {
	c, one := client(socket), int64(1)
	return toil(in, out, func(d time.Duration) (work, error) {
		return repeat(d, func() (time.Duration, error) {
			var l wire.Lease
			begin := time.Now()
			err := call(c, "POST", "/v1/leases", wire.AcquireRequest{Pool: "streams", N: &one, TTLSeconds: 60}, &l)
			took := time.Since(begin)
			if err == nil {
				err = call(c, "DELETE", "/v1/leases/"+l.ID, nil, nil)
			}
			if whole {
				took = time.Since(begin)
			}
			return took, err
		})
	})
}

// sum adds up the pairs. The median of one is its own; that of several is the median of the medians.
func sum(works []work) (all work) {
	var p50s []float64
	for _, w := range works {
		all.Pairs += w.Pairs
		all.Max = max(all.Max, w.Max)
		all.End = max(all.End, w.End)
		if all.Begin == 0 || w.Begin < all.Begin {
			all.Begin = w.Begin
		}
		p50s = append(p50s, w.P50)
	}
	all.P50 = median(p50s)
	return all
}

// crew is processes of callers on one socket.
type crew struct {
	in   []io.WriteCloser
	out  []*bufio.Reader
	cmds []*exec.Cmd
}

// hire starts n processes in a role and returns when they are ready.
func hire(ctx context.Context, n int, role string, args ...string) (c *crew, err error) {
	c = &crew{}
	defer func() {
		if err != nil {
			err = errors.Join(err, c.dismiss())
			c = nil
		}
	}()
	for range n {
		cmd, err := self(ctx, role, args...)
		if err != nil {
			return c, err
		}
		in, err := cmd.StdinPipe()
		if err != nil {
			return c, err
		}
		out, err := cmd.StdoutPipe()
		if err == nil {
			err = cmd.Start()
		}
		if err != nil {
			return c, err
		}
		c.in, c.out, c.cmds = append(c.in, in), append(c.out, bufio.NewReader(out)), append(c.cmds, cmd)
	}
	for _, out := range c.out {
		if _, err := out.ReadString('\n'); err != nil {
			return c, fmt.Errorf("a %s does not come up: %w", role, err)
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

func (c *crew) pids() (all []int) {
	for _, cmd := range c.cmds {
		all = append(all, cmd.Process.Pid)
	}
	return all
}

// work has all of them work for a slice.
func (c *crew) work(d time.Duration) (work, error) {
	for _, in := range c.in {
		if _, err := fmt.Fprintf(in, "%dns\n", d.Nanoseconds()); err != nil {
			return work{}, err
		}
	}
	works := make([]work, len(c.out))
	for i, out := range c.out {
		line, err := out.ReadBytes('\n')
		if err != nil {
			return work{}, err
		}
		if err := json.Unmarshal(line, &works[i]); err != nil {
			return work{}, err
		}
	}
	return sum(works), nil
}
