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
	"github.com/usher-agent/usher/client/wire"
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
	const list = "../../plugin/catalog/systems.go"
	was := read(t, list)
	is := strings.Replace(was, "\t\tusher.Provide(),\n", "\t\tusher.Provide(),\n\t\ttoy.Provide(),\n", 1)
	is = strings.Replace(is, "import (\n", "import (\n\t\"github.com/usher-agent/usher/plugin/toy\"\n", 1)
	if strings.Count(is, "\n") != strings.Count(was, "\n")+2 {
		t.Fatal("the catalog's list has another form")
	}
	overlay, err := json.Marshal(map[string]any{"Replace": map[string]string{
		abs(list): filepath.Join(dir, "systems.go"),
		filepath.Join(abs("../../plugin"), "toy", "system.go"): abs("testdata/toy/system.go"),
	}})
	if err != nil {
		t.Fatal(err)
	}
	for name, data := range map[string][]byte{"systems.go": []byte(is), "overlay.json": overlay} {
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	bin = filepath.Join(dir, "usher")
	// With the flags of the vendor's build, so that most of it is in the cache.
	build := exec.Command("go", "build", "-overlay", filepath.Join(dir, "overlay.json"), "-trimpath", "-buildvcs=false",
		"-ldflags", "-s -w", "-o", bin, ".")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build: %v\n%s", err, out)
	}
	return bin
}

// toyVendor serves a licence for the host "bear", and records check-ins.
type toyVendor struct {
	*httptest.Server
	key      string // in hex
	document []byte
	heard    chan url.Values
}

func newToyVendor(t *testing.T) *toyVendor {
	t.Helper()
	public, private, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	terms := fmt.Appendf(nil, `{"ID":"T1","Product":"acme","Host":"bear","Toys":1,"Issued":%q}`,
		time.Now().Add(-time.Hour).UTC().Format(time.RFC3339))
	text := base64.StdEncoding.EncodeToString
	v := &toyVendor{key: hex.EncodeToString(public), heard: make(chan url.Values, 16),
		document: []byte("TOY " + text(terms) + " " + text(ed25519.Sign(private, terms)) + "\n")}
	v.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/document" {
			w.Write(v.document)
			return
		}
		select {
		case v.heard <- r.URL.Query():
		default:
		}
	}))
	t.Cleanup(v.Close)
	return v
}

// toyHouse is a folder with the tool, its configuration, and the vendor.
type toyHouse struct {
	*testing.T
	dir, bin, config string
	vendor           *toyVendor
}

func newToyHouse(t *testing.T) *toyHouse {
	t.Helper()
	dir, err := os.MkdirTemp("", "u") // a socket's path must be short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Mkdir(filepath.Join(dir, "l"), 0o700); err != nil {
		t.Fatal(err)
	}
	h := &toyHouse{T: t, dir: dir, bin: toySystem(t), vendor: newToyVendor(t)}
	h.config = fmt.Sprintf(`product: acme
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
`, dir, h.vendor.key, h.vendor.URL)
	return h
}

// write writes a file of the folder and returns its path.
func (h *toyHouse) write(name, text string) string {
	h.Helper()
	path := filepath.Join(h.dir, name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		h.Fatal(err)
	}
	return path
}

// run runs the tool, which must exit with a code.
func (h *toyHouse) run(want int, args ...string) string {
	h.Helper()
	cmd := exec.Command(h.bin, args...)
	out, err := cmd.CombinedOutput()
	if cmd.ProcessState == nil || cmd.ProcessState.ExitCode() != want {
		h.Fatalf("usher %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return string(out)
}

// start starts the agent, which ends with the test.
func (h *toyHouse) start() *client.Client {
	h.Helper()
	log := &strings.Builder{}
	agent := exec.Command(h.bin, "agent", "--config", filepath.Join(h.dir, "usher.yaml"))
	agent.Stderr = log
	if err := agent.Start(); err != nil {
		h.Fatal(err)
	}
	h.Cleanup(func() {
		agent.Process.Signal(syscall.SIGTERM)
		if err := agent.Wait(); err != nil || h.Failed() {
			h.Errorf("the agent: %v\n%s", err, log)
		}
	})
	c := client.New(filepath.Join(h.dir, "s"))
	h.Cleanup(c.Close)
	return c
}

// toy asks the dialect for a toy.
func (h *toyHouse) toy() string {
	h.Helper()
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", filepath.Join(h.dir, "toys"))
	}
	c := &http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: dial}}
	res, err := c.Get("http://localhost/")
	if err != nil {
		h.Fatal(err)
	}
	b, err := io.ReadAll(res.Body)
	if err = errors.Join(err, res.Body.Close()); err != nil {
		h.Fatal(err)
	}
	return res.Status + " " + strings.TrimSpace(string(b))
}

// A licence system is its folder and one line in the catalog. With these alone its section of the configuration is
// decoded and checked, its keys are anchors, its document is inspected, fetched and in force on the host that it names,
// its upstream hears what the system says that a request carries and no more, and its dialect hands out its slots.
func TestSystemIsItsFolderAndOneLine(t *testing.T) {
	t.Parallel()
	h := newToyHouse(t)
	good := h.write("usher.yaml", h.config)
	for _, bad := range []struct{ from, to, want string }{
		{"place:", "plase:", `bad.yaml:12: unknown key "upstream.toys.plase"; did you mean "upstream.toys.place"?`},
		{"every: 12h", "every: soon", `bad.yaml:12: upstream.toys.every is "soon", and must be a span of time`},
		{"http:", ":", `bad.yaml:12: upstream.toys.place is no address`},
		{"kid: t", "kid: t, schemes: [x]", "the system toy has no schemes"},
		{h.vendor.key, "x", "give 64 hexadecimal digits"},
	} {
		file := h.write("bad.yaml", strings.Replace(h.config, bad.from, bad.to, 1))
		if out := h.run(exitConfig, "agent", "--check", "--config", file); !strings.Contains(out, bad.want) {
			t.Errorf("%s: %s\nwant %s", bad.to, out, bad.want)
		}
	}
	document := h.write("t.lic", string(h.vendor.document))
	if out := h.run(0, "license", "inspect", "--config", good, document); !strings.Contains(out, "toys") {
		t.Errorf("inspect: %s", out)
	}
	h.run(exitNotValid, "license", "inspect", "--config", good, "--host-fingerprint", "another", document)

	c := h.start()
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	defer cancel()
	inForce := func(l *wire.License) bool {
		return l.State == "valid" && l.Licenses[0].System == "toy" && l.Limits["toys"] != nil
	}
	for l, err := c.License(ctx); err != nil || !inForce(l); l, err = c.License(ctx) {
		select {
		case <-time.After(50 * time.Millisecond):
		case <-ctx.Done():
			t.Fatalf("the toy's licence was never in force: %+v, %v", l, err)
		}
	}
	select {
	case q := <-h.vendor.heard:
		host, _ := os.Hostname()
		want := url.Values{"hostname": {host}, "fingerprint": {""}, "memory": {"0"}, "every": {"12h0m0s"},
			"anchors": {"1"}}
		if q.Encode() != want.Encode() {
			t.Errorf("the vendor heard %v, want %v", q, want)
		}
	case <-ctx.Done():
		t.Fatal("the vendor heard nothing")
	}
	preview, err := c.UpstreamPreview(ctx)
	if err != nil || len(preview) != 1 {
		t.Fatalf("the preview: %+v, %v", preview, err)
	}
	if p := preview[0]; p.Hostname == "" || p.Document+p.AgentKey+p.Fingerprint != "" || p.Memory != 0 ||
		p.Components["toy-name"] != nil {
		t.Errorf("the preview: %+v", p)
	}
	for _, want := range []string{fmt.Sprintf("200 OK a toy for %d", os.Getuid()), "409 Conflict no_slots"} {
		if got := h.toy(); got != want {
			t.Errorf("the dialect answers %q, want %q", got, want)
		}
	}
}
