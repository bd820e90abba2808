package acceptance

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"
)

// Every command of the manual runs as it stands, one after the other, on a host of its own.
func TestManual(t *testing.T) {
	for _, tool := range []string{"openssl", "curl"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("the manual's commands need %s: %v", tool, err)
		}
	}
	dir, err := os.MkdirTemp("", "u")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	build := exec.CommandContext(t.Context(), "go", "build", "-trimpath", "-ldflags", "-s -w", "-o",
		filepath.Join(dir, "usher"), "./cmd/usher")
	build.Dir, build.Env = "../../..", append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	manual, err := os.ReadFile("../../../docs/systems/ucloud.md")
	if err != nil {
		t.Fatal(err)
	}
	here := strings.NewReplacer("/etc/usher", dir, "/run/usher", dir)
	blocks := func(language string) (out []string) {
		for _, m := range regexp.MustCompile("(?s)( *)```"+language+"\n(.*?)```").FindAllStringSubmatch(string(manual),
			-1) {
			out = append(out, strings.ReplaceAll("\n"+m[2], "\n"+m[1], "\n"))
		}
		return out
	}
	commands, configs := blocks("sh"), blocks("yaml")
	if len(commands) < 4 || len(configs) < 2 {
		t.Fatalf("%d blocks of commands, %d configurations", len(commands), len(configs))
	}
	if err := os.WriteFile(filepath.Join(dir, "usher.yaml"), []byte(here.Replace(configs[0])), 0o600); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "sh", "-c",
		"set -ex\n"+here.Replace(strings.Join(commands, "\n"))+"\nkill $!\nwait\n")
	cmd.Dir = dir
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = 5 * time.Second
	cmd.Env = append(os.Environ(), "PATH="+dir+":"+os.Getenv("PATH"), "USHER_LICENSE_PATH="+dir+"/l",
		"USHER_SOCKET="+dir+"/usher.sock", "USHER_SOCKET_PATH="+dir+"/usher.sock", "USHER_STATE_DIR="+dir+"/state",
		"USHER_STATE_RUNTIME_DIR="+dir+"/run")
	out, err := cmd.CombinedOutput()
	if cmd.Process != nil {
		syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
	}
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for _, says := range []string{`{"productsByProvider":{"example":[`, `{"responses":[{"id":"1"}]}`, "\n{}",
		`"boundTo":["42"]`, `"next":null}`, `"permissions":{"myself":["ADMIN","READ","EDIT"],"others":[]}`,
		`{"responses":[{}]}`} {
		if !strings.Contains(string(out), says) {
			t.Errorf("nothing says %s:\n%s", says, out)
		}
	}
}
