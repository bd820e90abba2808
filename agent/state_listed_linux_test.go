package agent_test

import (
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/usher-agent/usher/agent/seals"
)

// Each file that an agent keeps is in the table of docs/state.md.
func TestStateFilesAreListed(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("../docs/state.md")
	if err != nil {
		t.Fatal(err)
	}
	var listed []string
	for _, row := range regexp.MustCompile(`(?m)^\| (`+"`[^|]+`"+`) \|`).FindAllStringSubmatch(string(text), -1) {
		for _, name := range regexp.MustCompile("`([^`]+)`").FindAllStringSubmatch(row[1], -1) {
			listed = append(listed, name[1])
		}
	}
	if len(listed) < 15 {
		t.Fatalf("the table lists %v", listed)
	}
	h, _ := withToys(t, 4)
	h.until("started", code("VALID"))
	seen := map[string]bool{}
	look := func() {
		for _, dir := range []string{h.path("state"), h.path("run")} {
			err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
				if err == nil && !d.IsDir() {
					name, _ := filepath.Rel(dir, path)
					seen[name] = true
				}
				return err
			})
			if err != nil {
				t.Fatal(err)
			}
		}
	}
	look()
	h.stop()
	look()
	for name := range seen {
		top, _, deep := strings.Cut(name, "/")
		if deep {
			top += "/"
		}
		if m, _ := filepath.Match("socket-*.lock", top); m {
			top = "socket-NAME.lock"
		}
		if m, _ := filepath.Match("dialect-*.journal", top); m {
			top = "dialect-NAME.journal"
		}
		if !slices.Contains(listed, top) && !strings.HasPrefix(top, ".usher-") {
			t.Errorf("%s is not in the table of docs/state.md", name)
		}
	}
	for _, name := range []string{"state.seal", "runtime.seal", "durable.journal", "leases.journal", "history.json",
		"agent.key", "dialect-toy.journal"} {
		if !seen[name] {
			t.Errorf("the agent keeps no %s; it has %v", name, slices.Sorted(maps.Keys(seen)))
		}
	}
	for _, name := range seals.Labels() {
		if name == "dialect" {
			name = "dialect-NAME.journal"
		}
		if name == "events" || name == "usage" || name == "lease-log" { // folders
			name += "/"
		}
		if !slices.Contains(listed, name) {
			t.Errorf("findings are counted of %s, which is not in the table of docs/state.md", name)
		}
	}
}
