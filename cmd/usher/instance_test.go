package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/usher-agent/usher/agent/config"
	"github.com/usher-agent/usher/agent/naming"
	"github.com/usher-agent/usher/client"
	"github.com/usher-agent/usher/cmd/usher/internal/instance"
)

// onHost runs the tool as on a host of which a folder has the units.
func onHost(t *testing.T, root string, args ...string) (code int, out, errs string) {
	t.Helper()
	var o, e strings.Builder
	said := &checked{Writer: &o}
	c := &cli{in: strings.NewReader(""), out: said, errs: &e, stopSignals: func() {}, flush: func() {},
		units: instance.Finder{Root: root}}
	code = c.execute(context.Background(), said, args)
	return code, o.String(), e.String()
}

// instances makes units of instances with folders of their own below dir.
func instances(t *testing.T, dir string, names ...string) {
	t.Helper()
	units := filepath.Join(dir, "etc/systemd/system")
	template := fmt.Sprintf("[Service]\nExecStart=/usr/bin/usher agent --config %[1]s/%%i.yaml\n"+
		"Environment=USHER_LICENSE_PATH=%[1]s/%%i.d USHER_SOCKET_PATH=%[1]s/%%i.sock\n"+
		"Environment=USHER_STATE_DIR=%[1]s/%%i-state USHER_STATE_RUNTIME_DIR=%[1]s/%%i-run\n", dir)
	if err := os.MkdirAll(filepath.Join(units, "multi-user.target.wants"), 0o700); err != nil {
		t.Fatal(err)
	}
	files := map[string]string{filepath.Join(units, "usher@.service"): template}
	for _, name := range names {
		files[filepath.Join(units, "multi-user.target.wants", "usher@"+name+".service")] = "[Service]\n"
		files[filepath.Join(dir, name+".yaml")] = "product: " + name + "\n"
	}
	for path, text := range files {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// A command that looks at an agent's files looks where the unit of the instance has them, however the instance is
// named, and makes no folder.
func TestInstances(t *testing.T) {
	if !isGone(naming.Config()) {
		t.Skip("this host has an agent of its own")
	}
	dir := t.TempDir()
	instances(t, dir, "acme")
	t.Setenv("USHER_SOCKET", "")
	t.Setenv(instance.Variable, "")
	file := filepath.Join(dir, "acme.yaml")
	for name, args := range map[string][]string{"by the flag": {"--instance", "acme"},
		"by the file":  {"--config", file},
		"the only one": nil} {
		_, out, errs := onHost(t, dir, append([]string{"agent", "--check"}, args...)...)
		for _, want := range []string{dir + "/acme.d", dir + "/acme.sock", file, "usher@acme.service"} {
			if !strings.Contains(out, want) {
				t.Errorf("%s, --check does not say %s: %s%s", name, want, out, errs)
			}
		}
		for _, command := range [][]string{{"doctor", "--repair"}, {"events", "verify"}} {
			code, out, errs := onHost(t, dir, append(command, args...)...)
			if code == exitOK || !strings.Contains(errs, dir+"/acme-state") {
				t.Errorf("%s, %s: %d %s%s", name, command, code, out, errs)
			}
		}
	}
	t.Setenv(instance.Variable, "acme")
	if _, out, errs := onHost(t, dir, "config", "show", "--local", "--origin"); !strings.Contains(out,
		"env USHER_STATE_DIR") {
		t.Errorf("by the variable: %s%s", out, errs)
	}
	if _, _, errs := onHost(t, dir, "status"); !strings.Contains(errs, dir+"/acme.sock") {
		t.Errorf("status by the variable: %s", errs)
	}
	t.Setenv("USHER_SOCKET", "/nowhere/s")
	if _, _, errs := onHost(t, dir, "status"); !strings.Contains(errs, "/nowhere/s") {
		t.Errorf("the socket is nearer than the instance: %s", errs)
	}
	if _, _, errs := onHost(t, dir, "status", "--instance", "acme"); !strings.Contains(errs, dir+"/acme.sock") {
		t.Errorf("the flag is nearer than the variable: %s", errs)
	}
	t.Setenv(instance.Variable, "")
	if code, _, errs := onHost(t, dir, "doctor", "--repair", "--instance", "beta/../x"); code != exitUsage ||
		!strings.Contains(errs, "letters, digits") {
		t.Errorf("a wrong name: %d %s", code, errs)
	}
	for _, made := range []string{"acme-state", "acme-run"} {
		if !isGone(filepath.Join(dir, made)) {
			t.Errorf("%s was made", made)
		}
	}
}

// Where there are several instances, the command asks for one and names them.
func TestSeveralInstances(t *testing.T) {
	if !isGone(naming.Config()) || !isGone(client.DefaultSocket) {
		t.Skip("this host has an agent of its own")
	}
	dir := t.TempDir()
	instances(t, dir, "acme", "beta")
	t.Setenv(instance.Variable, "")
	code, _, errs := onHost(t, dir, "doctor", "--repair")
	if code != exitUsage || !strings.Contains(errs, "acme, beta") || !strings.Contains(errs, "--instance") {
		t.Errorf("%d %s", code, errs)
	}
}

// On a host that has the package and no instance yet, each command says how there comes to be one, and nothing starts
// an agent that would take the folder of the instances' folders for itself.
func TestNoInstanceYet(t *testing.T) {
	if !isGone(naming.Config()) || !isGone(client.DefaultSocket) {
		t.Skip("this host has an agent of its own")
	}
	dir := t.TempDir()
	instances(t, dir)
	t.Setenv(instance.Variable, "")
	t.Setenv("USHER_SOCKET", "")
	for _, args := range [][]string{{"status"}, {"license", "list"}, {"doctor"}} {
		code, out, errs := onHost(t, dir, args...)
		if code == exitOK || !strings.Contains(out+errs, "/etc/usher/NAME.yaml") ||
			!strings.Contains(out+errs, "systemctl enable --now usher@NAME.service") {
			t.Errorf("%v: %d %s%s", args, code, out, errs)
		}
	}
	if code, _, errs := onHost(t, dir, "agent", "--check"); code != exitConfig ||
		!strings.Contains(errs, "state.dir") {
		t.Errorf("agent --check: %d %s", code, errs)
	}
	cfg := config.Default()
	err := (&cli{units: instance.Finder{Root: dir}}).apart(cfg)
	var e *exit
	if !errors.As(err, &e) || e.code != exitConfig || !strings.Contains(e.hint, "usher@NAME.service") {
		t.Errorf("an agent in %s: %v", cfg.State.Dir, err)
	}
	if err := (&cli{units: instance.Finder{Root: t.TempDir()}}).apart(cfg); err != nil {
		t.Errorf("without units: %v", err)
	}
	own := filepath.Join(dir, cfg.State.Dir)
	if err := os.MkdirAll(own, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(own, "agent.lock"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := (&cli{units: instance.Finder{Root: dir}}).apart(cfg); err != nil {
		t.Errorf("one that was there before: %v", err)
	}
	cfg.State.Dir = filepath.Join(cfg.State.Dir, "acme")
	if err := (&cli{units: instance.Finder{Root: dir}}).apart(cfg); err != nil {
		t.Errorf("an instance: %v", err)
	}
}

// An instance that was never started is named with those that there are.
func TestUnknownInstance(t *testing.T) {
	dir := t.TempDir()
	instances(t, dir, "acme")
	t.Setenv("USHER_SOCKET", "")
	code, _, errs := onHost(t, dir, "--instance", "acme", "status")
	if code != exitAgentAway || !strings.Contains(errs, "hint: start it: `systemctl start usher@acme.service`") {
		t.Errorf("%d %s", code, errs)
	}
	code, _, errs = onHost(t, dir, "--instance", "acne", "status")
	if code != exitAgentAway || !strings.Contains(errs, "the instances of this host are acme") {
		t.Errorf("%d %s", code, errs)
	}
}

// A socket that an agent has left behind is none.
func TestStaleSocket(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "s")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	if isStale(path) {
		t.Error("somebody listens")
	}
	l.SetUnlinkOnClose(false)
	l.Close()
	if runtime.GOOS != "windows" && !isStale(path) {
		t.Error("nobody listens")
	}
}
