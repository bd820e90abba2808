// Command bench measures the figures that the design promises, each beside its physical limit in the same run, and
// writes them to a file: a list of Row. It judges nothing but whether a goal is met, and no missed goal makes it fail.
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"time"
)

// suite is the settings and the figures of one run.
type suite struct {
	usher string // the binary to measure
	runs  int    // whose median is taken
	share int    // of everything one part in so many is measured, once, only to see that it runs; 0: all is measured
	only  string // the parts to measure, with commas between; empty: all
	relay string // the URL of a Relay that has a licence; empty: there is none
	rows  []Row
}

func main() {
	if len(os.Args) > 2 && os.Args[1] == "-be" {
		if err := be(os.Args[2], os.Args[3:]); err != nil {
			fmt.Fprintln(os.Stderr, "error:", err)
			os.Exit(1)
		}
		return
	}
	s := &suite{}
	var names []string
	for _, p := range s.parts() {
		names = append(names, p.name)
	}
	out := flag.String("out", "bench.json", "where to write the figures")
	table := flag.String("markdown", "", "print the figures of this file as a table in Markdown, and measure nothing")
	flag.StringVar(&s.usher, "usher", "", "the usher binary; without it, the parts that need a process are left out")
	flag.IntVar(&s.runs, "runs", 5, "runs of each figure, of which the median is taken")
	quick := flag.Bool("quick", false, "measure a tenth, once, only to see that it runs")
	flag.StringVar(&s.only, "only", "", "measure these parts alone, with commas between: "+strings.Join(names, ", "))
	flag.StringVar(&s.relay, "relay", "",
		"measure the Relay at this URL beside the agent; it must have a licence")
	flag.Parse()
	if *quick {
		s.share = 10
	}
	for _, o := range strings.FieldsFunc(s.only, comma) {
		if !slices.Contains(names, o) {
			fmt.Fprintf(os.Stderr, "error: -only %s: there is no such part; the parts are %s\n", o,
				strings.Join(names, ", "))
			os.Exit(2)
		}
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	err := error(nil)
	if *table != "" {
		err = markdown(*table, os.Stdout)
	} else {
		err = run(ctx, s, *out)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "error:", err)
		os.Exit(1)
	}
}

func comma(r rune) bool { return r == ',' }

type part struct {
	name string
	f    func(context.Context) error
}

func (s *suite) parts() []part {
	return []part{
		{"self", s.self},
		{"core", s.core},
		{"http", s.http},
		{"session", s.session},
		{"rules", s.underRules},
		{"waiter", s.waiter},
		{"restart", s.restart},
		{"disk", s.disk},
		{"folder", s.folder},
		{"process", s.process},
		{"idle", s.idle},
		{"scale", s.scale},
		{"fleet", s.fleet},
		{"relay", s.beRelay},
	}
}

func run(ctx context.Context, s *suite, out string) error {
	var took []string
	began := time.Now()
	wanted, stolen := processors()
	for _, p := range s.parts() {
		if err := ctx.Err(); err != nil {
			return err
		}
		if s.only != "" && !slices.Contains(strings.FieldsFunc(s.only, comma), p.name) {
			continue
		}
		begin := time.Now()
		if err := p.f(ctx); err != nil {
			return fmt.Errorf("%s: %w", p.name, err)
		}
		took = append(took, fmt.Sprintf("%s %.0f s", p.name, time.Since(begin).Seconds()))
		fmt.Fprintln(os.Stderr, "measured", took[len(took)-1])
	}
	if err := print(os.Stdout, s.rows); err != nil {
		return err
	}
	fmt.Printf("took %.0f s: %s\n", time.Since(began).Seconds(), strings.Join(took, ", "))
	if w, n := processors(); w > wanted && n-stolen > (w-wanted)/50 {
		fmt.Printf(
			"Of the processors' time that this machine needed, its host gave %.0f %% to others: what is in ms or in "+
				"%% of a core is more than on a host of its own, and so are some ratios.\n",
			100*float64(n-stolen)/float64(w-wanted))
	}
	if s.share > 0 {
		fmt.Println("A quick run shows that everything runs. Its figures mean nothing.")
	}
	b, err := json.MarshalIndent(s.rows, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(out, append(b, '\n'), 0o644)
}

// times returns n, or the run's share of it.
func (s *suite) times(n int) int { return max(1, n/max(1, s.share)) }

func (s *suite) medianOf() int {
	if s.share > 0 {
		return 1
	}
	return s.runs
}

// median returns the middle of v, the mean of the two middle ones of an even number; 0 of none.
func median(v []float64) float64 {
	v = slices.Sorted(slices.Values(v))
	switch n := len(v); {
	case n == 0:
		return 0
	case n%2 == 0:
		return (v[n/2-1] + v[n/2]) / 2
	default:
		return v[n/2]
	}
}

// quantile returns the least of v at q = 0 and the greatest at q = 1; 0 of none.
func quantile(v []float64, q float64) float64 {
	if len(v) == 0 {
		return 0
	}
	v = slices.Sorted(slices.Values(v))
	return v[min(len(v)-1, int(q*float64(len(v))))]
}

func micros(d time.Duration) float64 { return float64(d) / float64(time.Microsecond) }
func millis(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }
