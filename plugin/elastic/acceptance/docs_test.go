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

	"github.com/usher-agent/usher/plugin/elastic/elastictest"
)

// Every command of the manual runs as it stands, one after the other, on a host of its own.
func TestManual(t *testing.T) {
	manual, err := os.ReadFile("../../../docs/systems/elastic.md")
	if err != nil {
		t.Fatal(err)
	}
	dir, err := os.MkdirTemp("", "u")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	here := strings.NewReplacer("/etc/usher", dir, "/run/usher", dir)
	blocks := func(language string) (out []string) {
		for _, m := range regexp.MustCompile("(?s)( *)```"+language+"\n(.*?)```").FindAllStringSubmatch(string(manual),
			-1) {
			out = append(out, strings.ReplaceAll("\n"+m[2], "\n"+m[1], "\n"))
		}
		return out
	}
	commands, configs := blocks("sh"), blocks("yaml")
	if len(commands) < 4 || len(configs) < 3 {
		t.Fatalf("%d blocks of commands, %d configurations", len(commands), len(configs))
	}
	s := elastictest.Shared()
	for name, b := range map[string][]byte{
		"elastic-public.key": s.DER(),
		"usher.yaml":         []byte(here.Replace(configs[0])),
		"licence.json":       s.Orchestration(elastictest.License{UID: "o", Units: 9}),
		"stack.json":         s.Stack(elastictest.License{UID: "s", Type: "gold", Nodes: 3}),
	} {
		if err := os.WriteFile(filepath.Join(dir, name), b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	script := "set -ex\n" + here.Replace(strings.Join(commands, "\n")) + "\nkill $!\nwait\n"
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "sh", "-c", script)
	cmd.Dir = dir
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = 5 * time.Second
	cmd.Env = append(os.Environ(), "PATH="+filepath.Dir(program)+":"+os.Getenv("PATH"), "USHER_LICENSE_PATH="+dir+"/l",
		"USHER_SOCKET="+dir+"/usher.sock", "USHER_SOCKET_PATH="+dir+"/usher.sock", "USHER_STATE_DIR="+dir+"/state",
		"USHER_STATE_RUNTIME_DIR="+dir+"/run")
	out, err := cmd.CombinedOutput()
	if cmd.Process != nil {
		syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
	}
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for _, says := range []string{`"total_connected_memory_total":135168`, `"license_status":"valid"`, `"uid":"o"`,
		`"uid":"s"`} {
		if !strings.Contains(string(out), says) {
			t.Errorf("nothing says %s:\n%s", says, out)
		}
	}
}
