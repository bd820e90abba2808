package fleet

import (
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
)

// network joins the nodes, each with an address of its own, and takes single ways between them away.
type network interface {
	// command returns the command of a process of a node.
	command(node int, argv ...string) *exec.Cmd
	// address is where other nodes reach a port of a node; from is the node that asks.
	address(from, node, port int) string
	// listen is where a node listens for it.
	listen(node, port int) string
	// cut takes the way from one node to another away, without a word to either, or gives it back; false: that cannot
	// be done between these.
	cut(from, to int, off bool) bool
	// slow has all that comes to a node come late; empty: not any more.
	slow(node int, delay string) bool
	// dial connects to a port of a node.
	dial(ctx context.Context, node, port int) (net.Conn, error)
	String() string
}

// openNetwork returns namespaces where the host lets us make some, else proxies that can be cut.
func openNetwork(t *testing.T, nodes int) network {
	t.Helper()
	if !*forced {
		n, err := openNamespaces(t, nodes)
		if err == nil {
			return n
		}
		t.Logf("no network namespaces can be made here, so that proxies cut the ways: %v", err)
	}
	return &proxies{t: t, ports: map[[2]int]string{}, ways: map[[2]int]*way{}}
}

// namespaces is a network of one namespace a node, joined by one that routes.
type namespaces struct {
	hub   string
	nodes []string
}

func (n *namespaces) String() string { return "network namespaces" }

func ip(args ...string) error {
	if out, err := exec.Command("ip", args...).CombinedOutput(); err != nil {
		return fmt.Errorf("ip %s: %w: %s", strings.Join(args, " "), err, out)
	}
	return nil
}

func openNamespaces(t *testing.T, nodes int) (*namespaces, error) {
	name := fmt.Sprintf("fleet%d", os.Getpid())
	n := &namespaces{hub: name + "-hub"}
	steps := [][]string{{"netns", "add", n.hub}, {"-n", n.hub, "link", "set", "lo", "up"}}
	for i := range nodes {
		node, at := fmt.Sprintf("%s-%d", name, i), fmt.Sprintf("10.99.%d.", i)
		n.nodes = append(n.nodes, node)
		steps = append(steps, []string{"netns", "add", node}, []string{"-n", node, "link", "set", "lo", "up"},
			[]string{"-n", n.hub, "link", "add", fmt.Sprint("v", i), "type", "veth", "peer", "name", "eth0", "netns",
				node},
			[]string{"-n", n.hub, "addr", "add", at + "1/30", "dev", fmt.Sprint("v", i)},
			[]string{"-n", n.hub, "link", "set", fmt.Sprint("v", i), "up"},
			[]string{"-n", node, "addr", "add", at + "2/30", "dev", "eth0"},
			[]string{"-n", node, "link", "set", "eth0", "up"},
			[]string{"-n", node, "route", "add", "default", "via", at + "1"})
	}
	t.Cleanup(func() {
		for _, ns := range append([]string{n.hub}, n.nodes...) {
			exec.Command("ip", "netns", "del", ns).Run()
		}
	})
	for _, s := range steps {
		if err := ip(s...); err != nil {
			return nil, err
		}
	}
	forward := exec.Command("ip", "netns", "exec", n.hub, "sh", "-c", "echo 1 > /proc/sys/net/ipv4/ip_forward")
	if out, err := forward.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("%w: %s", err, out)
	}
	if !n.cut(0, 1, true) || !n.cut(0, 1, false) {
		return nil, fmt.Errorf("no way can be cut by a rule of routing")
	}
	return n, nil
}

func (n *namespaces) command(node int, argv ...string) *exec.Cmd {
	return exec.Command("ip", append([]string{"netns", "exec", n.nodes[node]}, argv...)...)
}

func (n *namespaces) address(_, node, port int) string { return n.listen(node, port) }

func (n *namespaces) listen(node, port int) string { return fmt.Sprintf("10.99.%d.2:%d", node, port) }

func (n *namespaces) cut(from, to int, off bool) bool {
	do := "del"
	if off {
		do = "add"
	}
	return ip("-n", n.hub, "rule", do, "from", fmt.Sprintf("10.99.%d.2", from), "to", fmt.Sprintf("10.99.%d.2", to),
		"priority", "100", "blackhole") == nil
}

func (n *namespaces) slow(node int, delay string) bool {
	tc := []string{"netns", "exec", n.hub, "tc", "qdisc"}
	if delay == "" {
		return ip(append(tc, "del", "dev", fmt.Sprint("v", node), "root")...) == nil
	}
	return ip(append(tc, "replace", "dev", fmt.Sprint("v", node), "root", "netem", "delay", delay, "200ms")...) == nil
}

func (n *namespaces) dial(ctx context.Context, node, port int) (conn net.Conn, err error) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // the thread ends with the goroutine, for it is in another namespace
		f, e := os.Open("/run/netns/" + n.hub)
		if e != nil {
			err = e
			return
		}
		defer f.Close()
		if err = unix.Setns(int(f.Fd()), unix.CLONE_NEWNET); err == nil {
			conn, err = (&net.Dialer{}).DialContext(ctx, "tcp4", n.listen(node, port))
		}
	}()
	<-done
	return conn, err
}

// proxies is a network of one host in which a proxy stands on each way from an agent to a member of etcd. Ways between
// members cannot be cut: a member does not say from where it calls. Those are stopped instead.
type proxies struct {
	t     *testing.T
	mu    sync.Mutex // guards all below
	ports map[[2]int]string
	ways  map[[2]int]*way
}

// way is one proxy.
type way struct {
	mu    sync.Mutex // guards all below
	off   [2]bool    // to the node, and back
	conns []net.Conn
}

func (p *proxies) String() string { return "proxies" }

func (p *proxies) command(_ int, argv ...string) *exec.Cmd { return exec.Command(argv[0], argv[1:]...) }

func (p *proxies) listen(node, port int) string {
	p.mu.Lock()
	defer p.mu.Unlock()
	at, ok := p.ports[[2]int{node, port}]
	if !ok {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			p.t.Fatal(err)
		}
		at = l.Addr().String()
		l.Close()
		p.ports[[2]int{node, port}] = at
	}
	return at
}

func (p *proxies) address(from, node, port int) string {
	to := p.listen(node, port)
	if from < members {
		return to
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		p.t.Fatal(err)
	}
	w := &way{}
	p.mu.Lock()
	p.ways[[2]int{from, node}] = w
	p.mu.Unlock()
	p.t.Cleanup(func() { l.Close(); w.end() })
	go func() {
		for {
			a, err := l.Accept()
			if err != nil {
				return
			}
			b, err := net.Dial("tcp", to)
			if err != nil {
				a.Close()
				continue
			}
			w.mu.Lock()
			w.conns = append(w.conns, a, b)
			w.mu.Unlock()
			go w.carry(a, b, 0)
			go w.carry(b, a, 1)
		}
	}()
	return l.Addr().String()
}

// carry carries what comes, or swallows it.
func (w *way) carry(from, to net.Conn, dir int) {
	defer to.Close()
	b := make([]byte, 16<<10)
	for {
		n, err := from.Read(b)
		w.mu.Lock()
		off := w.off[dir]
		w.mu.Unlock()
		if err != nil {
			return
		}
		if off {
			io.Copy(io.Discard, from) // what is lost within a stream is lost for good
			return
		}
		if _, err := to.Write(b[:n]); err != nil {
			return
		}
	}
}

func (w *way) end() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, c := range w.conns {
		c.Close()
	}
	w.conns = nil
}

func (p *proxies) cut(from, to int, off bool) bool {
	p.mu.Lock()
	w, dir := p.ways[[2]int{from, to}], 0
	if w == nil {
		w, dir = p.ways[[2]int{to, from}], 1
	}
	p.mu.Unlock()
	if w == nil {
		return false
	}
	w.mu.Lock()
	w.off[dir] = off
	w.mu.Unlock()
	if !off {
		w.end()
	}
	return true
}

func (p *proxies) slow(int, string) bool { return false }

func (p *proxies) dial(ctx context.Context, node, port int) (net.Conn, error) {
	return (&net.Dialer{}).DialContext(ctx, "tcp", p.listen(node, port))
}
