package agent_test

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/usher-agent/usher/agent/config"
	"github.com/usher-agent/usher/client"
	"github.com/usher-agent/usher/client/wire"
	"github.com/usher-agent/usher/plugin/usher"
)

// etcd is one member of etcd, Debian's.
type etcd struct {
	url string
	cmd *exec.Cmd
}

// openEtcdProgram returns the path of etcd, or skips the test.
func openEtcdProgram(t *testing.T) string {
	t.Helper()
	program, err := exec.LookPath("etcd")
	if err != nil {
		lacks(t, "there is no etcd: .ci/debian installs etcd-server")
	}
	return program
}

// freeURL returns an address at which nobody listens.
func freeURL(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return "http://" + l.Addr().String()
}

func openEtcd(t *testing.T) *etcd {
	t.Helper()
	program := openEtcdProgram(t)
	e := &etcd{url: freeURL(t)}
	peer := freeURL(t)
	e.cmd = exec.Command(program, "--data-dir", t.TempDir(), "--listen-client-urls", e.url, "--advertise-client-urls",
		e.url, "--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer, "--initial-cluster", "default="+peer,
		"--log-level", "fatal")
	if err := e.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { e.cmd.Process.Kill(); e.cmd.Wait() })
	return e
}

// fleet starts agents of one licence of a site that share its slots through etcd.
func openFleet(t *testing.T, limit int64, n int, more ...string) (*etcd, []*crashing) {
	e := openEtcd(t)
	first := open(t, "")
	licence := first.sign("L1", limit, func(c *usher.Claims) {
		c.Pools = map[string]usher.Pool{"streams": {Max: &limit, Scope: "site"}}
	})
	first.Close()
	bin, err := buildOnce()
	if err != nil {
		t.Fatal(err)
	}
	var out []*crashing
	for i := range n {
		dir, err := os.MkdirTemp(tempDir(), "u")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { os.RemoveAll(dir) })
		h := &house{t: t, dir: dir, signer: first.signer, Client: client.New(dir + "/s")}
		h.config = fmt.Sprintf("product: acme\nsocket: {path: %s}\nstate: {dir: %s, runtime_dir: %s}\nlicense:\n"+
			"  path: %s\n  trust:\n    - kid: k1\n      key_file: %s\n"+
			"fleet: {endpoints: ['%s'], ttl: 5s, name: host%d%s}\n",
			h.path("s"), h.path("state"), h.path("run"), h.path("site.lic"), first.path("k1.pub"), e.url, i,
			strings.Join(more, ""))
		for name, data := range map[string][]byte{"usher.yaml": []byte(h.config), "site.lic": licence} {
			if err := os.WriteFile(h.path(name), data, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		c := &crashing{house: h, bin: bin}
		c.run()
		t.Cleanup(func() { c.kill(); h.Close() })
		out = append(out, c)
	}
	return e, out
}

// Three agents share a licence of ten slots through a real etcd: never more than ten are held in all, a waiter on one
// host gets what is released on another, a dead agent's slots come back once its lease is over, one that crashes goes
// on at once, and none grants anything beyond its fence while etcd does not answer.
func TestFleet(t *testing.T) {
	t.Parallel()
	e, all := openFleet(t, 10, 3)
	a, b, c := all[0], all[1], all[2]
	take := func(c *crashing, n int64, wait float64) (string, error) {
		l, err := c.Acquire(t.Context(),
			wire.AcquireRequest{Pool: "streams", N: &n, TTLSeconds: 600, WaitSeconds: wait})
		if err != nil {
			return "", err
		}
		return l.ID, nil
	}
	must := func(c *crashing, n int64, wait float64) string {
		t.Helper()
		id, err := take(c, n, wait)
		if err != nil {
			t.Fatal(err)
		}
		return id
	}
	held := must(a, 7, 60) // the first quarantine is over by then
	must(b, 3, 30)
	if _, err := take(c, 1, 2); !errors.Is(err, client.ErrNoSlots) {
		t.Fatalf("an eleventh of ten slots: %v", err)
	}
	got := make(chan error, 1)
	go func() { _, err := take(c, 2, 60); got <- err }()
	for rest := pause(); c.share().Waiting == 0; rest() {
	}
	if err := a.Release(t.Context(), held, false); err != nil {
		t.Fatal(err)
	}
	if err := <-got; err != nil {
		t.Fatalf("what was released on another host: %v", err)
	}
	b.kill()
	b.run() // its ttl lease is there still, and so is its block
	untilShare(t, b, "after a crash it has what it had", func(p *wire.Pool) bool {
		return p.InUse == 3 && p.Budget != nil && *p.Budget >= 3
	})
	b.kill()
	must(a, 8, 60) // the dead one's
	if err := e.cmd.Process.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	defer e.cmd.Process.Signal(syscall.SIGCONT)
	untilShare(t, a, "the fence is over", func(p *wire.Pool) bool { return *p.Budget == 0 })
	if _, err := take(c, 1, 0); !errors.Is(err, client.ErrNoSlots) {
		t.Errorf("an agent that cannot reach etcd: %v", err)
	}
	if err := e.cmd.Process.Signal(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	untilShare(t, a, "etcd is back", func(p *wire.Pool) bool { return *p.Budget >= 8 })
}

// untilShare waits until an agent's pool is as it should be.
func untilShare(t *testing.T, c *crashing, what string, ok func(*wire.Pool) bool) {
	t.Helper()
	for until, rest := time.Now().Add(time.Minute), pause(); ; rest() {
		p := c.share()
		if ok(p) {
			return
		}
		if time.Now().After(until) {
			t.Fatalf("%s: not so after a minute: %+v", what, p)
		}
	}
}

// A configuration of a fleet that cannot be meant is refused, with the key and the mend.
func TestFleetSettings(t *testing.T) {
	t.Parallel()
	for text, key := range map[string]string{
		"fleet: {ttl: 10s, name: x}":                                             "fleet",
		"fleet: {endpoints: [etcd-1]}":                                           "fleet.endpoints",
		"fleet: {endpoints: ['https://a:2379'], prefix: usher}":                  "fleet.prefix",
		"fleet: {endpoints: ['https://a:2379'], ttl: 1s}":                        "fleet.ttl",
		"fleet: {endpoints: ['https://a:2379'], on_partition: wait}":             "fleet.on_partition",
		"fleet: {endpoints: ['https://a:2379'], keep_held: 25h}":                 "fleet.keep_held",
		"fleet: {endpoints: ['https://a:2379'], user: u}":                        "fleet",
		"fleet: {endpoints: ['https://a:2379'], cert_file: /etc/usher/etcd.crt}": "fleet",
	} {
		_, err := config.Load(config.Source{File: "usher.yaml", Data: []byte(text)})
		var e *config.Error
		if !errors.As(err, &e) || e.Key != key {
			t.Errorf("%s: %v", text, err)
		}
	}
}

// renewFleetFile renews a file that the way to etcd needs: it is used without a restart.
func renewFleetFile(t *testing.T, key string) {
	dir := t.TempDir()
	_, certificate, private := selfSigned(t, 1)
	_, other, otherKey := selfSigned(t, 2)
	files := map[string]string{"fleet.ca_file": certificate, "fleet.cert_file": certificate, "fleet.key_file": private,
		"fleet.password_file": "one"}
	for name, text := range files {
		put(t, filepath.Join(dir, name), text)
	}
	h := open(t, fmt.Sprintf("fleet: {endpoints: ['https://127.0.0.1:1'], ca_file: %s, cert_file: %s, key_file: %s, "+
		"user: u, password_file: %s}\n", dir+"/fleet.ca_file", dir+"/fleet.cert_file", dir+"/fleet.key_file",
		dir+"/fleet.password_file"))
	if key != "fleet.password_file" {
		h.refuses(filepath.Join(dir, key), "no PEM")
	}
	switch key {
	case "fleet.cert_file", "fleet.key_file": // the one fits the other
		put(t, dir+"/fleet.cert_file", other)
		put(t, dir+"/fleet.key_file", otherKey)
	case "fleet.ca_file":
		put(t, dir+"/fleet.ca_file", other)
	default:
		put(t, dir+"/fleet.password_file", "two")
	}
	if r := h.reloads(key, filepath.Join(dir, key)); !slices.Contains(r.Changed, key) ||
		slices.Contains(r.Restart, key) {
		t.Errorf("it is used at once: %+v", r)
	}
}
