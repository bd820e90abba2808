package main

import (
	"bytes"
	"flag"
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

var update = flag.Bool("limits.update", false, "write testdata/limits.txt again, to shorten it")

// The limits of a source file: what a reader can take in at once.
const (
	maxLines    = 500 // of a file
	maxFunction = 80  // lines of a function
	maxColumns  = 120 // of a line, a tab being four
)

// limitsFile lists what breaks a limit and may for now, one a line. It only shrinks.
const limitsFile = "testdata/limits.txt"

// Source files keep to the limits, and no line silences a linter. Generated code may break them.
func TestLimits(t *testing.T) {
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
	slices.Sort(broken)
	broken = slices.Compact(broken)
	if *update {
		if err := os.WriteFile(limitsFile, []byte(strings.Join(append(broken, ""), "\n")), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	known := strings.FieldsFunc(read(t, limitsFile), func(r rune) bool { return r == '\n' })
	for _, b := range broken {
		if !slices.Contains(known, b) {
			t.Errorf("%s; split it", b)
		}
	}
	for _, k := range known {
		if !slices.Contains(broken, k) {
			t.Logf("%s lists %q, which keeps to the limit now; take it out", limitsFile, k)
		}
	}
}

// breaks returns how a file breaks the limits. It gives no numbers, so that a list of them lasts.
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
		out = append(out, name+" has more than 500 lines")
	}
	for line := range strings.Lines(string(b)) {
		line = strings.TrimRight(line, "\n")
		if columns(line) > maxColumns {
			out = append(out, name+" has a line of more than 120 columns")
		}
		if _, comment, ok := strings.Cut(line, "//"); ok && strings.HasPrefix(comment, "no"+"lint") {
			out = append(out, name+" silences a linter")
		}
	}
	for _, d := range f.Decls {
		if d, ok := d.(*ast.FuncDecl); ok && set.Position(d.End()).Line-set.Position(d.Pos()).Line >= maxFunction {
			out = append(out, name+": "+d.Name.Name+" has more than 80 lines")
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
