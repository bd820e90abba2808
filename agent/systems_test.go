package agent_test

import (
	"bytes"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/usher-agent/usher/plugin/catalog"
	"github.com/usher-agent/usher/plugin/usher"
)

// makesKeys is the word of the command that makes a vendor's key. It is the word of such commands everywhere, and a
// licence system's name, too.
const makesKeys = "key" + "gen"

// makeKeyCommand is how that command is called and defined.
var makeKeyCommand = regexp.MustCompile(
	`vendor "?` + makesKeys + `|"vendor", "` + makesKeys + `"|Use: "` + makesKeys + ` --kid K`,
)

// namesSystem returns the systems that a file names and that it is not for: its text without the command, against its
// path.
func namesSystem(path string, text []byte, systems []string) (out []string) {
	text = bytes.ToLower(makeKeyCommand.ReplaceAll(text, nil))
	for _, s := range systems {
		if bytes.Contains(text, []byte(s)) && !strings.Contains(strings.ToLower(filepath.Base(path)), s) {
			out = append(out, s)
		}
	}
	return out
}

// Nothing but a system's own folder, its line in the catalog, documentation, configurations and the tests that are
// called after it names a licence system. The native one, whose name is the project's, is left aside.
func TestNothingNamesASystem(t *testing.T) {
	t.Parallel()
	var systems []string
	for _, s := range catalog.Systems() {
		if s.Name != usher.System {
			systems = append(systems, s.Name)
		}
	}
	mayName := map[string]bool{
		"docs":                      true,
		"configs":                   true,
		"CHANGELOG.md":              true,
		"README.md":                 true,
		"plugin/catalog/systems.go": true,
		".git":                      true, // of a worktree, whose name may be a system's
	}
	for _, s := range systems {
		mayName["plugin/"+s] = true
	}
	looked := 0
	err := filepath.WalkDir("..", func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name := filepath.ToSlash(strings.TrimPrefix(path, ".."+string(filepath.Separator)))
		hidden := strings.HasPrefix(d.Name(), ".") && len(d.Name()) > 2 && d.Name() != ".ci"
		switch {
		case mayName[name], d.IsDir() &&
			(hidden || d.Name() == "bin" || d.Name() == "node_modules" || d.Name() == "target"):
			if d.IsDir() {
				return fs.SkipDir
			}
			return nil
		case !d.Type().IsRegular():
			return nil
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		if len(text) > 1<<20 || bytes.IndexByte(text, 0) >= 0 {
			return nil // not written by people
		}
		looked++
		base := filepath.Base(path)
		test := strings.HasSuffix(base, "_test.go") || strings.HasSuffix(base, ".txtar")
		if !test {
			base = "" // only a test may be called after a system
		}
		for _, s := range namesSystem(base, text, systems) {
			t.Errorf(
				"%s names the licence system %s; what is one system's goes to plugin/%s, behind its plugin.System",
				name,
				s,
				s,
			)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if looked < 300 {
		t.Errorf("only %d files were looked at", looked)
	}
	for text, want := range map[string]int{"if l.System == \"toy\" {": 1, "// as Toy does": 1,
		"`usher vendor " + makesKeys + "`": 0, "plugin/" + makesKeys: 1} {
		if got := namesSystem("a.go", []byte(text), []string{"toy", makesKeys}); len(got) != want {
			t.Errorf("%q names %v", text, got)
		}
	}
}
