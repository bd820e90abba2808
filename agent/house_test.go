package agent_test

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/usher-agent/usher/agent"
	"github.com/usher-agent/usher/agent/config"
	"github.com/usher-agent/usher/client"
	"github.com/usher-agent/usher/client/wire"
	"github.com/usher-agent/usher/plugin"
	"github.com/usher-agent/usher/plugin/usher"
	"github.com/usher-agent/usher/plugin/usher/issue"
)

// patience is how long a test waits on a busy machine for what takes a moment.
const patience = 2 * time.Minute

// house is a vendor, a licence folder and a running agent.
type house struct {
	*client.Client
	t       testing.TB
	dir     string
	signer  *issue.Signer
	config  string // the configuration file's text
	env     []string
	running *agent.Agent
	script  string       // what a holder runs; empty: holderScript
	skew    atomic.Int64 // by how much the wall clock is wrong
	stop    func()
}

// tempDir is where houses are built: in memory where that can be, because a busy disk's fsyncs say nothing about an
// agent; otherwise the system's own, empty. A socket's path must be short.
func tempDir() string {
	const memory = "/dev/shm"
	dir, err := os.MkdirTemp(memory, "u")
	if err != nil {
		return ""
	}
	os.Remove(dir)
	return memory
}

// open makes a house whose agent runs until the test ends. more is added to the configuration.
func open(t testing.TB, more string, env ...string) *house {
	t.Helper()
	dir, err := os.MkdirTemp(tempDir(), "u")
	if err != nil {
		t.Fatal(err)
	}
	private, public, err := issue.MakeKey(dir, "k1", "")
	if err != nil {
		t.Fatal(err)
	}
	h := &house{t: t, dir: dir, env: env}
	if h.signer, err = issue.LoadSigner(private, ""); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(h.path("l"), 0o755); err != nil {
		t.Fatal(err)
	}
	h.config = fmt.Sprintf(
		"product: acme\nsocket: {path: %s}\nstate: {dir: %s, runtime_dir: %s}\nlicense:\n  path: %s\n  trust:\n    - "+
			"kid: k1\n      key_file: %s\n%s",
		h.path("s"), h.path("state"), h.path("run"), h.path("l"), public, more)
	h.Client = client.New(h.path("s"))
	t.Cleanup(func() { os.RemoveAll(dir) })
	h.start()
	return h
}

// lacks skips a test for which this machine lacks something, but not where releases are built.
func lacks(t testing.TB, format string, args ...any) {
	t.Helper()
	if os.Getenv("CI") != "" {
		t.Fatalf(format, args...)
	}
	t.Skipf(format, args...)
}

// pause returns what a test does between two looks at what it waits for: it waits a millisecond at first, and then an
// eighth of what it has waited so far, so that a long wait leaves the processor to others.
func pause() func() {
	began := time.Now()
	return func() { <-time.After(min(max(time.Since(began)/8, time.Millisecond), 50*time.Millisecond)) }
}

func (h *house) path(name string) string { return filepath.Join(h.dir, name) }

func (h *house) load() (*config.Config, error) {
	return config.Load(config.Source{File: "usher.yaml", Data: []byte(h.config), Env: h.env})
}

// testDialects are what every house's agent can speak, where there are tests of that.
var testDialects []plugin.Dialect

func (h *house) start() { h.startLater()() }

// startLater makes an agent that listens, and returns what has it run: whoever connects before waits in the socket's
// queue.
func (h *house) startLater() (run func()) {
	h.t.Helper()
	cfg, err := h.load()
	if err != nil {
		h.t.Fatal(err)
	}
	now := func() time.Time { return time.Now().Add(time.Duration(h.skew.Load())) }
	a, err := agent.New(agent.Options{Config: cfg, Load: h.load, Version: "test", Now: now, Dialects: testDialects})
	if err != nil {
		h.t.Fatal(err)
	}
	return func() {
		h.t.Helper()
		ctx, cancel := context.WithCancel(context.Background())
		done := make(chan error, 1)
		go func() { done <- a.Run(ctx) }()
		h.running = a
		h.stop = sync.OnceFunc(func() {
			h.Close()
			cancel()
			if err := <-done; err != nil {
				h.t.Error(err)
			}
		})
		h.t.Cleanup(h.stop)
		select {
		case <-a.Ready():
		case err := <-done:
			done <- err
			h.t.Fatalf("the agent ended: %v", err)
		case <-time.After(patience):
			h.t.Fatal("the agent is not ready after two minutes")
		}
	}
}

// sign signs a licence of n streams; change may change its claims.
func (h *house) sign(id string, n int64, change func(*usher.Claims)) []byte {
	h.t.Helper()
	c := &usher.Claims{ID: id, Product: "acme", Issued: time.Now().Unix() - 10,
		Pools: map[string]usher.Pool{"streams": {Max: &n, Scope: "host"}}}
	if change != nil {
		change(c)
	}
	doc, err := h.signer.Sign(c)
	if err != nil {
		h.t.Fatal(err)
	}
	return doc
}

// drop renames a document into the folder.
func (h *house) drop(name string, doc []byte) {
	h.t.Helper()
	tmp := h.path("dropped." + name)
	if err := os.WriteFile(tmp, doc, 0o644); err != nil {
		h.t.Fatal(err)
	}
	if err := os.Rename(tmp, filepath.Join(h.path("l"), name)); err != nil {
		h.t.Fatal(err)
	}
}

// until waits for a licence that is as it should be.
func (h *house) until(what string, ok func(*wire.License) bool) *wire.License {
	h.t.Helper()
	deadline, rest := time.Now().Add(patience), pause()
	for {
		l, err := h.License(context.Background())
		if err != nil {
			h.t.Fatal(err)
		}
		if ok(l) {
			return l
		}
		if time.Now().After(deadline) {
			h.t.Fatalf("%s: not so after two minutes; the licence is %s: %s", what, l.Code, l.Reason)
		}
		rest()
	}
}

// follow returns what does as until does, but looks only when the agent says that the licence has changed. It is for
// one goroutine.
func (h *house) follow() func(what string, ok func(*wire.License) bool) {
	h.t.Helper()
	c, err := net.Dial("unix", h.Socket())
	if err != nil {
		h.t.Fatal(err)
	}
	h.t.Cleanup(func() { c.Close() })
	if _, err := fmt.Fprintln(c, `{"jsonrpc":"2.0","id":1,"method":"events.subscribe","params":{"mine":true}}`); err !=
		nil {
		h.t.Fatal(err)
	}
	in := bufio.NewScanner(c)
	if !in.Scan() { // the answer: from here on nothing is missed
		h.t.Fatal(in.Err())
	}
	return func(what string, ok func(*wire.License) bool) {
		h.t.Helper()
		if err := c.SetReadDeadline(time.Now().Add(patience)); err != nil {
			h.t.Fatal(err)
		}
		for in.Scan() {
			if !strings.Contains(in.Text(), `"license.changed"`) {
				continue
			}
			l, err := h.License(context.Background())
			if err != nil {
				h.t.Fatal(err)
			}
			if ok(l) {
				return
			}
		}
		h.t.Fatalf("%s: not so after two minutes: %v", what, in.Err())
	}
}

func code(want string) func(*wire.License) bool {
	return func(l *wire.License) bool { return l.Code == want }
}

func inForce(id string) func(*wire.License) bool {
	return func(l *wire.License) bool {
		return l.State == "valid" && len(l.Licenses) > 0 && l.Licenses[0].InForce && l.Licenses[0].ID == id
	}
}
