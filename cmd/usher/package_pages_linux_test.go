package main

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/spf13/cobra"
)

// keptInPages is the wire's, the code's and the project's name, which the pages have under any name of the program.
const keptInPages = `s/\busher-[a-z]+\+jwt//g; s/github\.com\/usher-agent\/usher//g; s/(cmd|plugin)\/usher\b//g; ` +
	`s/http:\/\/usher\b//g; s/usher-fingerprint\/1//g; s/"usher( |-)[a-z]+//g; ` +
	`s/usher\.(grace|on_expiry|product)//g; ` +
	`s/import usher|usher\.open|usher\.py//g; s/(BEGIN|END) USHER//g; s/usher-enrolment|\.usher-|usher\.pub//g; ` +
	`s/service called usher|-usher-licence-system//g`

// speaks looks through all that a package has installed and all that its program prints for a name that is not its own.
func (m *machine) speaks(name string) {
	m.t.Helper()
	// What keeps its name: the licence system, and examples of other systems' users and providers.
	const kept = `s/(--trust |system: |system )usher\b//; s/(default|provider:|user:) usher\b//i; ` +
		`s/usher[=:][^ ]*//g; s/usher-agent-key//g`
	check := func(what, line string) {
		m.t.Helper()
		own := `s/acme-acme-usher/ usher /gI; s/acme\\*-usher//gI; `
		if out, code := m.try("{ " + line + "; } 2>&1 | sed -E '" + own + kept + "' | grep -iw usher"); code == 0 {
			m.t.Errorf("%s: %s", what, out)
		}
	}
	files := strings.Fields(m.run(`for f in $(dpkg -L ` + name + `); do test -f $f && echo $f; done`))
	if len(files) < 20 {
		m.t.Errorf("the package has %d files: %v", len(files), files)
	}
	for _, file := range files {
		switch {
		case strings.HasPrefix(file, "/usr/share/doc/"+name+"/docs/"):
			check(file, "sed -E '"+keptInPages+"' "+file)
		case strings.Contains(strings.ReplaceAll(file, "/"+name, "/"), "usher") && !strings.HasSuffix(file, "/_"+name):
			m.t.Errorf("the package has %s", file)
		case strings.HasSuffix(file, "/copyright"), file == "/usr/bin/"+name:
		case strings.HasSuffix(file, ".gz"):
			check(file, "zcat "+file)
		default:
			check(file, "cat "+file)
		}
	}
	var lines []string
	var walk func(cmd *cobra.Command, path string)
	walk = func(cmd *cobra.Command, path string) {
		lines = append(lines, path+" --help", path+" --no-such-flag")
		for _, sub := range cmd.Commands() {
			walk(sub, path+" "+sub.Name())
		}
	}
	walk((&cli{}).root(), name)
	for _, reports := range []string{"", "status", "pools", "leases", "check", "health", "doctor", "license list",
		"config show", "fingerprint", "no-such-command", "release x", "acquire --pool x", "--version"} {
		lines = append(lines, name+" "+reports)
	}
	check("a command", strings.Join(lines, "; "))
	check("without an agent",
		"systemctl stop "+name+"@transcoder; "+name+" status; "+name+" doctor; "+name+" run --agent-wait 0 "+
			"--pool x -- true; "+name+" agent --check --config /etc/acme-usher/transcoder.yaml; "+name+" agent --no")
	check("the demo", name+" demo --exit")
	check("the log", "journalctl --no-pager -u "+name+"@transcoder")
}

// documents looks that what the installed pages and manual pages lead to is installed.
func (m *machine) documents(name string) {
	m.t.Helper()
	at := "/usr/share/doc/" + name
	exists := func(page, to string) {
		m.t.Helper()
		if _, err := os.Stat(m.host(to)); err != nil {
			m.t.Errorf("%s leads to %s, which is not installed", page, to)
		}
	}
	links := regexp.MustCompile(`\]\(([^)#:]+)(#[^)]*)?\)`)
	paths := regexp.MustCompile(`/usr/(?:share/doc|lib/systemd/system)/` + name + `[@/][A-Za-z0-9_.@/-]*[A-Za-z0-9]`)
	pages := strings.Fields(m.run("find " + at + "/docs -name '*.md'"))
	if len(pages) < 35 {
		m.t.Errorf("there are %d pages: %v", len(pages), pages)
	}
	for _, page := range pages {
		text := read(m.t, m.host(page))
		for _, link := range links.FindAllStringSubmatch(text, -1) {
			exists(page, filepath.Join(filepath.Dir(page), link[1]))
		}
		for _, path := range paths.FindAllString(text, -1) {
			exists(page, path)
		}
	}
	manual := m.run("zcat /usr/share/man/man?/" + name + "*.gz")
	named := regexp.MustCompile(`\bdocs/[a-z/-]+\.(?:md|yaml|json)`).FindAllString(manual, -1)
	if len(named) < 5 {
		m.t.Errorf("the manual pages name %v", named)
	}
	for _, page := range named {
		exists("a manual page", at+"/"+page)
	}
	for _, example := range []string{"prometheus/" + name + ".alerts.yml", "grafana/" + name + ".json",
		"kubernetes/sidecar/kustomization.yaml", name + ".yaml", "minimal.yaml"} {
		exists("docs", at+"/examples/"+example)
	}
}
