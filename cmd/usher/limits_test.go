package main

import (
	"bytes"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// The limits of a source file: what a reader can take in at once.
const (
	maxLines    = 500 // of a file
	maxFunction = 80  // lines of a function
	maxColumns  = 120 // of a line, a tab being four
)

// Source files keep to the limits, and no line silences a linter. Generated code may break them.
func TestLimits(t *testing.T) {
	t.Parallel()
	var broken []string
	n := 0
	err := filepath.WalkDir("../..", func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && (d.Name() == ".git" || d.Name() == "bin" || d.Name() == "node_modules"):
			return filepath.SkipDir
		case !strings.HasSuffix(path, ".go"):
			return nil
		}
		n++
		broken = append(broken, breaks(t, path)...)
		return nil
	})
	if err != nil || n < 100 {
		t.Fatalf("%d files were looked at: %v", n, err)
	}
	for _, b := range slices.Compact(broken) {
		t.Error(b)
	}
}

// breaks returns how a file breaks the limits.
func breaks(t *testing.T, path string) (out []string) {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	set := token.NewFileSet()
	f, err := parser.ParseFile(set, path, b, parser.ParseComments|parser.SkipObjectResolution)
	if err != nil {
		t.Fatal(err)
	}
	if ast.IsGenerated(f) {
		return nil
	}
	name := filepath.ToSlash(strings.TrimPrefix(path, filepath.Join("..", "..")+string(filepath.Separator)))
	if bytes.Count(b, []byte("\n")) > maxLines {
		out = append(out, name+" has more than 500 lines; split it")
	}
	bubbles := !strings.HasSuffix(path, "_test.go") || bytes.Contains(b, []byte(`"testing/synctest"`)) ||
		bytes.Contains(b, []byte(`/agent/bubble"`))
	for line := range strings.Lines(string(b)) {
		line = strings.TrimRight(line, "\n")
		if columns(line) > maxColumns {
			out = append(out, name+" has a line of more than 120 columns; wrap it")
		}
		if _, comment, ok := strings.Cut(line, "//"); ok && strings.HasPrefix(comment, "no"+"lint") {
			out = append(out, name+" silences a linter")
		}
		if strings.Contains(line, "synctest."+"Test(") && !strings.HasPrefix(name, "agent/bubble/") {
			out = append(out, name+" has a bubble that may break the race detector; make it with bubble.Test")
		}
		if !bubbles && strings.Contains(line, "time."+"Sleep(") { // there, no real time passes
			out = append(out, name+" sleeps outside of testing/synctest; wait for what the test needs")
		}
	}
	for _, d := range f.Decls {
		if d, ok := d.(*ast.FuncDecl); ok && set.Position(d.End()).Line-set.Position(d.Pos()).Line >= maxFunction {
			out = append(out, name+": "+d.Name.Name+" has more than 80 lines; split it")
		}
	}
	return out
}

// columns returns the width of a line with tab stops at every fourth column.
func columns(line string) (n int) {
	for _, r := range line {
		if n++; r == '\t' {
			n += 3 - (n-1)%4
		}
	}
	return n
}
