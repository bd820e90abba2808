package main

import (
	"debug/elf"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/spf13/cobra"

	"github.com/usher-agent/usher/agent/api"
)

func read(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// pages are the documentation's files.
func pages(t *testing.T) []string {
	t.Helper()
	out := []string{"../../README.md", "../../CHANGELOG.md", "../../CONTRIBUTING.md", "../../SECURITY.md"}
	for _, glob := range []string{"../../docs/*.md", "../../docs/*/*.md"} {
		files, err := filepath.Glob(glob)
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, files...)
	}
	return out
}

// Prose of the documentation ends at 120 columns; tables and code may be wider.
func TestProseLines(t *testing.T) {
	for _, f := range pages(t) {
		code, n := false, 0
		for line := range strings.Lines(read(t, f)) {
			n++
			line = strings.TrimRight(line, "\n")
			if strings.HasPrefix(strings.TrimSpace(line), "```") {
				code = !code
			}
			if code || strings.HasPrefix(line, "|") || strings.HasPrefix(line, "    ") {
				continue
			}
			if w := utf8.RuneCountInString(line); w > 120 {
				t.Errorf("%s:%d has %d columns, and prose has at most 120; wrap the paragraph", f, n, w)
			}
		}
	}
}

// What anchorsOf looks for in a line.
var (
	ownID       = regexp.MustCompile(`<a id="([^"]+)">`)
	heading     = regexp.MustCompile(`^#+ (.*)`)
	linked      = regexp.MustCompile(`\[([^\]]*)\]\([^)]*\)`)
	notInAnchor = regexp.MustCompile(`[^\p{L}\p{N}_ -]`)
)

// anchorsOf returns the places of a page that a link may name: its headings as GitHub has them, and its own ids.
func anchorsOf(t *testing.T, page string) map[string]bool {
	t.Helper()
	out := map[string]bool{}
	code := false
	for line := range strings.Lines(read(t, page)) {
		if strings.HasPrefix(strings.TrimSpace(line), "```") {
			code = !code
		}
		for _, m := range ownID.FindAllStringSubmatch(line, -1) {
			out[m[1]] = true
		}
		title := heading.FindStringSubmatch(strings.TrimSpace(line))
		if code || title == nil {
			continue
		}
		text := linked.ReplaceAllString(title[1], "$1")
		words := notInAnchor.ReplaceAllString(strings.ToLower(text), "")
		slug := strings.ReplaceAll(words, " ", "-")
		for n, free := 1, slug; ; n++ {
			if !out[free] {
				out[free] = true
				break
			}
			free = fmt.Sprintf("%s-%d", slug, n)
		}
	}
	return out
}

// Every relative link in the documentation leads somewhere: to a file, and to a heading of it where it names one.
func TestLinks(t *testing.T) {
	t.Parallel()
	link := regexp.MustCompile(`\]\(([^)#]*)(?:#([^)]*))?\)`)
	anchors := map[string]map[string]bool{}
	n, named := 0, 0
	for _, f := range pages(t) {
		for _, m := range link.FindAllStringSubmatch(read(t, f), -1) {
			if strings.Contains(m[1], "://") || m[1] == "" && m[2] == "" {
				continue
			}
			n++
			to := f
			if m[1] != "" {
				to = filepath.Join(filepath.Dir(f), m[1])
			}
			if _, err := os.Stat(to); err != nil {
				t.Errorf("%s: the link %s leads nowhere", f, m[1])
				continue
			}
			if m[2] == "" || !strings.HasSuffix(to, ".md") {
				continue
			}
			named++
			if anchors[to] == nil {
				anchors[to] = anchorsOf(t, to)
			}
			if !anchors[to][m[2]] {
				t.Errorf("%s: %s has no heading for the link #%s", f, to, m[2])
			}
		}
	}
	if n < 20 || named < 100 {
		t.Errorf("only %d links were looked at, %d of them to headings", n, named)
	}
}

// docs/README.md has every page.
func TestEveryPageListed(t *testing.T) {
	list := read(t, "../../docs/README.md")
	for _, f := range pages(t) {
		name, ok := strings.CutPrefix(f, "../../docs/")
		if !ok || name == "README.md" || strings.HasPrefix(name, "decisions/") ||
			strings.HasSuffix(name, "/README.md") {
			continue
		}
		if !strings.Contains(list, "]("+name+")") {
			t.Errorf("docs/README.md does not list %s", name)
		}
	}
}

// Every claim of the threat model names a test, and that test exists.
func TestThreatModelNamesItsTests(t *testing.T) {
	named := regexp.MustCompile("`([a-z/]+)\\.((?:Test|Fuzz)[A-Za-z0-9]+)`")
	exists := map[string]string{} // a package's tests
	n, claims := 0, false
	for line := range strings.Lines(read(t, "../../docs/threat-model.md")) {
		switch {
		case !strings.HasPrefix(line, "|"):
			claims = false
		case strings.Contains(line, "| shown by |"):
			claims = true
		}
		if !claims || strings.Contains(line, "| shown by |") || strings.HasPrefix(line, "|--") {
			continue
		}
		tests := named.FindAllStringSubmatch(line, -1)
		if len(tests) == 0 {
			t.Errorf("a claim names no test: %s", line)
		}
		for _, m := range tests {
			n++
			if exists[m[1]] == "" {
				files, err := filepath.Glob(filepath.Join("../..", m[1], "*_test.go"))
				if err != nil {
					t.Fatal(err)
				}
				for _, f := range files {
					exists[m[1]] += read(t, f)
				}
			}
			if !strings.Contains(exists[m[1]], "\nfunc "+m[2]+"(") {
				t.Errorf("there is no test %s in %s", m[2], m[1])
			}
		}
	}
	if n < 60 {
		t.Errorf("only %d tests were looked for", n)
	}
}

// The threat model has each row once: no two rows have the same attacker and attempt, nor the same tests and defence.
func TestThreatModelRowsOnce(t *testing.T) {
	seen := map[string]bool{}
	attacker := ""
	for line := range strings.Lines(read(t, "../../docs/threat-model.md")) {
		cells := strings.Split(strings.Trim(strings.TrimSpace(line), "|"), " | ")
		if !strings.HasPrefix(line, "|") || len(cells) != 4 || strings.Contains(line, "| shown by |") {
			continue
		}
		if a := strings.TrimSpace(cells[0]); a != "the same" {
			attacker = a
		}
		for _, key := range []string{attacker + " | " + cells[1], cells[2] + " | " + cells[3]} {
			if seen[key] {
				t.Errorf("the threat model has this twice: %s", key)
			}
			seen[key] = true
		}
	}
	if len(seen) < 100 {
		t.Errorf("only %d cells were compared", len(seen))
	}
}

// Every route and every code of a problem has its line in docs/api.md.
func TestAPIDocumented(t *testing.T) {
	text := read(t, "../../docs/api.md")
	for _, r := range api.Routes() {
		if !strings.Contains(text, r.Method+" "+r.Path) {
			t.Errorf("%s %s is not in docs/api.md", r.Method, r.Path)
		}
	}
	for c := range api.Codes() {
		if !regexp.MustCompile("(?m)^\\| `" + string(c) + "` \\|").MatchString(text) {
			t.Errorf("code %s has no line in docs/api.md", c)
		}
	}
}

// Commands that the documentation and the agent's own hints name exist, with the flags they name.
func TestCommandsNamed(t *testing.T) {
	root := (&cli{}).root()
	var texts []string
	for _, glob := range []string{"../../docs/*.md", "../../docs/*/*.md", "../../README.md", "../../configs/*",
		"../../configs/*/*", "../../configs/*/*/*", "../../configs/*/*/*/*",
		"../../agent/*.go", "../../agent/*/*.go", "../../enforcer/*.go", "../../client/*.go", "*.go"} {
		files, err := filepath.Glob(glob)
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range files {
			if fi, err := os.Stat(f); err == nil && !fi.IsDir() && !strings.HasSuffix(f, "_test.go") {
				texts = append(texts, f)
			}
		}
	}
	named := regexp.MustCompile("`usher ([a-z][^`\\n]*)`")
	n := 0
	for _, f := range texts {
		for _, m := range named.FindAllStringSubmatch(read(t, f), -1) {
			n++
			args := strings.Fields(m[1])
			cmd, rest, err := root.Find(args)
			if err != nil || cmd == root {
				t.Errorf("%s: `usher %s`: there is no such command", f, m[1])
				continue
			}
			for _, a := range rest {
				name, _, _ := strings.Cut(strings.Trim(a, "[]"), "=")
				if name == "--" {
					break
				}
				if long, ok := strings.CutPrefix(name, "--"); ok && cmd.Flags().Lookup(long) == nil &&
					cmd.InheritedFlags().Lookup(long) == nil && long != "help" {
					t.Errorf("%s: `usher %s`: %s has no flag --%s", f, m[1], cmd.CommandPath(), long)
				}
			}
		}
	}
	if n < 20 {
		t.Errorf("only %d commands were looked at", n)
	}
}

// Every command says in a line what it is for.
func TestHelp(t *testing.T) {
	var walk func(*cobra.Command)
	walk = func(c *cobra.Command) {
		if c.Short == "" || strings.HasSuffix(c.Short, ".") {
			t.Errorf("%s: its short help is %q", c.CommandPath(), c.Short)
		}
		for _, sub := range c.Commands() {
			walk(sub)
		}
	}
	walk((&cli{}).root())
}

// A test cannot build an image, so it runs the image's build commands outside: the binary must be static and have the
// commands that the image uses.
func TestDockerfile(t *testing.T) {
	t.Parallel()
	if runtime.GOOS != "linux" {
		t.Skip("the image is for Linux")
	}
	text := strings.ReplaceAll(read(t, "../../Dockerfile"), "\\\n", " ")
	bin := filepath.Join(t.TempDir(), "usher")
	line := regexp.MustCompile(`(?m)^RUN (.*CGO_ENABLED=0 go build .*)$`).FindStringSubmatch(text)
	if line == nil {
		t.Fatal("the Dockerfile has no line that builds")
	}
	build := exec.Command("sh", "-c",
		strings.NewReplacer("/out/usher", bin, "${VERSION}", "v9.9.9-test").Replace(line[1]))
	build.Dir = "../.."
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", line[1], err, out)
	}
	f, err := elf.Open(bin)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for _, p := range f.Progs {
		if p.Type == elf.PT_INTERP {
			t.Error("the binary is not static")
		}
	}
	if out, err := exec.Command(bin, "--version").Output(); err != nil ||
		!strings.HasPrefix(string(out), "usher v9.9.9-test") {
		t.Errorf("--version says %s, %v", out, err)
	}
	for _, m := range regexp.MustCompile(`(?m)^(?:COPY) (go\.mod go\.sum|client/go\.mod) `).FindAllStringSubmatch(text,
		-1) {
		for name := range strings.FieldsSeq(m[1]) {
			if _, err := os.Stat("../../" + name); err != nil {
				t.Errorf("the Dockerfile copies %s: %v", name, err)
			}
		}
	}
	root := (&cli{}).root()
	for _, want := range []string{`CMD ["/usr/bin/usher", "health"]`, `ENTRYPOINT ["/usr/bin/usher"]`, `CMD ["agent"]`,
		"USER 10473:10473",
		"ENV USHER_SOCKET=/run/usher/sock/usher.sock USHER_STATE_RUNTIME_DIR=/var/lib/usher/run",
		`VOLUME ["/run/usher/sock", "/var/lib/usher"]`} {
		if !strings.Contains(text, want) {
			t.Errorf("the Dockerfile lacks %s", want)
		}
	}
	for _, name := range []string{"health", "agent"} {
		if cmd, _, err := root.Find([]string{name}); err != nil || cmd == root {
			t.Errorf("there is no command %s", name)
		}
	}
}

// A vendor's build trusts the vendor's keys alone, and says so.
func TestVendorBuild(t *testing.T) {
	t.Parallel()
	const plain = "usher" // this test's own binary, which believes what it is told to
	dir := t.TempDir()
	bin, keys := filepath.Join(dir, "acme"), filepath.Join(dir, "vendor")
	command := func(want int, env string, name string, args ...string) string {
		t.Helper()
		cmd := exec.Command(name, args...)
		cmd.Dir = "../.."
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
		if env != "" {
			cmd.Env = append(cmd.Env, env)
		}
		out, err := cmd.CombinedOutput()
		if cmd.ProcessState == nil || cmd.ProcessState.ExitCode() != want {
			t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
		}
		return string(out)
	}
	command(0, "", plain, "vendor", "keygen", "--kid", "v1", "--out", keys)
	command(1, "", plain, "vendor", "embed", keys) // no vendor.json
	if err := os.WriteFile(filepath.Join(keys, "vendor.json"), []byte(`{"product": "acme"}`), 0o600); err != nil {
		t.Fatal(err)
	}
	flag := strings.TrimSpace(command(0, "", plain, "vendor", "embed", keys))
	// With the Dockerfile's flags, so that only the last step of the build is not in the cache.
	command(0, "", "go", "build", "-trimpath", "-buildvcs=false", "-ldflags", "-s -w "+flag, "-o", bin, "./cmd/usher")
	if out := command(0, "", bin, "--version"); !strings.Contains(out, "anchors=embedded product=acme") {
		t.Errorf("--version says %s", out)
	}
	lic := filepath.Join(dir, "a.lic")
	command(0, "", plain, "vendor", "sign", "--key", filepath.Join(keys, "v1.key"), "--product", "acme", "--limit",
		"a=1", "--scope", "host", "--out", lic)
	command(0, "", bin, "license", "inspect", lic)
	command(3, "", plain, "license", "inspect", lic)
	config := filepath.Join(dir, "usher.yaml")
	if err := os.WriteFile(config, []byte("license:\n  path: "+dir+"\n  trust:\n    - {kid: other, key_file: "+
		filepath.Join(keys, "v1.pub")+"}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if out := command(78, "", bin, "agent", "--config", config, "--check"); !strings.Contains(out,
		"this agent is built for acme and trusts only the keys that are compiled in; leave license.trust out") {
		t.Errorf("trust beside compiled-in keys: %s", out)
	}
	if out := command(78, "USHER_PRODUCT=other", bin, "agent", "--license", dir, "--check"); !strings.Contains(out,
		"this agent is built for acme") {
		t.Errorf("another product: %s", out)
	}
	if out := command(0, "", bin, "agent", "--license", lic, "--check"); !strings.Contains(out, "VALID") {
		t.Errorf("check: %s", out)
	}
}
