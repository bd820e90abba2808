package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/usher-agent/usher/enforcer"
)

// side is a server and those who call it.
type side struct {
	crew   *crew
	server int // its process id; 0: not known, so that nothing is said of its processor time
}

func (s side) servers() []int {
	if s.server == 0 {
		return nil
	}
	return []int{s.server}
}

// sample is what one slice of a side gave.
type sample struct {
	p50    float64 // the median time of what is timed, in µs
	rate   float64 // pairs a second
	server float64 // processor time of the server in µs a pair, from the scheduler's own count
	client float64 // the same of the callers
}

// slice has a side work for d. What the scheduler counts is right to the nanosecond, so that it tells more than the
// time on the clock where others share the machine.
func (s side) slice(d time.Duration) (sample, error) {
	server, err1 := cpuTime(s.servers()...)
	client, err2 := cpuTime(s.crew.pids()...)
	if err := errors.Join(err1, err2); err != nil {
		return sample{}, err
	}
	w, err := s.crew.work(d)
	if err != nil {
		return sample{}, err
	}
	if w.Pairs == 0 {
		return sample{}, fmt.Errorf("no pair was made in %s", enforcer.Span(w.took()))
	}
	server1, err1 := cpuTime(s.servers()...)
	client1, err2 := cpuTime(s.crew.pids()...)
	n := float64(w.Pairs)
	return sample{w.P50, n / w.took().Seconds(), micros(server1-server) / n, micros(client1-client) / n},
		errors.Join(err1, err2)
}

// How long a side works before it is another's turn. Many processes begin and end one after the other, so that their
// slices are longer.
const (
	sliceOfOne  = 50 * time.Millisecond
	sliceOfMany = 100 * time.Millisecond
)

// contest is what was measured of two sides in slices by turns: of each run the rounds, of each round both sides.
type contest [][][2]sample

// duel has two sides work by turns, in as many runs as the suite has. A round is four slices: one side, twice the
// other, and the first again, so that neither what a slice leaves behind nor a machine that slows down falls on one
// side. Every second round the other side begins.
func (s *suite) duel(rounds int, d time.Duration, sides [2]side) (contest, error) {
	var c contest
	for range s.medianOf() {
		var run [][2]sample
		for r := range s.times(rounds) {
			var slices [2][]sample
			for k := range 4 {
				i := turn(r, k)
				slice, err := sides[i].slice(d)
				if err != nil {
					return nil, err
				}
				slices[i] = append(slices[i], slice)
			}
			run = append(run, [2]sample{mean(slices[0]), mean(slices[1])})
		}
		c = append(c, run)
	}
	return c, nil
}

// turn says which side works in slice k of round r: 0 1 1 0, and 1 0 0 1.
func turn(r, k int) int { return (r + (k+1)/2) % 2 }

// mean returns the mean of samples.
func mean(all []sample) (m sample) {
	n := float64(len(all))
	for _, s := range all {
		m.p50, m.rate = m.p50+s.p50/n, m.rate+s.rate/n
		m.server, m.client = m.server+s.server/n, m.client+s.client/n
	}
	return m
}

// figures returns what of looks for, a figure for each run: the medians, and the median of the rounds' ratios.
func (c contest) figures(of func(sample) float64) (runs []figure) {
	for _, run := range c {
		var values, limits []float64
		for _, round := range run {
			values, limits = append(values, of(round[0])), append(limits, of(round[1]))
		}
		runs = append(runs, against(values, limits))
	}
	return runs
}

func p50(s sample) float64       { return s.p50 }
func rate(s sample) float64      { return s.rate }
func serverCPU(s sample) float64 { return s.server }
func clientCPU(s sample) float64 { return s.client }

// addCPU records the processor time of a pair, of the server and of the callers.
func (s *suite) addCPU(name string, c contest) {
	if !hasCPUTime {
		return
	}
	s.add(name+", CPU of the server a pair", "µs", goal{}, c.figures(serverCPU))
	s.add(name+", CPU of the callers a pair", "µs", goal{}, c.figures(clientCPU))
}

// alone pins two sides, servers and callers, to one processor while f runs. A caller that waits for each answer leaves
// its processor to the server. Where the kernel puts the two on the same or on two processors by chance, the time of a
// call is one or the other, and says nothing.
func alone(sides [2]side, f func() error) error {
	var undo []func()
	defer func() {
		for _, u := range undo {
			u()
		}
	}()
	for _, s := range sides {
		for _, pid := range append(s.crew.pids(), s.servers()...) {
			u, err := pin(pid)
			if err != nil {
				return err
			}
			undo = append(undo, u)
		}
	}
	return f()
}

// single measures one caller a server, both pinned to one processor.
func (s *suite) single(ctx context.Context, rounds int, role string, sockets [2]string, servers [2]int) (
	c contest, err error) {
	sides, dismiss, err := s.crews(ctx, 1, role, sockets, servers)
	defer func() { err = errors.Join(err, dismiss()) }()
	if err != nil {
		return nil, err
	}
	err = alone(sides, func() error {
		c, err = s.duel(rounds, sliceOfOne, sides)
		return err
	})
	return c, err
}

// crews hires n processes in a role for each of two servers. dismiss is never nil.
func (s *suite) crews(ctx context.Context, n int, role string, sockets [2]string, servers [2]int, args ...string) (
	sides [2]side, dismiss func() error, err error) {
	dismiss = func() (err error) {
		for _, d := range sides {
			if d.crew != nil {
				err = errors.Join(err, d.crew.dismiss())
			}
		}
		return err
	}
	for i := range sides {
		c, err := hire(ctx, n, role, append([]string{"-socket", sockets[i]}, args...)...)
		if err != nil {
			return sides, dismiss, err
		}
		sides[i] = side{c, servers[i]}
	}
	return sides, dismiss, nil
}
