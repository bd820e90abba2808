package doctor

import (
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// Each code has its line in the docs, with an anchor, its cause and a mend, in the order of the report; and no other
// has.
func TestEveryCodeHasItsLine(t *testing.T) {
	t.Parallel()
	b, err := os.ReadFile("../../../../docs/doctor.md")
	if err != nil {
		t.Fatal(err)
	}
	var documented []string
	for _, row := range regexp.MustCompile("(?m)^\\| <a id=\"([A-Z_]+)\"></a>`([A-Z_]+)` \\| ([^|]+) \\| ([^|]+) \\|$").
		FindAllStringSubmatch(string(b), -1) {
		documented = append(documented, row[2])
		i := slices.IndexFunc(Codes, func(c Code) bool { return c.Code == row[2] })
		if i < 0 || Codes[i].Cause != row[3] || row[1] != row[2] || len(row[4]) < 10 {
			t.Errorf("the line of %s is %q", row[2], row[0])
		}
	}
	var codes []string
	for _, c := range Codes {
		codes = append(codes, c.Code)
	}
	if !slices.Equal(codes, documented) {
		t.Errorf("the docs have %q, and the code has %q", documented, codes)
	}
}

// Each code that a finding is given is one of the list, and each of the list is given to some finding.
func TestEveryCodeIsUsed(t *testing.T) {
	t.Parallel()
	used := map[string]bool{}
	files, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	shape := regexp.MustCompile(`^[A-Z]+(_[A-Z]+)+$`)
	for _, file := range files {
		if file == "codes.go" || strings.HasSuffix(file, "_test.go") {
			continue
		}
		f, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(f, func(n ast.Node) bool {
			if l, ok := n.(*ast.BasicLit); ok && l.Kind == token.STRING {
				used[strings.Trim(l.Value, `"`)] = true
			}
			return true
		})
	}
	known := map[string]bool{"HTTP_PROXY": true, "HTTPS_PROXY": true, "NO_PROXY": true}
	for _, c := range Codes {
		known[c.Code] = true
		if !used[c.Code] && c.Code != "DRAINING" {
			t.Errorf("%s is never said", c.Code)
		}
	}
	for code := range used {
		if shape.MatchString(code) && !known[code] {
			t.Errorf("%s is not in the list of codes", code)
		}
	}
	for effect, causes := range explained {
		for _, c := range append(slices.Clone(causes), effect) {
			if !known[c] {
				t.Errorf("%s explains or is explained, and is not in the list of codes", c)
			}
		}
		for _, c := range causes {
			got := sorted([]Finding{{Code: effect, Result: Bad}, {Code: c, Result: Warning}})
			if got[0].Code != c || got[0].Result != Bad {
				t.Errorf("%s explains %s, and comes behind it", c, effect)
			}
		}
	}
}

// The worst comes first, causes before what follows from them, and a warning that explains something bad is bad.
func TestCausesComeFirst(t *testing.T) {
	t.Parallel()
	finding := func(r Result, code, check, detail string) Finding {
		return Finding{Code: code, Check: check, Result: r, Detail: detail, Hint: "mend it"}
	}
	got := sorted([]Finding{
		finding(OK, "OK", "host", "well"),
		finding(Warning, "LICENSE_WARNING", "licence", "w"),
		finding(Unknown, "NOT_LOOKED_AT", "state", "u"),
		finding(Bad, "LICENSE_OVERDUE", "licence", "it is overdue"),
		finding(Warning, "UPSTREAM_DNS", "upstream", "no name"),
		finding(Bad, "AGENT_AWAY", "agent", "away"),
		finding(Bad, "STATE_FULL", "state", "full"),
	})
	var codes []string
	for _, f := range got {
		codes = append(codes, f.Code)
	}
	want := []string{"STATE_FULL", "AGENT_AWAY", "UPSTREAM_DNS", "LICENSE_OVERDUE", "LICENSE_WARNING", "NOT_LOOKED_AT",
		"OK"}
	if !slices.Equal(codes, want) {
		t.Errorf("the order is %q, want %q", codes, want)
	}
	if f := got[2]; f.Result != Bad || f.Detail != "no name (and so licence: it is overdue)" {
		t.Errorf("the cause is %+v", f)
	}
}
