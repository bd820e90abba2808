package acceptance

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/usher-agent/usher/plugin/elastic/elastictest"
)

// Elastic's client for JavaScript does all that it can with a licence, by the Unix socket and over TCP.
func TestJavaScriptClient(t *testing.T) {
	for _, tool := range []string{"node", "npm"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skip("there is no " + tool)
		}
	}
	p := settle(t)
	dir := t.TempDir()
	for name, b := range map[string][]byte{
		"platinum.json": p.signer.Stack(elastictest.License{UID: "p", Type: "platinum", Nodes: 5}),
		"gold.json":     p.signer.Stack(elastictest.License{UID: "g", Type: "gold", Nodes: 3}),
	} {
		if err := os.WriteFile(filepath.Join(dir, name), b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"package.json", "product.mjs"} {
		b, err := os.ReadFile(filepath.Join("js", name))
		if err == nil {
			err = os.WriteFile(filepath.Join(dir, name), b, 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	run := func(name string, arg ...string) {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
		defer cancel()
		cmd := exec.CommandContext(ctx, name, arg...)
		cmd.Dir = dir
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%s %q: %v\n%s", name, arg, err, out)
		}
	}
	run("npm", "install", "--no-package-lock", "--no-audit", "--no-fund", "--ignore-scripts", "--prefer-offline",
		"--loglevel=error")
	run("node", "product.mjs", "http://"+p.tcp, p.path("e"), credential, "platinum.json", "gold.json")
}
