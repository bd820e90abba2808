package main

import (
	"context"
	"crypto/ed25519"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/usher-agent/usher/client"
)

// toySystem builds the tool with one more licence system: the folder plugin/toy, and one line in the catalog.
func toySystem(t *testing.T) (bin string) {
	t.Helper()
	dir := t.TempDir()
	abs := func(path string) string {
		t.Helper()
		p, err := filepath.Abs(path)
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	list := read(t, "../../plugin/catalog/systems.go")
	more := strings.Replace(list, "\t\tusher.Provide(),\n", "\t\tusher.Provide(),\n\t\ttoy.Provide(),\n", 1)
	more = strings.Replace(more, "import (\n", "import (\n\t\"github.com/usher-agent/usher/plugin/toy\"\n", 1)
	if strings.Count(more, "\n") != strings.Count(list, "\n")+2 {
		t.Fatal("the catalog's list has another form")
	}
	overlay, err := json.Marshal(map[string]any{"Replace": map[string]string{abs("../../plugin/catalog/systems.go"): filepath.Join(dir, "systems.go"),
		filepath.Join(abs("../../plugin"), "toy", "system.go"): abs("testdata/toy/system.go")}})
	if err != nil {
		t.Fatal(err)
	}
	bin = filepath.Join(dir, "usher")
	for name, data := range map[string][]byte{"systems.go": []byte(more), "overlay.json": overlay} {
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	build := exec.Command("go", "build", "-overlay", filepath.Join(dir, "overlay.json"), "-trimpath", "-buildvcs=false", "-ldflags", "-s -w", "-o", bin, ".")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build: %v\n%s", err, out)
	}
	return bin
}

// toyServer is the vendor's side of the toy: it gives a licence for the host "bear", and hears check-ins.
type toyServer struct {
	*httptest.Server
	key      string // of the vendor, in hex
	document []byte
	heard    chan url.Values
}

func newToyServer(t *testing.T) *toyServer {
	t.Helper()
	public, private, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	payload := fmt.Appendf(nil, `{"ID":"T1","Product":"acme","Host":"bear","Toys":1,"Issued":%q}`, time.Now().Add(-time.Hour).UTC().Format(time.RFC3339))
	s := &toyServer{key: hex.EncodeToString(public), heard: make(chan url.Values, 16)}
	s.document = []byte("TOY " + base64.StdEncoding.EncodeToString(payload) + " " + base64.StdEncoding.EncodeToString(ed25519.Sign(private, payload)) + "\n")
	s.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/document" {
			w.Write(s.document) //nolint:errcheck // a test fails without it
			return
		}
		select {
		case s.heard <- r.URL.Query():
		default:
		}
	}))
	t.Cleanup(s.Close)
	return s
}

// A licence system is its folder and one line in the catalog. With these alone its section of the configuration is decoded and checked, its
// keys are anchors, its document is inspected, fetched and in force on the host that it names, its upstream hears what the system says that
// a request carries and no more, and its dialect hands out its slots.
func TestSystemIsItsFolderAndOneLine(t *testing.T) {
	t.Parallel()
	bin, vendor := toySystem(t), newToyServer(t)
	dir, err := os.MkdirTemp("", "u") // a socket's path must be short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	write := func(name, text string) string {
		t.Helper()
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	run := func(want int, args ...string) string {
		t.Helper()
		cmd := exec.Command(bin, args...)
		out, err := cmd.CombinedOutput()
		if cmd.ProcessState == nil || cmd.ProcessState.ExitCode() != want {
			t.Fatalf("usher %s: %v\n%s", strings.Join(args, " "), err, out)
		}
		return string(out)
	}
	config := fmt.Sprintf(`product: acme
license:
  path: %[1]s/l
  trust:
    - {system: toy, kid: t, key: %[2]q}
socket: {path: %[1]s/s}
state: {dir: %[1]s/state, runtime_dir: %[1]s/run}
host: {fingerprint: bear, components: {toy-name: forged}}
listeners:
  - {address: %[1]s/toys, dialect: toy}
upstream:
  toys: {place: %[3]q, every: 12h, most: 3, loud: true, kinds: [a, b], extra: {a: b}}
`, dir, vendor.key, vendor.URL)
	good := write("usher.yaml", config)
	if err := os.Mkdir(filepath.Join(dir, "l"), 0o700); err != nil {
		t.Fatal(err)
	}

	for change, want := range map[[2]string]string{
		{"place:", "plase:"}:               `bad.yaml:12: unknown key "upstream.toys.plase"; did you mean "upstream.toys.place"?`,
		{"every: 12h", "every: soon"}:      `bad.yaml:12: upstream.toys.every is "soon", and must be a span of time`,
		{"http:", ":"}:                     `bad.yaml:12: upstream.toys.place is no address`,
		{"kid: t", "kid: t, schemes: [x]"}: "the system toy has no schemes",
		{vendor.key, "x"}:                  "give 64 hexadecimal digits",
	} {
		if out := run(exitConfig, "agent", "--check", "--config", write("bad.yaml", strings.Replace(config, change[0], change[1], 1))); !strings.Contains(out, want) {
			t.Errorf("%s: %s\nwant %s", change[1], out, want)
		}
	}
	if out := run(0, "license", "inspect", "--config", good, write("t.lic", string(vendor.document))); !strings.Contains(out, "VALID") || !strings.Contains(out, "toys") {
		t.Errorf("inspect: %s", out)
	}
	// The component that names a host for the system is not the configuration's to state.
	run(exitNotValid, "license", "inspect", "--config", good, "--host-fingerprint", "another", filepath.Join(dir, "t.lic"))

	log := &strings.Builder{}
	agent := exec.Command(bin, "agent", "--config", good)
	agent.Stderr = log
	if err := agent.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		agent.Process.Signal(syscall.SIGTERM) //nolint:errcheck // it may have ended
		if err := agent.Wait(); err != nil || t.Failed() {
			t.Errorf("the agent: %v\n%s", err, log)
		}
	}()
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	defer cancel()
	c := client.New(filepath.Join(dir, "s"))
	defer c.Close()
	for {
		if l, err := c.License(ctx); err == nil && l.State == "valid" && l.Licenses[0].System == "toy" && l.Limits["toys"] != nil {
			break
		}
		select {
		case <-time.After(50 * time.Millisecond):
			continue
		case <-ctx.Done():
		}
		t.Fatal("the toy's licence was never in force")
	}
	select {
	case q := <-vendor.heard:
		host, _ := os.Hostname()
		if q.Get("hostname") != host || q.Get("fingerprint") != "" || q.Get("memory") != "0" || q.Get("every") != "12h0m0s" || q.Get("anchors") != "1" {
			t.Errorf("the vendor heard %v", q)
		}
	case <-ctx.Done():
		t.Fatal("the vendor heard nothing")
	}
	preview, err := c.UpstreamPreview(ctx)
	if err != nil || len(preview) != 1 || preview[0].Hostname == "" || preview[0].Document != "" || preview[0].AgentKey != "" || preview[0].Memory != 0 || preview[0].Components["toy-name"] != nil {
		t.Errorf("the preview: %+v, %v", preview, err)
	}
	toys := &http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", filepath.Join(dir, "toys"))
	}}}
	for _, want := range []string{fmt.Sprintf("200 OK a toy for %d", os.Getuid()), "409 Conflict no_slots"} {
		res, err := toys.Get("http://localhost/")
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(res.Body)
		if err = errors.Join(err, res.Body.Close()); err != nil {
			t.Fatal(err)
		}
		if got := res.Status + " " + strings.TrimSpace(string(b)); got != want {
			t.Errorf("the dialect answers %q, want %q", got, want)
		}
	}
}
