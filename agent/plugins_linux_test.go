package agent_test

import (
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/usher-agent/usher/agent/inspect"
	"github.com/usher-agent/usher/client/wire"
)

// acmePlugin is the worked example, built once, without the race detector: it is somebody else's program. Its packages
// are compiled as make compiles the program.
var acmePlugin = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "usher-plugin")
	if err != nil {
		return "", err
	}
	bin := filepath.Join(dir, "acme-format")
	cmd := exec.Command("go", "build", "-trimpath", "-ldflags", "-s -w", "-o", bin, ".")
	cmd.Dir, cmd.Env = "../docs/examples/acme-format", append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("%w: %s", err, out)
	}
	return bin, os.Chmod(bin, 0o755)
})

// acme is a vendor of the example's system.
type acme struct {
	t   testing.TB
	key ed25519.PrivateKey
	bin string
}

func newAcme(t testing.TB) *acme {
	t.Helper()
	built, err := acmePlugin()
	if err != nil {
		t.Fatal(err)
	}
	_, key, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	a := &acme{t, key, filepath.Join(t.TempDir(), "acme-format")} // one of its own: it is known by its path
	if err := os.Link(built, a.bin); err != nil {
		t.Fatal(err)
	}
	return a
}

// config is what is added to a configuration: the plugin, pinned, and the vendor's key.
func (a *acme) config() string {
	a.t.Helper()
	b, err := os.ReadFile(a.bin)
	if err != nil {
		a.t.Fatal(err)
	}
	der, err := x509.MarshalPKIXPublicKey(a.key.Public())
	if err != nil {
		a.t.Fatal(err)
	}
	file := filepath.Join(filepath.Dir(a.bin), "acme.pub")
	if err := os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}), 0o644); err != nil {
		a.t.Fatal(err)
	}
	return fmt.Sprintf(
		"    - {system: acme, kid: a1, key_file: %s}\nplugins:\n  - {name: acme, path: %s, sha256: %x}\n", file, a.bin,
		sha256.Sum256(b))
}

// sign makes a document of the example's format.
func (a *acme) sign(id string, seats int) []byte {
	a.t.Helper()
	b, err := json.Marshal(map[string]any{"ID": id, "Product": "acme", "Key": "a1", "Seats": seats,
		"Issued": time.Now().UTC(), "Expires": time.Now().UTC().Add(time.Hour)})
	if err != nil {
		a.t.Fatal(err)
	}
	payload := base64.RawURLEncoding.EncodeToString(b)
	return fmt.Appendf(nil, "ACME1.%s.%s\n", payload,
		base64.RawURLEncoding.EncodeToString(ed25519.Sign(a.key, []byte(payload))))
}

// pids returns the processes that run the plugin.
func (a *acme) pids() []int {
	var out []int
	dirs, _ := filepath.Glob("/proc/[0-9]*")
	for _, d := range dirs {
		line, err := os.ReadFile(filepath.Join(d, "cmdline"))
		if err != nil || !strings.HasPrefix(string(line), a.bin+"\x00") {
			continue
		}
		if pid, err := strconv.Atoi(filepath.Base(d)); err == nil {
			out = append(out, pid)
		}
	}
	return out
}

// wait waits until something is so.
func (a *acme) wait(what string, ok func() bool) {
	a.t.Helper()
	for deadline := time.Now().Add(60 * time.Second); !ok(); <-time.After(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			a.t.Fatalf("%s: not so after 60 s", what)
		}
	}
}

// kill kills the plugin that runs and returns its number.
func (a *acme) kill() int {
	a.t.Helper()
	p := a.pids()
	if len(p) != 1 {
		a.t.Fatalf("%d plugins run: %v", len(p), p)
	}
	if err := syscall.Kill(p[0], syscall.SIGKILL); err != nil {
		a.t.Fatal(err)
	}
	return p[0]
}

func (h *house) metric(line string) bool {
	h.t.Helper()
	text, err := h.Metrics(context.Background())
	if err != nil {
		h.t.Fatal(err)
	}
	return strings.Contains(string(text), "\n"+line+"\n")
}

func documentOf(l *wire.License, name string) *wire.Document {
	for i, d := range l.Licenses {
		if d.Document == name {
			return &l.Licenses[i]
		}
	}
	return nil
}

// A licence system that this repository does not know: built, pinned, loaded, killed, replaced by another file, mended.
// What it has verified stands throughout, and the native licence beside it never notices.
func TestPlugin(t *testing.T) {
	t.Parallel()
	a := newAcme(t)
	h := open(t, a.config())
	h.drop("first.acme", a.sign("first", 3))
	h.until("the plugin's document", inForce("first"))
	if p, err := h.Pool(t.Context(), "seats"); err != nil || p.Limit == nil || *p.Limit != 3 {
		t.Fatalf("the pool is %+v, %v", p, err)
	}
	a.wait("it is up", func() bool { return h.metric(`usher_plugin_up{plugin="acme"} 1`) })

	// A forged one is refused by the plugin's word.
	forged := []byte(strings.Replace(string(a.sign("forged", 1000)), "ACME1.", "ACME1.e", 1))
	h.drop("forged.acme", forged)
	h.until("forged", func(l *wire.License) bool {
		d := documentOf(l, "forged.acme")
		return d != nil && d.Code != "VALID"
	})

	// Killed, it is started again, and a document that it has not seen is judged.
	was := a.kill()
	a.wait("it is started again", func() bool { p := a.pids(); return len(p) == 1 && p[0] != was })
	h.drop("second.acme", a.sign("second", 4))
	h.until("the second document", inForce("second"))

	// Another file in its place is not started. What was verified stands; what was not is not known, and that is what
	// is said.
	good := a.bin + ".good"
	if err := os.Rename(a.bin, good); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(a.bin, []byte("#!/bin/sh\necho owned >&2\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	a.kill()
	a.wait("it is down", func() bool { return h.metric(`usher_plugin_up{plugin="acme"} 0`) })
	h.drop("third.acme", a.sign("third", 5))
	l := h.until("the third is not known", func(l *wire.License) bool { return documentOf(l, "third.acme") != nil })
	if d := documentOf(l, "third.acme"); d.Code != "UNAVAILABLE" ||
		!strings.Contains(d.Reason, "the acme plugin cannot be asked") {
		t.Errorf("it is %s: %s", d.Code, d.Reason)
	}
	if !inForce("second")(l) {
		t.Errorf("what was verified no longer stands: %s: %s", l.Code, l.Reason)
	}
	if _, err := h.running.Reload(); err != nil { // the same keys: what they verified stands
		t.Fatal(err)
	}
	if l, err := h.License(t.Context()); err != nil || !inForce("second")(l) {
		t.Errorf("after a reload: %+v, %v", l, err)
	}

	// Mended, it is started when its time comes, and asked about what was not known.
	if err := os.Rename(good, a.bin); err != nil {
		t.Fatal(err)
	}
	h.until30("the third document", inForce("third"))
	h.stop()
	if p := a.pids(); len(p) > 0 {
		t.Errorf("the agent has ended, and the plugin lives: %v", p)
	}
}

// Whatever way a document comes, and whatever becomes of its key: the plugin is asked, and nobody waits for it in the
// judge.
func TestPluginAsked(t *testing.T) {
	t.Parallel()
	a := newAcme(t)
	h := open(t, a.config(), "USHER_LICENSE="+string(a.sign("inline", 2)))
	h.until("the document of the configuration", inForce("inline"))
	if in, err := h.Install(t.Context(), a.sign("installed", 3), "", false); err != nil || !in.Document.InForce ||
		in.Document.System != "acme" {
		t.Errorf("installed: %+v, %v", in, err)
	}
	good := h.config
	h.config = strings.Replace(good, "kid: a1,", "kid: a1, revoked: true,", 1)
	if _, err := h.running.Reload(); err != nil {
		t.Fatal(err)
	}
	h.until("the key is revoked", code("UNTRUSTED_KEY"))
	h.config = good
	if _, err := h.running.Reload(); err != nil {
		t.Fatal(err)
	}
	h.until("the key is good again", inForce("installed"))
	cfg, err := h.load()
	if err != nil {
		t.Fatal(err)
	}
	if seen, err := inspect.Configured(cfg); err != nil || seen.Verdict.Code != "VALID" ||
		seen.Verdict.Licenses[0].License.ID != "installed" {
		t.Errorf("without an agent: %+v, %v", seen, err)
	}
	cfg.Plugins[0].SHA256 = strings.Repeat("0", 64)
	if _, err := inspect.Configured(cfg); err == nil || !strings.Contains(err.Error(), "plugin acme") ||
		!strings.Contains(err.Error(), "SHA-256") {
		t.Errorf("with another sum: %v", err)
	}
}

// An agent that is killed takes its plugin with it, however busy its threads were.
func TestPluginDiesWithAgent(t *testing.T) {
	t.Parallel()
	bin, err := buildOnce()
	if err != nil {
		t.Fatal(err)
	}
	a := newAcme(t)
	h := open(t, a.config())
	h.drop("a.acme", a.sign("a", 3))
	h.until("dropped", inForce("a"))
	h.stop()
	if err := os.WriteFile(h.path("usher.yaml"), []byte(h.config), 0o600); err != nil {
		t.Fatal(err)
	}
	c := &crashing{house: h, bin: bin}
	t.Cleanup(func() { c.kill(); h.Close() })
	for range 3 {
		c.run()
		a.wait("one plugin runs", func() bool { return len(a.pids()) == 1 })
		c.kill()
		a.wait("no plugin runs", func() bool { return len(a.pids()) == 0 })
	}
	// Nothing lies about but what the next start clears away.
	c.run()
	dirs, err := filepath.Glob(h.path("run/plugins/acme/*"))
	if err != nil || len(dirs) != 1 {
		t.Errorf("the sockets' folders are %v, %v", dirs, err)
	}
}

// Without a plugin in the configuration its documents are foreign, and with a wrong name it is not used.
func TestPluginMisnamed(t *testing.T) {
	t.Parallel()
	a := newAcme(t)
	h := open(t, strings.NewReplacer("system: acme", "system: other", "name: acme", "name: other").Replace(a.config()))
	h.drop("a.acme", a.sign("a", 3))
	l := h.until("not known", func(l *wire.License) bool {
		d := documentOf(l, "a.acme")
		return d != nil && d.Code == "UNAVAILABLE"
	})
	if d := documentOf(l, "a.acme"); !strings.Contains(d.Reason, "serves the system acme, and is configured as other") {
		t.Errorf("the reason is %s", d.Reason)
	}
	h.drop("n.lic", h.sign("native", 2, nil))
	h.until("the native licence", inForce("native"))
}

func (h *house) until30(what string, ok func(*wire.License) bool) {
	h.t.Helper()
	for deadline := time.Now().Add(60 * time.Second); ; <-time.After(5 * time.Millisecond) {
		l, err := h.License(context.Background())
		if err == nil && ok(l) {
			return
		}
		if time.Now().After(deadline) {
			h.t.Fatalf("%s: not so after 60 s: %+v, %v", what, l, err)
		}
	}
}
