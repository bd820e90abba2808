package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
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
	var runs []figure
	for range s.medianOf() {
		var with, without []float64
		for range 8 {
			if with, err = slice(with, on); err != nil {
				return err
			}
			if without, err = slice(without, off); err != nil {
				return err
			}
		}
		w, wo := quantile(with, 0.999), quantile(without, 0.999)
		runs = append(runs, figure{w, wo, w / wo})
	}
	s.add("disk: acquire+release, p99.9, "+name+", beside without", "µs", ratioAtMost(1.5), runs)
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

// diskBusy has another process write beside, which yields the processors to all others: the row shows what the disk
// costs, and not what the writer's own time does.
func (s *suite) diskBusy(ctx context.Context, site *site) error {
	noise := filepath.Join(site.disk, "noise")
	var writer *exec.Cmd
	begin := func() (err error) {
		if writer, err = self(ctx, "writer", "-file", noise); err != nil {
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
	return s.slowest(site, "under write-back", begin, func() error {
		end(writer)
		return os.Remove(noise)
	})
}

// write writes to a file and syncs it, 4 MiB at a time and 64 MiB in all, again and again.
func write(path string) error {
	if err := yieldToAll(); err != nil {
		return fmt.Errorf("cannot yield to other processes: %w", err)
	}
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	defer f.Close()
	block := make([]byte, 1<<20)
	for n := 0; ; n++ {
		if _, err := f.Write(block); err != nil {
			return err
		}
		if n%4 == 3 {
			if err := f.Sync(); err != nil {
				return err
			}
		}
		if n%64 == 63 {
			if _, err := f.Seek(0, 0); err != nil {
				return err
			}
		}
	}
}
