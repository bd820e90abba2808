package main

import (
	"strings"
	"testing"
	"time"
)

// Columns stay aligned beside empty cells, and no line ends in blanks.
func TestTable(t *testing.T) {
	var out strings.Builder
	c := &cli{out: &out}
	if err := c.table([]string{"NAME", "VALUE", "NOTE"}, []string{"cpu", "1e00f9…", ""},
		[]string{"tpm", "absent", "none"}, []string{"x", "", ""}); err != nil {
		t.Fatal(err)
	}
	const want = "NAME  VALUE    NOTE\ncpu   1e00f9…\ntpm   absent   none\nx\n"
	if out.String() != want {
		t.Errorf("got\n%swant\n%s", out.String(), want)
	}
}

// The last date that a licence may have is as far ahead as it is.
func TestAway(t *testing.T) {
	now := time.Date(2026, 11, 29, 12, 0, 0, 0, time.UTC)
	for at, want := range map[time.Time]string{
		now.Add(time.Hour):                             "in 1h 0m",
		now.AddDate(0, 0, 3):                           "in 3 days",
		time.Date(9999, 12, 31, 12, 0, 0, 0, time.UTC): "in 2912110 days",
	} {
		if got := away(at, now); got != want {
			t.Errorf("%v: %s, want %s", at, got, want)
		}
	}
}
