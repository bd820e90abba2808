package main

import (
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"testing"
	"time"
)

// step is one block of a how-to page.
type step struct {
	// sh: on the host; sh new: on another one; text: what the commands before it print; test: see testHowTos
	kind string
	text string
}

// stepsOf returns the blocks of a page in their order.
func stepsOf(t *testing.T, page string) (out []step) {
	t.Helper()
	block := regexp.MustCompile("(?ms)^( *)```(sh|sh new|text)\n(.*?)^ *```$|^<!-- (test|test new|carry):\n(.*?)^-->$")
	for _, m := range block.FindAllStringSubmatch(read(t, page), -1) {
		text := strings.TrimPrefix(strings.ReplaceAll("\n"+m[3], "\n"+m[1], "\n"), "\n")
		out = append(out, step{m[2] + m[4], text + m[5]})
	}
	return out
}

// missingFrom returns the first line of a block of text that was not printed: its lines must come in their order, and
// … stands for what may differ.
func missingFrom(printed, block string) string {
	for line := range strings.Lines(block) {
		line = strings.TrimSpace(line)
		if line == "" || line == "…" {
			continue
		}
		var parts []string
		for part := range strings.SplitSeq(line, "…") {
			var words []string
			for w := range strings.FieldsSeq(part) {
				words = append(words, regexp.QuoteMeta(w))
			}
			parts = append(parts, strings.Join(words, `\s+`))
		}
		at := regexp.MustCompile(`(?m)^\s*` + strings.Join(parts, `.*`) + `\s*$`).FindStringIndex(printed)
		if at == nil {
			return line
		}
		printed = printed[at[1]:]
	}
	return ""
}

// newHost is a machine with the package, and an instance acme-render that trusts the vendor's key and has no licence
// yet: as docs/how-to/README.md says. In /root/vendor is the vendor, who is not of the page.
func newHost(t *testing.T, p packaged, id string) *machine {
	t.Helper()
	m := bootMachine(t)
	m.write("/etc/machine-id", id+"\n")
	for _, file := range []string{p.deb, p.nextDeb} {
		m.put(file, "/root/"+filepath.Base(file))
	}
	for _, file := range []string{"2027-a.key", "2027-a.pub"} {
		m.put(filepath.Join(p.keys, file), "/tmp/"+file)
	}
	m.run(`set -e; cd /root; dpkg -i ` + filepath.Base(p.deb) + `
mkdir vendor page; install -m 600 /tmp/2027-a.key vendor/acme-2026.key; cp /tmp/2027-a.pub vendor/acme-2026.pub
install -m 644 vendor/acme-2026.pub /etc/usher/
cat > /etc/usher/acme-render.yaml <<END
product: acme-render
license:
  trust:
    - kid: acme-2026
      key_file: /etc/usher/acme-2026.pub
END
systemctl enable -q --now usher@acme-render`)
	return m
}

// lastLook is a command that only looks, as the last line of a block.
var lastLook = regexp.MustCompile(`(?m)^usher (status|pools|license list)$\z`)

// The commands of each how-to page, and of some pages of the reference, run in their order, as root in a folder of
// their own, on a host that has the package alone. What a page shows of their output is what they print. The page's
// comments that begin with test: are the part of the vendor, and of what happens to the host; carry: brings a file to
// the other host.
func testHowTos(t *testing.T, dir string) {
	pages, err := filepath.Glob("../../docs/how-to/[a-z]*.md")
	others, err2 := filepath.Glob("../../docs/coming-from-*.md")
	if err != nil || err2 != nil || len(pages) < 9 || len(others) < 2 {
		t.Errorf("%d and %d pages, %v, %v", len(pages), len(others), err, err2)
	}
	pages = append(pages, others...)
	for _, page := range []string{"api", "licence-folder", "metrics", "wire"} { // reference pages with commands
		pages = append(pages, "../../docs/"+page+".md")
	}
	for _, page := range pages {
		t.Run(strings.TrimSuffix(filepath.Base(page), ".md"), func(t *testing.T) {
			t.Parallel()
			p := packagesIn(dir)
			steps := stepsOf(t, page)
			hosts := map[bool]*machine{false: newHost(t, p, "0123456789abcdef0123456789abcdef")}
			printed, shown := "", 0
			look := func() string { return "" } // prints what the last command of a block that only looks says by now
			for _, s := range steps {
				if s.kind == "text" {
					// What a page has put into the licence folder is in force a moment later.
					for end := time.Now().Add(time.Minute); missingFrom(printed, s.text) != ""; printed += look() {
						if time.Now().After(end) {
							t.Fatalf("nothing says %q; printed was\n%s", missingFrom(printed, s.text), printed)
						}
						<-time.After(100 * time.Millisecond)
					}
					shown++
					continue
				}
				other := s.kind == "carry" || strings.HasSuffix(s.kind, " new")
				if hosts[other] == nil {
					hosts[other] = newHost(t, p, "fedcba9876543210fedcba9876543210")
				}
				if s.kind == "carry" {
					file := "/root/page/" + strings.TrimSpace(s.text)
					hosts[true].put(hosts[false].host(file), file)
					continue
				}
				run := func(text string) string {
					return hosts[other].run("set -e; cd /root/page; exec 2>&1\n" + text)
				}
				printed = run(strings.ReplaceAll(s.text, "_amd64.deb", "_"+runtime.GOARCH+".deb"))
				look = func() string { return "" }
				if last := lastLook.FindString(strings.TrimSpace(s.text)); last != "" {
					look = func() string { return run(last) }
				}
				t.Logf("%s\n%s", s.text, printed)
			}
			if len(steps) < 3 || shown < 1 {
				t.Errorf("%d blocks, of which %d show what is printed", len(steps), shown)
			}
		})
	}
}

// A line that was not printed, or not after the one before it, is found.
func TestMissingFrom(t *testing.T) {
	const printed = "licence  VALID: acme-1\npools:\n  streams  3 of 8\nend"
	for block, missing := range map[string]string{
		"licence VALID: …\n…\nstreams … of 8\n": "",
		"licence VALID\n":          "licence VALID",
		"streams 3 of 8\npools:\n": "pools:",
		"VALID: acme-1\n":          "VALID: acme-1",
	} {
		if got := missingFrom(printed, block); got != missing {
			t.Errorf("%q: %q is missing, and must be %q", block, got, missing)
		}
	}
}
