package main

import (
	"encoding/json"
	"errors"
	"go/ast"
	"go/parser"
	"go/token"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/spf13/cobra"
	"pgregory.net/rapid"

	"github.com/usher-agent/usher/agent/config"
	"github.com/usher-agent/usher/client/wire"
	"github.com/usher-agent/usher/plugin/textual"
)

// hostile is a text that would clear a terminal, name its window, forge a line, turn the writing direction, and is no
// UTF-8 at its end.
const hostile = "\x1b[2J\x1b]0;owned\x07\r\nLicence valid (VALID)\tx\u202egnp.\u009b31m\u2028\ufeffz\xe9"

// fill puts a text into every text of a value, and one element into every list.
func fill(v reflect.Value, text string) {
	switch {
	case !v.CanSet(): // of another package, and on no wire
	case v.Type() == reflect.TypeFor[time.Time]():
		v.Set(reflect.ValueOf(time.Now().Add(time.Hour)))
	case v.Kind() == reflect.String:
		v.SetString(text)
	case v.Kind() == reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		fill(v.Elem(), text)
	case v.Kind() == reflect.Struct:
		for i := range v.NumField() {
			fill(v.Field(i), text)
		}
	case v.Kind() == reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 1, 1))
		fill(v.Index(0), text)
	case v.Kind() == reflect.Map:
		v.Set(reflect.MakeMap(v.Type()))
		key, value := reflect.New(v.Type().Key()).Elem(), reflect.New(v.Type().Elem()).Elem()
		fill(key, text)
		fill(value, text)
		v.SetMapIndex(key, value)
	case v.Kind() == reflect.Interface:
		v.Set(reflect.ValueOf(text))
	case v.Kind() == reflect.Bool:
		v.SetBool(true)
	case v.CanInt():
		v.SetInt(1)
	}
}

// hostileAgent answers every call with the shape of that route, every text of it hostile; with status 500 on the
// routes that refuse is true for. It returns its socket.
func hostileAgent(t *testing.T, refuse bool) string {
	t.Helper()
	shapes := map[string]any{"/v1/license": &wire.License{}, "/v1/pools": &wire.Pools{}, "/v1/leases": &wire.Leases{},
		"/v1/config": &wire.Settings{}, "/v1/fingerprint": &wire.Fingerprint{}, "/v1/health": &wire.Health{},
		"/v1/ready": &wire.Health{}, "/v1/emergency": &wire.Emergencies{}, "/v1/upstream": &wire.UpstreamPreview{},
		"/v1/usage": &wire.Usage{}, "/v1/clock": &wire.Clock{}, "/v1/drain": &wire.Drain{},
		"/v1/fleet": &wire.Fleet{}, "/v1/fleet/agents/h/drain": &wire.FleetDone{},
		"/v1/fleet/agents/h/eviction": &wire.FleetDone{},
		"POST /v1/leases":             &wire.Lease{},
		"/v1/policies":                &wire.Policies{}, "/v1/policies/explain": &wire.PolicyExplanation{},
		"/v1/waiting":               &wire.Waiting{},
		"POST /v1/license/rollback": &wire.Installed{}, "PUT /v1/license": &wire.Installed{},
		"POST /v1/reload": &wire.Reloaded{}, "POST /v1/upstream": &wire.UpstreamCalls{},
		"POST /v1/license/return": &wire.Returned{}, "POST /v1/license/release": &wire.Releases{},
		"POST /v1/emergency": &wire.Emergency{}, "PUT /v1/pools/p": &wire.Pool{}, "PUT /v1/leases/l": &wire.Lease{}}
	dir, err := os.MkdirTemp("", "u")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	l, err := net.Listen("unix", filepath.Join(dir, "s"))
	if err != nil {
		t.Fatal(err)
	}
	s := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		shape, status := any(&wire.Problem{}), http.StatusInternalServerError
		if r.URL.Path == "/v1/events" {
			ev := &wire.Event{}
			fill(reflect.ValueOf(ev).Elem(), hostile)
			b, _ := json.Marshal(ev)
			w.Write(append(append([]byte("event: x\ndata: "), b...), "\n\n"...))
			return
		}
		known := shapes[r.Method+" "+r.URL.Path]
		if known == nil {
			known = shapes[r.URL.Path]
		}
		if known != nil && !refuse {
			shape, status = reflect.New(reflect.TypeOf(known).Elem()).Interface(), http.StatusOK
		}
		fill(reflect.ValueOf(shape).Elem(), hostile)
		b, err := json.Marshal(shape)
		if err != nil {
			t.Error(r.URL.Path, err)
		}
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(status)
		w.Write(b)
	})}
	go s.Serve(l)
	t.Cleanup(func() { s.Close() })
	return l.Addr().String()
}

// harmless says what of an output a terminal would obey; empty: nothing.
func harmless(out string) string {
	for _, r := range out {
		if r == utf8.RuneError || r != '\n' && r != ' ' && !unicode.IsPrint(r) {
			return string(r)
		}
	}
	return ""
}

// asked are the commands that print what an agent answers; DOC is a file.
var asked = []string{"status", "pools", "leases", "health", "health --ready", "check", "events",
	"top --once",
	"report", "report --hours", "report --csv", "report --sign", "fleet status", "fleet drain h", "fleet evict h",
	"status --fleet", "policies list", "policies explain --pool p",
	"config show --origin", "doctor", "reload", "drain", "license list", "license install DOC",
	"license install --dry-run DOC", "license remove x", "license rollback", "license return x --out -",
	"license release-host", "emergency list", "emergency start --reason x", "upstream preview", "upstream call",
	"fingerprint", "acquire --pool p", "renew l", "release l", "adjust p --drawn 1", "draw p", "run --pool p -- true"}

// asksNoAgent are the other commands, each with why nothing of an agent's answers is on its output. What they read of
// files is in TestNothingOfAFileMovesTheTerminal.
var asksNoAgent = map[string]string{
	"agent": "TestLogMovesNoTerminal", "demo": "prints its own story", "upstream": "TestLogMovesNoTerminal",
	"events verify": "a file", "events history": "a file", "support-bundle": "an archive", "man": "the pages",
	"vendor":          "help",
	"license inspect": "a file", "vendor keygen": "a file", "vendor sign": "a file", "vendor embed": "a file",
	"vendor bind": "a file", "vendor accept-return": "a file",
	"report merge": "a file", "vendor verify-report": "a file", "vendor revoke": "a file",
	"upstream site-key": "a file", "completion bash": "cobra's", "completion zsh": "cobra's",
	"completion fish":       "cobra's",
	"completion powershell": "cobra's", "help": "cobra's", "host": "help", "host key": "a file",
	"import-options": "a file",
	"fleet rules":    "of etcd, through fprintf and table, which screen", "fleet rules set": "likewise",
}

// A command that is added is in one of the two lists, so that no command's output is overlooked.
func TestEveryCommandIsScreened(t *testing.T) {
	t.Parallel()
	known := map[string]bool{}
	for _, c := range asked {
		for words := strings.Fields(c); len(words) > 0; words = words[:len(words)-1] {
			known[strings.Join(words, " ")] = true
		}
	}
	root := (&cli{}).root()
	var walk func(c *cobra.Command)
	walk = func(c *cobra.Command) {
		for _, sub := range c.Commands() {
			walk(sub)
		}
		path := strings.TrimPrefix(c.CommandPath(), root.Name()+" ")
		if c.Runnable() && c != root && !known[path] && asksNoAgent[path] == "" &&
			!strings.HasPrefix(path, "upstream ") {
			t.Errorf("usher %s: name it in asked, or say in asksNoAgent why nothing foreign is on its output", path)
		}
	}
	walk(root)
}

// The log moves no terminal and forges no line, in either format, whatever is in a message or a value; as JSON it is
// JSON with the same values.
func TestLogMovesNoTerminal(t *testing.T) {
	t.Parallel()
	for _, format := range []string{"text", "json"} {
		var out strings.Builder
		log, _ := newLog(&config.Config{Log: config.Log{Format: format}}, &out)
		log.With(hostile, hostile).WithGroup("g"+hostile).Error(hostile, "error", errors.New(hostile), "any",
			[]string{hostile}, "bytes", []byte(hostile))
		log.Info("second")
		if at := harmless(out.String()); at != "" || forged(out.String()) {
			t.Errorf("%s prints %q: %q", format, at, out.String())
		}
		lines := strings.Split(strings.TrimSpace(out.String()), "\n")
		if len(lines) != 2 {
			t.Fatalf("%s: two records are %d lines: %q", format, len(lines), lines)
		}
		var got struct{ Msg string }
		if format != "json" {
			continue
		}
		if err := json.Unmarshal([]byte(lines[0]), &got); err != nil {
			t.Errorf("%v: %s", err, lines[0])
		} else if want := strings.ToValidUTF8(hostile, "\ufffd"); got.Msg != want {
			t.Errorf("%q came back as %q", want, got.Msg)
		}
	}
}

// No command lets a text that somebody else wrote move the terminal or forge a line, whatever the agent answers; and
// what is JSON is JSON.
func TestNothingMovesTheTerminal(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	doc := filepath.Join(dir, "a.lic")
	if err := os.WriteFile(doc, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, refuse := range []bool{false, true} {
		socket := hostileAgent(t, refuse)
		for _, command := range asked {
			command = strings.ReplaceAll(command, "DOC", doc)
			for _, more := range [][]string{nil, {"--json"}} {
				args := append(append(strings.Fields(command), more...), "--socket", socket)
				_, out, errs := tool(t, args...)
				if at := harmless(out + errs); at != "" {
					t.Errorf("usher %s prints %q:\n%q", strings.Join(args, " "), at, out+errs)
				}
				if forged(out) || forged(errs) {
					t.Errorf("usher %s prints a forged line:\n%s", strings.Join(args, " "), out+errs)
				}
				if more != nil && strings.HasPrefix(out, "{") && !json.Valid([]byte(out)) {
					t.Errorf("usher %s prints what is no JSON:\n%s", strings.Join(args, " "), out)
				}
			}
		}
	}
}

// forged reports whether a line begins as the hostile text wants it to.
func forged(out string) bool {
	for line := range strings.Lines(out) {
		if strings.HasPrefix(strings.TrimSpace(line), "Licence valid (VALID)") {
			return true
		}
	}
	return false
}

// A file's name, and what a document says of itself, are foreign texts too.
func TestNothingOfAFileMovesTheTerminal(t *testing.T) {
	dir := t.TempDir()
	name := filepath.Join(dir, strings.ReplaceAll(hostile, "/", ""))
	if err := os.WriteFile(name, []byte(hostile), 0o600); err != nil {
		t.Skip("no file can have that name here:", err)
	}
	// A file that can be read, with as much as may be in one.
	options := name + ".opt"
	visible := strings.NewReplacer("\r", " ", "\n", " ", "\x1b", "").Replace(strings.ToValidUTF8(hostile, ""))
	visible = strings.Map(func(r rune) rune {
		if unicode.IsControl(r) {
			return -1
		}
		return r
	}, visible)
	text := "# " + hostile + "\nEXCLUDE f USER \"" + visible + "\"\nREPORTLOG \"" + visible + "\"\n"
	if err := os.WriteFile(options, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{{"license", "inspect", name}, {"license", "inspect", name, "--json"},
		{"license", "inspect", name + "x"}, {"report", "merge", name},
		{"vendor", "verify-report", name, "--agent-key", name}, {"vendor", "sign", "--key", name},
		{"agent", "--config", name, "--check"},
		{"license", "inspect", "--trust", "usher=" + name, name}, {"vendor", "embed", name}, {hostile},
		{"status", hostile}, {"status", "--socket", name}, {"license", "--" + hostile},
		{"import-options", name}, {"import-options", options}, {"import-options", options, "--json"}} {
		_, out, errs := tool(t, args...)
		if at := harmless(out + errs); at != "" || forged(out+errs) {
			t.Errorf("usher %q prints %q:\n%q", args, at, out+errs)
		}
	}
}

// A traceback of the Python client, which prints the agent's words, moves no terminal; the words themselves stay.
func TestPythonRefusalMovesNoTerminal(t *testing.T) {
	t.Parallel()
	python, err := exec.LookPath("python3")
	if err != nil {
		lacks(t, "there is no python3: %v", err)
	}
	told, err := json.Marshal(map[string]string{"code": "no_slots", "detail": "Müller: " + hostile})
	if err != nil {
		t.Fatal(err)
	}
	c := exec.Command(python, "-c", `import json, sys
sys.path.insert(0, "../../client/python")
import usher
p = json.loads(sys.argv[1])
e = usher.Refused(p)
assert e.problem["detail"] == p["detail"]
raise e`, string(told))
	c.Env = append(os.Environ(), "PYTHONDONTWRITEBYTECODE=1", "PYTHONIOENCODING=utf-8")
	out, err := c.CombinedOutput()
	if err == nil || !strings.Contains(string(out), "Refused: Müller: \\x1b[2J") {
		t.Fatalf("%v: %s", err, out)
	}
	// JSON has made U+FFFD of the byte that is no UTF-8.
	if at := harmless(strings.ReplaceAll(string(out), "\ufffd", "?")); at != "" || forged(string(out)) {
		t.Errorf("it prints %q:\n%q", at, out)
	}
}

// All that the commands print goes through screen.go.
func TestAllPrintingIsScreened(t *testing.T) {
	t.Parallel()
	names, err := filepath.Glob("*.go")
	if err != nil || len(names) < 20 {
		t.Fatal(err, len(names))
	}
	for _, name := range names {
		if strings.HasSuffix(name, "_test.go") || name == "screen.go" {
			continue
		}
		f, err := parser.ParseFile(token.NewFileSet(), name, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(f, func(n ast.Node) bool {
			s, ok := n.(*ast.SelectorExpr)
			if !ok {
				return true
			}
			x, _ := s.X.(*ast.Ident)
			switch inner, _ := s.X.(*ast.SelectorExpr); {
			case x != nil && x.Name == "fmt" && (strings.HasPrefix(s.Sel.Name, "Fprint") ||
				strings.HasPrefix(s.Sel.Name, "Print")),
				x != nil && x.Name == "json" && s.Sel.Name == "NewEncoder",
				inner != nil && (inner.Sel.Name == "out" || inner.Sel.Name == "errs") && s.Sel.Name == "Write":
				t.Errorf("%s prints with %s, around screen.go", name, s.Sel.Name)
			}
			return true
		})
	}
}

// A screened text has nothing in it that a terminal obeys, a harmless one stays, and JSON keeps its values.
func TestPrintable(t *testing.T) {
	t.Parallel()
	if got := textual.Printable("Müller & Söhne – 東京 8 → 12"); got != "Müller & Söhne – 東京 8 → 12" {
		t.Errorf("a harmless text became %s", got)
	}
	rapid.Check(t, func(t *rapid.T) {
		s := rapid.OneOf(rapid.String(), rapid.Map(rapid.SliceOf(rapid.Byte()), func(b []byte) string {
			return string(b)
		}),
			rapid.Just(hostile)).Draw(t, "text")
		if at := harmless(textual.Printable(s)); at != "" || strings.Contains(textual.Printable(s), "\n") {
			t.Fatalf("%q in %q", at, textual.Printable(s))
		}
		valid := strings.ToValidUTF8(s, "\ufffd")
		b, err := json.Marshal(valid)
		if err != nil {
			t.Fatal(err)
		}
		var back string
		if err := json.Unmarshal([]byte(textual.ScreenJSON(string(b))), &back); err != nil || back != valid {
			t.Fatalf("%q came back as %q: %v", valid, back, err)
		}
		if v := textual.Valid(s); !utf8.ValidString(v) || utf8.ValidString(s) && v != s {
			t.Fatalf("%q became %q", s, v)
		}
	})
}
