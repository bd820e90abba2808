package main

import (
	"bytes"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/spf13/cobra"

	"github.com/usher-agent/usher/agent/config"
)

// lacksTool skips a test whose tool is not here, but not where releases are built.
func lacksTool(t *testing.T, tool string) {
	t.Helper()
	if _, err := exec.LookPath(tool); err == nil {
		return
	}
	lacks(t, "there is no %s: .ci/debian installs it", tool)
}

// manualPages writes the pages, and returns their folder.
func manualPages(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	var out, errs bytes.Buffer
	if code := run([]string{"man", dir}, strings.NewReader(""), &out, &errs); code != 0 {
		t.Fatalf("exit %d: %s", code, errs.String())
	}
	return dir
}

// Each command has a page, and each page says how it ends, what it reads, and where things are.
func TestManualHasEveryCommand(t *testing.T) {
	t.Parallel()
	dir := manualPages(t)
	n := 0
	var walk func(*cobra.Command)
	walk = func(cmd *cobra.Command) {
		if !cmd.IsAvailableCommand() && cmd.HasParent() {
			return
		}
		n++
		page := read(t, filepath.Join(dir, strings.ReplaceAll(cmd.CommandPath(), " ", "-")+".1"))
		for _, s := range []string{"NAME", "SYNOPSIS", "DESCRIPTION", "EXIT STATUS", "ENVIRONMENT", "FILES",
			"SEE ALSO"} {
			_, section, ok := strings.Cut(page, ".SH "+s+"\n")
			if section, _, _ = strings.Cut(section, ".SH "); !ok || strings.TrimSpace(section) == "" {
				t.Errorf("%s: its page has no %s", cmd.CommandPath(), s)
			}
		}
		for _, sub := range cmd.Commands() {
			walk(sub)
		}
	}
	walk((&cli{}).root())
	if n < 50 {
		t.Errorf("only %d pages were looked at", n)
	}
}

// The configuration's page has every key of the configuration.
func TestManualHasEveryKey(t *testing.T) {
	t.Parallel()
	page := read(t, filepath.Join(manualPages(t), "usher.yaml.5"))
	for _, k := range config.Keys() {
		k = strings.TrimSuffix(k, "[]")
		if k == "license.inline" { // a variable alone
			k = "USHER_LICENSE"
		}
		if !strings.Contains(page, `\fB`+strings.ReplaceAll(k, "-", `\-`)+`\fR`) &&
			!strings.Contains(page, k+" alone") {
			t.Errorf("usher.yaml(5) lacks %s", k)
		}
	}
	if !strings.Contains(page, "The longest grace after the licence") {
		t.Error("the page has the keys without what they mean")
	}
}

// Both readers of manual pages take them without a warning.
func TestManualIsWellFormed(t *testing.T) {
	t.Parallel()
	lacksTool(t, "mandoc")
	lacksTool(t, "groff")
	pages, err := filepath.Glob(filepath.Join(manualPages(t), "*"))
	if err != nil {
		t.Fatal(err)
	}
	for _, reader := range [][]string{{"mandoc", "-T", "lint", "-W", "warning"},
		{"groff", "-ww", "-man", "-Tutf8", "-z"}} {
		cmd := exec.Command(reader[0], append(reader[1:], pages...)...)
		if out, err := cmd.CombinedOutput(); err != nil || len(out) > 0 {
			t.Errorf("%s: %v\n%s", reader[0], err, out)
		}
	}
}

// The shells whose completions are tried are there where releases are built; TestScripts tries those that are.
func TestShellsAreThere(t *testing.T) {
	for _, shell := range []string{"bash", "fish", "zsh"} {
		t.Run(shell, func(t *testing.T) { lacksTool(t, shell) })
	}
}
