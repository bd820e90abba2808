package fleet

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/usher-agent/usher/client"
	"github.com/usher-agent/usher/plugin/usher"
	"github.com/usher-agent/usher/plugin/usher/issue"
)

// The nodes: first the members of etcd, then the agents.
const (
	members    = 3
	agents     = 5
	clientPort = 2379
	peerPort   = 2380
	ttl        = 5 * time.Second // the shortest fleet.ttl
)

// world is a fleet.
type world struct {
	t      *testing.T
	dir    string
	bin    string
	etcd   string
	net    network
	signer *issue.Signer
	nodes  []*node
}

// node is one process: a member of etcd or an agent.
type node struct {
	w       *world
	i       int
	dir     string
	client  *client.Client // of an agent
	through []string       // the command that starts it

	mu  sync.Mutex // guards cmd
	cmd *exec.Cmd
}

func (n *node) String() string {
	if n.i < members {
		return fmt.Sprint("etcd", n.i)
	}
	return fmt.Sprint("agent", n.i-members)
}

func openWorld(t *testing.T, limit int64) *world {
	t.Helper()
	program, err := exec.LookPath("etcd")
	if err != nil {
		if os.Getenv("CI") != "" {
			t.Fatal("there is no etcd: .ci/debian installs etcd-server")
		}
		t.Skip("there is no etcd (apt-get install etcd-server)")
	}
	base := ""
	if info, err := os.Stat("/dev/shm"); err == nil && info.IsDir() {
		base = "/dev/shm" // the disk is not under proof here
	}
	dir, err := os.MkdirTemp(base, "fleet")
	if err != nil {
		t.Fatal(err)
	}
	w := &world{t: t, dir: dir, etcd: program, bin: *binary}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("the folders are kept in %s", dir)
			return
		}
		os.RemoveAll(dir)
	})
	if w.bin == "" {
		w.bin = filepath.Join(dir, "usher")
		build := exec.Command("go", "build", "-trimpath", "-ldflags", "-s -w", "-o", w.bin, "../../../cmd/usher")
		build.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := build.CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
	}
	private, _, err := issue.MakeKey(dir, "k1", "")
	if err != nil {
		t.Fatal(err)
	}
	if w.signer, err = issue.LoadSigner(private, ""); err != nil {
		t.Fatal(err)
	}
	w.net = openNetwork(t, members+agents)
	for i := range members + agents {
		n := &node{w: w, i: i, dir: filepath.Join(dir, fmt.Sprint(i))}
		if err := os.Mkdir(n.dir, 0o700); err != nil {
			t.Fatal(err)
		}
		if i >= members {
			w.configure(n, limit)
		}
		w.nodes = append(w.nodes, n)
		t.Cleanup(n.kill)
	}
	for _, n := range w.nodes {
		n.start()
	}
	return w
}

// configure writes an agent's configuration.
func (w *world) configure(n *node, limit int64) {
	var endpoints []string
	for m := range members {
		endpoints = append(endpoints, "http://"+w.net.address(n.i, m, clientPort))
	}
	n.client = client.New(n.dir + "/s")
	w.put(n.dir+"/usher.yaml", fmt.Appendf(nil, "product: acme\nsocket: {path: %s/s}\n"+
		"state: {dir: %[1]s/state, runtime_dir: %[1]s/run}\nlicense:\n  path: %[1]s/l.lic\n  trust:\n    - kid: k1\n"+
		"      key_file: %s/k1.pub\nfleet: {endpoints: ['%s'], ttl: %s, name: host%d}\n",
		n.dir, w.dir, strings.Join(endpoints, "','"), ttl, n.i))
	w.license(n, limit)
}

// license gives an agent a licence of so many slots for the site.
func (w *world) license(n *node, limit int64) {
	c := &usher.Claims{ID: "fleet", Product: "acme", Issued: time.Now().Unix() - 1,
		Pools: map[string]usher.Pool{"streams": {Max: &limit, Scope: "site"}}}
	doc, err := w.signer.Sign(c)
	if err != nil {
		w.t.Fatal(err)
	}
	w.put(n.dir+"/new", doc)
	if err := os.Rename(n.dir+"/new", n.dir+"/l.lic"); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) put(path string, data []byte) {
	if err := os.WriteFile(path, data, 0o600); err != nil {
		w.t.Fatal(err)
	}
}

func (n *node) start() {
	w, argv := n.w, append([]string{}, n.through...)
	if n.i < members {
		var cluster []string
		for m := range members {
			cluster = append(cluster, fmt.Sprintf("m%d=http://%s", m, w.net.address(n.i, m, peerPort)))
		}
		c, p := "http://"+w.net.listen(n.i, clientPort), "http://"+w.net.listen(n.i, peerPort)
		argv = append(argv, w.etcd, "--name", fmt.Sprint("m", n.i), "--data-dir", n.dir+"/data", "--listen-client-urls",
			c, "--advertise-client-urls", c, "--listen-peer-urls", p, "--initial-advertise-peer-urls", p,
			"--initial-cluster", strings.Join(cluster, ","), "--log-level", "error")
	} else {
		argv = append(argv, w.bin, "agent", "--config", n.dir+"/usher.yaml")
	}
	out, err := os.OpenFile(n.dir+"/out", os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		w.t.Error(err)
		return
	}
	defer out.Close()
	cmd := w.net.command(n.i, argv...)
	cmd.Stdout, cmd.Stderr = out, out
	if err := cmd.Start(); err != nil {
		w.t.Error(err)
		return
	}
	n.mu.Lock()
	n.cmd = cmd
	n.mu.Unlock()
}

func (n *node) kill() {
	n.mu.Lock()
	cmd := n.cmd
	n.cmd = nil
	n.mu.Unlock()
	if cmd != nil {
		cmd.Process.Kill()
		cmd.Wait()
	}
}

func (n *node) signal(s syscall.Signal) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.cmd != nil {
		n.cmd.Process.Signal(s)
	}
}

// leader returns the member that says it leads, or one at all.
func (w *world) leader(or int) *node {
	for m := range members {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		h := http.Client{Transport: &http.Transport{DisableKeepAlives: true,
			DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
				return w.net.dial(ctx, m, clientPort)
			}}}
		var got struct {
			Leader string `json:"leader"`
			Header struct {
				Member string `json:"member_id"`
			} `json:"header"`
		}
		req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://etcd/v3/maintenance/status",
			bytes.NewReader([]byte("{}")))
		if err == nil {
			if res, err := h.Do(req); err == nil {
				json.NewDecoder(res.Body).Decode(&got)
				res.Body.Close()
			}
		}
		cancel()
		if got.Leader != "" && got.Leader == got.Header.Member {
			return w.nodes[m]
		}
	}
	return w.nodes[or]
}
