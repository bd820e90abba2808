package main

// How the command line speaks to people, once for all commands:
//
//   - The answer goes to standard output; everything else to standard error.
//   - Tables have a head in capitals and columns aligned by spaces; nothing is coloured.
//   - An error is "error: " and one sentence; a remedy follows as "hint: " and another.
//   - With --json, standard output has the API's JSON and nothing else.

import (
	"encoding/json"
	"fmt"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/usher-agent/usher/client/wire"
)

// printJSON prints a shape of the API.
func (c *cli) printJSON(v any) error {
	e := json.NewEncoder(c.out)
	e.SetIndent("", "  ")
	e.SetEscapeHTML(false)
	return e.Encode(v)
}

// table prints rows in aligned columns.
func (c *cli) table(rows ...[]string) error {
	var text strings.Builder
	w := tabwriter.NewWriter(&text, 0, 4, 2, ' ', 0)
	for _, r := range rows {
		fmt.Fprintln(w, strings.Join(r, "\t")) // an empty cell keeps its tab, or the columns would end
	}
	if err := w.Flush(); err != nil {
		return err
	}
	for line := range strings.Lines(text.String()) {
		if _, err := fmt.Fprintln(c.out, strings.TrimRight(line, " \n")); err != nil {
			return err
		}
	}
	return nil
}

func limitText(n *int64) string {
	if n == nil {
		return "unlimited"
	}
	return fmt.Sprint(*n)
}

func timeText(t *time.Time) string {
	if t == nil {
		return "-"
	}
	return t.UTC().Format(time.RFC3339)
}

// away returns the distance of a time, in two units at most.
func away(t, now time.Time) string {
	d := t.Sub(now)
	if d < 0 {
		return span(-d) + " ago"
	}
	return "in " + span(d)
}

func span(d time.Duration) string {
	switch {
	case d < time.Minute:
		return fmt.Sprintf("%ds", int(d.Round(time.Second).Seconds()))
	case d < time.Hour:
		return fmt.Sprintf("%dm", int(d.Minutes()))
	case d < 48*time.Hour:
		return fmt.Sprintf("%dh %dm", int(d.Hours()), int(d.Minutes())%60)
	default:
		return fmt.Sprintf("%d days", int(d.Hours()/24))
	}
}

func dash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

func featureText(f wire.Feature) string {
	switch v := f.Value.(type) {
	case nil:
		return "off"
	case bool:
		if v {
			return "on"
		}
		return "off"
	case float64:
		return strings.TrimSpace(fmt.Sprintf("%v %s", v, f.Unit))
	default:
		return fmt.Sprint(v)
	}
}

// printLine prints a shape of the API on one line.
func (c *cli) printLine(v any) error {
	e := json.NewEncoder(c.out)
	e.SetEscapeHTML(false)
	return e.Encode(v)
}
