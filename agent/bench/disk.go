package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"time"
)

// disk measures the slowest acquires while the state folder's disk is full, and while another program writes to it and
// syncs.
func (s *suite) disk(ctx context.Context) error {
	return s.onSite(ctx, func(site *site) error {
		if err := site.install(0); err != nil {
			return err
		}
		state := site.state()
		if err := errors.Join(os.MkdirAll(state, 0o700), os.MkdirAll(site.run, 0o755)); err != nil {
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
			return s.diskBusy(ctx, site)
		})
	})
}

// sufferer is a server whose slowest pairs are measured.
type sufferer struct {
	name, socket  string
	goal          goal
	t             *talk
	with, without []float64 // of the present run
	runs          []figure
}

// slice times some pairs.
func (v *sufferer) slice(n int, to *[]float64) error {
	for range n {
		begin := time.Now()
		if err := v.t.pair(); err != nil {
			return err
		}
		*to = append(*to, micros(time.Since(begin)))
	}
	return nil
}

// slowest measures acquire and release of each server while something is on, beside the same while it is off.
func (s *suite) slowest(runs int, on, off func() error, all ...*sufferer) (err error) {
	for _, v := range all {
		if v.t, err = dial(v.socket); err != nil {
			return err
		}
		defer v.t.conn.Close()
	}
	for range runs {
		for turn := range 8 {
			order := slices.Clone(all)
			if turn%2 == 1 {
				slices.Reverse(order) // the first one has the beginning of what is on, and what is left of it
			}
			for i, change := range []func() error{on, off} {
				if err := change(); err != nil {
					return err
				}
				for _, v := range order {
					if err := v.slice(s.times(2000), []*[]float64{&v.with, &v.without}[i]); err != nil {
						return err
					}
				}
			}
		}
		for _, v := range all {
			w, wo := quantile(v.with, 0.999), quantile(v.without, 0.999)
			v.runs = append(v.runs, figure{w, wo, w / wo})
			v.with, v.without = v.with[:0], v.without[:0]
		}
	}
	for _, v := range all {
		s.add("disk: "+v.name+", beside without", "µs", v.goal, v.runs)
	}
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
	return s.slowest(s.medianOf(), fill, func() error { return os.Remove(filler) },
		&sufferer{name: "acquire+release, p99.9, disk full", socket: site.socket, goal: ratioAtMost(1.5)})
}

// diskBusy has another process write beside, which yields the processors to all others: the rows show what the disk
// costs, and not what the writer's own time does. It can yield only between two of its calls: a kernel that is built
// without preemption (CONFIG_PREEMPT_NONE) takes the processor away from no call, whatever waits. So it writes little
// at a time. Large writes have rows of their own; what they cost shows in a canned server as well, which has no file.
func (s *suite) diskBusy(ctx context.Context, site *site) error {
	socket := filepath.Join(site.dir, "c")
	canned, err := startServer(ctx, "canned", socket, answers(socket))
	if err != nil {
		return err
	}
	defer end(canned)
	for _, row := range []struct {
		name string
		kib  int
		goal goal
		runs int
	}{
		{"write-back", 16, ratioAtMost(1.5), s.medianOf()},
		{"write-back in pieces of 1 MiB", 1 << 10, goal{}, min(2, s.medianOf())},
	} {
		on, off := s.writing(ctx, filepath.Join(site.disk, "noise"), row.kib)
		if err := s.slowest(row.runs, on, off,
			&sufferer{name: "acquire+release, p99.9, under " + row.name, socket: site.socket, goal: row.goal},
			&sufferer{name: "canned: acquire+release, p99.9, under " + row.name, socket: socket}); err != nil {
			return err
		}
	}
	return nil
}

// writing returns what starts a process that writes to a file, some KiB at a time, and what ends it.
func (s *suite) writing(ctx context.Context, noise string, kib int) (on, off func() error) {
	var writer *exec.Cmd
	on = func() (err error) {
		if writer, err = self(ctx, "writer", "-file", noise, "-kib", strconv.Itoa(kib)); err != nil {
			return err
		}
		if err := writer.Start(); err != nil {
			return err
		}
		for begin := time.Now(); time.Since(begin) < 10*time.Second; time.Sleep(time.Millisecond) {
			if i, err := os.Stat(noise); err == nil && i.Size() > 0 {
				return nil
			}
		}
		end(writer)
		return errors.New("the writer beside does not write")
	}
	return on, func() error {
		end(writer)
		return os.Remove(noise)
	}
}

// write writes to a file, some KiB a call, and syncs it, 4 MiB at a time and 64 MiB in all, again and again.
func write(path string, kib int) error {
	if err := yieldToAll(); err != nil {
		return fmt.Errorf("cannot yield to other processes: %w", err)
	}
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	defer f.Close()
	block := make([]byte, kib<<10)
	calls := (4 << 20) / len(block) // of 4 MiB
	for n := 1; ; n++ {
		if _, err := f.Write(block); err != nil {
			return err
		}
		if n%calls == 0 {
			if err := f.Sync(); err != nil {
				return err
			}
		}
		if n%(16*calls) == 0 {
			if _, err := f.Seek(0, 0); err != nil {
				return err
			}
		}
	}
}
