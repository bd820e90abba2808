package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"
)

// manualOf returns the blocks of a language in a system's manual, without their indentation.
func manualOf(t *testing.T, page, language string) (out []string) {
	t.Helper()
	for _, m := range regexp.MustCompile("(?s)( *)```"+language+"\n(.*?)```").FindAllStringSubmatch(read(t, page), -1) {
		out = append(out, strings.ReplaceAll("\n"+m[2], "\n"+m[1], "\n"))
	}
	return out
}

// Every command of BrainFrame's manual runs as it stands, one after the other, on a host of its own, and so does an
// agent with its other configuration.
func TestBrainFrameManual(t *testing.T) {
	t.Parallel()
	for _, tool := range []string{"curl", "openssl", "base64"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("there is no %s", tool)
		}
	}
	const page = "../../docs/systems/brainframe.md"
	dir, err := os.MkdirTemp("", "u")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	here := strings.NewReplacer("/etc/usher", dir, "127.0.0.1:8133", ownAddress(t))
	commands, configs := manualOf(t, page, "sh"), manualOf(t, page, "yaml")
	if len(commands) != 3 || len(configs) != 2 {
		t.Fatalf("%d blocks of commands, %d configurations", len(commands), len(configs))
	}
	for name, text := range map[string]string{"usher.yaml": configs[0], "upstream.yaml": configs[0] + configs[1],
		"brainframe.password": "a-password\n"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(here.Replace(text)), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	script := "set -ex\n" + here.Replace(strings.Join(commands, "\n")) + "\nkill $!\nwait\n" +
		fmt.Sprintf("usher agent --check --config %s/upstream.yaml\n", dir)
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "sh", "-c", script)
	cmd.Dir = dir
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = 5 * time.Second
	cmd.Env = append(os.Environ(), "USHER_LICENSE_PATH="+dir+"/l", "USHER_SOCKET="+dir+"/usher.sock",
		"USHER_SOCKET_PATH="+dir+"/usher.sock", "USHER_STATE_DIR="+dir+"/state", "USHER_STATE_RUNTIME_DIR="+dir+"/run")
	out, err := cmd.CombinedOutput()
	if cmd.Process != nil {
		syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
	}
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for _, says := range []string{`{"state":"missing","terms":null}`,
		`{"state":"valid","terms":{"online_checkin":false,"max_streams":4,"journal_max_allowed_age":86400.0,` +
			`"expiration_date":"2099-01-31"}}`, "+ usher status"} {
		if !strings.Contains(string(out), says) {
			t.Errorf("nothing says %s:\n%s", says, out)
		}
	}
}
