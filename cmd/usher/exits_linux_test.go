package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// lost is an output that takes nothing.
type lost struct{}

func (lost) Write([]byte) (int, error) { return 0, syscall.ENOSPC }

// Whatever a command prints to an output that fails, it does not end with success.
func TestLostOutputIsAFailure(t *testing.T) {
	for _, line := range []string{"--version", "--help", "agent --help", "vendor sign --help", "completion bash",
		"completion fish"} {
		var errs strings.Builder
		if code := run(strings.Fields(line), strings.NewReader(""), lost{}, &errs); code != exitFailed ||
			!strings.Contains(errs.String(), "no space left") {
			t.Errorf("usher %s ends with %d and says %q", line, code, errs.String())
		}
	}
}

// 78 is for what the configuration says. What the host does not let the agent do may pass, and is tried again.
func TestTroubleAtTheStartIsTriedAgain(t *testing.T) {
	dir := t.TempDir()
	file := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	plain := fmt.Sprintf("product: acme\nsocket: {path: %s/s}\nstate: {dir: %s/state, runtime_dir: %s/run}\n", dir, dir,
		dir)
	for what, test := range map[string]struct {
		config string
		code   int
	}{
		"a key that does not exist": {file("a.yaml", plain+"nonsense: 1\n"), exitConfig},
		"an unknown dialect": {file("b.yaml",
			plain+"listeners: [{address: 'unix:"+dir+"/d', dialect: none}]\n"), exitConfig},
		"an anchor that comes late": {file("c.yaml", plain+"license: {trust: [{kid: k, key_file: "+dir+"/late}]}\n"),
			exitFailed},
		"a state folder that is not": {file("d.yaml", strings.Replace(plain, dir+"/state", "/proc/none", 1)),
			exitFailed},
		"a configuration to come": {filepath.Join(dir, "none.yaml"), exitFailed},
	} {
		var errs strings.Builder
		if code := run([]string{"agent", "--config", test.config}, strings.NewReader(""), io.Discard, &errs); code !=
			test.code {
			t.Errorf("%s: exit code %d, want %d: %s", what, code, test.code, errs.String())
		}
	}
}

// The shipped unit tries again after everything but a wrong command line or configuration. Go's runtime ends a crash
// with 2.
func TestUnitTriesCrashesAgain(t *testing.T) {
	b, err := os.ReadFile("../../configs/usher@.service")
	if err != nil {
		t.Fatal(err)
	}
	if want := fmt.Sprintf("\nRestartPreventExitStatus=%d %d\n", exitUsage, exitConfig); !strings.Contains(string(b),
		want) {
		t.Errorf("the unit lacks %q", want)
	}
	if exitUsage == 2 || exitConfig == 2 {
		t.Error("a crash would be final")
	}
}

// A command that a signal ends has the shell's code for that, and says nothing.
func TestSignalledCommands(t *testing.T) {
	for cause, want := range map[error]int{errors.New("interrupt signal received"): 130,
		errors.New("terminated signal received"): 143} {
		if got := signalled(cause); got != want {
			t.Errorf("%v: %d, want %d", cause, got, want)
		}
	}
}
