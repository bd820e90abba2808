package enforcer

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// tables reads the tables of a Markdown file by the headings they stand under: rows of cells.
func tables(t *testing.T, file string) map[string][][]string {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	out := map[string][][]string{}
	heading := ""
	for line := range strings.Lines(string(b)) {
		line = strings.TrimSpace(line)
		if h, ok := strings.CutPrefix(line, "## "); ok {
			heading = h
		}
		if !strings.HasPrefix(line, "| `") {
			continue
		}
		cells := strings.Split(strings.Trim(line, "|"), "|")
		for i := range cells {
			cells[i] = strings.TrimSpace(cells[i])
		}
		out[heading] = append(out[heading], cells)
	}
	return out
}

// TestVerdictsDocumented: docs/verdicts.md has one line for every code, warning, denial and cause, in the order of the
// code, and none for others.
func TestVerdictsDocumented(t *testing.T) {
	got := tables(t, filepath.Join("..", "docs", "verdicts.md"))
	// From the table of the local API's codes.
	status := map[DenialCode]string{NoSlots: "409", NotShared: "409", MeterEmpty: "409", LicenseMissing: "403",
		LicenseInvalid: "403",
		LicenseExpired: "403", PoolUnknown: "404", LeaseUnknown: "404", NotHolder: "403", DeniedByPolicy: "403",
		HeldOff:     "409",
		Forbidden:   "403",
		TokenReused: "409", TooLarge: "413", BadRequest: "400", Storage: "507", Draining: "503", RateLimited: "429"}
	want := map[string][][]string{}
	for _, s := range []State{StateValid, StateExpired, StateInvalid, StateMissing} {
		want["States"] = append(want["States"], []string{string(s)})
	}
	for _, c := range Codes() {
		want["Codes"] = append(want["Codes"], []string{string(c), string(c.State())})
	}
	for _, c := range WarningCodes() {
		want["Warnings"] = append(want["Warnings"], []string{string(c)})
	}
	for _, c := range DenialCodes() {
		want["Denials"] = append(want["Denials"], []string{string(c), status[c]})
	}
	for _, c := range Causes() {
		want["Ends of leases"] = append(want["Ends of leases"], []string{string(c)})
	}
	for heading, rows := range want {
		var lines [][]string
		for _, cells := range got[heading] {
			for i, cell := range cells {
				if cell == "" {
					t.Errorf("%s: cell %d of %s is empty", heading, i+1, cells[0])
				}
				cells[i] = strings.Trim(cell, "`")
			}
			lines = append(lines, cells[:min(len(cells), len(rows[0]))])
		}
		for _, row := range rows {
			if !slices.ContainsFunc(lines, func(l []string) bool { return slices.Equal(l, row) }) {
				t.Errorf("docs/verdicts.md has no line for %s under %q", strings.Join(row, ", "), heading)
			}
		}
		if !slices.EqualFunc(lines, rows, slices.Equal[[]string]) {
			t.Errorf("docs/verdicts.md, %q: the lines are %v, want %v in this order", heading, lines, rows)
		}
	}
}
