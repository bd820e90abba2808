package liveness

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// PodOf says nothing of a process with another start time: it is another process, by a number that was used before.
func TestPodOfAnotherProcess(t *testing.T) {
	proc := t.TempDir()
	if err := os.Mkdir(filepath.Join(proc, "7"), 0o755); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{
		"stat":   "7 (a (b) c) S" + strings.Repeat(" 0", 18) + " 4711 0 0\n",
		"cgroup": "0::/kubepods/burstable/pod" + podA + "/aa\n",
	} {
		if err := os.WriteFile(filepath.Join(proc, "7", name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for _, row := range []struct {
		pid   int32
		start uint64
		want  string
	}{{7, 4711, podA}, {7, 4712, ""}, {7, 0, ""}, {8, 4711, ""}, {0, 4711, ""}, {-7, 4711, ""}} {
		if got := podOfIn(proc, row.pid, row.start); got != row.want {
			t.Errorf("process %d of %d is in %q, want %q", row.pid, row.start, got, row.want)
		}
	}
	if err := os.WriteFile(filepath.Join(proc, "7", "cgroup"), make([]byte, maxCgroups+1), 0o644); err != nil {
		t.Fatal(err)
	}
	if got := podOfIn(proc, 7, 4711); got != "" {
		t.Errorf("of cgroups without an end a process is in %q", got)
	}
}
