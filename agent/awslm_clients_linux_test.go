package agent_test

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/usher-agent/usher/plugin/usher"
)

// lends lets the whole of what was borrowed come back before its time.
func lends(c *usher.Claims) { c.EarlyReturn = true }

// AWS's client for JavaScript does all that it can at the dialect, over TCP with a key and over the Unix socket.
func TestAWSClientJS(t *testing.T) {
	t.Parallel()
	for _, tool := range []string{"node", "npm"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skip("there is no " + tool)
		}
	}
	dir := t.TempDir()
	const from = "../plugin/awslm/testdata/js"
	for _, name := range []string{"package.json", "product.mjs"} {
		b, err := os.ReadFile(filepath.Join(from, name))
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
		cmd.Env = append(os.Environ(), "USHER_KEY="+awsKey, "USHER_SECRET="+awsSecret)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%s %q: %v\n%s", name, arg, err, out)
		}
	}
	run("npm", "install", "--no-package-lock", "--no-audit", "--no-fund", "--ignore-scripts", "--prefer-offline",
		"--loglevel=error")
	a := awsHouse(t, 2, lends)
	run("node", "product.mjs", "http://"+a.tcp)
	run("node", "product.mjs", "http://localhost", a.unix)
	if p, err := a.Pool(t.Context(), "uses"); err != nil || p.InUse != 2 {
		t.Errorf("%+v, %v; each drew one", p, err)
	}
}

// AWS's client for Python does so over TCP: it has no Unix socket.
func TestAWSClientPython(t *testing.T) {
	t.Parallel()
	if err := exec.Command("python3", "-c", "import boto3").Run(); err != nil {
		t.Skip("there is no python3 with boto3")
	}
	a := awsHouse(t, 2, nil)
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "python3", "../plugin/awslm/testdata/python/product.py", "http://"+a.tcp)
	cmd.Env = append(os.Environ(), "USHER_KEY="+awsKey, "USHER_SECRET="+awsSecret, "PYTHONDONTWRITEBYTECODE=1",
		"AWS_CONFIG_FILE=/nonexistent", "AWS_SHARED_CREDENTIALS_FILE=/nonexistent")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
}
