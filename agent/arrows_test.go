package agent_test

import (
	"encoding/json"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v4"
)

const module = "github.com/usher-agent/usher/"

// arrows says what each part of the house may import of the others. A package not listed by itself falls under the
// longest part of its path that is.
var arrows = map[string][]string{
	"enforcer":          {},
	"plugin/redact":     {},
	"client":            {"client/wire"},
	"client/wire":       {},
	"plugin":            {"enforcer", "plugin/textual"},
	"plugin/textual":    {},
	"plugin/pluginpb":   {},
	"plugin/remote":     {"enforcer", "plugin"},
	"plugin/external":   {"enforcer", "plugin"},
	"plugin/sdk":        {"enforcer", "plugin"},
	"plugin/plugintest": {"enforcer", "plugin"},
	"plugin/catalog":    {"enforcer", "plugin"},
	"metrics":           {"enforcer"},
	"agent":             {"enforcer", "plugin", "metrics", "client", "agent", "plugin/redact"},
	"agent/api":         {"agent/files", "agent/naming", "enforcer", "plugin", "client/wire", "plugin/redact"},
	"agent/bubble":      {},
	"agent/audit":       {"agent/eventlog", "agent/files", "enforcer"},
	"agent/clock":       {},
	"agent/court":       {"enforcer", "plugin"},
	"agent/denials":     {"enforcer"},
	"agent/places":      {"enforcer"},
	"agent/desk": {"agent/clock", "agent/files", "agent/journal", "agent/liveness", "agent/memory", "agent/seals",
		"enforcer"},
	"agent/files":           {},
	"agent/fleet":           {"client/wire", "enforcer", "plugin"},
	"agent/fleet/fleettest": {"agent/fleet"},
	"agent/fleetway":        {"agent/fleet", "metrics"},
	"agent/config":          {"agent/files", "agent/naming", "enforcer", "plugin"},
	"agent/dialect": {"agent/api", "agent/config", "agent/files", "agent/journal", "client/wire", "enforcer",
		"plugin"},
	"agent/holders":  {"agent/api", "agent/liveness", "enforcer"},
	"agent/host":     {"enforcer", "client/wire", "plugin/textual"},
	"agent/identity": {"agent/files", "client/wire", "enforcer", "plugin"},
	"agent/inspect": {"agent/config", "agent/dialect", "agent/host", "agent/identity", "agent/plugins", "agent/watch",
		"enforcer", "plugin"},
	"agent/journal":        {},
	"agent/journal/sealed": {"agent/files", "agent/journal"},
	"agent/liveness":       {"agent/clock", "agent/files"},
	"agent/leaselog":       {"agent/eventlog", "agent/files", "enforcer"},
	"agent/memory":         {},
	"agent/ops":            {},
	"agent/repair": {"agent/config", "agent/desk", "agent/dialect", "agent/files", "agent/identity", "agent/journal",
		"agent/seals"},
	"agent/seals": {"agent/audit", "agent/clock", "agent/eventlog", "agent/files", "agent/identity",
		"agent/journal", "agent/leaselog", "enforcer"},
	"agent/systemd": {"agent/files", "agent/liveness"},
	"agent/upstreams": {"agent/config", "agent/files", "agent/pulse", "agent/shares", "client/wire", "enforcer",
		"plugin"},
	"agent/usage":     {"agent/eventlog", "agent/files", "agent/identity", "client/wire", "enforcer"},
	"agent/watch":     {"agent/files", "enforcer", "plugin/textual"},
	"agent/bench":     {"agent/fleet", "agent/liveness/oldkernel", "client", "enforcer", "plugin"},
	"configs":         {},
	"cmd":             {"agent", "configs", "cmd/usher/internal", "enforcer", "plugin", "client", "plugin/redact"},
	"agent/output":    {},
	"agent/naming":    {},
	"agent/vitals":    {},
	"agent/plugins":   {"agent/config", "plugin"},
	"agent/pulse":     {"enforcer", "plugin"},
	"agent/shares":    {"enforcer", "plugin"},
	"agent/reports":   {"enforcer", "plugin"},
	"agent/registrar": {"agent/clock", "agent/fleet", "agent/fleetway", "client/wire", "enforcer", "metrics", "plugin"},
	"agent/eventlog":  {"agent/files", "plugin/textual"},
}

type pkg struct {
	ImportPath string
	Imports    []string
	Dir        string
}

func packages(t *testing.T) []pkg {
	t.Helper()
	var all []pkg
	for _, dir := range []string{"..", "../client"} { // the client is a module of its own
		cmd := exec.Command("go", "list", "-json=ImportPath,Imports,Dir", "./...")
		cmd.Dir = dir
		cmd.Stderr = os.Stderr
		out, err := cmd.Output()
		if err != nil {
			t.Fatal(err)
		}
		for d := json.NewDecoder(strings.NewReader(string(out))); d.More(); {
			var p pkg
			if err := d.Decode(&p); err != nil {
				t.Fatal(err)
			}
			all = append(all, p)
		}
	}
	return all
}

// systemOf returns the folder of the licence system that a package belongs to: any folder of plugin that arrows does
// not list. Empty: it belongs to none.
func systemOf(path string) string {
	if parts := strings.Split(path, "/"); len(parts) > 1 && parts[0] == "plugin" && arrows["plugin/"+parts[1]] == nil {
		return "plugin/" + parts[1]
	}
	return ""
}

// mayImport reports whether a package may import another: as arrows says, and a licence system the core, the contract
// and itself, but no other system.
func mayImport(from, to string) bool {
	within := func(part string) bool { return to == part || strings.HasPrefix(to, part+"/") }
	if system := systemOf(from); system != "" {
		return to == "enforcer" || to == "plugin" || to == "plugin/redact" || to == "plugin/textual" || within(system)
	}
	return slices.ContainsFunc(arrows[part(from)], within)
}

// part returns the longest part of a path that arrows lists.
func part(path string) string {
	for ; path != "."; path = filepath.Dir(path) {
		if _, ok := arrows[path]; ok {
			return path
		}
	}
	return ""
}

// Imports run one way: cmd → agent → plugin, metrics → enforcer; siblings do not know each other.
func TestArrows(t *testing.T) {
	t.Parallel()
	seen := 0
	for _, p := range packages(t) {
		from := strings.TrimPrefix(p.ImportPath, module)
		rule := part(from)
		if rule == "" {
			t.Errorf("package %s has no place in the house", from)
			continue
		}
		for _, i := range p.Imports {
			to, ours := strings.CutPrefix(i, module)
			if !ours || to == from {
				continue
			}
			seen++
			if !mayImport(from, to) {
				t.Errorf("%s imports %s; %s may import %v", from, to, rule, arrows[rule])
			}
		}
	}
	for from, to := range map[string]string{"plugin/a": "plugin/b", "plugin/a/b": "plugin/catalog",
		"plugin/a/c": "agent", "enforcer": "plugin"} {
		if mayImport(from, to) {
			t.Errorf("%s may import %s", from, to)
		}
	}
	if seen < 20 {
		t.Errorf("only %d imports were looked at", seen)
	}
}

// The linter's configuration holds the same arrows, for editors: every part of the house has its files under a rule.
func TestLinterKnowsTheArrows(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("../.golangci.yml")
	if err != nil {
		t.Fatal(err)
	}
	var config struct {
		Linters struct {
			Settings struct {
				Depguard struct {
					Rules map[string]struct {
						Files []string
						Deny  []struct{ Pkg, Desc string }
					}
				}
			}
		}
	}
	if err := yaml.Unmarshal(text, &config); err != nil {
		t.Fatal(err)
	}
	rules := config.Linters.Settings.Depguard.Rules
	for from, allowed := range arrows {
		if from == "cmd" || from == "agent/bench" {
			continue // a command may import all that a rule could name
		}
		var denied []string
		for _, r := range rules {
			if !slices.Contains(r.Files, "!**/"+from+"/*.go") && slices.ContainsFunc(r.Files, func(f string) bool {
				return strings.HasSuffix(f, "/"+from+"/*.go") || coversTree(f, from)
			}) {
				for _, d := range r.Deny {
					denied = append(denied, strings.TrimPrefix(d.Pkg, module))
				}
			}
		}
		if len(denied) == 0 {
			t.Errorf(".golangci.yml has no depguard rule for %s", from)
		}
		for _, d := range denied {
			if slices.Contains(allowed, d) {
				t.Errorf(".golangci.yml denies %s what it may import: %s", from, d)
			}
		}
	}
}

// coversTree reports whether a pattern such as **/plugin/**/*.go covers a part; **/agent/*/**/*.go covers the rooms of
// agent, and not agent itself.
func coversTree(pattern, part string) bool {
	tree, ok := strings.CutSuffix(strings.TrimPrefix(pattern, "**/"), "/**/*.go")
	if rooms, inside := strings.CutSuffix(tree, "/*"); ok && inside {
		return strings.HasPrefix(part, rooms+"/")
	}
	return ok && (part == tree || strings.HasPrefix(part, tree+"/"))
}

// The decision core is pure: nothing in it does input or output, tells the time, waits or starts a goroutine.
func TestEnforcerIsPure(t *testing.T) {
	t.Parallel()
	forbidden := []string{"os", "os/exec", "net", "net/http", "log", "log/slog", "context", "sync", "sync/atomic", "io",
		"io/fs", "math/rand", "math/rand/v2", "crypto/rand", "runtime", "syscall", "unsafe"}
	files, err := filepath.Glob("../enforcer/*.go")
	if err != nil || len(files) == 0 {
		t.Fatalf("no files: %v", err)
	}
	for _, name := range files {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		set := token.NewFileSet()
		f, err := parser.ParseFile(set, name, nil, parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		for _, i := range f.Imports {
			path := strings.Trim(i.Path.Value, `"`)
			if slices.Contains(forbidden, path) || strings.Contains(strings.SplitN(path, "/", 2)[0], ".") {
				t.Errorf("%s imports %s", name, path)
			}
		}
		ast.Inspect(f, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.GoStmt:
				t.Errorf("%s: a goroutine", set.Position(n.Pos()))
			case *ast.SendStmt, *ast.SelectStmt:
				t.Errorf("%s: a channel", set.Position(n.Pos()))
			case *ast.SelectorExpr:
				if x, ok := n.X.(*ast.Ident); ok && x.Name == "time" &&
					slices.Contains([]string{"Now", "Since", "Until", "Sleep", "After", "AfterFunc", "NewTimer",
						"NewTicker", "Tick", "Local"}, n.Sel.Name) {
					t.Errorf("%s: time.%s", set.Position(n.Pos()), n.Sel.Name)
				}
			}
			return true
		})
	}
}

// Each package says once what it is for.
func TestPackageComments(t *testing.T) {
	t.Parallel()
	for _, p := range packages(t) {
		comments := 0
		files, err := filepath.Glob(filepath.Join(p.Dir, "*.go"))
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range files {
			if strings.HasSuffix(name, "_test.go") {
				continue
			}
			f, err := parser.ParseFile(token.NewFileSet(), name, nil, parser.ParseComments|parser.PackageClauseOnly)
			if err != nil {
				t.Fatal(err)
			}
			if f.Doc != nil {
				comments++
			}
		}
		if comments != 1 {
			t.Errorf("%s has %d package comments", p.ImportPath, comments)
		}
	}
}
