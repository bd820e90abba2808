package main

import (
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/usher-agent/usher/plugin/keygen"
)

// sources are the parsed files of a package, its tests left out.
func sources(t *testing.T, glob string) (out []*ast.File) {
	t.Helper()
	files, err := filepath.Glob(glob)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		if strings.HasSuffix(f, "_test.go") {
			continue
		}
		tree, err := parser.ParseFile(token.NewFileSet(), f, nil, parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, tree)
	}
	if len(out) == 0 {
		t.Fatalf("there is no source file %s", glob)
	}
	return out
}

// literals returns the texts below a node that match.
func literals(n ast.Node, match *regexp.Regexp) (out []string) {
	ast.Inspect(n, func(n ast.Node) bool {
		if lit, ok := n.(*ast.BasicLit); ok && lit.Kind == token.STRING {
			if s, err := strconv.Unquote(lit.Value); err == nil && match.MatchString(s) {
				out = append(out, s)
			}
		}
		return true
	})
	return out
}

// calls returns what of finds in the calls of the functions that are named so.
func calls(files []*ast.File, named *regexp.Regexp, of func(*ast.CallExpr) []string) (out []string) {
	for _, f := range files {
		ast.Inspect(f, func(n ast.Node) bool {
			if c, ok := n.(*ast.CallExpr); ok {
				if name, ok := c.Fun.(*ast.Ident); ok && named.MatchString(name.Name) {
					out = append(out, of(c)...)
				}
			}
			return true
		})
	}
	return out
}

// valuesOf returns the texts of the constants whose names begin with prefix.
func valuesOf(files []*ast.File, prefix string) (out []string) {
	for _, f := range files {
		ast.Inspect(f, func(n ast.Node) bool {
			if v, ok := n.(*ast.ValueSpec); ok && strings.HasPrefix(v.Names[0].Name, prefix) {
				for _, value := range v.Values {
					out = append(out, literals(value, regexp.MustCompile(`.`))...)
				}
			}
			return true
		})
	}
	return out
}

// dialectErrors are the codes that each dialect answers with, read from its source.
func dialectErrors(t *testing.T) map[string][]string {
	t.Helper()
	of := map[string][]string{}
	all := func(files []*ast.File, pattern string) (out []string) {
		for _, f := range files {
			out = append(out, literals(f, regexp.MustCompile(pattern))...)
		}
		return out
	}
	kg := sources(t, "../../plugin/keygen/*.go")
	of["keygen"] = calls(kg, regexp.MustCompile(`^(problem|unauthorized|forbidden|invalid|denied)$`),
		func(c *ast.CallExpr) []string { return literals(c, regexp.MustCompile(`^[A-Z]+(_[A-Z]+)+$`)) })
	of["keygen"] = append(of["keygen"], all(sources(t, "../../plugin/keygen/dialect*.go"), `^[A-Z_]+_EXCEEDED$`)...)
	of["keygen-relay"] = valuesOf(sources(t, "../../plugin/keygen/dialect_relay.go"), "relay")
	for _, c := range keygen.Codes() {
		of["keygen-validation"] = append(of["keygen-validation"], string(c))
	}
	of["awslm"] = all(sources(t, "../../plugin/awslm/wire.go"), `^[A-Z][A-Za-z]+Exception$`)
	of["elastic"] = append(all(sources(t, "../../plugin/elastic/dialect_stack.go"), `^[a-z_]+_exception$`),
		all(sources(t, "../../plugin/elastic/dialect_ece.go"), `^(root|license)\.[a-z_]+$`)...)
	of["brainframe"] = all(sources(t, "../../plugin/brainframe/fault.go"), `^[A-Z][A-Za-z]+Error$`)
	of["ucloud"] = calls(sources(t, "../../plugin/ucloud/*.go"), regexp.MustCompile(`^refuse$`),
		func(c *ast.CallExpr) []string {
			if s, ok := c.Args[0].(*ast.SelectorExpr); ok {
				return []string{strings.TrimPrefix(s.Sel.Name, "Status")}
			}
			return nil
		})
	of["ucloud"] = append(of["ucloud"], valuesOf(sources(t, "../../plugin/ucloud/wire.go"), "Error")...)
	for system, codes := range of {
		slices.Sort(codes)
		of[system] = slices.Compact(codes)
	}
	return of
}

// Every code that a dialect answers with has its row, with what it means, what the product's user sees, what the
// operator does and how to see that it is mended; and there is no row of a code that is gone.
func TestDialectErrorsExplained(t *testing.T) {
	row := regexp.MustCompile("^\\| <a id=\"([a-z-]+)-([^\"]+)\"></a>`([^`]+)` \\| (.*) \\|$")
	rows := map[string]bool{}
	for line := range strings.Lines(read(t, "../../docs/dialect-errors.md")) {
		line = strings.TrimRight(line, "\n")
		if !strings.HasPrefix(line, "| <a") {
			continue
		}
		m := row.FindStringSubmatch(line)
		if m == nil {
			t.Errorf("a row has no code: %s", line)
			continue
		}
		// The code may have blanks, and the system's part of the id hyphens.
		id := m[1] + "-" + m[2]
		system, ok := strings.CutSuffix(id, "-"+strings.ReplaceAll(m[3], " ", "-"))
		if !ok || rows[system+" "+m[3]] {
			t.Errorf("the id %s is not that of %s, or there twice", id, m[3])
		}
		rows[system+" "+m[3]] = true
		cells := strings.Split(m[4], " | ")
		if len(cells) != 4 {
			t.Errorf("%s has %d answers, and must have 4", id, len(cells))
		}
		for i, c := range cells {
			if len(strings.TrimSpace(c)) < 7 {
				t.Errorf("%s: answer %d is empty", id, i+1)
			}
		}
	}
	n := 0
	for system, codes := range dialectErrors(t) {
		for _, c := range codes {
			n++
			if !rows[system+" "+c] {
				t.Errorf("docs/dialect-errors.md has no row %s of %s", c, system)
			}
			delete(rows, system+" "+c)
		}
	}
	for r := range rows {
		t.Errorf("docs/dialect-errors.md explains %s, and no dialect answers that", r)
	}
	if n < 130 {
		t.Errorf("only %d codes were found", n)
	}
}
