package main

import (
	"strings"
	"testing"
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
