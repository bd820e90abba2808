package acceptance

import (
	"bufio"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// newcomer walks through docs/kubernetes.md: its commands run as they stand there, with a kubectl that keeps what would
// be in the cluster.
type newcomer struct {
	*node
	*vendor
	t       *testing.T
	dir     string // where the commands run
	cluster string
	page    string
}

func newNewcomer(t *testing.T) *newcomer {
	t.Helper()
	c := &newcomer{node: newNode(t), vendor: newVendor(t), t: t, dir: t.TempDir(), cluster: t.TempDir(),
		page: read(t, "../../../docs/kubernetes.md")}
	for from, to := range map[string]string{"kubectl.sh": "bin/kubectl", filepath.Join(built, "usher"): "bin/usher"} {
		to = filepath.Join(c.dir, to)
		write(t, to, read(t, from))
		c.must(os.Chmod(to, 0o755))
	}
	c.must(os.MkdirAll(filepath.Join(c.dir, "configs"), 0o755))
	c.must(os.Rename(copied(t), filepath.Join(c.dir, "configs/kubernetes")))
	write(t, filepath.Join(c.dir, "vendor.pub"), c.public())
	c.walk("What you need", 0)
	return c
}

// sign writes a licence to where the page has it.
func (c *newcomer) sign(file, id string, more ...string) {
	c.t.Helper()
	write(c.t, filepath.Join(c.dir, file), string(c.licence(id, more...)))
}

// walk runs a block of commands of a section, and returns what they print.
func (c *newcomer) walk(section string, block int) string {
	c.t.Helper()
	_, text, ok := strings.Cut(c.page, "# "+section+"\n")
	if !ok {
		c.t.Fatalf("the page has no section %q", section)
	}
	blocks := strings.Split(text, "```sh\n")
	if len(blocks) <= block+1 {
		c.t.Fatalf("section %q has no block %d", section, block)
	}
	commands, _, _ := strings.Cut(blocks[block+1], "```")
	cmd := exec.Command("sh", "-euc", commands)
	cmd.Dir = c.dir
	cmd.Env = append(os.Environ(), "PATH="+filepath.Join(c.dir, "bin")+":"+os.Getenv("PATH"), "CLUSTER="+c.cluster)
	var errs strings.Builder
	cmd.Stderr = &errs
	out, err := cmd.Output()
	if err != nil {
		c.t.Fatalf("%s\n%v\n%s", commands, err, errs.String())
	}
	for _, kind := range []string{"secret", "configmap"} {
		all, err := filepath.Glob(filepath.Join(c.cluster, kind, "*"))
		c.must(err)
		for _, folder := range all {
			content := map[string][]byte{}
			files, err := os.ReadDir(folder)
			c.must(err)
			for _, f := range files {
				content[f.Name()] = []byte(read(c.t, filepath.Join(folder, f.Name())))
			}
			c.set(kind+"/"+filepath.Base(folder), content)
		}
	}
	return string(out)
}

// applied builds what the page has applied last.
func (c *newcomer) applied() *workload {
	c.t.Helper()
	lines := strings.Fields(read(c.t, filepath.Join(c.cluster, "applied")))
	m := build(c.t, filepath.Join(c.dir, lines[len(lines)-1]))
	for _, k := range m.configs {
		content := map[string][]byte{}
		for name, text := range k.Data {
			content[name] = []byte(text)
		}
		c.set("configmap/"+k.Name, content)
	}
	return &m.workloads[0]
}

// execs runs what the page runs in a pod, and returns what it prints.
func (c *newcomer) execs(p *pod) string {
	c.t.Helper()
	var all strings.Builder
	file := filepath.Join(c.cluster, "execs")
	for lines := bufio.NewScanner(strings.NewReader(read(c.t, file))); lines.Scan(); {
		where, command, _ := strings.Cut(lines.Text(), " -- ")
		name := "usher"
		if _, named, ok := strings.Cut(where, " -c "); ok {
			name = named
		} else {
			name = p.spec.Containers[0].Name
		}
		out, err := p.exec(name, strings.Fields(command)...)
		if err != nil {
			c.t.Errorf("%s: %v\n%s", lines.Text(), err, out)
		}
		all.WriteString(out)
	}
	c.must(os.Remove(file))
	return all.String()
}
