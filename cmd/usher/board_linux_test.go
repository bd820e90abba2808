package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"html"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/usher-agent/usher/metrics"
)

var boardPage = flag.String("board", "", "write a page of the board, as the test reads it, to this file")

// panel is what the test reads of a panel of a Grafana board.
type panel struct {
	ID          int
	Type, Title string
	Description string
	GridPos     struct{ X, Y, W, H int }
	Targets     []struct{ RefID, Expr, LegendFormat string }
}

// board is configs/grafana/usher.json.
type board struct {
	UID, Title string
	Panels     []panel
	Templating struct {
		List []struct{ Name, Type, Definition string }
	}
	Annotations struct{ List []struct{ Expr string } }
}

func readBoard(t *testing.T) (b board) {
	t.Helper()
	if err := json.Unmarshal([]byte(read(t, "../../configs/grafana/usher.json")), &b); err != nil {
		t.Fatal(err)
	}
	return b
}

// expressions are all queries of the board.
func (b board) expressions() (out []string) {
	for _, p := range b.Panels {
		for _, x := range p.Targets {
			out = append(out, x.Expr)
		}
	}
	for _, a := range b.Annotations.List {
		out = append(out, a.Expr)
	}
	return out
}

// The board's panels lie beside each other on Grafana's 24 columns, and each query names metrics that the agent has, or
// that the recording rules make.
func TestBoard(t *testing.T) {
	b := readBoard(t)
	taken, ids := map[[2]int]string{}, map[int]bool{}
	for _, p := range b.Panels {
		if p.Title == "" || ids[p.ID] || p.Type != "row" && len(p.Targets) == 0 {
			t.Errorf("panel %d %q: it has no title, no query, or another's id", p.ID, p.Title)
		}
		ids[p.ID] = true
		for x := p.GridPos.X; x < p.GridPos.X+p.GridPos.W; x++ {
			for y := p.GridPos.Y; y < p.GridPos.Y+p.GridPos.H; y++ {
				if other := taken[[2]int{x, y}]; other != "" || x >= 24 {
					t.Fatalf("panel %q lies on %q at column %d, row %d", p.Title, other, x, y)
				}
				taken[[2]int{x, y}] = p.Title
			}
		}
	}
	known := slices.Concat(metrics.Names(), regexp.MustCompile(`(?:usher:|ALERTS)[\w:]*`).FindAllString(
		read(t, recordingFile), -1), []string{"up", "ALERTS", "process_resident_memory_bytes"})
	names := regexp.MustCompile(`\b(usher[_:][\w:]+|process_\w+|go_\w+|up|ALERTS)\s*\{`)
	for _, expr := range b.expressions() {
		found := names.FindAllStringSubmatch(expr, -1)
		if len(found) == 0 {
			t.Errorf("a query of nothing: %s", expr)
		}
		for _, m := range found {
			if !slices.Contains(known, strings.TrimSuffix(m[1], "_bucket")) {
				t.Errorf("no agent has %s: %s", m[1], expr)
			}
		}
	}
}

// seldom are queries that may find nothing: of faults, of meters, of check-ins, of fleets.
var seldom = regexp.MustCompile(`> 0$|^ALERTS|usher_meter_remaining|usher_check_in_due|usher_fleet_`)

// shows asks a Prometheus for every query of the board, with the variables as Grafana fills them in: each is
// understood, and finds something.
func (p *prometheus) shows(b board) {
	p.t.Helper()
	fill := strings.NewReplacer("$job", "usher", "$instance", ".*")
	page := strings.Builder{}
	page.WriteString(boardHead)
	for _, x := range b.Panels {
		fmt.Fprintf(&page, `<div class="%s" style="grid-area:%d/%d/%d/%d"><b>%s</b>`, x.Type, x.GridPos.Y+1,
			x.GridPos.X+1,
			x.GridPos.Y+x.GridPos.H+1, x.GridPos.X+x.GridPos.W+1, html.EscapeString(x.Title))
		for _, q := range x.Targets {
			series, err := p.series(fill.Replace(q.Expr))
			if err != nil || len(series) == 0 && !seldom.MatchString(q.Expr) {
				p.t.Errorf("panel %q, query %s: %d series, %v", x.Title, q.Expr, len(series), err)
			}
			for _, s := range series {
				fmt.Fprintf(&page, "<p>%s <i>%s</i></p>", html.EscapeString(s.legend(q.LegendFormat)),
					html.EscapeString(s.value))
			}
		}
		page.WriteString("</div>\n")
	}
	for _, a := range b.Annotations.List {
		if _, err := p.series(fill.Replace(a.Expr)); err != nil {
			p.t.Errorf("annotation %s: %v", a.Expr, err)
		}
	}
	if *boardPage != "" {
		if err := os.WriteFile(*boardPage, []byte(page.String()), 0o600); err != nil {
			p.t.Error(err)
		}
	}
}

const boardHead = `<!doctype html><meta charset="utf-8"><title>Usher</title><style>
body{background:#111217;color:#ccccdc;font:13px sans-serif;display:grid;grid-template-columns:repeat(24,1fr);
grid-auto-rows:34px;gap:6px;margin:8px}
div{background:#181b1f;border:1px solid #2c3235;padding:4px 8px;overflow:hidden}
div.row{background:none;border:0;font-size:16px} p{margin:2px 0;white-space:nowrap} i{color:#6ccf8e;float:right}
div.stat p{font-size:15px}</style>
`

// legend fills a panel's legend in.
func (s series) legend(format string) string {
	return regexp.MustCompile(`{{(\w+)}}`).ReplaceAllStringFunc(format, func(m string) string {
		return s.labels[strings.Trim(m, "{}")]
	})
}
