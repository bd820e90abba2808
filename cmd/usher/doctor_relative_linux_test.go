package main

import (
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

// Relative paths begin at the folder that the agent was started in. A command that reads them says so where the file
// lies in another folder than its own, and is silent where it lies in its own; the doctor also knows the folder of an
// agent that runs.
func TestRelativePaths(t *testing.T) {
	w := newWard(t)
	w.socket, w.state = "s", "state"
	w.configure("", "")
	in := func(dir string, args ...string) string {
		cmd := exec.Command(w.bin, append(args, "--config", w.path("u.yaml"))...)
		cmd.Env = slices.DeleteFunc(os.Environ(), func(kv string) bool { return strings.HasPrefix(kv, "USHER_") })
		cmd.Dir = dir
		out, _ := cmd.CombinedOutput() // whether something is bad is not looked at
		return string(out)
	}
	check := func(when, dir string, says bool, args ...string) {
		t.Helper()
		out := in(dir, args...)
		if strings.Contains(out, "the folder that the agent was started in") != says {
			t.Errorf("%s: %v in %s:\n%s", when, args, dir, out)
		}
	}
	doctor := patient("doctor")
	for _, args := range [][]string{doctor, {"agent", "--check"}, {"events", "verify"}} {
		check("no agent runs", w.path("other"), true, args...)
		check("no agent runs", w.dir, false, args...)
	}
	cmd := w.command()
	cmd.Dir, w.socket = w.path("other"), w.path("other/s") // where the test finds the agent
	w.start(cmd)
	check("an agent runs here", w.path("other"), false, doctor...)
	check("an agent runs elsewhere", w.dir, false, doctor...) // it is not found, and its file lies here
	check("an agent runs elsewhere", w.dir, true, append(doctor, "--socket", w.path("other/s"))...)
}
