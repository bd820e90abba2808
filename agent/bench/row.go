package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"
	"text/tabwriter"
)

// Row is one figure. Value is the median of the runs, Limit that of what is measured beside it, 0 where nothing is.
// Ratio is the median of the runs' ratios, and Low and High are the least and the greatest run of what the goal is
// about: the ratio where there is one, else the value. Met says whether the goal is met: yes, no, or nothing where
// there is no goal.
type Row struct {
	Name  string  `json:"name"`
	Value float64 `json:"value"`
	Unit  string  `json:"unit"`
	Limit float64 `json:"limit"`
	Ratio float64 `json:"ratio"`
	Low   float64 `json:"low"`
	High  float64 `json:"high"`
	Goal  string  `json:"goal"`
	Met   string  `json:"met"`
}

// goal is a bound on a figure: on the ratio or on the value itself. Nothing is demanded by the zero goal.
type goal struct {
	sign  string // ≤ or ≥
	bound float64
	ratio bool
}

func atMost(v float64) goal       { return goal{"≤", v, false} }
func ratioAtMost(v float64) goal  { return goal{"≤", v, true} }
func ratioAtLeast(v float64) goal { return goal{"≥", v, true} }

func (g goal) String() string {
	switch {
	case g.sign == "":
		return ""
	case g.ratio:
		return fmt.Sprintf("ratio %s %g", g.sign, g.bound)
	}
	return fmt.Sprintf("%s %g", g.sign, g.bound)
}

func (g goal) met(value, ratio float64) string {
	if g.ratio {
		value = ratio
	}
	switch {
	case g.sign == "":
		return ""
	case g.sign == "≤" && value <= g.bound, g.sign == "≥" && value >= g.bound:
		return "yes"
	}
	return "no"
}

// figure is what one run measured: a value, its limit, and the ratio of the two. The limit is 0 where there is none.
type figure struct{ value, limit, ratio float64 }

// plain makes figures of values that have no limit.
func plain(values ...float64) (runs []figure) {
	for _, v := range values {
		runs = append(runs, figure{value: v})
	}
	return runs
}

// against makes the figure of a run from what its rounds measured, each beside its limit.
func against(values, limits []float64) figure {
	ratios := make([]float64, len(values))
	for i := range values {
		ratios[i] = values[i] / limits[i]
	}
	return figure{median(values), median(limits), median(ratios)}
}

// add records a row. Of no runs it records nothing.
func (s *suite) add(name, unit string, g goal, runs []figure) {
	if len(runs) == 0 {
		return
	}
	of := func(f func(figure) float64) (all []float64) {
		for _, r := range runs {
			all = append(all, f(r))
		}
		return all
	}
	values, ratios := of(func(r figure) float64 { return r.value }), of(func(r figure) float64 { return r.ratio })
	r := Row{Name: name, Unit: unit, Goal: g.String(), Value: median(values), Ratio: median(ratios),
		Limit: median(of(func(r figure) float64 { return r.limit }))}
	judged := values
	if r.Limit != 0 && (g.ratio || g.sign == "") {
		judged = ratios
	}
	r.Low, r.High, r.Met = quantile(judged, 0), quantile(judged, 1), g.met(r.Value, r.Ratio)
	s.rows = append(s.rows, r)
}

// print writes the rows as a table, and names the goals that are missed.
func print(w io.Writer, rows []Row) error {
	tw := tabwriter.NewWriter(w, 0, 4, 2, ' ', 0)
	fmt.Fprintln(tw, "FIGURE\tVALUE\tBESIDE\tRATIO\tRUNS\tGOAL\tGOAL MET")
	met, missed := 0, []string{}
	for _, r := range rows {
		limit, ratio := "-", "-"
		if r.Limit != 0 {
			limit, ratio = fmt.Sprintf("%.4g %s", r.Limit, r.Unit), fmt.Sprintf("%.2f", r.Ratio)
		}
		fmt.Fprintf(tw, "%s\t%.4g %s\t%s\t%s\t%.3g to %.3g\t%s\t%s\n",
			r.Name, r.Value, r.Unit, limit, ratio, r.Low, r.High, dash(r.Goal), dash(r.Met))
		switch r.Met {
		case "yes":
			met++
		case "no":
			missed = append(missed, r.Name)
		}
	}
	if err := tw.Flush(); err != nil {
		return err
	}
	fmt.Fprintf(w, "\n%d goals met, %d missed\n", met, len(missed))
	for _, name := range missed {
		fmt.Fprintln(w, "missed:", name)
	}
	return nil
}

func dash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

// markdown writes the rows of a file that a run has written as the table of docs/benchmarks.md. What misses its goal is
// in bold.
func markdown(file string, w io.Writer) error {
	b, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	var rows []Row
	if err := json.Unmarshal(b, &rows); err != nil {
		return fmt.Errorf("%s is no file of figures: %w", file, err)
	}
	fmt.Fprintln(w, "| row | measured | beside | ratio | runs | goal | met |")
	fmt.Fprintln(w, "|---|---|---|---|---|---|---|")
	for _, r := range rows {
		measured, beside, ratio := fmt.Sprintf("%.4g %s", r.Value, r.Unit), "", ""
		if r.Limit != 0 {
			beside, ratio = fmt.Sprintf("%.4g %s", r.Limit, r.Unit), fmt.Sprintf("%.2f ×", r.Ratio)
		}
		if r.Met == "no" {
			if strings.HasPrefix(r.Goal, "ratio") {
				ratio = "**" + ratio + "**"
			} else {
				measured = "**" + measured + "**"
			}
		}
		fmt.Fprintf(w, "| %s | %s | %s | %s | %.3g to %.3g | %s | %s |\n",
			r.Name, measured, beside, ratio, r.Low, r.High, r.Goal, r.Met)
	}
	return nil
}
