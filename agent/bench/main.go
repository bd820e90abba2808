// Command bench measures the figures that the design promises, each beside its physical limit in the same run, and
// writes them to a file: a list of {name, value, unit, limit, ratio, goal}. It judges nothing; a person does.
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"syscall"
	"text/tabwriter"
	"time"
)

// Row is one figure. Limit is the physical limit measured beside it, 0 where there is none; Ratio is Value over Limit.
type Row struct {
	Name  string  `json:"name"`
	Value float64 `json:"value"`
	Unit  string  `json:"unit"`
	Limit float64 `json:"limit"`
	Ratio float64 `json:"ratio"`
	Goal  string  `json:"goal"`
}

// suite is the settings and the figures of one run.
type suite struct {
	usher string // the binary to measure
	runs  int    // whose median is taken
	quick bool   // a tenth of everything: only to see that it runs
	only  string // the one part to measure; empty: all
	rows  []Row
}

func main() {
	out := flag.String("out", "bench.json", "where to write the figures")
	usher := flag.String("usher", "", "the usher binary; without it, the parts that need a process are left out")
	runs := flag.Int("runs", 5, "runs of each figure, of which the median is taken")
	quick := flag.Bool("quick", false, "measure little, only to see that it runs")
	bare := flag.String("bare", "", "serve the bare handler on this socket, and nothing else")
	canned := flag.String("canned", "", "serve canned lines on this socket, and nothing else")
	only := flag.String(
		"only",
		"",
		"measure this part alone: core, memory, http, session, waiter, restart, disk, folder, process, idle or scale",
	)
	holds := flag.String("holder", "", "hold slots on this socket (or nothing, for \"-\"), and nothing else")
	slots := flag.Int64("slots", 1, "how many slots -holder holds")
	leases := flag.Int("leases", 0, "hold as many leases of one slot of the pool seats instead")
	calls := flag.String("caller", "", "be one client process on this socket, and nothing else")
	flag.Parse()
	if *calls != "" {
		if err := caller(*calls, os.Stdin, os.Stdout); err != nil {
			fmt.Fprintln(os.Stderr, "error:", err)
			os.Exit(1)
		}
		return
	}
	if *holds != "" {
		if err := holder(*holds, *slots, *leases, os.Stdout); err != nil {
			fmt.Fprintln(os.Stderr, "error:", err)
			os.Exit(1)
		}
		select {}
	}
	if *canned != "" {
		fmt.Fprintln(os.Stderr, "error:", serveCanned(*canned))
		os.Exit(1)
	}
	if *bare != "" {
		fmt.Fprintln(os.Stderr, "error:", serveBare(*bare))
		os.Exit(1)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, &suite{usher: *usher, runs: *runs, quick: *quick, only: *only}, *out); err != nil {
		fmt.Fprintln(os.Stderr, "error:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, s *suite, out string) error {
	for _, part := range []struct {
		name string
		f    func(context.Context) error
	}{
		{"core", s.core},
		{"memory", s.memory},
		{"http", s.http},
		{"session", s.session},
		{"waiter", s.waiter},
		{"restart", s.restart},
		{"disk", s.disk},
		{"folder", s.folder},
		{"process", s.process},
		{"idle", s.idle},
		{"scale", s.scale},
	} {
		if err := ctx.Err(); err != nil {
			return err
		}
		if s.only != "" && s.only != part.name {
			continue
		}
		if err := part.f(ctx); err != nil {
			return fmt.Errorf("%s: %w", part.name, err)
		}
	}
	tw := tabwriter.NewWriter(os.Stdout, 0, 4, 2, ' ', 0)
	fmt.Fprintln(tw, "FIGURE\tVALUE\tLIMIT\tRATIO\tGOAL")
	for _, r := range s.rows {
		limit, ratio := "-", "-"
		if r.Limit != 0 {
			limit, ratio = fmt.Sprintf("%.4g %s", r.Limit, r.Unit), fmt.Sprintf("%.2f", r.Ratio)
		}
		fmt.Fprintf(tw, "%s\t%.4g %s\t%s\t%s\t%s\n", r.Name, r.Value, r.Unit, limit, ratio, r.Goal)
	}
	if err := tw.Flush(); err != nil {
		return err
	}
	b, err := json.MarshalIndent(s.rows, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(out, append(b, '\n'), 0o644)
}

// add records the median of the runs of one figure, and of its limit.
func (s *suite) add(name, unit, goal string, values, limits []float64) {
	r := Row{Name: name, Unit: unit, Goal: goal, Value: median(values)}
	if len(limits) > 0 {
		r.Limit = median(limits)
		ratios := make([]float64, len(values))
		for i := range values {
			ratios[i] = values[i] / limits[i]
		}
		r.Ratio = median(ratios)
	}
	s.rows = append(s.rows, r)
}

// times returns n, or a tenth of it for a quick run.
func (s *suite) times(n int) int {
	if s.quick {
		return max(1, n/10)
	}
	return n
}

func (s *suite) medianOf() int {
	if s.quick {
		return 1
	}
	return s.runs
}

func median(v []float64) float64 { return quantile(v, 0.5) }

func quantile(v []float64, q float64) float64 {
	v = slices.Sorted(slices.Values(v))
	return v[min(len(v)-1, int(q*float64(len(v))))]
}

func micros(d time.Duration) float64 { return float64(d) / float64(time.Microsecond) }
func millis(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }
