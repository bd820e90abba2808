// Command spans finds where a text for people writes a span of time as Go does ("72h0m0s"): enforcer.Span has the
// words. It names each such place of the module in the folder that its argument names, and then ends with 1.
package main

import (
	"fmt"
	"go/ast"
	"go/types"
	"os"
	"path/filepath"

	"golang.org/x/tools/go/packages"
)

func main() {
	n, err := spans(os.Args[1])
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(2)
	}
	if n > 0 {
		os.Exit(1)
	}
}

// spans prints the places, and returns how many there are.
func spans(dir string) (n int, err error) {
	loaded, err := packages.Load(&packages.Config{Dir: dir, Mode: packages.NeedName | packages.NeedFiles |
		packages.NeedSyntax | packages.NeedTypes | packages.NeedTypesInfo | packages.NeedImports |
		packages.NeedExportFile}, "./...")
	if err != nil {
		return 0, err
	}
	for _, p := range loaded {
		for _, e := range p.Errors {
			return 0, e
		}
		for _, f := range p.Syntax {
			ast.Inspect(f, func(at ast.Node) bool {
				call, ok := at.(*ast.CallExpr)
				if !ok || !writes(p.TypesInfo, call) {
					return true
				}
				where := p.Fset.Position(call.Pos())
				if rel, err := filepath.Rel(dir, where.Filename); err == nil {
					where.Filename = rel
				}
				fmt.Printf("%s: a span of time is written as Go does; use enforcer.Span\n", where)
				n++
				return true
			})
		}
	}
	return n, nil
}

// writes reports whether a call writes a span: its method String, or as one of any number of values of any type. Logs
// write spans in words by themselves.
func writes(info *types.Info, call *ast.CallExpr) bool {
	fun, isMethod := call.Fun.(*ast.SelectorExpr)
	if isMethod {
		of := info.TypeOf(fun.X)
		if fun.Sel.Name == "String" && isSpan(of) {
			return true
		}
		if of != nil && of.String() == "*log/slog.Logger" {
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
