package main

import (
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/usher-agent/usher/plugin/catalog"
)

// tableOf returns the rows of the table under a heading, each by the names of its columns.
func tableOf(t *testing.T, text, heading string) (rows []map[string]string) {
	t.Helper()
	_, rest, ok := strings.Cut(text, "\n"+heading+"\n")
	if !ok {
		t.Fatalf("there is no heading %q", heading)
	}
	rest, _, _ = strings.Cut(rest, "\n## ")
	var names []string
	for line := range strings.Lines(rest) {
		if !strings.HasPrefix(line, "|") || strings.HasPrefix(line, "|--") {
			continue
		}
		var cells []string
		for _, c := range strings.Split(strings.Trim(strings.TrimSpace(line), "|"), "|") {
			cells = append(cells, strings.TrimSpace(c))
		}
		if names == nil {
			names = cells
			continue
		}
		if len(cells) != len(names) {
			t.Fatalf("a row has %d cells, and not %d: %s", len(cells), len(names), line)
		}
		row := map[string]string{}
		for i, name := range names {
			row[name] = cells[i]
		}
		rows = append(rows, row)
	}
	return rows
}

// versions are how modules and packages state the client that a test runs: name and version.
func versions(t *testing.T) (all string) {
	t.Helper()
	for _, glob := range []string{"../../go.mod", "../../plugin/*/acceptance/go.mod",
		"../../plugin/*/acceptance/*/package.json", "../../plugin/*/testdata/*/package.json"} {
		files, err := filepath.Glob(glob)
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range files {
			all += read(t, f)
		}
	}
	return all
}

// Each built-in system has its row in the README, each cell a row among what is proved that says the same and names
// tests that exist, and each client the version that these tests run. A system lacks in its row what it lacks.
func TestSystemsTable(t *testing.T) {
	type claim struct{ system, part, says string }
	named := regexp.MustCompile("`([a-z/]+)\\.((?:Test|Fuzz)[A-Za-z0-9]+)`")
	proved := map[claim]bool{}
	for _, r := range tableOf(t, read(t, "../../docs/proof.md"), "## The licence systems") {
		tests := named.FindAllStringSubmatch(r["shown by"], -1)
		if len(tests) == 0 {
			t.Errorf("%s, %s: no test is named", r["system"], r["part"])
		}
		for _, m := range tests {
			if !hasTest(t, m[1], m[2]) {
				t.Errorf("%s, %s: there is no test %s in %s", r["system"], r["part"], m[2], m[1])
			}
		}
		proved[claim{r["system"], r["part"], r["claim"]}] = true
	}
	link := regexp.MustCompile(`^\[(.+)\]\((docs/(?:systems/)?([a-z-]+)\.md)\)$`)
	client := regexp.MustCompile(`^(\S+) (v?\d\S*)$`)
	clients := versions(t)
	rows := map[string]map[string]string{} // by the name of the page
	for _, r := range tableOf(t, read(t, "../../README.md"), "## Licence systems") {
		m := link.FindStringSubmatch(r["system"])
		if m == nil {
			t.Errorf("a system has no page: %s", r["system"])
			continue
		}
		if _, err := os.Stat("../../" + m[2]); err != nil {
			t.Error(err)
		}
		rows[m[3]] = r
		for _, part := range []string{"documents", "upstream", "dialect", "tried with"} {
			if says := r[part]; says != "—" && !proved[claim{m[1], part, says}] {
				t.Errorf("%s: nothing shows that its %s are %q", m[1], part, says)
			}
			delete(proved, claim{m[1], part, r[part]})
		}
		for c := range strings.SplitSeq(r["tried with"], ", ") {
			if m := client.FindStringSubmatch(c); m != nil &&
				!regexp.MustCompile(regexp.QuoteMeta(m[1])+`[^ "\n]*"?:? "?`+regexp.QuoteMeta(m[2])+`["\s]`).
					MatchString(clients) {
				t.Errorf("%s: no test runs %s", r["system"], c)
			}
		}
	}
	for c := range maps.Keys(proved) {
		t.Errorf("the README does not say %+v", c)
	}
	for i, s := range catalog.Systems() {
		page := s.Name
		if i == 0 { // the native one, whose API is the agent's own
			page = "licence-format"
		}
		r := rows[page]
		if r == nil {
			t.Errorf("system %s has no row in the README", s.Name)
			continue
		}
		for part, has := range map[string]bool{"dialect": s.Dialect != nil, "upstream": s.Settings != nil} {
			if i > 0 && has != (r[part] != "—") {
				t.Errorf("system %s: its %s is %q", s.Name, part, r[part])
			}
		}
		delete(rows, page)
	}
	if len(rows) > 0 {
		t.Errorf("these are no built-in systems: %v", slices.Sorted(maps.Keys(rows)))
	}
}

// hasTest reports whether a package has a test.
func hasTest(t *testing.T, pkg, name string) bool {
	t.Helper()
	files, err := filepath.Glob(filepath.Join("../..", pkg, "*_test.go"))
	if err != nil {
		t.Fatal(err)
	}
	return slices.ContainsFunc(files, func(f string) bool { return strings.Contains(read(t, f), "\nfunc "+name+"(") })
}
