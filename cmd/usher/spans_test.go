package main

import (
	"encoding/json"
	"errors"
	"go/ast"
	"go/importer"
	"go/parser"
	"go/token"
	"go/types"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// listed is a package as go list has it.
type listed struct {
	ImportPath, Dir, Export string
	GoFiles, CgoFiles       []string
	Module                  *struct{ Main bool }
	Standard                bool
}

// No text for people writes a span of time as Go does ("72h0m0s"): enforcer.Span has the words, and config.Duration the
// form of a file. Logs write spans in words by themselves.
func TestSpansAreInWords(t *testing.T) {
	t.Parallel()
	list := exec.Command("go", "list", "-trimpath", "-export", "-deps", // what it compiles, the program is linked from
		"-json=ImportPath,Dir,Export,GoFiles,CgoFiles,Module,Standard",
		"./...")
	list.Dir, list.Env = "../..", append(os.Environ(), "CGO_ENABLED=0")
	out, err := list.Output()
	if err != nil {
		t.Fatal(err)
	}
	exports, own := map[string]string{}, []listed{}
	for d := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p listed
		if err := d.Decode(&p); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		exports[p.ImportPath] = p.Export
		if p.Module != nil && p.Module.Main {
			own = append(own, p)
		}
	}
	set := token.NewFileSet()
	imports := importer.ForCompiler(set, "gc", func(path string) (io.ReadCloser, error) {
		return os.Open(exports[path])
	})
	if len(own) < 40 {
		t.Fatalf("only %d packages were looked at", len(own))
	}
	for _, p := range own {
		var files []*ast.File
		for _, name := range p.GoFiles {
			f, err := parser.ParseFile(set, filepath.Join(p.Dir, name), nil, parser.SkipObjectResolution)
			if err != nil {
				t.Fatal(err)
			}
			files = append(files, f)
		}
		info := &types.Info{Types: map[ast.Expr]types.TypeAndValue{}}
		if _, err := (&types.Config{Importer: imports}).Check(p.ImportPath, set, files, info); err != nil {
			t.Fatal(err)
		}
		for at := range info.Types {
			if call, ok := at.(*ast.CallExpr); ok && writesSpan(info, call) {
				t.Errorf("%s: a span of time is written as Go does; use enforcer.Span", set.Position(call.Pos()))
			}
		}
	}
}

// writesSpan reports whether a call writes a span: its method String, or as one of any number of values of any type.
func writesSpan(info *types.Info, call *ast.CallExpr) bool {
	if fun, ok := call.Fun.(*ast.SelectorExpr); ok {
		of := info.TypeOf(fun.X)
		switch {
		case fun.Sel.Name == "String" && isSpan(of):
			return true
		case of != nil && of.String() == "*log/slog.Logger":
			return false
		}
	}
	sig, ok := info.TypeOf(call.Fun).(*types.Signature)
	if !ok || !sig.Variadic() {
		return false
	}
	last := sig.Params().Len() - 1
	if list, ok := sig.Params().At(last).Type().(*types.Slice); !ok || !types.IsInterface(list.Elem()) {
		return false
	}
	for i, arg := range call.Args {
		if i >= last && isSpan(info.TypeOf(arg)) {
			return true
		}
	}
	return false
}

func isSpan(t types.Type) bool { return t != nil && t.String() == "time.Duration" }
