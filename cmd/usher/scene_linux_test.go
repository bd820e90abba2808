package main

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
)

// scene is a folder with a vendor, and the processes of its agents and servers. They are the program as make builds it:
// what the race detector says of a process is lost where nobody wants its exit code.
type scene struct {
	t        *testing.T
	bin, dir string
}

func newScene(t *testing.T) *scene {
	t.Helper()
	bin, err := built()
	if err != nil {
		t.Fatal(err)
	}
	s := &scene{t: t, bin: bin, dir: t.TempDir()}
	s.do("vendor", "keygen", "--kid", "k1", "--out", s.path("keys"))
	return s
}

func (s *scene) path(name string) string { return filepath.Join(s.dir, name) }

// try runs a command and returns what it says.
func (s *scene) try(args ...string) (string, error) {
	cmd := exec.Command(s.bin, args...)
	cmd.Env = append(os.Environ(), "USHER_SOCKET=")
	out, err := cmd.CombinedOutput()
	return string(out), err
}

func (s *scene) do(args ...string) string {
	s.t.Helper()
	out, err := s.try(args...)
	if err != nil {
		s.t.Fatalf("usher %v: %v\n%s", args, err, out)
	}
	return out
}

// sign makes a licence and returns its file.
func (s *scene) sign(id string, args ...string) string {
	s.t.Helper()
	file := s.path(id + ".lic")
	s.do(over([]string{"vendor", "sign", "--key", s.path("keys/k1.key"), "--product", "acme", "--id", id, "--out",
		file, "--force"}, args...)...)
	return file
}

// process is a running agent or server.
type process struct {
	*scene
	cmd    *exec.Cmd
	name   string
	args   []string
	within []string // a command that becomes the program; usually none
	listen string   // an agent's ops.listen, or a server's --listen
}

// start starts a command and ends it with the test.
func (p *process) start() {
	p.t.Helper()
	line := append(p.within[:len(p.within):len(p.within)], append([]string{p.bin}, p.args...)...)
	p.cmd = exec.Command(line[0], line[1:]...)
	log := &bytes.Buffer{}
	p.cmd.Stdout, p.cmd.Stderr = log, log
	if err := p.cmd.Start(); err != nil {
		p.t.Fatal(err)
	}
	await(p.t, p.name+" listens", func() bool {
		c, err := net.Dial("tcp", p.listen)
		if err == nil {
			c.Close()
		}
		return err == nil
	})
}

func (p *process) stop() {
	if p.cmd.ProcessState == nil {
		_ = p.cmd.Process.Signal(syscall.SIGTERM)
		_ = p.cmd.Wait()
	}
}

// await waits until something is so.
func await(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline, rest := time.Now().Add(60*time.Second), pause(); !ok(); rest() {
		if time.Now().After(deadline) {
			t.Fatalf("not within a minute: %s", what)
		}
	}
}

// agent starts an agent with the given documents.
func (s *scene) agent(name, more string, documents ...string) *process {
	s.t.Helper()
	for _, d := range append([]string{""}, documents...) {
		folder := s.path(name + "/license.d")
		if d == "" {
			if err := os.MkdirAll(folder, 0o700); err != nil {
				s.t.Fatal(err)
			}
		} else if err := os.WriteFile(filepath.Join(folder, filepath.Base(d)), []byte(read(s.t, d)), 0o600); err !=
			nil {
			s.t.Fatal(err)
		}
	}
	p := &process{scene: s, name: name, listen: ownAddress(s.t)}
	p.args = []string{"agent", "--config", s.path(name + ".yaml")}
	p.configure(more)
	p.start()
	s.t.Cleanup(p.stop)
	return p
}

// configure writes an agent's configuration.
func (p *process) configure(more string) {
	text := fmt.Sprintf("product: acme\nsocket: {path: %[1]s/s}\nstate: {dir: %[1]s/state, runtime_dir: %[1]s/run}\n"+
		"ops: {listen: '%[2]s'}\nlicense:\n  path: %[1]s/license.d\n  trust: [{kid: k1, key_file: %[3]s}]\n%[4]s",
		p.path(p.name), p.listen, p.path("keys/k1.pub"), more)
	if err := os.WriteFile(p.path(p.name+".yaml"), []byte(text), 0o600); err != nil {
		p.t.Fatal(err)
	}
}

// ask runs a command against the agent.
func (p *process) ask(args ...string) (string, error) {
	return p.try(append([]string{"--socket", p.path(p.name + "/s"), "--timeout", "1m"}, args...)...)
}

// server starts a server for agents.
func (s *scene) server(name string, args ...string) *process {
	s.t.Helper()
	p := &process{scene: s, name: name, listen: ownAddress(s.t)}
	p.args = append([]string{"upstream", "--data", s.path(name), "--runtime-dir", s.path(name + "-run"), "--listen",
		p.listen, "--log-level", "error"}, args...)
	p.start()
	s.t.Cleanup(p.stop)
	return p
}

// scrape returns the agent's series, by name and labels.
func (p *process) scrape() map[string]float64 {
	p.t.Helper()
	res, err := http.Get("http://" + p.listen + "/metrics")
	if err != nil {
		p.t.Fatal(err)
	}
	defer res.Body.Close()
	parser := expfmt.NewTextParser(model.UTF8Validation)
	families, err := parser.TextToMetricFamilies(io.LimitReader(res.Body, 1<<22))
	if err != nil {
		p.t.Fatal(err)
	}
	out := map[string]float64{}
	for name, f := range families {
		for _, m := range f.GetMetric() {
			var labels []string
			for _, l := range m.GetLabel() {
				labels = append(labels, l.GetName()+"="+strconv.Quote(l.GetValue()))
			}
			key := name + "{" + strings.Join(labels, ",") + "}"
			switch {
			case m.GetGauge() != nil:
				out[key] = m.GetGauge().GetValue()
			case m.GetCounter() != nil:
				out[key] = m.GetCounter().GetValue()
			case m.GetUntyped() != nil:
				out[key] = m.GetUntyped().GetValue()
			}
		}
	}
	return out
}
